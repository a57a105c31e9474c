"""Decoding: right pixels from sound images, a reason from all others, and never anything else."""

import contextlib
import hashlib
import io
import logging
import time
import tracemalloc
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from medsynth import images
from medsynth.errors import Reason, Rejected
from tests.bad_inputs import BAD, BUSY, ODD, encoded, jpeg_bomb, oriented, picture, png_bomb, pyramid, tiff, tiff_bomb


def as_pillow_shows(data: bytes) -> np.ndarray:
    """What a viewer shows: upright, transparency over white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def see_through() -> Image.Image:
    image = Image.fromarray(picture()).convert("RGBA")
    image.putalpha(Image.fromarray(picture(seed=1)[..., 0]))
    return image


RGB = Image.fromarray(picture())
SOUND = {
    **{
        f"jpeg {q} {s}": encoded(RGB, "JPEG", quality=q, subsampling=s)
        for q in (30, 95)
        for s in ("4:4:4", "4:2:2", "4:2:0")
    },
    "jpeg progressive": encoded(RGB, "JPEG", progressive=True),
    "jpeg grey": encoded(RGB.convert("L"), "JPEG"),
    "jpeg cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "png": encoded(RGB, "PNG"),
    "png grey": encoded(RGB.convert("L"), "PNG"),
    "png 1 bit": encoded(RGB.convert("1"), "PNG"),
    "png palette": encoded(RGB.quantize(20), "PNG"),
    "png palette, one colour see-through": encoded(RGB.quantize(20), "PNG", transparency=2),
    "png grey, one shade see-through": encoded(RGB.convert("L"), "PNG", transparency=120),
    "png alpha": encoded(see_through(), "PNG"),
    "png grey alpha": encoded(see_through().convert("LA"), "PNG"),
    "bmp": encoded(RGB, "BMP"),
    "bmp palette": encoded(RGB.quantize(20), "BMP"),
    "gif": encoded(RGB, "GIF"),
    "webp": encoded(RGB, "WEBP"),
    "webp alpha": encoded(see_through(), "WEBP", lossless=True, exact=True),
    "tiff grey": encoded(RGB.convert("L"), "TIFF"),
    "tiff 1 bit": encoded(RGB.convert("1"), "TIFF"),
    "tiff palette": encoded(RGB.quantize(20), "TIFF"),
    "tiff cmyk": encoded(RGB.convert("CMYK"), "TIFF"),
    "tiff alpha": encoded(see_through(), "TIFF"),
    **{
        f"tiff {c}": encoded(RGB, "TIFF", compression=c)
        for c in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    },
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_images_decode_to_what_a_viewer_shows(name: str) -> None:
    decoded, expected = images.decode(SOUND[name]), as_pillow_shows(SOUND[name])
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    # One level apart where transparency or inks are rounded.
    np.testing.assert_allclose(
        decoded.astype(int), expected.astype(int), atol=1 if "alpha" in name or "cmyk" in name else 0
    )
    assert images.size(SOUND[name]) == (decoded.shape[1], decoded.shape[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_tags_are_applied(kind: str, orientation: int) -> None:
    exif = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": oriented(orientation)}
    data = encoded(RGB, kind, **exif)
    decoded = images.decode(data)
    np.testing.assert_array_equal(decoded, as_pillow_shows(data))
    assert images.size(data) == (decoded.shape[1], decoded.shape[0])


def test_exif_with_large_endian_numbers_is_read() -> None:
    exif = oriented(6)
    exif.endian = ">"
    assert b"Exif\0\0MM" in encoded(RGB, "JPEG", exif=exif)
    assert images.decode(encoded(RGB, "JPEG", exif=exif)).shape == (96, 72, 3)


def test_an_adobe_cmyk_jpeg_and_a_bare_one_show_the_same_colours() -> None:
    adobe = encoded(RGB.convert("CMYK"), "JPEG", quality=95)
    marker = adobe.index(b"\xff\xee")
    length = int.from_bytes(adobe[marker + 2 : marker + 4], "big")
    bare_inks = 255 - simplejpeg.decode_jpeg(adobe, "CMYK")
    bare = imagecodecs.jpeg8_encode(bare_inks, level=95, colorspace="CMYK", outcolorspace="CMYK")
    without_marker = bare.replace(adobe[marker : marker + 2 + length], b"")
    for data in (adobe, without_marker):
        assert abs(images.decode(data).astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_sixteen_bits_are_scaled_exactly(photometric: str) -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(64, 1024)
    wide = np.stack([wide, wide[::-1], wide], axis=-1) if photometric == "rgb" else wide
    expected = np.rint(wide / 257.0).astype(np.uint8)
    for data in (tiff(wide, photometric=photometric), imagecodecs.png_encode(wide)):
        decoded = images.decode(data)
        np.testing.assert_array_equal(decoded, expected if photometric == "rgb" else np.stack([expected] * 3, axis=-1))


def test_tiffs_of_other_layouts() -> None:
    image = picture()
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    np.testing.assert_array_equal(images.decode(tiff(planes, photometric="rgb", planarconfig="separate")), image)
    np.testing.assert_array_equal(images.decode(tiff(image, photometric="rgb", bigtiff=True)), image)
    np.testing.assert_array_equal(images.decode(tiff(image, photometric="rgb", byteorder=">")), image)
    inverted = images.decode(tiff(255 - image[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(inverted[..., 1], image[..., 0])


@pytest.mark.parametrize("subifds", [True, False])
def test_a_pyramid_gives_its_largest_level(subifds: bool) -> None:
    image = picture(200, 300)
    np.testing.assert_array_equal(images.decode(pyramid(image, subifds=subifds)), image)
    lossy = images.decode(pyramid(image, subifds=subifds, compression="jpeg"))
    assert abs(lossy.astype(int) - image).mean() < 4


@pytest.mark.parametrize("name", ODD)
def test_odd_images_show_the_picture(name: str) -> None:
    decoded = images.decode(ODD[name])
    expected = picture() if "grey" not in name else np.asarray(RGB.convert("L").convert("RGB"))
    assert decoded.shape == expected.shape
    assert abs(decoded.astype(int) - expected).mean() < (20 if "palette" in name or "gif" in name else 5)


def test_one_pixel_is_an_image() -> None:
    dot = picture()[:1, :1]
    for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"):
        assert images.decode(encoded(dot, kind)).shape == (1, 1, 3)


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_with_their_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(Rejected) as caught:
        images.decode(data)
    assert caught.value.reason is reason
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("name", BUSY)
def test_what_keeps_a_reader_busy_is_refused_in_a_moment(name: str) -> None:
    data, reason = BUSY[name]
    started = time.perf_counter()
    with pytest.raises(Rejected) as caught:
        images.decode(data)
    with contextlib.suppress(Rejected):
        images.size(data)
    assert caught.value.reason is reason
    assert time.perf_counter() - started < 5


def test_fill_bytes_before_a_marker_are_nothing() -> None:
    data = encoded(RGB, "JPEG")
    np.testing.assert_array_equal(images.decode(data[:2] + 1000 * b"\xff" + data[2:]), images.decode(data))


@pytest.mark.parametrize("progressive", [False, True])
def test_scans_inside_of_other_parts_do_not_count(progressive: bool) -> None:
    data = encoded(RGB, "JPEG", progressive=progressive)
    comment = b"\xff\xfe" + (2 + 400).to_bytes(2, "big") + 200 * b"\xff\xda"
    np.testing.assert_array_equal(images.decode(data[:2] + comment + data[2:]), images.decode(data))
    np.testing.assert_array_equal(images.decode(data + comment), images.decode(data))


@pytest.mark.parametrize("bomb", [jpeg_bomb, png_bomb, tiff_bomb])
@pytest.mark.parametrize("side", [20_000, 60_000])
def test_a_bomb_is_refused_before_its_pixels_are_allocated(bomb, side: int) -> None:
    data = bomb(side, side)
    assert images.size(data) == (side, side)
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(Rejected) as caught:
        images.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason is Reason.TOO_MANY_PIXELS
    assert peak < 2_000_000
    assert time.perf_counter() - started < 1


def test_a_tiff_with_a_small_image_in_a_huge_tile_is_refused() -> None:
    data = bytearray(tiff(picture(), photometric="rgb", tile=(64, 64), compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name in ("TileWidth", "TileLength"):
            tag = file.pages.first.tags[name]
            data[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = (60_000).to_bytes(
                tag.valuebytecount, "little"
            )
    with pytest.raises(Rejected) as caught:
        images.decode(bytes(data))
    assert caught.value.reason in (Reason.TOO_MANY_PIXELS, Reason.UNREADABLE)


def test_the_limit_counts_pixels() -> None:
    data = encoded(RGB, "JPEG")
    assert images.decode(data, max_pixels=96 * 72).shape == (72, 96, 3)
    with pytest.raises(Rejected):
        images.decode(data, max_pixels=96 * 72 - 1)


def test_nothing_is_warned_or_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG, logger="PIL"):
        warnings.simplefilter("error")
        for data in (*SOUND.values(), *(data for data, _ in BAD.values())):
            with contextlib.suppress(Rejected):
                images.decode(data)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted({**SOUND, **ODD})),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6),
    keep=st.floats(0, 1),
    cut=st.booleans(),
)
def test_whatever_the_bytes_only_pixels_or_a_reason_come_out(name, edits, keep, cut) -> None:
    data = bytearray({**SOUND, **ODD}[name])
    for place, patch in edits:
        # Half of the edits go to the first bytes, where the headers are.
        start = int(place * 2 * len(data)) if place < 0.5 else int((place - 0.5) * 2 * min(200, len(data)))
        data[start : start + len(patch)] = patch
    if cut:
        del data[int(keep * len(data)) :]
    try:
        decoded = images.decode(bytes(data), max_pixels=1_000_000)
    except Rejected:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", b"GIF89a"]),
)
def test_noise_is_refused(data: bytes, start: bytes) -> None:
    for call in (images.decode, images.size):
        try:
            call(start + data)
        except Rejected:
            continue
    assert images.mpp(start + data) is None or 0.01 <= images.mpp(start + data) <= 20


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_jpeg_cut_anywhere_is_truncated(data) -> None:
    whole = SOUND[data.draw(st.sampled_from([name for name in SOUND if name.startswith("jpeg")]))]
    length = data.draw(st.integers(4, len(whole) - 1))
    with pytest.raises(Rejected) as caught:
        images.decode(whole[:length])
    assert caught.value.reason is Reason.TRUNCATED


@settings(max_examples=50, deadline=None)
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 2**32 - 1), smooth=st.booleans())
def test_png_round_trip_past_our_own_decoder(shape: tuple[int, int], seed: int, smooth: bool) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = picture(*shape, seed=seed) if smooth else noise
    data = images.encode_png(image)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    np.testing.assert_array_equal(images.decode(data), image)


def test_png_bytes_are_pinned() -> None:
    # They may change with a new release of a codec, but only then: corpora promise the same bytes.
    image = np.arange(64 * 48 * 3, dtype=np.uint32).reshape(48, 64, 3) ** 2 % 251
    data = images.encode_png(image.astype(np.uint8)[::-1])
    assert hashlib.sha256(data).hexdigest() == "f6be0cbc6bb039085f0e3f057f117ad6ba968a79038f69405e70b862b9265c01"
    assert len(images.encode_png(picture(256, 256))) < 1.1 * len(encoded(picture(256, 256), "PNG"))


def test_mpp_comes_from_the_tags_if_they_make_sense() -> None:
    image = picture()
    by_tag = tiff(image, photometric="rgb", resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    by_ome = tiff(
        image, photometric="rgb", ome=True, metadata={"axes": "YXS", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm"}
    )
    assert images.mpp(by_tag) == 0.25
    assert images.mpp(by_ome) == 0.325
    assert images.mpp(tiff(image, photometric="rgb", resolution=(72, 72), resolutionunit="INCH")) is None
    assert images.mpp(tiff(image, photometric="rgb")) is None
    assert images.mpp(encoded(RGB, "JPEG", dpi=(72, 72))) is None


def test_real_ome_tiff(shared_data: Path) -> None:
    data = (shared_data / "pathology" / "OS-1-detail.ome.tif").read_bytes()
    assert images.size(data) == (1101, 1101)
    assert images.mpp(data) == 0.227097
    decoded = images.decode(data)
    expected = tifffile.imread(io.BytesIO(data))
    np.testing.assert_array_equal(decoded, expected)


def test_the_hot_path_adds_little_to_the_codec() -> None:
    data = encoded(picture(256, 256), "JPEG", quality=80)

    ours: list[float] = []
    codec: list[float] = []
    for _ in range(300):  # in turns, as the machine's speed changes
        for call, times in ((images.decode, ours), (simplejpeg.decode_jpeg, codec)):
            started = time.perf_counter()
            call(data)
            times.append(time.perf_counter() - started)
    assert sorted(ours)[30] - sorted(codec)[30] < 50e-6
