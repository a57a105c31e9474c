"""A TIFF too large for memory: only the tiles that a region touches are read and decoded.

Tiled and stripped TIFF, OME-TIFF and pyramids, in whatever compression imagecodecs knows. A tile that was
never written (sparse files have such) is white glass; one that should be there and is not makes the file truncated.
"""

import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

import numpy as np
import tifffile

from medsynth.errors import Reason, Rejected
from medsynth.images import Pixels, _guard, _tiff, plausible_mpp

_MOST_TILE_PIXELS = 64_000_000
_CACHE_BYTES = 96 << 20


class TiledTiff:
    """The largest picture of a TIFF, and its smaller levels.

    Args:
        path: a local file.

    Raises:
        Rejected: it is damaged, cut short, holds several pictures, or is of an unsupported kind.
    """

    def __init__(self, path: Path) -> None:
        with np.errstate(all="ignore"):
            self._file: Any = _guard(lambda: tifffile.TiffFile(path))
            try:
                self._pages = _guard(self._levels)
                self.mpp = plausible_mpp(_mpp(self._file))
            except BaseException:
                self._file.close()
                raise
        self.sizes = tuple((int(page.imagewidth), int(page.imagelength)) for page in self._pages)
        self._tiles: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def plain_jpeg(self) -> bool:
        """Whether every tile of every level is there, as baseline JPEG."""
        return all(int(page.compression) == 7 and min(page.databytecounts) > 0 for page in self._pages)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> Pixels:
        """Read a region.

        Args:
            x: its left column, in the level's own pixels.
            y: its top row.
            width: columns; the region must lie inside the level.
            height: rows.
            level: 0 is the largest.

        Returns:
            uint8 array of shape (height, width, 3).

        Raises:
            Rejected: a tile is damaged.
        """
        page = self._pages[level]
        tall, wide = _segment(page)
        region = np.empty((height, width, 3), np.uint8)
        for row in range(y // tall, (y + height - 1) // tall + 1):
            for column in range(x // wide, (x + width - 1) // wide + 1):
                tile = self._tile(level, row, column)
                top, left = max(y, row * tall), max(x, column * wide)
                bottom, right = min(y + height, (row + 1) * tall), min(x + width, (column + 1) * wide)
                part = tile[top - row * tall : bottom - row * tall, left - column * wide : right - column * wide]
                region[top - y : bottom - y, left - x : right - x] = part
        return region

    def _tile(self, level: int, row: int, column: int) -> Pixels:
        # In the order of use: a region's neighbour wants the tiles on their common edge again.
        page = self._pages[level]
        across = -(-page.imagewidth // _segment(page)[1])
        key = (level, row * across + column)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        tile = _guard(lambda: self._decode(page, key[1]))
        self._tiles[key] = tile
        self._held += tile.nbytes
        while self._held > _CACHE_BYTES and len(self._tiles) > 1:
            self._held -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, page: Any, number: int) -> Pixels:
        tall, wide = _segment(page)
        planes = page.samplesperpixel if _is_planar(page) else 1
        apart = len(page.dataoffsets) // planes
        parts = []
        for plane in range(planes):
            place = plane * apart + number
            start, count = page.dataoffsets[place], page.databytecounts[place]
            if not start or not count:
                return np.full((tall, wide, 3), 255, np.uint8)
            handle = self._file.filehandle
            handle.seek(start)
            data = handle.read(count)
            jpeg = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if _is_jpeg(page) else {}
            decoded = page.decode(data, place, _fullsize=page.is_tiled, **jpeg)[0]
            if decoded is None:
                raise Rejected(Reason.UNREADABLE, f"TIFF: tile {number} has no pixels")
            parts.append(decoded[0])
        samples = np.concatenate(parts, axis=2)
        if page.samplesperpixel == 1:
            samples = samples[:, :, 0]
        return _tiff.as_rgb(page, np.moveaxis(samples, -1, 0) if planes > 1 else samples)

    def _levels(self) -> list[Any]:
        file = self._file
        if not file.pages:
            raise Rejected(Reason.TRUNCATED, "TIFF: the file ends before its directory")
        _check_directories(file)
        series = file.series[0]
        if any(other.shape == series.shape for other in file.series[1:]):  # a label or an overview has another size
            raise Rejected(Reason.SEVERAL_FRAMES, f"a TIFF of {len(file.series)} pictures; one is wanted")
        pages = []
        for level in series.levels:
            found = [page for page in level.pages if page is not None]
            if len(found) != 1:
                raise Rejected(Reason.SEVERAL_FRAMES, f"a TIFF of {len(found)} pictures; one is wanted")
            pages.append(found[0].keyframe if found[0].keyframe is not None else found[0])
        for page in pages:
            _check(page, file.filehandle.size)
        return pages


def _check_directories(file: Any) -> None:
    # tifffile leaves out directories that lie beyond the end; a file that lost some has lost pixels too.
    handle, kind = file.filehandle, file.tiff
    offset, seen = int(file.pages.first.offset), set[int]()
    while offset:
        handle.seek(offset)
        count = handle.read(kind.tagnosize)
        if len(count) < kind.tagnosize:
            raise Rejected(Reason.TRUNCATED, "TIFF: the file ends before its last directory")
        handle.seek(offset + kind.tagnosize + struct.unpack(kind.tagnoformat, count)[0] * kind.tagsize)
        after = handle.read(kind.offsetsize)
        if len(after) < kind.offsetsize:
            raise Rejected(Reason.TRUNCATED, "TIFF: the file ends inside a directory")
        seen.add(offset)
        offset = struct.unpack(kind.offsetformat, after)[0]
        if offset in seen:
            raise Rejected(Reason.UNREADABLE, "TIFF: its directories go in a circle")


def _check(page: Any, size: int) -> None:
    _tiff.check_kind(page, _MOST_TILE_PIXELS, any_compression=True)
    tall, wide = _segment(page)
    if tall * wide > _MOST_TILE_PIXELS:
        raise Rejected(Reason.TOO_MANY_PIXELS, f"TIFF: one piece of {wide}x{tall} pixels; save it in tiles")
    if page.tags.valueof("Orientation", 1) not in (0, 1):
        raise Rejected(Reason.UNSUPPORTED, "TIFF: tiles turned by an orientation tag; save it upright")
    down, across = -(-page.imagelength // tall), -(-page.imagewidth // wide)
    wanted = down * across * (page.samplesperpixel if _is_planar(page) else 1)
    ends = np.add(page.dataoffsets, page.databytecounts)
    if len(ends) < wanted or int(ends.max()) > size:
        raise Rejected(Reason.TRUNCATED, "TIFF: pixels lie beyond the end of the file")


def _segment(page: Any) -> tuple[int, int]:
    """Rows and columns of a tile, or of a strip."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _is_planar(page: Any) -> bool:
    return bool(page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1)


def _is_jpeg(page: Any) -> bool:
    return int(page.compression) in (6, 7, 34892, 33007)


def _mpp(file: Any) -> float | None:
    try:
        return _guard(lambda: _tiff.file_mpp(file))
    except Rejected:  # a fault of the tags; the pixels may still be sound
        return None
