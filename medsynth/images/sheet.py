"""The contact sheet: pictures in rows and columns, labelled."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GAP, _MARGIN = 4, 12


def contact_sheet(
    images: Sequence[Sequence[NDArray[np.uint8] | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    cell: int = 128,
) -> bytes:
    """Draw a contact sheet.

    Args:
        images: rows of uint8 arrays of shape (H, W, 3), RGB; None leaves a cell empty.
        row_labels: one a row; a line break in a label is kept.
        column_labels: one a column.
        cell: pixels on a side of a cell; what is larger is drawn smaller.

    Returns:
        PNG bytes.

    Raises:
        ValueError: labels and images do not match.
    """
    if len(images) != len(row_labels) or any(len(row) != len(column_labels) for row in images):
        raise ValueError("a contact sheet needs a label for each row, and an image or None for each cell")
    import matplotlib as mpl  # here: every worker loads this module, and hardly any draws

    font = ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), 12)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = _MARGIN + max((int(pen.multiline_textbbox((0, 0), label, font)[2]) for label in row_labels), default=0) + 8
    top = _MARGIN + 20
    step = cell + _GAP
    size = (left + step * len(column_labels) + _MARGIN - _GAP, top + step * len(row_labels) + _MARGIN - _GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        pen.text((left + column * step + cell // 2, top - 6), label, "black", font, anchor="ms")
    for row, (label, members) in enumerate(zip(row_labels, images, strict=True)):
        y = top + row * step
        pen.multiline_text((_MARGIN, y + cell // 2), label, "black", font, anchor="lm")
        for column, pixels in enumerate(members):
            x = left + column * step
            if pixels is None:
                pen.rectangle((x, y, x + cell - 1, y + cell - 1), outline="#dddddd")
            else:
                picture = Image.fromarray(pixels)
                picture.thumbnail((cell, cell), Image.Resampling.LANCZOS)
                sheet.paste(picture, (x + (cell - picture.width) // 2, y + (cell - picture.height) // 2))
    sink = io.BytesIO()
    sheet.save(sink, "PNG", optimize=True)
    return sink.getvalue()
