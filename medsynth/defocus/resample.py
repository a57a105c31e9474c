"""Resampling to another pixel size: a triangle filter in whole numbers, which is deterministic."""

import functools

import numpy as np
from numpy.typing import NDArray

from medsynth.compiled import compiled

_ONE = 1 << 14


def source_size(size: int, scale: float) -> int:
    """Source pixels needed along one axis for ``size`` output pixels, the filter's reach included.

    Args:
        size: output pixels.
        scale: source pixels an output pixel.
    """
    first, weights = _taps(size, scale)
    return int(first[-1]) + len(weights[0])


def resample(light: NDArray[np.uint16], size: int, scale: float, channels: int) -> NDArray[np.uint16]:
    """Resample a square to pixels ``scale`` times as large, without borders.

    The filter is a triangle of half width max(1, scale) source pixels: linear interpolation when
    enlarging, free of aliasing when reducing.

    Args:
        light: (S, S * channels) uint16 with S = ``source_size(size, scale)``, values below 2**14.
        size: output pixels along each side.
        scale: source pixels an output pixel.
        channels: interleaved channels.

    Returns:
        uint16 array of shape (size, size * channels).
    """
    first, weights = _taps(size, scale)
    out = np.empty((size, size * channels), dtype=np.uint16)
    _resample(light, first, weights, channels, out)
    return out


@functools.lru_cache(maxsize=256)
def _taps(size: int, scale: float) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    # The first source pixel and the weights of each output pixel; a row of weights sums to _ONE.
    half = max(1.0, scale)
    centres = half - 1 + np.arange(size) * scale
    first = np.floor(centres - half).astype(np.int64) + 1
    places = first[:, None] + np.arange(int(np.floor(2 * half)) + 1)
    heights = np.maximum(0.0, half - np.abs(places - centres[:, None]))
    heights /= heights.sum(axis=1, keepdims=True)
    weights = np.floor(np.round(heights * _ONE, 6) + 0.5).astype(np.int32)
    weights[np.arange(size), weights.argmax(axis=1)] += (_ONE - weights.sum(axis=1)).astype(np.int32)
    return first, weights


@compiled
def _resample(
    light: NDArray[np.uint16],
    first: NDArray[np.int64],
    weights: NDArray[np.int32],
    channels: int,
    out: NDArray[np.uint16],
) -> None:
    size, taps = weights.shape
    width = light.shape[1]
    column = np.empty(width, dtype=np.int32)
    for y in range(size):
        column[:] = _ONE // 2
        for k in range(taps):
            row, weight = light[first[y] + k], weights[y, k]
            for x in range(width):
                column[x] += weight * np.int32(row[x])
        for x in range(width):
            column[x] >>= 14
        for x in range(size):
            for c in range(channels):
                total = np.int32(_ONE // 2)
                for k in range(taps):
                    total += weights[x, k] * column[(first[x] + k) * channels + c]
                out[y, x * channels + c] = total >> 14
