"""Photos with their lesions' boxes: the table that a skin generator learns from, and how it is parted by patient."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medsynth import seeds, storage
from medsynth.catalog.metadata import as_text, read_table, require_columns
from medsynth.errors import UserError
from medsynth.skin import tone
from medsynth.skin.semantic_map import Box, Geometry, MapError

_TRAINING = "train"


class PairsError(UserError):
    """A table of photos cannot be learnt from."""


@dataclass(frozen=True)
class Photo:
    """One photo, as the table tells it."""

    uri: str
    condition: str
    fitzpatrick: int | None
    """The clinical type, 1 to 6, where it is known."""
    box: Box
    patient: str
    split: str | None = None
    """What the table itself says that it is for."""


@dataclass(frozen=True)
class Pairs:
    """Photos, in the order of their table."""

    uri: str
    photos: tuple[Photo, ...]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Their conditions, sorted."""
        return tuple(sorted({photo.condition for photo in self.photos}))

    @property
    def patients(self) -> tuple[str, ...]:
        """Their patients, sorted."""
        return tuple(sorted({photo.patient for photo in self.photos}))

    @property
    def digest(self) -> str:
        """Of all that the table says; not of the photos' pixels."""
        rows = [
            [p.uri.rpartition("/")[2], p.condition, p.fitzpatrick, p.box.x0, p.box.y0, p.box.x1, p.box.y1, p.patient]
            for p in self.photos
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def geometry(self, sizes: Sequence[tuple[int, int]]) -> Geometry:
        """Where the lesions of each condition lie.

        Args:
            sizes: width and height of each photo.
        """
        found: dict[str, list[tuple[Box, int, int]]] = {}
        for photo, (width, height) in zip(self.photos, sizes, strict=True):
            found.setdefault(photo.condition, []).append((photo.box, width, height))
        return Geometry.of(found)


def read(uri: str) -> Pairs:
    """Read a table of photos.

    Args:
        uri: a CSV or Parquet file with the columns ``image`` (a URI, or a path from the table's folder),
            ``condition``, ``patient_id``, the box as ``box`` ("x0,y0,x1,y1") or in four columns, and where
            it is known ``fitzpatrick`` (1 to 6 or I to VI), ``width``, ``height`` and ``split``.

    Raises:
        CatalogError: there is no such table, or a column is missing.
        PairsError: a row is wrong; the message names it.
    """
    table = read_table(uri)
    corners = ["box"] if "box" in table.column_names else ["x0", "y0", "x1", "y1"]
    require_columns(uri, table.column_names, ["image", "condition", "patient_id", *corners])
    folder = uri.rpartition("/")[0]
    photos, seen = [], set()
    for number, row in enumerate(table.to_pylist(), start=1):
        image = as_text(row["image"])
        where = f"{uri}: row {number} ({image or 'no image'})"
        for name in ("image", "condition", "patient_id"):
            if as_text(row[name]) is None:
                raise PairsError(f"{where}: {name} is empty; fill it in, or leave the row out")
        if image in seen:
            raise PairsError(f"{where}: stands twice; keep one row a photo")
        seen.add(image)
        photos.append(
            Photo(
                _place(str(image), folder),
                str(as_text(row["condition"])),
                _type(as_text(row.get("fitzpatrick")), where),
                _box(row, corners, where),
                str(as_text(row["patient_id"])),
                as_text(row.get("split")),
            )
        )
    if not photos:
        raise PairsError(f"{uri}: no rows; name a table of photos")
    return Pairs(uri, tuple(photos))


def split(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Part photos into those to learn from and those held out, no patient in both.

    Args:
        pairs: the photos. Where the table has a column ``split``, it decides: ``train``, or anything else for
            held out.
        share: of the patients to hold out, where the table does not decide; of each condition, and within it of each
            skin type, as nearly as whole patients allow. 0 for none.
        seed: another seed holds out others.

    Returns:
        Training photos and held-out ones.

    Raises:
        PairsError: the table puts a patient on both sides, or nothing is left on one.
    """
    if any(photo.split is not None for photo in pairs.photos):
        held = _told(pairs)
    else:
        held = _drawn(pairs, share, seed) if share else set()
    training = tuple(photo for photo in pairs.photos if photo.patient not in held)
    if not training:
        raise PairsError(f"{pairs.uri}: no photo is left to learn from; hold out fewer of the {len(held)} patient(s)")
    others = tuple(photo for photo in pairs.photos if photo.patient in held)
    return replace(pairs, photos=training), replace(pairs, photos=others)


def _drawn(pairs: Pairs, share: float, seed: int) -> set[str]:
    # Every n-th patient of those ordered by condition and type, so that both sides show the rare ones where they can.
    first = {photo.patient: photo for photo in reversed(pairs.photos)}
    ordered = sorted(
        pairs.patients,
        key=lambda name: (first[name].condition, first[name].fitzpatrick or 0, seeds.digest64(seed, "held out", name)),
    )
    count = len(ordered)
    taken = max(1, round(share * count))
    start = seeds.digest64(seed, "held out") % count
    return {
        name
        for place, name in enumerate(ordered)
        if (start + place + 1) * taken // count > (start + place) * taken // count
    }


def _told(pairs: Pairs) -> set[str]:
    sides: dict[str, bool] = {}
    for photo in pairs.photos:
        if photo.split is None:
            raise PairsError(f"{pairs.uri}: {photo.uri}: split is empty; fill it in for every row or for none")
        side = photo.split != _TRAINING
        if sides.setdefault(photo.patient, side) != side:
            raise PairsError(f"{pairs.uri}: patient {photo.patient!r} is in both splits; part the table by patient")
    return {patient for patient, side in sides.items() if side}


def _place(image: str, folder: str) -> str:
    if "://" in image or image.startswith("/"):
        return image
    return storage.join(folder, image) if folder else image


def _type(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    found = tone.parse_type(text)
    if found is None:
        raise PairsError(f"{where}: fitzpatrick is {text!r}; write 1 to 6 or I to VI, or leave it empty")
    return found


def _box(row: dict[str, Any], corners: list[str], where: str) -> Box:
    cells = row["box"] if corners == ["box"] else [row[name] for name in corners]
    if isinstance(cells, str):
        cells = cells.strip("[]() ").split(",")
    if not isinstance(cells, list) or len(cells) != 4 or any(as_text(cell) is None for cell in cells):
        raise PairsError(f"{where}: no box; give the lesion's x0,y0,x1,y1 in pixels")
    try:
        x0, y0, x1, y1 = (round(float(cell)) for cell in cells)
        width, height = (round(float(row.get(name) or 10**9)) for name in ("width", "height"))
    except ValueError as error:
        raise PairsError(f"{where}: the box {cells} is not four numbers; give x0,y0,x1,y1 in pixels") from error
    try:
        box = Box(x0, y0, x1, y1)
        box.check(width, height, where)
    except MapError as error:
        raise PairsError(str(error)) from error
    return box
