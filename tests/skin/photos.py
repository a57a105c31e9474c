"""Photos to learn from, small and made up: skin with a dark disc that fills its box, at another place in each."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsynth import images
from medsynth.skin import tone

COLUMNS = ("image", "condition", "fitzpatrick", "patient_id", "x0", "y0", "x1", "y1")
CONDITIONS = ("NEV", "NEV", "NEV", "NEV", "NEV", "MEL")


def write_photos(folder: Path, conditions: tuple[str, ...] = CONDITIONS, masks: bool = False) -> str:
    """A table of photos of one patient each, 140x120 px.

    Args:
        folder: where it shall stand, with its photos.
        conditions: of the photos.
        masks: whether each has one, of its disc, as ``0-mask.png``.

    Returns:
        Path of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join((*COLUMNS, "mask") if masks else COLUMNS)]
    y, x = np.mgrid[:120, :140]
    for number, condition in enumerate(conditions):
        place = number % 6
        photo = np.tile(tone.to_rgb(tone.skin_of(50 - 10 * place)), (120, 140, 1))
        left, top = 10 + 15 * place, 70 - 12 * place
        disc = np.hypot(y - top - 14.5, x - left - 14.5) < 15
        photo[disc] = (60, 30, 20 + number // 6)
        (folder / f"{number}.png").write_bytes(images.encode_png(photo))
        lines.append(f"{number}.png,{condition},{place + 1},P{number},{left},{top},{left + 30},{top + 30}")
        if masks:
            write_mask(folder / f"{number}-mask.png", disc)
            lines[-1] += f",{number}-mask.png"
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "photos.csv")


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """A mask as a picture, black and white."""
    path.write_bytes(images.encode_png(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)))


def shapes(side: int) -> dict[str, NDArray[np.bool_]]:
    """Masks of forms that no ellipse has."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    return {
        "corner": ((x < 0.43) | (y > 0.58)) & (x > 0.23) & (x < 0.78) & (y > 0.23) & (y < 0.78),
        "bar": (abs(x - y) < 0.09) & (x > 0.2) & (x < 0.8) & (y > 0.2) & (y < 0.8),
        "two": (np.hypot(x - 0.3, y - 0.3) < 0.12) | (np.hypot(x - 0.7, y - 0.7) < 0.12),
        "ring": (np.hypot(x - 0.5, y - 0.5) < 0.3) & (np.hypot(x - 0.5, y - 0.5) > 0.18),
    }


def change_row(table: str, number: int, **cells: str) -> None:
    """Put other text into cells of one row, counted from 0."""
    path = Path(table)
    lines = path.read_text().splitlines()
    header = lines[0].split(",")
    row = dict(zip(header, lines[number + 1].split(","), strict=True)) | cells
    lines[number + 1] = ",".join(row[name] for name in header)
    path.write_text("\n".join(lines) + "\n")
