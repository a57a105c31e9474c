"""The small network over a large image, fast: the same numbers as its ``forward``, in pieces that stay in the cache.

Torch convolves; what is done to each answer of the bank (square, size, sum over a bin) is compiled here
into one pass, since torch would take a pass over memory for each.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medsynth.defocus.compiled import compiled
from medsynth.focus.network import BIN, BINS, FILTERS, LEVELS, STEP, SmallNetwork

_PIECE, _COLUMNS = 1 << 16, 32
"""Pixels of a piece (its answers then take a megabyte, and stay in a core's own cache), and bins along it."""


def logits(network: SmallNetwork, image: NDArray[np.uint8]) -> Tensor:
    """Judge one image.

    Args:
        network: the network.
        image: (H, W, 3) uint8 RGB, at least one cell large.

    Returns:
        (1, classes, h, w) float32, what the network's ``forward`` gives up to the last digits.
    """
    # Compiled code is fast on arrays that it knows to lie row by row.
    pixels = np.require(image, requirements=["C", "W"])
    high, wide = image.shape[0] // BIN - 1, image.shape[1] // BIN - 1
    bins = np.empty((high, wide, LEVELS, 2, FILTERS), dtype=np.float32)
    bank = network.get_buffer("filters")
    columns = min(wide, _COLUMNS)
    rows = max(1, _PIECE // BIN**2 // columns)
    for top in range(0, high, rows):
        for left in range(0, wide, columns):
            bottom, right = min(top + rows, high), min(left + columns, wide)
            grey = _grey(pixels, top * BIN, (bottom + 1) * BIN, left * BIN, (right + 1) * BIN)
            for level in range(LEVELS):
                squares = torch.from_numpy(_squares(grey)[None]).permute(0, 3, 1, 2)
                answers = functional.conv2d(squares, bank)[0].permute(1, 2, 0).numpy()
                _sum(answers, BIN // STEP // 2**level, bins[top:bottom, left:right, level])
                grey = _half(grey)
    means = _cells(bins.reshape(high, wide, LEVELS * 2 * FILTERS))
    return network.judge(torch.from_numpy(means[None]).permute(0, 3, 1, 2))


@compiled
def _grey(image: NDArray[np.uint8], top: int, bottom: int, left: int, right: int) -> NDArray[np.float32]:
    out = np.empty((bottom - top, right - left), dtype=np.float32)
    red, green, blue = np.float32(0.299), np.float32(0.587), np.float32(0.114)
    for row in range(bottom - top):
        line = image[top + row].reshape(-1)[3 * left : 3 * right]
        for column in range(right - left):
            out[row, column] = red * line[3 * column] + green * line[3 * column + 1] + blue * line[3 * column + 2]
    return out


@compiled
def _half(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.empty((grey.shape[0] // 2, grey.shape[1] // 2), dtype=np.float32)
    quarter = np.float32(0.25)
    for row in range(out.shape[0]):
        upper, lower = grey[2 * row], grey[2 * row + 1]
        for column in range(out.shape[1]):
            left = upper[2 * column] + lower[2 * column]
            out[row, column] = quarter * (left + (upper[2 * column + 1] + lower[2 * column + 1]))
    return out


@compiled
def _squares(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    # (h, w, 16): the 4 by 4 pixels of each square side by side.
    out = np.empty((grey.shape[0] // STEP, grey.shape[1] // STEP, STEP * STEP), dtype=np.float32)
    for row in range(out.shape[0]):
        for down in range(STEP):
            line = grey[row * STEP + down]
            for column in range(out.shape[1]):
                for along in range(STEP):
                    out[row, column, down * STEP + along] = line[column * STEP + along]
    return out


@compiled
def _sum(answers: NDArray[np.float32], step: int, out: NDArray[np.float32]) -> None:
    # Mean squares to out[..., 0, :], mean sizes to out[..., 1, :].
    share = np.float32(1.0 / (step * step))
    squares, sizes = np.empty(FILTERS, dtype=np.float32), np.empty(FILTERS, dtype=np.float32)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            squares[:] = 0
            sizes[:] = 0
            for down in range(step):
                for along in range(step):
                    place = answers[row * step + down, column * step + along]
                    for k in range(FILTERS):
                        squares[k] += place[k] * place[k]
                        sizes[k] += abs(place[k])
            for k in range(FILTERS):
                out[row, column, 0, k] = squares[k] * share
                out[row, column, 1, k] = sizes[k] * share


@compiled
def _cells(bins: NDArray[np.float32]) -> NDArray[np.float32]:
    # Means over windows of BINS by BINS bins, two bins apart: down first, then along.
    high, wide, count = bins.shape
    out = np.empty(((high - BINS) // 2 + 1, (wide - BINS) // 2 + 1, count), dtype=np.float32)
    column_sums = np.empty((wide, count), dtype=np.float32)
    share = np.float32(1.0 / (BINS * BINS))
    for i in range(out.shape[0]):
        column_sums[:] = 0
        for row in range(2 * i, 2 * i + BINS):
            for column in range(wide):
                for k in range(count):
                    column_sums[column, k] += bins[row, column, k]
        for j in range(out.shape[1]):
            for k in range(count):
                out[i, j, k] = 0
            for column in range(2 * j, 2 * j + BINS):
                for k in range(count):
                    out[i, j, k] += column_sums[column, k]
            for k in range(count):
                out[i, j, k] *= share
    return out
