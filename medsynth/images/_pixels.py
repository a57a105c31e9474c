"""Exact integer arithmetic on decoded pixels, shared by the decoders of :mod:`medsynth.images`."""

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsynth.errors import Reason, Rejected

Pixels = NDArray[np.uint8]

EXIF_ORIENTATION = 0x0112

_SCAN, _END = b"\xff\xda", 0xD9
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # with a length behind it, or the end
_MOST_SCANS = 50


def check_size(width: int, height: int, limit: int) -> None:
    """Refuse a size that a header names, before anything is allocated for it.

    Raises:
        Rejected: no pixels at all, or more than the limit.
    """
    if width < 1 or height < 1:
        raise Rejected(Reason.UNREADABLE, f"the header says {width}x{height} pixels")
    if width * height > limit:
        raise Rejected(Reason.TOO_MANY_PIXELS, f"{width}x{height} pixels, more than {limit:,}")


def check_scans(jpeg: bytes) -> None:
    """Refuse a JPEG of scan after scan, each of which is decoded over the whole picture.

    Raises:
        Rejected: it has more than 50; encoders make up to some twelve.
    """
    if jpeg.count(_SCAN) <= _MOST_SCANS:  # a glance, which counts those inside of other parts too
        return
    scans, position = 0, 2
    while (found := _MARKER.search(jpeg, position)) is not None:
        marker, position = found.group()[1], found.end()
        scans += marker == _SCAN[1]
        if scans > _MOST_SCANS:
            raise Rejected(Reason.UNSUPPORTED, f"a JPEG of more than {_MOST_SCANS} scans")
        if marker == _END:
            return
        position += int.from_bytes(jpeg[position : position + 2], "big")


def turned(width: int, height: int, orientation: int) -> tuple[int, int]:
    """A stored size as it is seen once the orientation tag is applied."""
    return (height, width) if orientation >= 5 else (width, height)


def upright(image: Pixels, orientation: int) -> Pixels:
    """Apply an orientation tag.

    Args:
        image: uint8 array of shape (height, width, 3) as stored.
        orientation: 1 to 8.

    Source:
        EXIF 2.32, section 4.6.4, tag 274: where row 0 and column 0 lie in the picture as seen.
    """
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def exif_orientation(exif: bytes) -> int:
    """The orientation in a TIFF-structured EXIF block, 1 to 8; 1 where it is absent or damaged."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return 1
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == EXIF_ORIENTATION:
            return int(value) if 1 <= value <= 8 else 1
    return 1


def from_cmyk(inks: NDArray[Any], *, inverted: bool) -> Pixels:
    """Inks to RGB as every plain viewer shows them, light = (1 - ink)(1 - black), without an ink profile.

    Args:
        inks: uint8 array of shape (height, width, 4).
        inverted: True where the values are what is left of the light, as Adobe writes them.
    """
    light = inks if inverted else 255 - inks
    return np.concatenate([_product(band[..., :3], band[..., 3:]) for band in _bands(light)])


def to_rgb(image: NDArray[Any], *, alpha: str | None) -> Pixels:
    """Grey or colour of 8 or 16 bits, with or without transparency, to RGB of 8 bits over white.

    Args:
        image: uint8 or uint16 array of shape (height, width) or (height, width, 1 to 5).
        alpha: what the sample after grey or RGB is: "straight", "premultiplied" or None (ignored).

    Returns:
        uint8 array of shape (height, width, 3), contiguous; 16-bit values v become round(v / 257).
    """
    if image.ndim == 2:
        image = image[:, :, None]
    colours = 3 if image.shape[2] >= 3 else 1
    if image.shape[2] > colours and alpha is not None:
        image = np.concatenate([_over_white(band, colours, alpha) for band in _bands(image)])
    image = to_8_bit(image[:, :, :colours])
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def to_8_bit(image: NDArray[Any]) -> Pixels:
    """Scale 16-bit samples exactly, v to round(v / 257); 8-bit ones stay as they are."""
    if image.dtype == np.uint8:
        return image
    return np.concatenate([((band.astype(np.uint32) + 128) // 257).astype(np.uint8) for band in _bands(image)])


def _bands(image: NDArray[Any]) -> list[NDArray[Any]]:
    # Wide integers cost 4 to 8 times the pixels' memory: a band of rows at a time.
    return [image[start : start + 256] for start in range(0, image.shape[0], 256)]


def _product(values: NDArray[Any], factors: NDArray[Any]) -> Pixels:
    product: Pixels = ((values.astype(np.uint32) * factors + 127) // 255).astype(np.uint8)
    return product


def _over_white(band: NDArray[Any], colours: int, alpha: str) -> NDArray[Any]:
    full = int(np.iinfo(band.dtype).max)
    cover = band[:, :, colours : colours + 1].astype(np.uint64)
    paint = band[:, :, :colours].astype(np.uint64)
    if alpha == "straight":
        paint = (paint * cover + full // 2) // full
    over: NDArray[Any] = np.minimum(paint + (full - cover), full).astype(band.dtype)
    return over
