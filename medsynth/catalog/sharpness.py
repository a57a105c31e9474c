"""A figure for how sharp a tile is, to keep soft tiles from being sources.

The plain variance of the Laplacian follows contrast, stain and noise more than focus. Here the energy
of the finest details is set against that of coarser ones: a lens out of focus takes the fine ones
first, whatever the stain. Three things that look like fine detail are kept out of it:

- white noise, by multiplying each difference with its neighbour's across, where noise is independent;
- the edges of JPEG blocks, by taking the median over the eight positions in a block, wherever it starts;
- an empty background's grain, since a tile without structure at four pixels and more counts as empty.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_THRESHOLD = 2.3
"""Below it a tile is soft. Chosen on 261 H&E and IHC tiles of five origins at 0.23 to 0.5 µm/px, and on
copies of them blurred by discs, and recompressed as JPEG: see tests/catalog/test_sharpness.py."""

_BLOCK = 4
_EMPTY = 10.0
"""Energy, in squared grey levels, of what remains at blocks of 4 pixels; tissue has hundreds, the grain
of an empty background, read through JPEG or not, less than this up to a noise of 4 levels."""


def sharpness(tile: NDArray[np.uint8]) -> float:
    """Measure how sharp a tile is at the scale of its pixels.

    Args:
        tile: uint8 array of shape (height, width, 3), 16 pixels a side at least.

    Returns:
        0 for an empty tile, 1 for one as smooth as a picture can be, about 2.5 to 10 for one in focus;
        rounded to 6 digits. The arithmetic is in integers up to a last division, so that every
        machine calls the same tiles soft.
    """
    wide = tile.astype(np.int32)
    luma = wide[:, :, 0] + 2 * wide[:, :, 1] + wide[:, :, 2]
    structure = _structure(luma)
    if structure < _EMPTY * 4**2:  # luma is four times a grey level
        return 0.0
    fine = _energy(luma, 1) + _energy(luma.T, 1)
    coarse = _energy(luma, 3) + _energy(luma.T, 3)
    # The share of the structure keeps JPEG's rounding out of tiles that are far out of focus, which
    # have little else at either lag. A parabola's second differences grow with the lag's square.
    ratio = 3**4 * max(fine, 0.0) / (max(coarse, 0.0) + structure / 8)
    return float(f"{ratio:.6g}")


def _structure(luma: NDArray[Any]) -> float:
    """Energy of second differences of block means, down and along."""
    rows, columns = luma.shape[0] // _BLOCK, luma.shape[1] // _BLOCK
    whole = luma[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    blocks = whole.sum(axis=(1, 3), dtype=np.int64)
    along = 2 * blocks[:, 1:-1] - blocks[:, 2:] - blocks[:, :-2]
    down = 2 * blocks[1:-1] - blocks[2:] - blocks[:-2]
    total = int((along**2).sum()) / int(along.size) + int((down**2).sum()) / int(down.size)
    return total / _BLOCK**4


def _energy(luma: NDArray[Any], lag: int) -> float:
    """Energy of second differences along rows: the median over eight column positions of their means."""
    bent = 2 * luma[:, lag:-lag] - luma[:, 2 * lag :] - luma[:, : -2 * lag]
    columns = (bent[:-1] * bent[1:]).sum(axis=0, dtype=np.int64)
    sums = [columns[start::8] for start in range(8)]
    means = sorted(int(part.sum()) / (len(part) * (len(bent) - 1)) for part in sums)
    return (means[3] + means[4]) / 2
