"""The fast, approximate blur: a large disc at half the resolution, where it costs an eighth.

Four pixels are averaged to one, the disc of half the size runs over those, and linear interpolation
brings the result back. Averaging and interpolating blur by themselves, by a variance of exactly
1 px^2 on each axis, so the disc is made smaller to leave the second moment of the whole as asked.
"""

import math

import numpy as np
from numpy.typing import NDArray

from medsynth.defocus import bokeh
from medsynth.defocus.compiled import compiled
from medsynth.defocus.light import LEVEL

FROM_RADIUS = 4.0
"""Smaller discs are blurred exactly; the benchmark publishes the error of the others."""


def reach(radius: float) -> int:
    """Pixels lost on each side by :func:`blur`."""
    return 2 * _kernel(radius).reach + 2


def blur(light: NDArray[np.uint16], radius: float, channels: int, size: int) -> NDArray[np.uint16]:
    """Convolve with a disc, approximately.

    Args:
        light: (S, S * channels) uint16 in [0, LIGHT], S = size + 2 reach, one more where size is odd.
        radius: in pixels, FROM_RADIUS or more.
        channels: interleaved channels.
        size: output pixels along each side.

    Returns:
        uint16 array of shape (size, size * channels) in [0, LEVEL].
    """
    height, width = light.shape
    small = np.empty((height // 2, width // 2), dtype=np.uint16)
    _reduce(light, channels, small)
    soft = bokeh.blur(small, _kernel(radius), channels, LEVEL)
    even = size + size % 2
    out = np.empty((even, even * channels), dtype=np.uint16)
    _enlarge(soft, channels, out)
    return np.ascontiguousarray(out[:size, : size * channels])


def _kernel(radius: float) -> bokeh.Kernel:
    # The variance of a disc of radius r is r^2 / 4 on each axis.
    return bokeh.disc(float(f"{math.sqrt(radius**2 - 4) / 2:.6g}"))


@compiled
def _reduce(light: NDArray[np.uint16], channels: int, out: NDArray[np.uint16]) -> None:
    height, width = out.shape
    sums = np.empty(2 * width, dtype=np.uint16)
    for y in range(height):
        upper, lower, row = light[2 * y], light[2 * y + 1], out[y]
        for x in range(2 * width):
            sums[x] = upper[x] + lower[x]
        for x in range(width // channels):
            for c in range(channels):
                at = 2 * x * channels + c
                row[x * channels + c] = (np.uint32(sums[at]) + sums[at + channels] + np.uint32(2)) >> np.uint32(2)


@compiled
def _enlarge(soft: NDArray[np.uint16], channels: int, out: NDArray[np.uint16]) -> None:
    height, width = out.shape
    mixed = np.empty(soft.shape[1], dtype=np.uint16)
    for y in range(height):
        # Each pixel is a quarter of a coarse pixel off its coarse pixel's centre.
        near = soft[y // 2 + 1]
        far = soft[y // 2 + 2 * (y % 2)]
        row = out[y]
        for x in range(len(mixed)):
            mixed[x] = 3 * near[x] + far[x]
        for x in range(width // channels // 2):
            for c in range(channels):
                at = (x + 1) * channels + c
                middle = 3 * np.uint32(mixed[at]) + np.uint32(8)
                row[2 * x * channels + c] = (middle + mixed[at - channels]) >> np.uint32(4)
                row[(2 * x + 1) * channels + c] = (middle + mixed[at + channels]) >> np.uint32(4)
