"""Image bytes to pixels and back, or a reason why not.

Every decoder here is strict: what is damaged is refused with its :class:`~medsynth.errors.Reason`,
never filled with grey, and sizes are checked in the header before a pixel is allocated. Only exact
integer arithmetic is used, so the pixels are the same on every machine.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import simplejpeg
from PIL import BmpImagePlugin, GifImagePlugin, WebPImagePlugin

from medsynth.errors import Reason, Rejected
from medsynth.images import _tiff
from medsynth.images._pixels import (
    Pixels,
    check_scans,
    check_size,
    exif_orientation,
    from_cmyk,
    to_rgb,
    turned,
    upright,
)

__all__ = ["Pixels", "decode", "encode_png", "mpp", "plausible_mpp", "recognised", "size"]

T = TypeVar("T")

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_FILL = re.compile(rb"[^\xff]")
_MOST_PARTS = 100_000
"""Of one file: more are there to keep a reader busy. A PNG as libpng writes it has one for each 8 KiB."""

_CUT_SHORT = ("truncated", "premature", "too small", "not enough")


def decode(data: bytes, *, max_pixels: int = 100_000_000) -> Pixels:
    """Decode one image of any supported kind to RGB.

    JPEG (also CMYK and YCCK), PNG, TIFF (also tiled OME-TIFF and pyramids: the largest level), BMP,
    GIF and WebP. Orientation tags are applied, transparency goes over white, 16-bit values v become
    round(v / 257).

    Args:
        data: the file's bytes.
        max_pixels: width times height above which the header alone is enough to refuse it.

    Returns:
        uint8 array of shape (height, width, 3), contiguous.

    Raises:
        Rejected: it cannot be decoded whole; the reason says why.
    """
    kind = _kind(data)
    return _guard(lambda: kind.decode(data, max_pixels))


def recognised(data: bytes) -> bool:
    """Whether a file begins as one of the kinds does that :func:`decode` takes."""
    return _recognised(data) is not None


def size(data: bytes) -> tuple[int, int]:
    """Width and height that :func:`decode` would give, from the header alone.

    Raises:
        Rejected: there is no readable header.
    """
    kind = _kind(data)
    return _guard(lambda: kind.size(data))


def mpp(data: bytes) -> float | None:
    """Micrometres per pixel, as a TIFF's OME description, Aperio line or resolution tags tell.

    Returns:
        A number from 0.01 to 20, rounded to 6 digits, or None: another kind of image, no tag, or a
        tag outside that range (72 dots per inch is a printer's default, not a microscope's).
    """
    if data[:4] not in _TIFF:
        return None
    try:
        found = _guard(lambda: _tiff.mpp(data))
    except Rejected:  # a fault of the tags; the pixels may still be sound
        return None
    return plausible_mpp(found)


def plausible_mpp(value: float | None) -> float | None:
    """A figure that can be a microscope's µm per pixel, 0.01 to 20, rounded to 6 digits; else None."""
    return float(f"{value:.6g}") if value is not None and 0.01 <= value <= 20 else None


def encode_png(image: Pixels) -> bytes:
    """Encode an image as PNG, to the same bytes on every machine.

    libpng compresses with whatever zlib the operating system has, and those differ; hence libdeflate,
    which comes with a pinned package. Every row is coded by its difference to Paeth's prediction.

    Args:
        image: uint8 array of shape (height, width, 3).

    Source:
        W3C PNG specification (third edition), section 9.4, filter type 4.
    """
    height, width, _ = image.shape
    here = image.astype(np.int16)
    around = np.zeros((height + 1, width + 1, 3), dtype=np.int16)
    around[1:, 1:] = here
    left, above, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    beside = np.where(to_above <= to_corner, above, corner)
    predicted = np.where((to_left <= to_above) & (to_left <= to_corner), left, beside)
    rows = np.empty((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 0] = 4
    rows[:, 1:] = (here - predicted).astype(np.uint8).reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = bytes(imagecodecs.deflate_encode(rows.tobytes(), level=6))
    return _PNG + b"".join(_png_part(*part) for part in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")))


def _png_part(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@dataclass(frozen=True)
class _Kind:
    decode: Callable[[bytes, int], Pixels]
    size: Callable[[bytes], tuple[int, int]]


def _recognised(data: bytes) -> _Kind | None:
    if data[:3] == b"\xff\xd8\xff":
        return _JPEG_KIND
    if data[:8] == _PNG:
        return _PNG_KIND
    if data[:4] in _TIFF:
        return _TIFF_KIND
    if data[:2] == b"BM":
        return _BMP_KIND
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _GIF_KIND
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _WEBP_KIND
    return None


def _kind(data: bytes) -> _Kind:
    kind = _recognised(data)
    if kind is not None:
        return kind
    if not data:
        raise Rejected(Reason.TRUNCATED, "the file is empty")
    raise Rejected(Reason.UNREADABLE, f"starts with {data[:8]!r}: no JPEG, PNG, TIFF, BMP, GIF or WebP")


def _guard(call: Callable[[], T]) -> T:
    # Damaged bytes make the codecs raise nearly anything; what it was goes into the detail.
    try:
        return call()
    except Rejected:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0][:200]
        cut_short = isinstance(error, struct.error) or any(sign in text.lower() for sign in _CUT_SHORT)
        reason = Reason.TRUNCATED if cut_short else Reason.UNREADABLE
        raise Rejected(reason, f"{type(error).__name__}: {text}") from error


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    orientation: int = 1
    bits: int = 8
    components: int = 3
    inverted: bool = False
    """JPEG: four components are written the Adobe way."""
    whole: bool = True
    """PNG: the end of the file is there."""

    @property
    def seen(self) -> tuple[int, int]:
        return turned(self.width, self.height, self.orientation)


def _jpeg_header(data: bytes) -> _Header:
    """Walk the markers up to the frame header (ITU-T T.81, annex B)."""
    position, end = 2, len(data)
    orientation, adobe = 1, False
    for _ in range(_MOST_PARTS):
        if position + 4 > end:
            break
        if data[position] != 0xFF:
            raise Rejected(Reason.UNREADABLE, f"JPEG: no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes, of which any number may stand before a marker
            found = _NO_FILL.search(data, position + 1)
            if found is None:
                break
            position = found.start() - 1
            continue
        if marker in (0xD9, 0xDA):
            raise Rejected(Reason.UNREADABLE, "JPEG: no frame header")
        length = data[position + 2] << 8 | data[position + 3]
        if marker in _FRAME_MARKERS:
            if position + 10 > end:
                break
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            return _Header(width, height, orientation, bits, components, inverted=adobe)
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            orientation = exif_orientation(data[position + 10 : position + 2 + length])
        elif marker == 0xEE and data[position + 4 : position + 9] == b"Adobe":
            adobe = True
        position += 2 + length
    else:
        raise Rejected(Reason.UNSUPPORTED, f"a JPEG of more than {_MOST_PARTS:,} parts before its pixels")
    raise Rejected(Reason.TRUNCATED, "JPEG: the file ends inside its header")


def _decode_jpeg(data: bytes, max_pixels: int) -> Pixels:
    header = _jpeg_header(data)
    check_size(header.width, header.height, max_pixels)
    if header.bits != 8:
        raise Rejected(Reason.UNSUPPORTED, f"JPEG with {header.bits} bits a sample; 8 are supported")
    check_scans(data)
    try:
        if header.components == 4:
            image = from_cmyk(simplejpeg.decode_jpeg(data, "CMYK"), inverted=header.inverted)
        else:
            image = simplejpeg.decode_jpeg(data)
    except ValueError as error:
        if data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):  # no end after the last scan's start
            raise Rejected(Reason.TRUNCATED, "JPEG: the file ends before its pixels do") from error
        if "Could not determine subsampling" in str(error):
            raise Rejected(Reason.UNSUPPORTED, "JPEG with an unusual chroma subsampling") from error
        raise
    return image if header.orientation == 1 else upright(image, header.orientation)


def _png_header(data: bytes) -> _Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise Rejected(Reason.TRUNCATED, "PNG: the file ends inside its header")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position, whole, parts = 1, 33, False, 0
    while position + 12 <= len(data) and not whole:
        parts += 1
        if parts > _MOST_PARTS:
            raise Rejected(Reason.UNSUPPORTED, f"a PNG of more than {_MOST_PARTS:,} parts")
        (length,) = struct.unpack_from(">I", data, position)
        name = data[position + 4 : position + 8]
        if name == b"acTL" and data[position + 8 : position + 12] != b"\0\0\0\1":
            raise Rejected(Reason.SEVERAL_FRAMES, "an animated PNG")
        if name == b"eXIf":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        whole = name == b"IEND"
        position += 12 + length
    return _Header(width, height, orientation, whole=whole)


def _decode_png(data: bytes, max_pixels: int) -> Pixels:
    header = _png_header(data)
    check_size(header.width, header.height, max_pixels)
    if not header.whole:
        raise Rejected(Reason.TRUNCATED, "PNG: the file has no end")
    _check_sums(data)
    return upright(to_rgb(imagecodecs.png_decode(data), alpha="straight"), header.orientation)


def _check_sums(data: bytes) -> None:
    # libpng only warns of wrong sums, on standard error, and decodes what it finds.
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise Rejected(Reason.UNREADABLE, f"PNG: damaged in its part {data[position + 4 : position + 8]!r}")
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end + 4


def _bmp_header(data: bytes) -> _Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return _Header(width, abs(height))


def _gif_header(data: bytes) -> _Header:
    return _Header(*struct.unpack_from("<HH", data, 6))


def _webp_header(data: bytes) -> _Header:
    kind = data[12:16]
    if 8 + struct.unpack_from("<I", data, 4)[0] > len(data):
        raise Rejected(Reason.TRUNCATED, "WebP: the file is shorter than its header says")
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return _Header(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
    if kind != b"VP8X":
        width, height = struct.unpack_from("<HH", data, 26)
        return _Header(width & 0x3FFF, height & 0x3FFF)
    flags, width, w, height, h = struct.unpack_from("<B3xHBHB", data, 20)
    if flags & 0x02:
        raise Rejected(Reason.SEVERAL_FRAMES, "an animated WebP")
    orientation, position, parts = 1, 30, 0
    while position + 8 <= len(data):
        parts += 1
        if parts > _MOST_PARTS:
            raise Rejected(Reason.UNSUPPORTED, f"a WebP of more than {_MOST_PARTS:,} parts")
        (length,) = struct.unpack_from("<I", data, position + 4)
        if data[position : position + 4] == b"EXIF":
            exif = data[position + 8 : position + 8 + length]
            orientation = exif_orientation(exif.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return _Header(1 + width + (w << 16), 1 + height + (h << 16), orientation)


def _by_pillow(reader: Callable[[io.BytesIO], Any], header: Callable[[bytes], _Header]) -> _Kind:
    # One format's reader, without Image.open: that one warns about sizes on terms of its own.
    def decode_one(data: bytes, max_pixels: int) -> Pixels:
        found = header(data)
        check_size(found.width, found.height, max_pixels)
        with reader(io.BytesIO(data)) as picture:
            check_size(picture.width, picture.height, max_pixels)
            if getattr(picture, "is_animated", False):  # which looks for a second frame, where n_frames reads all
                raise Rejected(Reason.SEVERAL_FRAMES, "an animation")
            pixels = np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))
        return upright(to_rgb(pixels, alpha="straight"), found.orientation)

    return _Kind(decode_one, lambda data: header(data).seen)


_JPEG_KIND = _Kind(_decode_jpeg, lambda data: _jpeg_header(data).seen)
_PNG_KIND = _Kind(_decode_png, lambda data: _png_header(data).seen)
_TIFF_KIND = _Kind(_tiff.decode, _tiff.size)
_BMP_KIND = _by_pillow(BmpImagePlugin.BmpImageFile, _bmp_header)
_GIF_KIND = _by_pillow(GifImagePlugin.GifImageFile, _gif_header)
_WEBP_KIND = _by_pillow(WebPImagePlugin.WebPImageFile, _webp_header)
