"""Optical blur: what a point of light spreads to when it is out of focus.

A kernel holds whole numbers, so the convolution is exact and the same on every machine. It is
split in two. Pixels of full weight form runs down the columns, summed once for the first row and
then carried from row to row by adding what enters and taking off what leaves. The others,
the disc's anti-aliased rim, come in orbits of up to eight pixels that symmetry gives one weight, so
that one multiplication serves eight additions. Both kinds add eight 13-bit values in 16 bits,
which is twice as many a vector as in 32. A Gaussian is the same along rows and columns, one after the other.

Every convolution is a 'valid' one: the output is smaller than the input by the kernel's reach on
each side, and no border is invented.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsynth.defocus.convolution import LANES, convolve
from medsynth.defocus.light import LEVEL, LIGHT
from medsynth.defocus.separable import convolve_along_both

GAUSSIAN_REACH = 4.0
"""A Gaussian is cut off at this many standard deviations."""
WAVE_RINGS = 3.0
"""A wave-optical kernel reaches this many wavelength/NA beyond the geometric disc."""
_SUBPIXELS = 8
_ALONG = 2**15


@dataclass(frozen=True, eq=False)
class Kernel:
    """A symmetric point spread function in whole numbers, taken apart for :func:`blur`."""

    reach: int
    """Pixels from the centre to the outermost ones."""
    weights: NDArray[np.int64]
    """The kernel itself, shape (2 reach + 1, 2 reach + 1)."""
    total: int
    """Their sum."""
    full: int
    """The weight of a pixel inside a run."""
    runs: NDArray[np.int64]
    """Half length of the run of full weight in each column from -reach to reach; -1: none."""
    orbit_weights: NDArray[np.int32]
    """Weight of each of an orbit's eight places."""
    orbits: NDArray[np.int64]
    """(dy, dx) of each orbit's eight places, shape (orbits, 8, 2); on an axis or a diagonal two of
    them are one pixel, and at the centre all eight are."""


@dataclass(frozen=True, eq=False)
class Separable:
    """A symmetric point spread function that is one function along the rows and along the columns."""

    along: NDArray[np.int64]
    """Its weights from the centre outwards, which with those on the other side sum up to 2^15."""

    @property
    def reach(self) -> int:
        """Pixels from the centre to the outermost ones."""
        return len(self.along) - 1

    @property
    def weights(self) -> NDArray[np.int64]:
        """The kernel itself, shape (2 reach + 1, 2 reach + 1)."""
        whole = np.concatenate([self.along[:0:-1], self.along])
        return np.outer(whole, whole)

    @property
    def total(self) -> int:
        """The sum of :attr:`weights`."""
        return _ALONG**2


@functools.lru_cache(maxsize=1024)
def disc(radius: float) -> Kernel:
    """The geometric blur of a round pupil: a disc whose rim pixels count by the area covered.

    Below 1 px the whole disc falls into the centre pixel and covered areas no longer tell one radius
    from the next. So small a blur shows by its second moment alone, which grows with the square of
    the radius; there the kernel is the disc of 1 px mixed with the identity in that proportion.

    Args:
        radius: in pixels, 0 or more; 0 is the identity, and any two radii give different kernels.

    Returns:
        The kernel.
    """
    if radius == 0:
        return _kernel(np.ones((1, 1)), runs=True)
    covered = max(radius, 1.0)
    reach = math.ceil(covered - 0.5)
    quadrant = np.array([[_coverage(covered, x, y) for x in range(reach + 1)] for y in range(reach + 1)])
    if radius >= 1:
        return _kernel(quadrant, runs=True)
    area = 4 * quadrant[1:, 1:].sum() + 4 * quadrant[1:, 0].sum() + quadrant[0, 0]
    quadrant *= radius**2 / area
    quadrant[0, 0] += 1 - radius**2
    return _kernel(quadrant, runs=True)


@functools.lru_cache(maxsize=1024)
def gaussian(radius: float) -> Kernel | Separable:
    """A Gaussian with the second moment of the disc of the same radius: its standard deviation is radius / 2.

    Args:
        radius: of the equivalent disc, in pixels; 0 is the identity.

    Returns:
        The kernel, cut off at 4 standard deviations (0.006 % of the light on each axis).
    """
    if radius == 0:
        return disc(0.0)
    sigma = radius / 2
    along = np.exp(-0.5 * (np.arange(gaussian_reach(radius) + 1) / sigma) ** 2)
    along *= _ALONG / (2 * along.sum() - along[0])
    # Rounded to 9 digits first: the C library's last bit may differ from machine to machine.
    whole = np.array([int(float(f"{weight:.9g}") + 0.5) for weight in along], dtype=np.int64)
    whole[0] = _ALONG - 2 * whole[1:].sum()
    return Separable(whole)


def gaussian_reach(radius: float) -> int:
    """Pixels that a :func:`gaussian` kernel reaches from its centre."""
    return math.ceil(GAUSSIAN_REACH * radius / 2)


@functools.lru_cache(maxsize=1024)
def wave(radius_um: float, mpp: float, na: float, wavelength_nm: float, reach: int) -> Kernel:
    """The diffraction pattern of a round pupil out of focus, averaged over each pixel.

    At radius 0 this is the Airy pattern, not the identity, so that the step from there to the first
    small radius is the defocus alone.

    Args:
        radius_um: of the geometric disc, in micrometres of the specimen; see :func:`defocus_um`.
        mpp: micrometres a pixel.
        na: numerical aperture.
        wavelength_nm: in nanometres, in vacuum.
        reach: where to cut it off, in pixels from the centre; see :func:`wave_reach`.

    Returns:
        The kernel.

    Source:
        Goodman, "Introduction to Fourier Optics", 3rd ed., section 6.4.4: the pupil is multiplied by
        exp(2 pi i W20 rho^2), where the ray at the rim is displaced by 2 W20 wavelength / NA.
    """
    from scipy.special import j0  # here: it takes as long to load as numba, in each process, most of which ask no wave

    wavelength = wavelength_nm / 1000
    w20 = radius_um * na / (2 * wavelength)
    radii = np.arange(0, (reach + 1) * 1.5 * _SUBPIXELS * 2) * (mpp / (2 * _SUBPIXELS))
    nodes = 64 + 2 * math.ceil(w20 * 2 * math.pi + 2 * math.pi * na / wavelength * radii[-1])
    rho, weight = np.polynomial.legendre.leggauss(nodes)
    rho, weight = (rho + 1) / 2, weight / 2
    pupil = weight * rho * np.exp(2j * math.pi * w20 * rho**2)
    profile = np.abs(j0(2 * math.pi * na / wavelength * np.outer(radii, rho)) @ pupil) ** 2
    offsets = (np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS - 0.5
    places = (np.arange(reach + 1)[:, None] + offsets).ravel() * mpp
    fine = np.interp(np.hypot(places[:, None], places), radii, profile)
    return _kernel(fine.reshape(reach + 1, _SUBPIXELS, reach + 1, _SUBPIXELS).mean(axis=(1, 3)))


def wave_reach(radius_um: float, mpp: float, na: float, wavelength_nm: float) -> int:
    """Pixels to the end of the geometric disc and three wavelength/NA beyond; arguments as for :func:`wave`."""
    return math.ceil((radius_um + WAVE_RINGS * wavelength_nm / 1000 / na) / mpp)


def defocus_um(radius_um: float, na: float, refractive_index: float) -> float:
    """How far out of focus the specimen is, for a geometric disc of this radius.

    Args:
        radius_um: the disc's radius in the specimen, in micrometres.
        na: numerical aperture, below the refractive index.
        refractive_index: of the medium between specimen and lens.

    Returns:
        The distance from the focal plane in micrometres, to 6 significant digits.
    """
    return float(f"{radius_um / math.tan(math.asin(na / refractive_index)):.6g}")


def blur(
    light: NDArray[np.uint16], kernel: Kernel | Separable, channels: int, full_scale: int = LEVEL
) -> NDArray[np.uint16]:
    """Convolve, without borders.

    Args:
        light: (H, W * channels) uint16, each value at most LIGHT, channels interleaved.
        kernel: the point spread function.
        channels: 3 for interleaved RGB, 1 for one plane.
        full_scale: what LIGHT becomes.

    Returns:
        uint16 array of shape (H - 2 reach, (W - 2 reach) * channels), in [0, full_scale].
    """
    reach = kernel.reach
    height, width = light.shape[0] - 2 * reach, light.shape[1] - 2 * reach * channels
    scale = np.float32(full_scale / (LIGHT * kernel.total))
    if isinstance(kernel, Separable):
        out = np.empty((height, width), dtype=np.uint16)
        convolve_along_both(np.ascontiguousarray(light), channels, kernel.along, scale, out)
        return out
    padding = max(0, LANES - width)  # the inner loop knows no narrower picture; what it makes of the padding is cut off
    light = np.pad(light, ((0, 0), (0, padding))) if padding else np.ascontiguousarray(light)
    out = np.empty((height, width + padding), dtype=np.uint16)
    convolve(light, reach, channels, kernel.full, kernel.runs, kernel.orbit_weights, kernel.orbits, scale, out)
    return np.ascontiguousarray(out[:, :width])


def _kernel(quadrant: NDArray[np.float64], *, runs: bool = False) -> Kernel:
    reach = len(quadrant) - 1
    quadrant = (quadrant + quadrant.T) / 2
    whole = np.pad(quadrant, ((reach, 0), (reach, 0)), mode="reflect") / quadrant.max()
    # As fine as 31 bits allow: all of the light times all of the weights must fit, rounding included.
    full = min(32767, int((2**31 - 1) / LIGHT / (whole.sum() + 4 * reach + 8)))
    weights = np.zeros_like(whole, dtype=np.int64)
    half_lengths = np.full(2 * reach + 1, -1, dtype=np.int64)
    if runs:
        half_lengths = (whole == 1).sum(axis=0) // 2 - (~(whole == 1).any(axis=0))
    orbit_weights, orbits = [], []
    for y in range(reach + 1):
        for x in range(y, reach + 1):
            eight = [(y, x), (y, -x), (-y, x), (-y, -x), (x, y), (x, -y), (-x, y), (-x, -y)]
            repeats = 8 // len(set(eight))
            # Rounded to 9 digits first: the C library's last bit may differ from machine to machine.
            weight = int(float(f"{whole[reach + y, reach + x] * full / repeats:.9g}") + 0.5)
            if y <= half_lengths[reach + x]:
                weight, repeats = full, 1
            elif weight:
                orbit_weights.append(weight)
                orbits.append(eight)
            for dy, dx in eight:
                weights[reach + dy, reach + dx] = weight * repeats
    return Kernel(
        reach=reach,
        weights=weights,
        total=int(weights.sum()),
        full=full,
        runs=half_lengths,
        orbit_weights=np.array(orbit_weights, dtype=np.int32),
        orbits=np.array(orbits, dtype=np.int64).reshape(-1, 8, 2),
    )


def _coverage(radius: float, x: int, y: int) -> float:
    """Area of the pixel (x, y), both 0 or more, that lies inside a disc about the origin."""
    if math.hypot(x + 0.5, y + 0.5) <= radius:
        return 1.0
    left, right, low, high = x - 0.5, x + 0.5, y - 0.5, y + 0.5
    # A pixel on an axis is the mirror image of its positive half.
    times = (2 if x == 0 else 1) * (2 if y == 0 else 1)
    left, low = max(left, 0.0), max(low, 0.0)
    if math.hypot(left, low) >= radius:
        return 0.0
    # Left of `flat` the arc runs above the pixel's top edge, right of `end` below its bottom edge.
    flat = math.sqrt(radius**2 - high**2) if radius > high else 0.0
    flat, end = min(max(flat, left), right), min(math.sqrt(radius**2 - low**2), right)

    def under_arc(at: float) -> float:
        return (at * math.sqrt(max(radius**2 - at**2, 0.0)) + radius**2 * math.asin(min(at / radius, 1.0))) / 2

    return times * ((flat - left) * (high - low) + under_arc(end) - under_arc(flat) - (end - flat) * low)
