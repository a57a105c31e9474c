"""What the small network's cosines see of one large image, fast: the numbers of its ``spectra``, compiled.

A block's answers are squared, sized and summed over the cells while they are in the processor's cache; torch would
take a pass over memory for each of these.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medsynth.compiled import compiled
from medsynth.focus.network import BLOCK, CELL, CELL_STEP, KINDS, LEVELS, STEP, SmallNetwork, blocks_of_cell

_HALF = BLOCK // 2
_ANSWERS = BLOCK * BLOCK
_CELLS = 256  # judged at a time: their features stay in the cache


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
    high, wide = ((side - CELL) // CELL_STEP * CELL_STEP + CELL for side in image.shape[:2])
    waves = network.get_buffer("waves").numpy()
    grey = _halved_luma(pixels, high, wide)
    found = []
    for level in range(LEVELS):
        blocks, step = blocks_of_cell(level)
        found.append(_means(grey, waves, blocks, step))
        grey = _halved(grey)
    spectra = torch.from_numpy(np.stack(found, axis=2)[None])
    rows = max(1, _CELLS // spectra.shape[2])
    return torch.cat([network.judge(some) for some in torch.split(spectra, rows, dim=1)], dim=2)


@compiled
def _halved_luma(image: NDArray[np.uint8], high: int, wide: int) -> NDArray[np.float32]:
    out = np.empty((high // 2, wide // 2), dtype=np.float32)
    sums = np.empty(3 * wide, dtype=np.uint16)
    red, green, blue = np.float32(0.299 / 4), np.float32(0.587 / 4), np.float32(0.114 / 4)
    for row in range(high // 2):
        upper, lower = image[2 * row].reshape(-1), image[2 * row + 1].reshape(-1)
        for place in range(3 * wide):
            sums[place] = np.uint16(upper[place]) + np.uint16(lower[place])
        for column in range(wide // 2):
            place = 6 * column
            out[row, column] = (
                red * np.float32(sums[place] + sums[place + 3])
                + green * np.float32(sums[place + 1] + sums[place + 4])
                + blue * np.float32(sums[place + 2] + sums[place + 5])
            )
    return out


@compiled
def _halved(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.empty((grey.shape[0] // 2, grey.shape[1] // 2), dtype=np.float32)
    quarter = np.float32(0.25)
    for row in range(out.shape[0]):
        upper, lower = grey[2 * row], grey[2 * row + 1]
        for column in range(out.shape[1]):
            left = upper[2 * column] + lower[2 * column]
            out[row, column] = quarter * (left + (upper[2 * column + 1] + lower[2 * column + 1]))
    return out


@compiled
def _means(grey: NDArray[np.float32], waves: NDArray[np.float32], blocks: int, step: int) -> NDArray[np.float32]:
    # (h, w, 2, 136): mean squares and mean sizes of the answers in each cell, blocks by blocks of them, step apart.
    down, along = grey.shape[0] // STEP - 1, grey.shape[1] // STEP - 1
    high, wide = (down - blocks) // step + 1, (along - blocks) // step + 1
    sums = np.zeros((high, wide, 2, _ANSWERS), dtype=np.float32)
    rows = np.empty((BLOCK, along * BLOCK), dtype=np.float32)
    row_sums = np.empty((wide, 2, _ANSWERS), dtype=np.float32)
    for block in range(down):
        if block == 0:
            for row in range(BLOCK):
                _along(grey[row], waves, rows[row])
        else:
            for row in range(STEP):
                upper, lower = rows[row], rows[row + STEP]
                for place in range(len(upper)):
                    upper[place] = lower[place]
                _along(grey[(block + 1) * STEP + row], waves, rows[row + STEP])
        _down(rows, waves, blocks, step, row_sums)
        for cell in range(max(0, (block - blocks + step) // step), min(high - 1, block // step) + 1):
            total, part = sums[cell].reshape(-1), row_sums.reshape(-1)
            for place in range(total.shape[0]):
                total[place] += part[place]
    means = np.empty((high, wide, 2, KINDS), dtype=np.float32)
    share = np.float32(0.5 / (blocks * blocks))
    for i in range(high):
        for j in range(wide):
            for k in range(2):
                _merge(sums[i, j, k], share, means[i, j, k])
    return means


@compiled
def _merge(sums: NDArray[np.float32], share: np.float32, out: NDArray[np.float32]) -> None:
    # An answer and its transpose count as one.
    place = 0
    for low in range(BLOCK):
        for high in range(low, BLOCK):
            out[place] = (sums[BLOCK * low + high] + sums[BLOCK * high + low]) * share
            place += 1


@compiled
def _along(line: NDArray[np.float32], waves: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    # The cosines along one row of pixels; even ones are alike at both ends of a block, odd ones opposite.
    sums, differences = np.empty(_HALF, dtype=np.float32), np.empty(_HALF, dtype=np.float32)
    for block in range(out.shape[0] // BLOCK):
        first = block * STEP
        for place in range(_HALF):
            near, far = line[first + place], line[first + BLOCK - 1 - place]
            sums[place], differences[place] = near + far, near - far
        for wave in range(0, BLOCK, 2):
            even, odd = np.float32(0), np.float32(0)
            for place in range(_HALF):
                even += waves[wave, place] * sums[place]
                odd += waves[wave + 1, place] * differences[place]
            out[block * BLOCK + wave], out[block * BLOCK + wave + 1] = even, odd


@compiled
def _down(
    rows: NDArray[np.float32], waves: NDArray[np.float32], blocks: int, step: int, out: NDArray[np.float32]
) -> None:
    # The cosines down the columns of one row of blocks, and the sums of their squares and sizes along the cells.
    length = rows.shape[1]
    pairs = np.empty((2, _HALF, length), dtype=np.float32)
    for place in range(_HALF):
        near, far = rows[place], rows[BLOCK - 1 - place]
        for column in range(length):
            pairs[0, place, column] = near[column] + far[column]
            pairs[1, place, column] = near[column] - far[column]
    squares, sizes = np.empty(length, dtype=np.float32), np.empty(length, dtype=np.float32)
    for wave in range(BLOCK):
        weight, pair = waves[wave], pairs[wave % 2]
        w0, w1, w2, w3, w4, w5, w6, w7 = (
            weight[0],
            weight[1],
            weight[2],
            weight[3],
            weight[4],
            weight[5],
            weight[6],
            weight[7],
        )
        p0, p1, p2, p3, p4, p5, p6, p7 = pair[0], pair[1], pair[2], pair[3], pair[4], pair[5], pair[6], pair[7]
        for column in range(length):
            answer = ((w0 * p0[column] + w1 * p1[column]) + (w2 * p2[column] + w3 * p3[column])) + (
                (w4 * p4[column] + w5 * p5[column]) + (w6 * p6[column] + w7 * p7[column])
            )
            squares[column] = answer * answer
            sizes[column] = abs(answer)
        _sum_along(squares, blocks, step, out[:, 0, wave * BLOCK : (wave + 1) * BLOCK])
        _sum_along(sizes, blocks, step, out[:, 1, wave * BLOCK : (wave + 1) * BLOCK])


@compiled
def _sum_along(values: NDArray[np.float32], blocks: int, step: int, out: NDArray[np.float32]) -> None:
    # Over the blocks of each cell, in long loops: short ones would take most of the time.
    reach = values.shape[0] - (blocks - 1) * BLOCK
    sums = values[:reach].copy()
    for block in range(1, blocks):
        others = values[block * BLOCK : block * BLOCK + reach]
        for place in range(reach):
            sums[place] += others[place]
    for cell in range(out.shape[0]):
        for k in range(BLOCK):
            out[cell, k] = sums[cell * step * BLOCK + k]
