"""What a worker does for the catalog: read some files, decode them, cut them into tiles, measure the tiles.

Safe to do again at any time: nothing is written here, and the same unit gives the same rows.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medsynth import images
from medsynth.catalog import metadata, parquet, table, tiles
from medsynth.catalog.metadata import Facts
from medsynth.catalog.sharpness import sharpness
from medsynth.errors import Reason, Rejected
from medsynth.spec import Index

Score = Callable[[NDArray[np.uint8]], float]

_JOINED = ("mpp", "in_focus")
_READERS = 16


@dataclass(frozen=True)
class Unit:
    """What is read and measured at once: an image file, or a row group of a Parquet file."""

    uri: str
    etag: str
    size: int
    """Bytes to read, about."""
    group: int | None = None
    first_row: int = 0
    """The row group's first row in its file."""
    image_column: str | None = None


@dataclass(frozen=True)
class Measured:
    """What units gave."""

    tiles: pa.Table
    """Columns of :func:`measured_schema`."""
    rejects: pa.Table
    """Columns of :data:`medsynth.catalog.table.REJECT_COLUMNS`."""


def measured_schema(columns: Sequence[str]) -> pa.Schema:
    """Columns of measured tiles: the catalog's without those that are joined anew on every run.

    Args:
        columns: subgroup columns that the units carry themselves (Parquet files do).
    """
    own = [item for item in table.COLUMNS if item.name not in _JOINED]
    return pa.schema([*own, *(pa.field(name, pa.string(), nullable=False) for name in columns)])


def measure(units: Sequence[Unit], settings: Index, columns: Sequence[str], score: Score = sharpness) -> Measured:
    """Read (many at a time) and measure some units.

    Args:
        units: what to measure.
        settings: how to index.
        columns: as for :func:`measured_schema`.
        score: the sharpness figure of a tile.

    Raises:
        StorageError: the storage keeps failing; a single bad image only gives a reject.
    """
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    with ThreadPoolExecutor(_READERS) as pool:
        contents = pool.map(lambda unit: read_unit(unit, columns), units)
        for unit, content in zip(units, contents, strict=True):
            found, refused = measure_unit(unit, content, settings, columns, score)
            rows += found
            rejects += refused
    return Measured(
        pa.Table.from_pylist(rows, schema=measured_schema(columns)),
        pa.Table.from_pylist(rejects, schema=table.REJECT_COLUMNS),
    )


def read_unit(unit: Unit, columns: Sequence[str]) -> bytes | pa.Table | Rejected:
    """Read a unit, from any thread; a file that is gone or damaged comes back as a reject.

    Raises:
        StorageError: the storage keeps failing.
    """
    try:
        if unit.group is None or unit.image_column is None:
            return tiles.fetch(unit.uri)
        return parquet.row_group(unit.uri, unit.group, [unit.image_column, *columns, metadata.MPP])
    except Rejected as why:
        return why


def measure_unit(
    unit: Unit,
    content: bytes | pa.Table | Rejected,
    settings: Index,
    columns: Sequence[str],
    score: Score = sharpness,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Decode, cut and measure what a unit holds.

    Returns:
        Tiles, as rows of :func:`measured_schema`, and rejects, as rows of the rejects table.
    """
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    if isinstance(content, Rejected):
        row = None if unit.group is None or content.reason is Reason.MISSING else unit.first_row
        return rows, [reject(unit.uri, unit.etag, row, content)]
    for row, data, facts in _cells(unit, content, columns):
        same = {"uri": unit.uri, "row": row, "image_column": unit.image_column, "etag": unit.etag}
        same |= dict(zip(columns, facts.subgroups, strict=True))
        try:
            if data is None:
                raise Rejected(Reason.MISSING, f"no image in column {unit.image_column!r}")
            why = lacking(facts, columns)
            if why is not None:
                raise Rejected(Reason.NO_METADATA, why)
            rows += [tile | same for tile in _tiles(data, facts.mpp, settings, score)]
        except Rejected as refused:
            rejects.append(reject(unit.uri, unit.etag, row, refused))
    return rows, rejects


def lacking(facts: Facts, subgroups: Sequence[str]) -> str | None:
    """What keeps an image out of every subgroup, or None."""
    empty = [name for name, value in zip(subgroups, facts.subgroups, strict=True) if value is None]
    return f"no value in column {empty[0]!r}" if empty else None


def reject(uri: str, etag: str, row: int | None, why: Rejected) -> dict[str, Any]:
    """A row of the rejects table."""
    return {"uri": uri, "row": row, "etag": etag, "reason": str(why.reason), "detail": why.detail}


def _tiles(data: bytes, mpp: float | None, settings: Index, score: Score) -> list[dict[str, Any]]:
    picture = images.decode(data)
    height, width = picture.shape[:2]
    windows = tiles.grid(width, height, settings.tile_size, settings.stride, settings.margin)
    own_mpp = images.mpp(data) if mpp is None else mpp
    same = {"own_mpp": own_mpp, "bytes": len(data), "sha256": tiles.digest(data)}
    return [
        {"x": w.x, "y": w.y, "width": w.width, "height": w.height, "margin": w.margin, **same}
        | {"sharpness": score(picture[w.y : w.y + w.height, w.x : w.x + w.width])}
        for w in windows
    ]


def _cells(
    unit: Unit, content: bytes | pa.Table, columns: Sequence[str]
) -> Iterator[tuple[int | None, bytes | None, Facts]]:
    if isinstance(content, bytes):
        yield None, content, Facts((), None)
        return
    values = [parquet.texts(content, name) for name in columns]
    mpps = content[metadata.MPP].to_pylist() if metadata.MPP in content.column_names else [None] * content.num_rows
    for at, cell in enumerate(content[unit.image_column]):
        row = unit.first_row + at
        mpp = metadata.as_mpp(mpps[at], f"{unit.uri}: row {row}")
        yield row, tiles.cell_bytes(cell), Facts(tuple(column[at] for column in values), mpp)
