"""Source tiles: where they lie in an image, how sharp they are, and how their pixels are read back."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medsynth import images, storage
from medsynth.errors import NotFoundError, Reason, Rejected

SMALLEST = 16
"""Pixels on a side below which nothing is kept."""

_OPEN_FILES = 4


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in pixels, margin included."""

    x: int
    y: int
    width: int
    height: int
    margin: int
    """Context on each side of the tile's core."""


def grid(width: int, height: int, tile_size: int, stride: int | None = None, margin: int = 0) -> list[Window]:
    """Cut an image into tiles, row by row from the top left; only whole windows are kept.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        tile_size: side of a tile's core, in pixels.
        stride: step from core to core; the tile size by default.
        margin: context wanted around the core. An image that has a core's room but not the whole
            margin's gives windows with the widest margin that it has room for.

    Returns:
        Windows of side tile_size + 2 margin; for an image smaller than a core in either direction,
        one window over all of it with margin 0.

    Raises:
        Rejected: the image is smaller than 16 pixels on a side.
    """
    short = min(width, height)
    if short < SMALLEST:
        raise Rejected(Reason.TOO_SMALL, f"{width}x{height} pixels; a tile has {SMALLEST} a side at least")
    if short < tile_size:
        return [Window(0, 0, width, height, 0)]
    margin = min(margin, (short - tile_size) // 2)
    side, step = tile_size + 2 * margin, stride or tile_size
    return [
        Window(x, y, side, side, margin)
        for y in range(0, height - side + 1, step)
        for x in range(0, width - side + 1, step)
    ]


def fetch(uri: str, row: int | None = None, image_column: str | None = None) -> bytes:
    """Read the bytes of one image, from any thread.

    Args:
        uri: the image's file, or the Parquet file that holds it.
        row: its row in that Parquet file; None for an image file.
        image_column: the Parquet file's column.

    Raises:
        Rejected: it is not there (any more).
        StorageError: the storage keeps failing.
    """
    try:
        if row is None or image_column is None:
            return storage.read(uri)
        return _cell(uri, row, image_column)
    except NotFoundError as error:
        raise Rejected(Reason.MISSING, str(error)) from error


def check(data: bytes, sha256: str) -> None:
    """Make sure that bytes are those that the catalog saw.

    Raises:
        Rejected: they differ.
    """
    found = digest(data)
    if found != sha256:
        raise Rejected(Reason.CHANGED, f"sha256 is {found[:12]}..., the catalog has {sha256[:12]}...")


def load(data: bytes, sha256: str) -> NDArray[np.uint8]:
    """Check and decode one image.

    Returns:
        uint8 array of shape (height, width, 3), from which windows are cut.

    Raises:
        Rejected: the bytes differ from the catalog's, or cannot be decoded.
    """
    check(data, sha256)
    return images.decode(data)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def cell_bytes(cell: pa.Scalar) -> bytes | None:
    """The image in one cell of an image column, plain binary or Hugging Face's struct of bytes and path."""
    value = cell.as_py()
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


@dataclass
class _OpenFile:
    """A Parquet file and the row group read last: tiles are asked for in order."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    file: pq.ParquetFile | None = None
    group: tuple[int, str] | None = None
    column: pa.ChunkedArray | None = None


_files: OrderedDict[str, _OpenFile] = OrderedDict()
_files_lock = threading.Lock()


def _cell(uri: str, row: int, image_column: str) -> bytes:
    with _files_lock:
        entry = _files.setdefault(uri, _OpenFile())
        _files.move_to_end(uri)
        while len(_files) > _OPEN_FILES:
            _files.popitem(last=False)
    with entry.lock:
        try:
            data = _read_cell(entry, uri, row, image_column)
        except (pa.ArrowException, KeyError, OSError) as error:
            with _files_lock:
                _files.pop(uri, None)
            raise Rejected(Reason.CHANGED, f"{uri}: {type(error).__name__} at row {row}") from error
    if data is None:
        raise Rejected(Reason.MISSING, f"{uri}: row {row} has no image")
    return data


def _read_cell(entry: _OpenFile, uri: str, row: int, image_column: str) -> bytes | None:
    if entry.file is None:
        entry.file = pq.ParquetFile(storage.open_input(uri))
    metadata, first = entry.file.metadata, 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < first + rows:
            if entry.group != (group, image_column):
                entry.column = entry.file.read_row_group(group, columns=[image_column])[image_column]
                entry.group = (group, image_column)
            assert entry.column is not None
            return cell_bytes(entry.column[row - first])
        first += rows
    raise Rejected(Reason.CHANGED, f"{uri}: row {row} is beyond its {first} rows")
