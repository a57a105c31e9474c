"""Sheets of pictures for a page."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsynth.defocus import compression

_GAP, _QUALITY = 2, 90


def sheet(pictures: Sequence[NDArray[np.uint8]], columns: int, cell: int) -> bytes:
    """Pictures side by side, row by row, all at one size.

    Args:
        pictures: square, RGB.
        columns: of the sheet.
        cell: pixels on a side of each.

    Returns:
        JPEG.
    """
    rows = -(-len(pictures) // columns)
    step = cell + _GAP
    found = np.full((rows * step - _GAP, columns * step - _GAP, 3), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        y, x = number // columns * step, number % columns * step
        small = Image.fromarray(picture)
        if small.width != cell:
            small = small.resize((cell, cell), Image.Resampling.LANCZOS)
        found[y : y + cell, x : x + cell] = np.asarray(small)
    return compression.encode(found, _QUALITY, "4:4:4")
