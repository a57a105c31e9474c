"""JPEG: the codec's own bytes, with what was asked of them."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from medsynth import images
from medsynth.defocus.compression import encode
from tests.defocus import scenes

SAMPLING = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}


def sampling_factors(data: bytes) -> list[tuple[int, int]]:
    """Horizontal and vertical sampling factors of the components, from the baseline frame header."""
    at = 2
    while data[at + 1] != 0xC0:
        assert data[at] == 0xFF
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    count = data[at + 9]
    return [divmod(data[at + 11 + 3 * component], 16) for component in range(count)]


@pytest.mark.parametrize("subsampling", SAMPLING)
@pytest.mark.parametrize("quality", [1, 40, 75, 90, 95, 96, 100])
def test_the_bytes_are_the_codec_s(quality: int, subsampling: str) -> None:
    for name in ("ihc", "noise", "step"):
        picture = scenes.scene(name, 97)
        chroma = subsampling.replace(":", "")
        expected = simplejpeg.encode_jpeg(picture, quality=quality, colorspace="RGB", colorsubsampling=chroma)
        assert encode(picture, quality, subsampling) == expected


@pytest.mark.parametrize(("subsampling", "factors"), SAMPLING.items())
def test_the_chroma_is_sampled_as_asked(subsampling: str, factors: tuple[int, int]) -> None:
    assert sampling_factors(encode(scenes.scene("ihc", 64), 80, subsampling)) == [factors, (1, 1), (1, 1)]


def test_other_programs_read_it() -> None:
    picture = scenes.scene("ihc", 200)
    data = encode(picture, 90, "4:2:0")
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (200, 200), "RGB")
        found = np.asarray(image).astype(int)
    assert np.abs(found - picture).mean() < 5
    assert np.abs(images.decode(data).astype(int) - found).max() <= 16


def test_quality_buys_bytes_and_likeness() -> None:
    picture = scenes.scene("ihc", 256)
    files = [encode(picture, quality, "4:2:0") for quality in range(10, 101, 5)]
    errors = [float(((images.decode(data).astype(float) - picture) ** 2).mean()) for data in files]
    sizes = [len(data) for data in files]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_the_bytes_do_not_depend_on_the_processor_s_vector_instructions() -> None:
    # libjpeg-turbo picks its routines by what the processor offers; these variables forbid some.
    script = (
        "import hashlib, numpy as np, simplejpeg\n"
        "from medsynth.defocus.compression import encode\n"
        "from tests.defocus import scenes\n"
        "files = [encode(scenes.scene(n, 121), q, s) for n in ('ihc', 'noise')\n"
        "         for q in (40, 75, 90, 97) for s in ('4:4:4', '4:2:2', '4:2:0')]\n"
        "files += [simplejpeg.decode_jpeg(data).tobytes() for data in files]\n"
        "print(hashlib.sha256(b''.join(files)).hexdigest())\n"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, **limits}, capture_output=True, text=True, check=True
        ).stdout
        for limits in ({}, {"JSIMD_FORCESSE2": "1"}, {"JSIMD_FORCENONE": "1"})
    ]
    assert len(set(found)) == 1
