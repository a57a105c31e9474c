"""Where a slide has tissue, from a reduced picture of it; what is not tissue is never scored.

Tissue absorbs light and glass does not: Otsu's method parts the two by absorbance. Two guards keep it honest
where there is only one of them: the threshold stays between what glass may absorb and what pale tissue does.
Ink and black borders are left out. Red ink cannot be told from blood by its colour, and is not.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsynth.errors import Reason, Rejected

_FAINTEST, _PALEST = 0.04, 0.07
"""Absorbance, averaged over a cell's size: clean glass stays below the one, and whatever is stained lies above
the other. Chosen on the H&E and Ki-67 slides of tests/focus/test_tissue.py."""
_CELL_UM = 16.0
"""Tissue is looked for at this scale, so that pale cytoplasm between nuclei belongs to it."""
_STAINED = 0.2
"""Absorbance at which something has a stain, if it is stained at all."""
_BINS = 256
_DARKEST_GLASS = 200
_BLACK, _COLOURLESS = 70, 25
_LEAST_COLOUR = 8
_MOST_INK, _MOST_BLACK = 0.3, 0.8
"""Share of a cell's size; nuclei are dark, but never all over it."""


def tissue(picture: NDArray[np.uint8], pixel_um: float) -> NDArray[np.bool_]:
    """Find the tissue.

    Args:
        picture: (h, w, 3) uint8 RGB, reduced.
        pixel_um: side of its pixels in µm.

    Returns:
        (h, w), True for tissue; possibly nowhere.

    Raises:
        Rejected: the picture is no brightfield colour picture: grey, or dark where there is nothing.

    Source:
        Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979;
        absorbance: Beer-Lambert's law.
    """
    most, least = picture.max(axis=2), picture.min(axis=2)
    spread = most - least
    black = (most < _BLACK) & (spread < _COLOURLESS)
    if black.mean() > 0.5 and (least > _DARKEST_GLASS).mean() < 0.02:
        raise Rejected(Reason.NOT_BRIGHT_FIELD, "a dark background; send stained tissue in bright field")
    side = max(1, round(_CELL_UM / pixel_um))
    sharp = _absorbance(picture)
    # Where something is dark enough to be tissue, some of it must have a colour.
    if (seen := sharp > _STAINED).any() and np.percentile(spread[seen], 99) < _LEAST_COLOUR:
        raise Rejected(Reason.NOT_BRIGHT_FIELD, "a greyscale picture; tissue is told by its stain: send it in colour")
    dark = ndimage.uniform_filter(sharp, side, mode="nearest")
    ink = (_share(_ink(picture), side) > _MOST_INK) | (_share(black, side) > _MOST_BLACK)
    ink = ndimage.maximum_filter(ink, size=2 * side + 1)
    threshold = float(np.clip(_otsu(dark[~ink]), _FAINTEST, _PALEST))
    # The mean over a cell's size carries tissue beyond its border: what is near nothing dark is glass.
    near = ndimage.maximum_filter(sharp > threshold, size=max(1, side // 2))
    found: NDArray[np.bool_] = (dark > threshold) & near & ~ink
    return found


def cell_shares(
    mask: NDArray[np.bool_], factor: int, spacing: int, field: int, rows: int, columns: int
) -> NDArray[np.float64]:
    """Share of each cell's window that is tissue.

    Args:
        mask: of the reduced picture.
        factor: pixels of the slide per pixel of the mask.
        spacing: pixels of the slide from cell to cell.
        field: side of a cell's window, in pixels of the slide.
        rows: of cells.
        columns: of cells.

    Returns:
        (rows, columns), 0 to 1.
    """
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)

    def ends(count: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        starts = np.arange(count) * spacing
        first = np.minimum(starts // factor, length - 1)
        return first, np.clip(-(-(starts + field) // factor), first + 1, length)

    top, bottom = ends(rows, mask.shape[0])
    left, right = ends(columns, mask.shape[1])
    inside = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    shares: NDArray[np.float64] = inside / ((bottom - top)[:, None] * (right - left)[None, :])
    return shares


def _share(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ndimage.uniform_filter(mask.astype(np.float32), side, mode="nearest")
    return found


def _absorbance(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of the channel that is absorbed most, against the light of the brightest part."""
    found = np.zeros(picture.shape[:2], np.float32)
    for channel in range(3):
        values = picture[:, :, channel]
        light = max(_DARKEST_GLASS, float(np.percentile(values, 99)))
        table = -np.log10(np.maximum(np.arange(256), 1) / light)
        np.maximum(found, np.maximum(table, 0).astype(np.float32)[values], out=found)
    return found


def _ink(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Green and blue felt pens: no stain lets more green than red and blue pass, or so little red beside blue."""
    red, green, blue = (picture[:, :, channel].astype(np.int16) for channel in range(3))
    green_pen = (green > red + 12) & (green > blue + 12)
    blue_pen = (red < 110) & (blue > red + 80) & (green > red + 12)
    found: NDArray[np.bool_] = green_pen | blue_pen
    return found


def _otsu(values: NDArray[np.float32]) -> float:
    if not values.size:
        return 0.0
    counts, edges = np.histogram(values, bins=_BINS, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * centres).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[int(np.argmax(np.nan_to_num(apart))) + 1])
