"""The TIFF family for :mod:`medsynth.images`: baseline, tiled, OME-TIFF and pyramids, strictly."""

import io
import itertools
import logging
from typing import Any

import numpy as np
import simplejpeg
import tifffile

from medsynth.errors import Reason, Rejected
from medsynth.images._pixels import (
    EXIF_ORIENTATION,
    Pixels,
    check_scans,
    check_size,
    from_cmyk,
    to_8_bit,
    to_rgb,
    turned,
    upright,
)

# Every fault of a TIFF is raised here as Rejected; tifffile would print a warning besides.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000})
"""None, fax, LZW, JPEG, deflate (two numbers), PackBits, Zstandard. For all of these but JPEG, tifffile
never unpacks more than the directory says; others bring headers of their own that may say anything."""

_MOST_PAGES, _MOST_PIECES = 100, 1 << 16
"""A pyramid's levels, and the tiles or strips of one: each takes time, however little it holds."""

_MICRO = {"nm": 0.001, "\N{MICRO SIGN}m": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "mm": 1000.0}


def size(data: bytes) -> tuple[int, int]:
    """Width and height of the largest level, upright."""
    with np.errstate(all="ignore"), tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _first(file)
        return turned(page.imagewidth, page.imagelength, _orientation(page))


def decode(data: bytes, max_pixels: int) -> Pixels:
    """Decode the largest level of a TIFF that holds one picture.

    Raises:
        Rejected: several pictures, too many pixels, an unsupported kind, or pixels missing.
    """
    # tifffile computes with whatever numbers a damaged directory has, and numpy would warn.
    with np.errstate(all="ignore"), tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _first(file)
        check_size(page.imagewidth, page.imagelength, max_pixels)
        for place, further in enumerate(itertools.islice(file.pages, 1, None), 1):
            # A pyramid may store its smaller levels as pages of their own, marked as reduced.
            if place == _MOST_PAGES or not getattr(further, "is_reduced", False):
                raise Rejected(Reason.SEVERAL_FRAMES, "a TIFF of several pages")
        check_kind(page, max_pixels)
        _check_segments(page, data)
        return upright(as_rgb(page, page.asarray(maxworkers=1)), _orientation(page))


def mpp(data: bytes) -> float | None:
    """Micrometres per pixel from the OME description, Aperio's line or the resolution tags, if any tells."""
    with np.errstate(all="ignore"), tifffile.TiffFile(io.BytesIO(data)) as file:
        return file_mpp(file)


def file_mpp(file: Any) -> float | None:
    """The same, of an open file."""
    page = file.pages.first
    if file.is_ome:
        image = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        scale = _MICRO.get(pixels.get("PhysicalSizeXUnit", "\N{MICRO SIGN}m"))
        if "PhysicalSizeX" in pixels and scale is not None:
            return float(pixels["PhysicalSizeX"]) * scale
    if file.is_svs:
        return float(tifffile.tifffile.svs_description_metadata(page.description)["MPP"])
    unit = {2: 25400.0, 3: 10000.0}.get(int(page.tags.valueof("ResolutionUnit", 2)))
    per_unit = page.tags.valueof("XResolution")
    if unit is None or per_unit is None or not per_unit[0]:
        return None
    return unit * float(per_unit[1]) / float(per_unit[0])


def _first(file: Any) -> Any:
    if not file.pages:
        raise Rejected(Reason.TRUNCATED, "TIFF: the file ends before its directory")
    return file.pages.first


def check_kind(page: Any, max_pixels: int, *, any_compression: bool = False) -> None:
    """Refuse a page of a kind that :func:`as_rgb` cannot show.

    Args:
        page: tifffile's.
        max_pixels: of one tile.
        any_compression: also those that may unpack to more than the directory says.

    Raises:
        Rejected: names what is unsupported.
    """
    if page.imagedepth != 1 or page.samplesperpixel > 5:
        raise Rejected(Reason.UNSUPPORTED, f"TIFF: {page.samplesperpixel} samples, depth {page.imagedepth}")
    if page.is_tiled and page.tilewidth * page.tilelength > max_pixels:
        raise Rejected(Reason.TOO_MANY_PIXELS, f"TIFF: tiles of {page.tilewidth}x{page.tilelength} pixels")
    if not any_compression and int(page.compression) not in _COMPRESSIONS:
        raise Rejected(Reason.UNSUPPORTED, f"TIFF: compression {int(page.compression)}")
    if page.bitspersample not in (1, 2, 4, 8, 16) or page.sampleformat != 1:
        raise Rejected(Reason.UNSUPPORTED, f"TIFF: {page.bitspersample}-bit samples of format {page.sampleformat}")


def _check_segments(page: Any, data: bytes) -> None:
    if len(page.dataoffsets) > _MOST_PIECES:
        raise Rejected(
            Reason.UNSUPPORTED, f"a TIFF in {len(page.dataoffsets):,} pieces; up to {_MOST_PIECES:,} are taken"
        )
    # tifffile fills segments that are missing with one colour, and libjpeg those that end early.
    tables = page.jpegtables or b""
    room = page.tilewidth * page.tilelength if page.is_tiled else page.imagewidth * page.imagelength
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if start == 0 or count == 0 or start + count > len(data):
            raise Rejected(Reason.TRUNCATED, "TIFF: pixels lie beyond the end of the file")
        if page.compression == tifffile.COMPRESSION.JPEG:
            segment = data[start : start + count]
            whole = tables[:-2] + segment[2:] if tables else segment
            height, width, _, _ = simplejpeg.decode_jpeg_header(whole)
            check_size(width, height, room)
            check_scans(whole)
            simplejpeg.decode_jpeg(whole, "GRAY")


def as_rgb(page: Any, image: Any) -> Pixels:
    """Decoded samples of a page, or of a part of it, to RGB.

    Raises:
        Rejected: they are of a kind that has no plain colours.
    """
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and image.ndim == 3:
        image = np.moveaxis(image, 0, -1)
    kind, bits = page.photometric, page.bitspersample
    if image.dtype == bool:
        image = image.astype(np.uint8)
    if image.dtype not in (np.uint8, np.uint16):
        raise Rejected(Reason.UNSUPPORTED, f"TIFF: samples of type {image.dtype}")
    if kind == tifffile.PHOTOMETRIC.PALETTE and image.ndim == 2:
        # Writers scale 8-bit colours by 256 or by 257: the high byte is right for both.
        colours = (np.asarray(page.colormap, dtype=np.uint16) >> 8).astype(np.uint8)
        if colours.shape != (3, 2**bits):
            raise Rejected(Reason.UNREADABLE, f"TIFF: a palette of shape {colours.shape}, for {bits}-bit samples")
        return np.ascontiguousarray(colours.T[image])
    if bits < 8:
        image = image * np.uint8(255 // (2**bits - 1))
    if kind == tifffile.PHOTOMETRIC.MINISWHITE:
        image = np.iinfo(image.dtype).max - image
    elif kind == tifffile.PHOTOMETRIC.SEPARATED and image.ndim == 3 and image.shape[2] == 4:
        return from_cmyk(to_8_bit(image), inverted=False)
    elif kind not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR):
        raise Rejected(Reason.UNSUPPORTED, f"TIFF: photometric interpretation {int(kind)}")
    meaning = int(page.extrasamples[0]) if page.extrasamples else 0
    return to_rgb(image, alpha={1: "premultiplied", 2: "straight"}.get(meaning))


def _orientation(page: Any) -> int:
    value = page.tags.valueof(EXIF_ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1
