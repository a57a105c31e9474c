"""Photos with their lesions' boxes: the table that a skin generator learns from, and how it is parted by patient."""

import hashlib
import json
import posixpath
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from medsynth import seeds, storage
from medsynth.catalog.metadata import as_text, read_table, require_columns
from medsynth.errors import UserError
from medsynth.skin import tone
from medsynth.skin.semantic_map import Box, Geometry, MapError

BOX = "box"
CORNERS = ("x0", "y0", "x1", "y1")
SIDES = ("width", "height")
"""Columns of a table of photos, in pixels: the box in one or in four, and the photo's size."""

_COLUMNS = ("image", "condition", "patient_id", "fitzpatrick", "split", "mask", BOX, *CORNERS, *SIDES)

TRAINING = "train"
HELD_OUT = ("val", "valid", "validation", "test", "held_out")
"""What may stand in the column ``split``, in any case."""

_MOST = 1e9  # px: more is no picture's, and no number that a table should hold
_GIVE_BOX = "give the lesion's x0,y0,x1,y1 in pixels"


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
    """What the table itself says that it is for: ``TRAINING``, or one of ``HELD_OUT``."""
    mask: str | None = None
    """URI of a picture of the photo's size that is not black where the lesion is."""


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
        """Of all that the table says of the photos but their masks; not of pixels."""
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


@dataclass(frozen=True)
class Row:
    """One row of a table of photos, and how its cells are read."""

    uri: str
    """Of the table."""
    number: int
    """From 1, the header not counted."""
    cells: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Table, row and photo, for messages."""
        image = self.cells.get("image")
        named = f" ({image.strip()})" if isinstance(image, str) and image.strip() else ""
        return f"{self.uri}: row {self.number}{named}"

    def text(self, name: str) -> str | None:
        """A cell without the blanks about it; None where it is empty.

        Raises:
            PairsError: it holds bytes, a list or a struct.
        """
        cell = self.cells.get(name)
        if isinstance(cell, bytes | list | dict):
            wanted = "the path or URI of a file" if name in ("image", "mask") else "a name"
            raise PairsError(f"{self.where}: {name} is {reprlib.repr(cell)}, not text; write {wanted}")
        return _stripped(cell)

    def filled(self, name: str) -> str:
        """As :meth:`text`, where there must be some.

        Raises:
            PairsError: there is none.
        """
        text = self.text(name)
        if text is None:
            raise PairsError(f"{self.where}: {name} is empty; fill it in, or leave the row out")
        return text

    def fitzpatrick(self) -> int | None:
        """The clinical type, 1 to 6; None where it is not known.

        Raises:
            PairsError: it is something else.
        """
        text = _stripped(self.cells.get("fitzpatrick"))
        found = None if text is None else tone.parse_type(text)
        if text is not None and found is None:
            told = reprlib.repr(text)
            raise PairsError(f"{self.where}: fitzpatrick is {told}; write 1 to 6 or I to VI, or leave it empty")
        return found

    def split(self) -> str | None:
        """What the photo is for, in lower case; None where the table does not say.

        Raises:
            PairsError: it is none of the known words.
        """
        text = self.text("split")
        if text is not None and text.lower() not in (TRAINING, *HELD_OUT):
            raise PairsError(
                f"{self.where}: split is {reprlib.repr(text)}; write {TRAINING}, or for held out one of "
                f"{', '.join(HELD_OUT)}, or leave the column out"
            )
        return text and text.lower()

    def size(self) -> tuple[int, int] | None:
        """Width and height of the photo, pixels; None where the table does not tell both.

        Raises:
            PairsError: one is not a positive number.
        """
        width, height = (self._side(name) for name in SIDES)
        return None if width is None or height is None else (width, height)

    def box(self) -> Box | None:
        """The lesion's box, from ``box`` or from four columns; None where all are empty.

        Raises:
            PairsError: a number is missing or none, the box is empty or not inside the photo, or its numbers are
                fractions of the photo.
        """
        corners = self._corners()
        if all(_stripped(cell) is None for cell in corners.values()):
            return None
        numbers = [self._pixels(name, cell, _GIVE_BOX) for name, cell in corners.items()]
        # No lesion lies between the edges of the corner's one pixel; 0,0,1,1 is that pixel itself, and taken as it is.
        if all(0 <= number <= 1 for number in numbers) and not all(number.is_integer() for number in numbers):
            told = ",".join(f"{number:g}" for number in numbers)
            raise PairsError(
                f"{self.where}: the box {told} lies within one pixel, as fractions of a photo do; {_GIVE_BOX}"
            )
        box = Box(*map(round, numbers))
        if not (0 <= box.x0 < box.x1 and 0 <= box.y0 < box.y1):
            told = f"{box.x0},{box.y0},{box.x1},{box.y1}"
            raise PairsError(
                f"{self.where}: the box {told} is empty or begins outside; give 0 <= x0 < x1, 0 <= y0 < y1"
            )
        size = self.size()
        if size is not None:
            try:
                box.check(*size, self.where)
            except MapError as error:
                raise PairsError(str(error)) from error
        return box

    def _corners(self) -> dict[str, Any]:
        if BOX not in self.cells:
            return {name: self.cells.get(name) for name in CORNERS}
        cell = self.cells[BOX]
        if _stripped(cell) is None:
            return {}
        cells = cell.strip("[]() ").split(",") if isinstance(cell, str) else cell
        if not isinstance(cells, list) or len(cells) != len(CORNERS):
            raise PairsError(f"{self.where}: box is {reprlib.repr(cell)}, not four numbers; {_GIVE_BOX}")
        return {f"{name} of box": one for name, one in zip(CORNERS, cells, strict=True)}

    def _side(self, name: str) -> int | None:
        cell = self.cells.get(name)
        if _stripped(cell) is None:
            return None
        remedy = f"give the photo's {name} in pixels, or leave it empty"
        side = round(self._pixels(name, cell, remedy))
        if side < 1:
            raise PairsError(f"{self.where}: {name} is {reprlib.repr(cell)}; {remedy}")
        return side

    def _pixels(self, name: str, cell: Any, remedy: str) -> float:
        text = _stripped(cell)
        if text is None:
            raise PairsError(f"{self.where}: {name} is empty; {remedy}")
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not abs(number) < _MOST:
            raise PairsError(f"{self.where}: {name} is {reprlib.repr(cell)}, not a number of pixels; {remedy}")
        return number


def rows(uri: str, table: pa.Table, others: Iterable[str] = ()) -> Iterator[Row]:
    """The rows of a table of photos, in order.

    Args:
        uri: of the table, for messages.
        table: its cells.
        others: columns that are wanted besides those of :func:`read`.
    """
    wanted = {*_COLUMNS, *others}
    known = table.select([name for name in table.column_names if name in wanted])
    for number, cells in enumerate(known.to_pylist(), start=1):
        yield Row(uri, number, cells)


def one_spelling(row: Row, name: str, text: str, known: dict[str, str]) -> None:
    """Refuse a name that differs from a known one by case only; another becomes known.

    Args:
        row: that tells it.
        name: of the column.
        text: what stands there.
        known: names by what they are without case.

    Raises:
        PairsError: one line that gives both.
    """
    first = known.setdefault(text.casefold(), text)
    if first != text:
        raise PairsError(
            f"{row.where}: {name} {text!r} differs from {first!r} by case only; write one of them throughout"
        )


def read(uri: str) -> Pairs:
    """Read a table of photos.

    Args:
        uri: a CSV or Parquet file with the columns ``image`` (a URI, or a path from the table's folder),
            ``condition``, ``patient_id``, the box as ``box`` ("x0,y0,x1,y1") or in four columns, and where
            it is known ``fitzpatrick`` (1 to 6 or I to VI), ``width``, ``height``, ``split`` (train, or for held
            out val, valid, validation, test or held_out) and ``mask`` (as ``image``: a picture of the photo's size,
            not black where the lesion is).

    Raises:
        CatalogError: there is no such table, or a column is missing.
        PairsError: a row is wrong; the message names it.
    """
    table = read_table(uri)
    corners = (BOX,) if BOX in table.column_names else CORNERS
    require_columns(uri, table.column_names, ["image", "condition", "patient_id", *corners])
    folder = uri.rpartition("/")[0]
    photos: list[Photo] = []
    conditions: dict[str, str] = {}
    seen: dict[str, str] = {}
    for row in rows(uri, table):
        image, condition, patient = (row.filled(name) for name in ("image", "condition", "patient_id"))
        place = _place(image, folder)
        plain = _plainly(place)
        if plain in seen:
            raise PairsError(f"{row.where}: stands twice, {seen[plain]} too; keep one row a photo")
        seen[plain] = f"in row {row.number} as {image!r}"
        one_spelling(row, "condition", condition, conditions)
        box = row.box()
        if box is None:
            raise PairsError(f"{row.where}: no box; {_GIVE_BOX}")
        mask = row.text("mask")
        there = None if mask is None else _place(mask, folder)
        photos.append(Photo(place, condition, row.fitzpatrick(), box, patient, row.split(), there))
    if not photos:
        raise PairsError(f"{uri}: no rows; name a table of photos")
    return Pairs(uri, tuple(photos))


def require_masks(pairs: Pairs, conditions: Sequence[str]) -> None:
    """Make sure that photos have masks.

    Args:
        pairs: all rows of a table.
        conditions: of the photos that need one.

    Raises:
        PairsError: one has none; the message names its row.
    """
    if not any(photo.mask for photo in pairs.photos):
        raise PairsError(
            f"{pairs.uri}: no masks, which samples.region asks for; name them in a column 'mask', or set it to box"
        )
    for number, photo in enumerate(pairs.photos, start=1):
        if photo.mask is None and photo.condition in conditions:
            raise PairsError(
                f"{pairs.uri}: row {number} ({photo.uri}): mask is empty; name one, leave the row out, or set "
                "samples.region to box"
            )


def split(pairs: Pairs, share: float, seed: int) -> tuple[Pairs, Pairs]:
    """Part photos into those to learn from and those held out, no patient in both.

    Args:
        pairs: the photos. Where the table has a column ``split``, it decides.
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
        side = photo.split != TRAINING
        if sides.setdefault(photo.patient, side) != side:
            raise PairsError(f"{pairs.uri}: patient {photo.patient!r} is in both splits; part the table by patient")
    return {patient for patient, side in sides.items() if side}


def _place(image: str, folder: str) -> str:
    if "://" in image or image.startswith("/"):
        return image
    return storage.join(folder, image) if folder else image


def _plainly(place: str) -> str:
    # A photo's place as it is written without detours: the same for ./a.jpg and a.jpg.
    scheme, separator, path = (place if "://" in place else storage.absolute(place)).rpartition("://")
    return scheme + separator + posixpath.normpath(path)


def _stripped(cell: Any) -> str | None:
    text = as_text(cell)
    return text.strip() or None if text is not None else None
