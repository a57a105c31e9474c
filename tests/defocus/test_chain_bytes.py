"""The same bytes on every processor: the whole chain again, compiled and run for the plainest one."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from medsynth.defocus import chain, compression, device, sensor
from medsynth.defocus.chain import ChainSettings
from medsynth.defocus.light import LEVEL
from medsynth.spec import parse
from tests.conftest import REPO
from tests.defocus import scenes

SECTIONS: dict[str, dict[str, object]] = {
    "exact": {},
    "gamma": {"light": "gamma"},
    "fast": {"fast": True, "radii_px": [0, 4.2, 9, 14.5, 30]},
    "gaussian": {"bokeh": {"kind": "gaussian"}},
    "wave": {"bokeh": {"kind": "wave", "wavelength_nm": [620, 550, 460]}},
    "few photons": {"sensor": {"photons": {"log_uniform": [1, 100]}, "read_noise_e": {"uniform": [0, 3]}}},
    "resampled": {"mpp": 0.41, "sharpening": {"amount": {"uniform": [0.1, 3]}, "radius_px": {"uniform": [0.5, 2]}}},
}

DIGESTS = {
    "exact": "d5b179f947a9a45d",
    "gamma": "369a7acf0b582f44",
    "fast": "ba3a4fe4f3a9eebe",
    "gaussian": "e1e1ed583e1f162b",
    "wave": "95a6aef24a54f0d4",
    "few photons": "0b039ab79f0bb2b4",
    "resampled": "d78e40ea1335aff3",
    "3dhistech-pannoramic-like": "7f6c2d67dc717ef0",
    "aperio-at2-like": "b7b3a6d038f9540b",
    "hamamatsu-nanozoomer-like": "8a0df358c37d2eb1",
    "philips-ufs-like": "9248097361ee7186",
    "phone-budget": "9d749ca0f012f651",
    "phone-flagship": "214f361bfd0e59ea",
    "phone-lowlight": "30a75db2aa9d9f3e",
    "noise": "5e0cc1cf9048999d",
}


def digests() -> dict[str, str]:
    """One digest for each way through the chain, of pixels and of JPEG files, and one of unrounded noise."""
    tile = scenes.ihc()
    ways = {name: parse(ChainSettings, section, name) for name, section in SECTIONS.items()}
    ways |= {name: chain.with_device(ChainSettings(), device.load(name)) for name in device.known()}
    found = {}
    for name, settings in ways.items():
        classes = chain.class_count(settings)
        state = hashlib.sha256()
        for focus_class in sorted({0, 1, classes // 3, classes // 2, classes - 1}):
            parameters = chain.draw(settings, focus_class, 0.25, focus_class)
            image = chain.render(tile, settings, parameters, 120, focus_class)
            assert parameters.jpeg_quality is not None
            assert parameters.jpeg_subsampling is not None
            state.update(image.tobytes())
            state.update(compression.encode(image, parameters.jpeg_quality, parameters.jpeg_subsampling))
        found[name] = state.hexdigest()[:16]
    levels = np.random.default_rng(1).integers(0, LEVEL + 1, (200, 301)).astype(np.uint16)
    noise = [sensor.expose(levels, photons, 1.5, 0x1234567890ABCDEF) for photons in (0.5, 7.0, 90.0, 3e4)]
    found["noise"] = hashlib.sha256(b"".join(values.tobytes() for values in noise)).hexdigest()[:16]
    return found


def test_the_bytes_are_those_written_down() -> None:
    # A processor, compiler or library that rounds otherwise shows here. A change of the chain that is
    # meant to change its pixels changes these digests too.
    assert digests() == DIGESTS


@pytest.mark.slow
def test_a_processor_without_vector_extensions_makes_the_same_bytes() -> None:
    # numba, NumPy, OpenBLAS and libjpeg-turbo each pick their routines by the processor; here each is
    # held to what every x86-64 machine has. Fused or reordered float arithmetic would show. What numba compiles
    # for it is kept for the next run apart from the rest, by the processor's name.
    plain = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NPY_DISABLE_CPU_FEATURES": " ".join(np._core._multiarray_umath.__cpu_dispatch__),
        "OPENBLAS_CORETYPE": "Prescott",
        "JSIMD_FORCENONE": "1",
    }
    script = "import json; from tests.defocus.test_chain_bytes import digests; print(json.dumps(digests()))"
    run = subprocess.run([sys.executable, "-c", script], env=plain, cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == DIGESTS
