"""Images that are odd but sound, and images that are not images, each with the reason that it must get."""

import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medsynth.errors import Reason


def picture(height: int = 72, width: int = 96, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colour blobs, so that lossy codecs stay close to it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    sink = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(sink, kind, **options)
    return sink.getvalue()


def tiff(image: NDArray[Any], **options: Any) -> bytes:
    """Encode with tifffile."""
    sink = io.BytesIO()
    tifffile.imwrite(sink, image, **options)
    return sink.getvalue()


def oriented(orientation: int) -> Image.Exif:
    """An EXIF block of one tag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def pyramid(image: NDArray[np.uint8], *, subifds: bool, **options: Any) -> bytes:
    """A tiled TIFF of three levels, the smaller ones below the first or beside it."""
    sink = io.BytesIO()
    with tifffile.TiffWriter(sink) as writer:
        writer.write(image, photometric="rgb", tile=(64, 64), subifds=2 if subifds else None, **options)
        for step in (2, 4):
            writer.write(image[::step, ::step], photometric="rgb", tile=(64, 64), subfiletype=1, **options)
    return sink.getvalue()


def jpeg_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A sound JPEG whose frame header is made to claim another size."""
    data = encoded(picture(), "JPEG")
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a size that its few bytes of pixels do not fill."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in parts)


def tiff_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A sound TIFF whose directory is made to claim another size."""
    data = bytearray(tiff(picture(), photometric="rgb", compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages.first.tags
        for tag, value in ((tags["ImageWidth"], width), (tags["ImageLength"], height), (tags["RowsPerStrip"], height)):
            struct.pack_into("<I", data, tag.valueoffset, value)
    return bytes(data)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _short_scan(progressive: bool) -> bytes:
    data = encoded(picture(256, 256), "JPEG", progressive=progressive)
    return data[: len(data) // 2] + b"\xff\xd9"


def _damaged_tile() -> bytes:
    data = bytearray(pyramid(picture(256, 256), subifds=True, compression="jpeg"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        start, count = file.pages.first.dataoffsets[2], file.pages.first.databytecounts[2]
    data[start + count // 2 : start + count // 2 + 2] = b"\xff\xd9"
    return bytes(data)


def _bomb_in_a_tile() -> bytes:
    data = bytearray(pyramid(picture(256, 256), subifds=True, compression="jpeg"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        start, count = page.dataoffsets[1], page.databytecounts[1]
    frame = data.index(b"\xff\xc0", start, start + count) + 5
    data[frame : frame + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def _wrong_sum() -> bytes:
    data = bytearray(encoded(picture(), "PNG"))
    data[len(data) // 2] ^= 1
    return bytes(data)


def _short_palette() -> bytes:
    data = encoded(Image.fromarray(picture()).quantize(64), "TIFF")
    colours = struct.pack("<HHI", 320, 3, 3 * 256)  # the tag, its type, and how many numbers
    assert data.count(colours) == 1
    return data.replace(colours, struct.pack("<HHI", 320, 3, 256))


def _frames(kind: str) -> bytes:
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


_JPEG, _PNG_DATA, _TIFF = encoded(picture(), "JPEG"), encoded(picture(), "PNG"), tiff(picture(), photometric="rgb")

BAD: dict[str, tuple[bytes, Reason]] = {
    "zero bytes.jpg": (b"", Reason.TRUNCATED),
    "text.jpg": (b"this is no image, whatever its name says", Reason.UNREADABLE),
    "jpeg without end.jpg": (_JPEG[:-2], Reason.TRUNCATED),
    "jpeg cut in half.jpg": (_JPEG[: len(_JPEG) // 2], Reason.TRUNCATED),
    "jpeg cut in its header.jpg": (_JPEG[:30], Reason.TRUNCATED),
    "jpeg short of pixels.jpg": (_short_scan(progressive=False), Reason.TRUNCATED),
    "progressive short of pixels.jpg": (_short_scan(progressive=True), Reason.TRUNCATED),
    "cmyk cut.jpg": (encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG")[:-200], Reason.TRUNCATED),
    "png cut.png": (_PNG_DATA[: len(_PNG_DATA) // 2], Reason.TRUNCATED),
    "png without end.png": (_PNG_DATA[:-12], Reason.TRUNCATED),
    "tiff cut.tif": (_TIFF[: len(_TIFF) // 2], Reason.TRUNCATED),
    "tiff cut before its directory.tif": (encoded(picture(), "TIFF", compression="tiff_lzw")[:-200], Reason.TRUNCATED),
    "tiff with a damaged tile.tif": (_damaged_tile(), Reason.TRUNCATED),
    "webp cut.webp": (encoded(picture(), "WEBP")[:-100], Reason.TRUNCATED),
    "bmp cut.bmp": (encoded(picture(), "BMP")[:-100], Reason.TRUNCATED),
    "bomb.jpg": (jpeg_bomb(), Reason.TOO_MANY_PIXELS),
    "bomb.png": (png_bomb(), Reason.TOO_MANY_PIXELS),
    "bomb.tif": (tiff_bomb(), Reason.TOO_MANY_PIXELS),
    "bomb in a tile.tif": (_bomb_in_a_tile(), Reason.TOO_MANY_PIXELS),
    "a third of a palette.tif": (_short_palette(), Reason.UNREADABLE),
    "one bit wrong.png": (_wrong_sum(), Reason.UNREADABLE),
    "jpeg 2000 inside.tif": (tiff(picture(), photometric="rgb", compression="jpeg2000"), Reason.UNSUPPORTED),
    "animated.gif": (_frames("GIF"), Reason.SEVERAL_FRAMES),
    "animated.png": (_frames("PNG"), Reason.SEVERAL_FRAMES),
    "animated.webp": (_frames("WEBP"), Reason.SEVERAL_FRAMES),
    "pages.tif": (_frames("TIFF"), Reason.SEVERAL_FRAMES),
    "floats.tif": (tiff(picture().astype(np.float32), photometric="rgb"), Reason.UNSUPPORTED),
    "twelve bits.jpg": (
        imagecodecs.jpeg_encode(np.full((32, 32), 4000, np.uint16), bitspersample=12),
        Reason.UNSUPPORTED,
    ),
}
"""File name: bytes and the reason with which decoding refuses them."""


def _odd() -> dict[str, bytes]:
    image = picture()
    rgb = Image.fromarray(image)
    wide = image.astype(np.uint16) * 257
    return {
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG", quality=95),
        "grey.jpg": encoded(rgb.convert("L"), "JPEG", quality=95),
        "rotated.jpg": encoded(np.rot90(image), "JPEG", quality=95, exif=oriented(6)),
        "16 bits.png": imagecodecs.png_encode(wide),
        "16 bits.tif": tiff(wide, photometric="rgb"),
        "palette.png": encoded(rgb.quantize(64), "PNG"),
        "palette.tif": encoded(rgb.quantize(64), "TIFF"),
        "pyramid.tif": pyramid(image, subifds=True, compression="jpeg"),
        "flat pyramid.tif": pyramid(image, subifds=False),
        "still.webp": encoded(image, "WEBP", lossless=True),
        "plain.bmp": encoded(image, "BMP"),
        "one frame.gif": encoded(image, "GIF"),
    }


ODD = _odd()
"""File name: bytes of a sound image of an unusual kind; all show about :func:`picture`."""


def _scans() -> bytes:
    data = encoded(Image.new("RGB", (1000, 1000), (200, 150, 180)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + 2000 * last + data[-2:]


def _scans_in_a_tile() -> bytes:
    sink = io.BytesIO()
    options = {"shape": (1008, 1008, 3), "dtype": np.uint8, "tile": (1008, 1008), "photometric": "rgb"}
    encoded_tile = _scans().replace(struct.pack(">HH", 1000, 1000), struct.pack(">HH", 1008, 1008), 1)
    tifffile.imwrite(sink, iter([encoded_tile]), compression="jpeg", **options)
    return sink.getvalue()


def _directories(count: int, tags: list[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    """A TIFF of so many directories of the same tags (number, type, how many, value), then the rest."""
    size = 2 + 12 * len(tags) + 4
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    ends = [8 + size * place for place in range(1, count)] + [0]
    return b"II*\x00\x08\x00\x00\x00" + b"".join(body + struct.pack("<I", end) for end in ends) + rest


def _pages() -> bytes:
    page = [(254, 4, 1, 1), (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)]
    return _directories(50_000, [*page, (278, 3, 1, 8), (279, 4, 1, 64)])


def _pieces(count: int = 1_000_000) -> bytes:
    start = 8 + 2 + 9 * 12 + 4
    page = [(256, 4, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, count, start)]
    rest = struct.pack("<I", 8) * count + struct.pack("<I", 1) * count
    return _directories(1, [*page, (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, start + 4 * count)], rest)


def _gif_frames() -> bytes:
    data = encoded(Image.new("P", (9, 9)), "GIF")
    return data[:-1] + 200_000 * data[data.index(b"\x2c") : -1] + data[-1:]


BUSY: dict[str, tuple[bytes, Reason]] = {
    "scans.jpg": (_scans(), Reason.UNSUPPORTED),
    "scans in a tile.tif": (_scans_in_a_tile(), Reason.UNSUPPORTED),
    "comments.jpg": (b"\xff\xd8" + 8_000_000 * b"\xff\xfe\x00\x02", Reason.UNSUPPORTED),
    "fill bytes.jpg": (b"\xff\xd8" + 32_000_000 * b"\xff", Reason.TRUNCATED),
    "parts.png": (_PNG_DATA[:33] + 2_000_000 * _chunk(b"tEXt", b""), Reason.UNSUPPORTED),
    "parts.webp": (
        b"RIFF" + struct.pack("<I", 30_000_000) + b"WEBPVP8X" + struct.pack("<I10x", 10) + 4_000_000 * b"ABCD\0\0\0\0",
        Reason.UNSUPPORTED,
    ),
    "frames.gif": (_gif_frames(), Reason.SEVERAL_FRAMES),
    "pages.tif": (_pages(), Reason.SEVERAL_FRAMES),
    "pieces.tif": (_pieces(), Reason.UNSUPPORTED),
}
"""Files that say little at great length, each with why it is refused."""
