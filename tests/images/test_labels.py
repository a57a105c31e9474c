"""Words inside image files, read back by another reader; the pixels stay."""

import io

import numpy as np
import pytest
from PIL import Image

from medsynth import images
from medsynth.images.labels import labelled

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def jpeg(**options: bool) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(PICTURE).save(sink, "JPEG", **options)
    return sink.getvalue()


@pytest.mark.parametrize("text", ["", "abc", "synthetic: shows no person"])
def test_a_png_says_it_in_text(text: str) -> None:
    found = labelled(images.encode_png(PICTURE), text, "medsynth 1")
    with Image.open(io.BytesIO(found)) as opened:
        opened.load()
        assert (opened.info["Description"], opened.info["Software"]) == (text, "medsynth 1")
        assert "trainedAlgorithmicMedia" in opened.info["XML:com.adobe.xmp"]
    assert np.array_equal(images.decode(found), PICTURE)


@pytest.mark.parametrize("text", ["", "abc", "synthetic: shows no person"])
@pytest.mark.parametrize("jfif", [True, False])
def test_a_jpeg_says_it_in_exif(text: str, jfif: bool) -> None:
    data = jpeg()
    if not jfif:
        data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
    found = labelled(data, text, "medsynth 1")
    with Image.open(io.BytesIO(found)) as opened:
        exif = opened.getexif()
        assert (exif[0x010E].rstrip("\0"), exif[0x0131]) == (text, "medsynth 1")
        assert b"trainedAlgorithmicMedia" in opened.info["xmp"]
    assert np.array_equal(images.decode(found), images.decode(data))


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="PNG and JPEG"):
        labelled(b"GIF89a", "a", "b")
