"""The catalog's table: one row a tile, in Parquet.

A catalog is a folder of two files: ``catalog.parquet``, whose key-value metadata holds the source
and the settings it was made with, and ``rejects.parquet``, the inputs that were refused and why.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.errors import CatalogError, NotFoundError

TABLE = "catalog.parquet"
REJECTS = "rejects.parquet"

COLUMNS = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field("image_column", pa.string()),
        pa.field("x", pa.int32(), nullable=False),
        pa.field("y", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("margin", pa.int32(), nullable=False),
        pa.field("mpp", pa.float64()),
        pa.field("own_mpp", pa.float64()),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("sharpness", pa.float64(), nullable=False),
        pa.field("in_focus", pa.bool_(), nullable=False),
    ]
)
"""The columns before the subgroup columns. x, y, width and height are the window to read in pixels,
margin included; row and image_column are set for images inside Parquet files; mpp is micrometres per
pixel, own_mpp what the image's own tags (or its Parquet file's column) say of it; bytes and sha256 are
those of the file or of the Parquet cell, etag is the file's."""

REJECT_COLUMNS = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

_ORDER = [("uri", "ascending"), ("row", "ascending"), ("y", "ascending"), ("x", "ascending")]
_REJECT_ORDER = [("uri", "ascending"), ("row", "ascending")]
_KEY = b"medsynth.catalog"


def schema(subgroups: Sequence[str]) -> pa.Schema:
    """The columns of a catalog with these subgroup columns.

    Raises:
        CatalogError: a subgroup column bears the name of a column that the catalog itself has.
    """
    taken = [name for name in subgroups if name in COLUMNS.names]
    if taken:
        raise CatalogError(f"subgroup column {taken[0]!r}: the catalog has a column of that name; rename it")
    return pa.schema([*COLUMNS, *(pa.field(name, pa.string(), nullable=False) for name in subgroups)])


def write(folder: str, table: pa.Table, rejects: pa.Table, about: Mapping[str, Any], *, part: str = "") -> None:
    """Write a catalog, over an earlier one if need be, or a finished part of one.

    Args:
        folder: its URI.
        table: columns as :func:`schema` gives them, in any order of rows.
        rejects: columns as ``REJECT_COLUMNS``.
        about: what it was made from and how, kept as JSON in the table's metadata.
        part: name of a part, for a catalog in the making.

    Raises:
        StorageError: it cannot be written.
    """
    # The table goes last: where it stands, the rejects that belong to it stand too.
    storage.put(storage.join(folder, part + REJECTS), _parquet(rejects.sort_by(_REJECT_ORDER)))
    described = table.sort_by(_ORDER).replace_schema_metadata({_KEY: json.dumps(about, sort_keys=True)})
    storage.put(storage.join(folder, part + TABLE), _parquet(described))


def is_catalog(uri: str) -> bool:
    """Whether a catalog stands at a URI: its folder, or its ``catalog.parquet``."""
    return storage.head(_file(uri)) is not None


def read(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a catalog's table, sorted by (uri, row, y, x).

    Args:
        uri: its folder, or its ``catalog.parquet``.
        columns: the columns wanted, all by default.

    Raises:
        CatalogError: there is no catalog, or the file there is none.
    """
    with _open(uri) as file:
        return file.read(columns=list(columns) if columns is not None else None)


def about(uri: str) -> dict[str, Any]:
    """What a catalog was made from and how, as :func:`write` was told.

    Raises:
        CatalogError: there is no catalog, or the file there is none.
    """
    with _open(uri) as file:
        found: dict[str, Any] = json.loads(file.schema_arrow.metadata[_KEY])
    return found


def read_rejects(uri: str) -> pa.Table:
    """Read the inputs that a catalog refused.

    Args:
        uri: as for :func:`read`.

    Raises:
        CatalogError: there is no catalog.
    """
    place = _file(uri).removesuffix(TABLE) + REJECTS
    try:
        return pq.read_table(io.BytesIO(storage.read(place)))
    except (NotFoundError, pa.ArrowInvalid) as error:
        raise CatalogError(f"{uri}: no whole catalog there; make it again with jobs/index.py") from error


def _file(uri: str) -> str:
    return uri if uri.endswith(TABLE) else storage.join(uri, TABLE)


def _open(uri: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(storage.open_input(_file(uri)))
    except NotFoundError as error:
        raise CatalogError(f"{uri}: no catalog there; make one with jobs/index.py") from error
    except pa.ArrowInvalid as error:
        raise CatalogError(f"{uri}: {TABLE} is damaged; make it again with jobs/index.py") from error
    if _KEY not in (file.schema_arrow.metadata or {}):
        raise CatalogError(f"{uri}: {TABLE} was not made by jobs/index.py; name another folder")
    return file


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
