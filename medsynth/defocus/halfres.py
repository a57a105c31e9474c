"""The fast, approximate blur: a large disc at half the resolution, where it costs an eighth.

Four pixels are averaged to one, the disc of half the size runs over those, and linear interpolation
brings the result back. Averaging and interpolating blur by themselves, by a variance of exactly
1 px^2 on each axis, so the disc is made smaller to leave the second moment of the whole as asked.
"""

import math

import numpy as np
from numpy.typing import NDArray

from medsynth.compiled import compiled
from medsynth.defocus import bokeh
from medsynth.defocus.light import LEVEL

FROM_RADIUS = 4.0
"""Smaller discs are blurred exactly; the benchmark publishes the error of the others."""


def reach(radius: float) -> int:
    """Pixels lost on each side by :func:`blur`."""
    return 2 * _kernel(radius).reach + 2


def blur(light: NDArray[np.uint16], radius: float, size: int) -> NDArray[np.uint16]:
    """Convolve with a disc, approximately.

    Args:
        light: (S, S * 3) uint16 in [0, LIGHT], interleaved RGB, S = size + 2 reach, one more where size is odd.
        radius: in pixels, FROM_RADIUS or more.
        size: output pixels along each side.

    Returns:
        uint16 array of shape (size, size * 3) in [0, LEVEL].
    """
    height, width = light.shape
    small = np.empty((height // 2, width // 2), dtype=np.uint16)
    _reduce(light, small)
    soft = bokeh.blur(small, _kernel(radius), 3, LEVEL)
    even = size + size % 2
    out = np.empty((even, even * 3), dtype=np.uint16)
    _enlarge(soft, out)
    return np.ascontiguousarray(out[:size, : size * 3])


def _kernel(radius: float) -> bokeh.Kernel:
    # The variance of a disc of radius r is r^2 / 4 on each axis.
    return bokeh.disc(float(f"{math.sqrt(radius**2 - 4) / 2:.6g}"))


@compiled
def _reduce(light: NDArray[np.uint16], out: NDArray[np.uint16]) -> None:
    height, width = out.shape
    sums = np.empty(2 * width, dtype=np.uint16)
    # Places are unsigned, since a signed one may count from the end, and that check stops vector loops.
    three, six = np.uint64(3), np.uint64(6)
    for y in range(height):
        upper, lower, row = light[2 * y], light[2 * y + 1], out[y]
        for x in range(2 * width):
            sums[x] = upper[x] + lower[x] + 1
        for x in range(np.uint64(width // 3)):
            for c in range(three):
                row[three * x + c] = np.uint16(sums[six * x + c] + sums[six * x + three + c]) >> np.uint16(2)


@compiled
def _enlarge(soft: NDArray[np.uint16], out: NDArray[np.uint16]) -> None:
    height, width = out.shape
    coarse = soft.shape[1]
    mixed = np.empty(coarse, dtype=np.uint16)
    left = np.empty(coarse, dtype=np.uint16)
    right = np.empty(coarse, dtype=np.uint16)
    three, six = np.uint64(3), np.uint64(6)
    for y in range(height):
        # Each pixel is a quarter of a coarse pixel off its coarse pixel's centre. Four 14-bit values
        # fit 16 bits.
        near = soft[y // 2 + 1]
        far = soft[y // 2 + 2 * (y % 2)]
        row = out[y]
        for x in range(coarse):
            mixed[x] = np.uint16(np.uint16(3) * near[x] + far[x] + np.uint16(2)) >> np.uint16(2)
        for x in range(3, coarse - 3):
            more = np.uint16(np.uint16(3) * mixed[x] + np.uint16(2))
            left[x] = np.uint16(more + mixed[x - 3]) >> np.uint16(2)
            right[x] = np.uint16(more + mixed[x + 3]) >> np.uint16(2)
        for x in range(np.uint64(width // 6)):
            for c in range(three):
                row[six * x + c] = left[three * x + three + c]
                row[six * x + three + c] = right[three * x + three + c]
