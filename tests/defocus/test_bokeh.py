"""Blur: kernels against areas, Gaussians and pupils in float64, and the convolution against SciPy's."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from medsynth.defocus import bokeh
from medsynth.defocus.bokeh import Kernel, Separable
from medsynth.defocus.light import LEVEL, LIGHT
from tests.defocus import scenes

RADII = [round(0.3 * step, 1) for step in range(101)]
STRIPS = 1024


def covered(radius: float) -> NDArray[np.float64]:
    """Area of each pixel inside a disc: every pixel column cut into strips, each strip's overlap exact."""
    reach = math.ceil(radius + 0.5)
    across = (np.arange((2 * reach + 1) * STRIPS) + 0.5) / STRIPS - reach - 0.5
    height = np.sqrt(np.maximum(radius**2 - across**2, 0))
    rows = np.arange(-reach, reach + 1)[:, None]
    overlap = np.minimum(rows + 0.5, height) - np.maximum(rows - 0.5, -height)
    return np.maximum(overlap, 0).reshape(len(rows), 2 * reach + 1, STRIPS).mean(axis=2)


def disc_reference(radius: float) -> NDArray[np.float64]:
    """The disc in float64; below 1 px the disc of 1 px mixed with the identity, as the docstring says."""
    area = covered(max(radius, 1.0))
    kernel = area / area.sum()
    if radius < 1:
        kernel *= radius**2
        kernel[len(kernel) // 2, len(kernel) // 2] += 1 - radius**2
    return kernel


def convolved(light: NDArray[np.float64], kernel: NDArray[np.float64], lost: int) -> NDArray[np.float64]:
    """A plain float64 convolution, without the border."""
    outside = len(kernel) // 2 - lost
    inner = kernel[outside : len(kernel) - outside, outside : len(kernel) - outside]
    assert np.count_nonzero(inner) == np.count_nonzero(kernel), "all of it lies within what is lost"
    windows = np.lib.stride_tricks.sliding_window_view(light, inner.shape, axis=(0, 1))
    return np.einsum("yxcab,ab->yxc", windows, inner[::-1, ::-1])


def padded(kernel: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    return np.pad(kernel, reach - len(kernel) // 2)


def moment(kernel: Kernel | Separable) -> float:
    """The second moment on one axis, in px^2."""
    places = np.arange(-kernel.reach, kernel.reach + 1)
    return float((kernel.weights.sum(axis=0) * places**2).sum() / kernel.weights.sum())


def all_kernels() -> list[Kernel | Separable]:
    discs = [bokeh.disc(radius) for radius in RADII]
    gaussians = [bokeh.gaussian(radius) for radius in (0.0, 0.4, 3.0, 11.7)]
    waves = [bokeh.wave(radius, 0.25, 0.75, 550, 14) for radius in (0.0, 1.0, 2.6)]
    return [*discs, *gaussians, *waves]


@pytest.mark.parametrize("radius", RADII)
def test_a_disc_weighs_each_pixel_by_its_covered_area(radius: float) -> None:
    kernel = bokeh.disc(radius)
    expected = disc_reference(radius)
    found = padded(kernel.weights / kernel.weights.sum(), len(expected) // 2)
    # Whole numbers: half a unit for each of at most two places a pixel; and their sum is off by about as little.
    unit = 1 / kernel.weights.sum()
    assert np.abs(found - expected).max() <= 1.5 * unit + 2e-4 * expected.max()


def test_without_a_radius_nothing_is_blurred() -> None:
    light = np.random.default_rng(0).integers(0, LIGHT + 1, (7, 9)).astype(np.uint16)
    for kernel in (bokeh.disc(0.0), bokeh.gaussian(0.0)):
        assert kernel.reach == 0
        assert np.array_equal(bokeh.blur(light, kernel, 1, LIGHT), light)


def test_below_one_pixel_the_second_moment_grows_with_the_square_of_the_radius() -> None:
    for tenth in range(1, 10):
        radius = tenth / 10
        assert moment(bokeh.disc(radius)) == pytest.approx(moment(bokeh.disc(1.0)) * radius**2, abs=4e-4)


def test_the_second_moment_is_the_disc_s_and_the_pixel_s() -> None:
    for radius in (2.0, 5.5, 7.3, 12.0, 20.4, 30.0):
        assert moment(bokeh.disc(radius)) == pytest.approx(radius**2 / 4 + 1 / 12, abs=0.05)
    assert moment(bokeh.gaussian(8.0)) == pytest.approx(8.0**2 / 4, rel=4e-3)  # cut off at 4 sigma


def test_any_two_radii_give_different_kernels_and_the_larger_spreads_more() -> None:
    moments = [moment(bokeh.disc(round(0.05 * step, 2))) for step in range(601)]
    assert moments[0] == 0
    assert np.diff(moments).min() > 0


def test_kernels_are_symmetric_in_all_eight_ways_and_cannot_overflow() -> None:
    for kernel in all_kernels():
        weights = kernel.weights
        assert weights.shape == (2 * kernel.reach + 1, 2 * kernel.reach + 1)
        for turned in (weights[::-1], weights[:, ::-1], weights.T):
            assert np.array_equal(weights, turned)
        assert weights.min() >= 0
        assert kernel.total == weights.sum()
        # Sums in 32 bits; or, of one direction after the other, in the 53 bits of a double float.
        assert kernel.total * LIGHT < (2**31 if isinstance(kernel, Kernel) else 2**53)


@given(
    st.floats(0, 30), st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.sampled_from(["disc", "gaussian", "wave"])
)
@settings(max_examples=40, deadline=None)
def test_blur_is_the_convolution_with_the_kernel_to_half_a_unit(
    radius: float, seed: int, channels: int, kind: str
) -> None:
    radius = round(radius, 1)
    if kind == "wave":
        kernel = bokeh.wave(radius % 2.5, 0.25, 0.75, 550, 15)
    else:
        kernel = bokeh.disc(radius) if kind == "disc" else bokeh.gaussian(radius / 2)
    height, width = 2 * kernel.reach + 9, 2 * kernel.reach + 14
    light = np.random.default_rng(seed).integers(0, LIGHT + 1, size=(height, width, channels)).astype(np.uint16)
    light[: height // 3] = LIGHT  # as much as any place can hold
    out = bokeh.blur(light.reshape(height, -1), kernel, channels, 65535)
    inner = (slice(kernel.reach, kernel.reach + 9), slice(kernel.reach, kernel.reach + 14))
    exact = ndimage.convolve(light.astype(np.float64), kernel.weights[:, :, None].astype(float), mode="constant")[inner]
    expected = exact * (65535 / (LIGHT * int(kernel.weights.sum())))
    assert out.dtype == np.uint16
    assert out.shape == (9, 14 * channels)
    assert np.abs(out.reshape(9, 14, channels) - expected).max() <= 0.51


@pytest.mark.parametrize("width", [1, 42, 43, 128, 129, 200, 256, 300])
@pytest.mark.parametrize("kernel", [bokeh.disc(2.6), bokeh.gaussian(1.3)])
def test_blur_takes_any_width(kernel: Kernel | Separable, width: int) -> None:
    # The inner loop works on blocks; widths that are no multiple of a block, and narrower ones, are cut and padded.
    light = np.random.default_rng(width).integers(0, LIGHT + 1, (5 + 2 * kernel.reach, width + 2 * kernel.reach, 3))
    expected = ndimage.convolve(light, kernel.weights[:, :, None], mode="constant") * (
        LEVEL / (LIGHT * int(kernel.weights.sum()))
    )
    out = bokeh.blur(light.astype(np.uint16).reshape(len(light), -1), kernel, 3).reshape(5, width, 3)
    lost = kernel.reach
    assert np.abs(out - expected[lost:-lost, lost : lost + width]).max() <= 0.51


def test_flat_light_stays_flat_and_full_light_is_full_scale() -> None:
    for kernel in all_kernels():
        side = 2 * kernel.reach + 2
        for value in (0, 1, 2, 77, 4000, LIGHT - 1, LIGHT):
            out = bokeh.blur(np.full((side, side), value, dtype=np.uint16), kernel, 1)
            assert out.tolist() == [[int(value * LEVEL / LIGHT + 0.5)] * 2] * 2


def test_a_point_of_light_keeps_its_energy() -> None:
    for kernel in all_kernels():
        side = 4 * kernel.reach + 1
        point = np.zeros((side, side), dtype=np.uint16)
        point[2 * kernel.reach, 2 * kernel.reach] = LIGHT
        spread = bokeh.blur(point, kernel, 1, 65535)
        expected = kernel.weights * (65535 / int(kernel.weights.sum()))
        assert np.abs(spread - expected).max() <= 0.501


@pytest.mark.parametrize("kernel", [bokeh.disc(4.4), bokeh.gaussian(2.2)])
def test_planes_and_interleaved_channels_agree(kernel: Kernel | Separable) -> None:
    light = np.random.default_rng(2).integers(0, LIGHT + 1, (22, 23, 3)).astype(np.uint16)
    together = bokeh.blur(light.reshape(22, -1), kernel, 3).reshape(22 - 2 * kernel.reach, -1, 3)
    for channel in range(3):
        assert np.array_equal(bokeh.blur(light[..., channel], kernel, 1), together[..., channel])


@pytest.mark.parametrize("kernel", [bokeh.disc(3.0), bokeh.gaussian(1.5)])
def test_no_border_is_invented(kernel: Kernel | Separable) -> None:
    # Each output pixel depends on its own window alone: a piece blurred by itself is the same.
    light = np.random.default_rng(1).integers(0, LIGHT + 1, (20, 25 * 3)).astype(np.uint16)
    whole = bokeh.blur(light, kernel, 3)
    assert whole.shape == (14, 19 * 3)
    piece = light[4 : 4 + 10, 6 * 3 : 16 * 3]
    assert np.array_equal(bokeh.blur(piece, kernel, 3), whole[4:8, 6 * 3 : 10 * 3])


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("name", scenes.SCENES)
def test_a_blurred_picture_is_within_one_grey_level_of_float64(name: str, linear: bool) -> None:
    for radius in (0.0, 0.3, 0.85, 1.0, 1.3, 2.45, 5.9, 12.0, 20.7, 30.0):
        kernel = bokeh.disc(radius)
        picture = scenes.scene(name, 16 + 2 * kernel.reach)
        found = scenes.codes_of(bokeh.blur(scenes.light_of(picture, linear), kernel, 3), linear)
        light = convolved(scenes.to_light(picture, linear), disc_reference(radius), kernel.reach)
        assert np.abs(found - scenes.to_codes(light, linear)).max() < 1


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("name", scenes.SCENES)
def test_a_gaussian_is_within_one_grey_level_of_scipy_s(name: str, linear: bool) -> None:
    for radius in (0.5, 2.0, 7.4, 12.0):
        kernel = bokeh.gaussian(radius)
        assert kernel.reach == bokeh.gaussian_reach(radius)
        picture = scenes.scene(name, 32 + 2 * kernel.reach)
        found = scenes.codes_of(bokeh.blur(scenes.light_of(picture, linear), kernel, 3), linear)
        light = ndimage.gaussian_filter(
            scenes.to_light(picture, linear),
            (radius / 2, radius / 2, 0),
            mode="constant",
            truncate=bokeh.GAUSSIAN_REACH,
        )
        expected = scenes.to_codes(light[kernel.reach : -kernel.reach, kernel.reach : -kernel.reach], linear)
        assert np.abs(found - expected).max() < 1


def pupil_psf(radius_um: float, mpp: float, na: float, wavelength_um: float, reach: int) -> NDArray[np.float64]:
    """The pattern by a two-dimensional Fourier transform of a sampled pupil, averaged over 7 x 7 points a pixel."""
    fine, size = 7, 2048
    step = mpp / fine
    assert step < wavelength_um / na / 4
    frequency = np.fft.fftshift(np.fft.fftfreq(size, step))
    rho = np.hypot(frequency[:, None], frequency) * wavelength_um / na
    # A rim one sample wide, or the pupil would be a staircase.
    sample = frequency[1] - frequency[0]
    inside = np.clip((1 - rho) * na / wavelength_um / sample + 0.5, 0, 1)
    w20 = radius_um * na / (2 * wavelength_um)
    field = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(inside * np.exp(2j * np.pi * w20 * rho**2))))
    half = reach * fine + fine // 2
    middle = slice(size // 2 - half, size // 2 + half + 1)
    pattern = np.abs(field[middle, middle]) ** 2
    pixels = pattern.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean(axis=(1, 3))
    return pixels / pixels.sum()


@pytest.mark.parametrize("na", [0.4, 0.75])
@pytest.mark.parametrize("radius_um", [0.0, 0.6, 1.5, 3.0])
def test_wave_optics_agree_with_the_fourier_transform_of_the_pupil(radius_um: float, na: float) -> None:
    mpp, wavelength_nm = 0.25, 550
    reach = bokeh.wave_reach(radius_um, mpp, na, wavelength_nm)
    kernel = bokeh.wave(radius_um, mpp, na, wavelength_nm, reach)
    expected = pupil_psf(radius_um, mpp, na, wavelength_nm / 1000, reach)
    assert kernel.reach == reach
    assert np.abs(kernel.weights / kernel.weights.sum() - expected).max() <= 0.01 * expected.max()


def test_the_shorter_the_waves_the_more_geometric_the_disc() -> None:
    mpp, radius_um = 0.25, 2.0
    errors = []
    for wavelength_nm in (400, 200, 100):
        reach = bokeh.wave_reach(radius_um, mpp, 0.75, wavelength_nm)
        kernel = bokeh.wave(radius_um, mpp, 0.75, wavelength_nm, reach)
        disc = padded(disc_reference(radius_um / mpp), reach + 2)[2:-2, 2:-2]
        distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) * mpp
        inside = [distance <= part * radius_um for part in (0.5, 0.7, 1.0)]
        found = [kernel.weights[place].sum() / kernel.weights.sum() for place in inside]
        errors.append(max(abs(share - disc[place].sum()) for share, place in zip(found, inside, strict=True)))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


@pytest.mark.parametrize(("na", "wavelength_nm"), [(0.75, 550), (0.5, 450), (1.3, 650)])
def test_in_focus_the_first_dark_ring_stands_at_061_wavelengths_over_na(na: float, wavelength_nm: float) -> None:
    ring_um = 0.61 * wavelength_nm / 1000 / na
    kernel = bokeh.wave(0.0, ring_um / 10, na, wavelength_nm, 20)
    row = kernel.weights[20, 20:]
    assert row[10] == row[:14].min()
    assert row[10] < 0.002 * row[0]
    # The first bright ring, 1.75 % of the middle, follows.
    assert row[12:16].max() == pytest.approx(0.0175 * row[0], rel=0.15)


def test_defocus_is_the_distance_at_which_the_cone_of_light_has_the_radius() -> None:
    for radius, na, index in itertools.product((0.0, 0.7, 5.0), (0.4, 0.75), (1.0, 1.515)):
        distance = bokeh.defocus_um(radius, na, index)
        assert distance * math.tan(math.asin(na / index)) == pytest.approx(radius, rel=1e-5)
        assert distance == float(f"{distance:.6g}")
