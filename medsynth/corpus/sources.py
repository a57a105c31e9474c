"""The sources of one corpus: the catalog's usable tiles, in the order in which the plan counts them.

They are written into the corpus, so that a worker finds its tiles by place without the catalog, and
so that the corpus can be made again when the catalog has moved on.
"""

import difflib
import functools
import io
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.errors import SpecError
from medsynth.plan import Integers, Subgroup
from medsynth.spec import Axis

NAME = "sources.parquet"
_ROW_GROUP = 4096
_COLUMNS = ("uri", "row", "image_column", "x", "y", "width", "height", "mpp", "sha256")


@dataclass(frozen=True)
class Source:
    """One source tile: where its bytes are, and which window of the image it is."""

    uri: str
    row: int | None
    """Row in a Parquet file of images; None for an image file."""
    image_column: str | None
    """Column of that Parquet file."""
    x: int
    """Window's left edge, px."""
    y: int
    """Window's top edge, px."""
    width: int
    height: int
    mpp: float | None
    """µm per pixel, where known."""
    sha256: str
    """Digest of the image's bytes as they were when the catalog was made."""

    @property
    def image(self) -> tuple[str, int | None]:
        """What tells images apart: tiles of the same image share it."""
        return (self.uri, self.row)


@dataclass(frozen=True)
class Selection:
    """What a catalog gives for a spec."""

    table: pa.Table
    """The usable tiles, group by group; the columns of :class:`Source`."""
    counts: dict[Subgroup, int]
    """Usable tiles by group."""
    soft: int
    """Tiles of the asked groups left out because the catalog calls them soft."""
    other: int
    """Tiles left out because a value of theirs is not asked for."""


def select(catalog: pa.Table, axes: Mapping[str, Axis], group_axes: Sequence[str], where: str) -> Selection:
    """Pick a spec's sources from a catalog and put them in the plan's order.

    Args:
        catalog: the catalog's table.
        axes: the spec's axes.
        group_axes: those of them that the catalog must know.
        where: the catalog's URI, for messages.

    Raises:
        SpecError: an axis or one of its values is not in the catalog.
    """
    number = np.zeros(catalog.num_rows, dtype=np.int64)
    asked = np.ones(catalog.num_rows, dtype=bool)
    sizes = []
    for axis in group_axes:
        place = _places(catalog, axis, axes[axis], where)
        number = number * len(axes[axis].values) + np.maximum(place, 0)
        asked &= place >= 0
        sizes.append(len(axes[axis].values))
    sharp = catalog["in_focus"].to_numpy(zero_copy_only=False).astype(bool)
    usable = np.flatnonzero(asked & sharp)
    table = catalog.select(list(_COLUMNS)).take(pa.array(usable))
    keyed = table.append_column("group", pa.array(number[usable]))
    order = pc.sort_indices(keyed, sort_keys=[(k, "ascending") for k in ("group", "uri", "row", "y", "x")])
    counts = np.bincount(number[usable], minlength=int(np.prod(sizes, dtype=np.int64)))
    values = _product([axes[axis].values for axis in group_axes])
    return Selection(
        table=table.take(order),
        counts={value: int(count) for value, count in zip(values, counts, strict=True)},
        soft=int((asked & ~sharp).sum()),
        other=int((~asked).sum()),
    )


def to_bytes(table: pa.Table) -> bytes:
    """The sources as a Parquet file, in row groups small enough to read by place."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, row_group_size=_ROW_GROUP, compression="zstd")
    return sink.getvalue()


def at(corpus: str, places: Iterable[int]) -> dict[int, Source]:
    """Look up sources by place.

    Args:
        corpus: the corpus's URI.
        places: in [0, number of sources).

    Returns:
        One source for each distinct place.
    """
    wanted: OrderedDict[int, list[int]] = OrderedDict()
    for place in dict.fromkeys(places):
        wanted.setdefault(place // _ROW_GROUP, []).append(place)
    found: dict[int, Source] = {}
    for group, members in wanted.items():
        rows = _row_group(storage.join(corpus, NAME), group).take(pa.array([p % _ROW_GROUP for p in members]))
        found.update(zip(members, (Source(**row) for row in rows.to_pylist()), strict=True))
    return found


@functools.lru_cache(maxsize=8)
def _row_group(uri: str, group: int) -> pa.Table:
    opened, lock = _open(uri)
    with lock:
        return opened.read_row_group(group, columns=list(_COLUMNS))


@functools.lru_cache(maxsize=4)
def _open(uri: str) -> tuple[pq.ParquetFile, Lock]:
    handle: BinaryIO = storage.open_input(uri)
    return pq.ParquetFile(handle), Lock()


def _places(catalog: pa.Table, axis: str, asked: Axis, where: str) -> Integers:
    if axis not in catalog.column_names:
        known = [name for name in catalog.column_names if name not in _CATALOG_ONLY]
        nearest = difflib.get_close_matches(axis, known, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(known) or 'no subgroup columns'}"
        raise SpecError(f"balance.axes.{axis}: the recipe does not make it and {where} has no such column; {hint}")
    column = pc.cast(catalog[axis], pa.string())
    known = sorted(value for value in pc.unique(column).to_pylist() if value is not None)
    for value in asked.values:
        if value not in known and asked.weights[value]:
            nearest = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(known[:10])}"
            raise SpecError(f"balance.axes.{axis}: no tile of {where} has the value {value!r}; {hint}")
    places = pc.index_in(column, value_set=pa.array(asked.values, pa.string()))
    found: Integers = places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


_CATALOG_ONLY = frozenset({*_COLUMNS, "margin", "etag", "bytes", "sharpness", "in_focus"})


def _product(values: Sequence[Sequence[str]]) -> list[Subgroup]:
    products: list[Subgroup] = [()]
    for choices in values:
        products = [(*head, choice) for head in products for choice in choices]
    return products
