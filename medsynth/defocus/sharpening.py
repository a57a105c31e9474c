"""Unsharp masking, as a scanner's software does before it compresses."""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from medsynth.compiled import compiled

_ONE = 1 << 12


def reach(sigma_px: float) -> int:
    """Pixels lost on each side: 3 standard deviations."""
    return math.ceil(3 * sigma_px)


def sharpen(image: NDArray[np.uint8], amount: float, sigma_px: float) -> NDArray[np.uint8]:
    """Add what a Gaussian blur takes away: v + amount * (v - blurred v), on the 8-bit codes.

    Args:
        image: (H, W, 3) uint8.
        amount: 0 or more; 1 doubles the finest detail.
        sigma_px: the Gaussian's standard deviation in pixels, above 0; it is cut off at 3 of them.

    Returns:
        uint8 array of shape (H - 2 reach, W - 2 reach, 3), clipped.
    """
    lost = reach(sigma_px)
    height, width, channels = image.shape
    out = np.empty((height - 2 * lost, (width - 2 * lost) * channels), dtype=np.uint8)
    weights, strength = _weights(sigma_px), int(float(f"{amount:.6g}") * _ONE + 0.5)
    _sharpen(image.reshape(height, width * channels), weights, channels, strength, out)
    return out.reshape(height - 2 * lost, width - 2 * lost, channels)


@functools.lru_cache(maxsize=256)
def _weights(sigma: float) -> NDArray[np.int32]:
    # Of the centre and one side; they sum to _ONE over both.
    side = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(reach(sigma) + 1)]
    total = side[0] + 2 * sum(side[1:])
    weights = [int(float(f"{_ONE * value / total:.9g}") + 0.5) for value in side]
    weights[0] = _ONE - 2 * sum(weights[1:])
    return np.array(weights, dtype=np.int32)


@compiled
def _sharpen(
    image: NDArray[np.uint8], weights: NDArray[np.int32], channels: int, strength: int, out: NDArray[np.uint8]
) -> None:
    height, width = out.shape
    lost = len(weights) - 1
    column = np.empty(image.shape[1], dtype=np.int32)
    blurred = np.empty(width, dtype=np.int32)
    edge = lost * channels
    for y in range(height):
        centre = image[y + lost]
        for x in range(len(column)):
            column[x] = weights[0] * centre[x]
        for k in range(1, lost + 1):
            above, below, weight = image[y + lost - k], image[y + lost + k], weights[k]
            for x in range(len(column)):
                column[x] += weight * (np.int32(above[x]) + np.int32(below[x]))
        middle = column[edge : edge + width]
        # 20 bits of the first sum, 12 of the weights: one shift between keeps it inside 31.
        for x in range(width):
            blurred[x] = weights[0] * (middle[x] >> 4)
        for k in range(1, lost + 1):
            left, right = column[edge - k * channels :], column[edge + k * channels :]
            weight = weights[k]
            for x in range(width):
                blurred[x] += weight * ((left[x] >> 4) + (right[x] >> 4))
        row = out[y]
        for x in range(width):
            value = np.int64(centre[edge + x])
            detail = (value << 20) - blurred[x]
            sharp = (value << 32) + strength * detail + (np.int64(1) << 31)
            row[x] = min(max(sharp >> 32, 0), 255)
