"""The same bytes on every processor: the whole chain again, compiled and run for the plainest one."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsynth.defocus import chain, compression, device, sensor
from medsynth.defocus.chain import ChainSettings
from medsynth.defocus.compiled import compiled
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
    "exact": "b8e9b3cd39f429c5",
    "gamma": "40274b8b5ac07d81",
    "fast": "ed4f73978d349bd6",
    "gaussian": "2dca36557f5c2835",
    "wave": "b6723291b2da3615",
    "few photons": "d355beb697b1f7e1",
    "resampled": "4338353cf29a8f93",
    "3dhistech-pannoramic-like": "78044cdaf03609a6",
    "aperio-at2-like": "ea63a70712f1145a",
    "hamamatsu-nanozoomer-like": "5b3828dccab6b272",
    "philips-ufs-like": "c8f27157706f19f4",
    "phone-budget": "c4858eb1288ac4ca",
    "phone-flagship": "2902ad8182e7f1cd",
    "phone-lowlight": "42ed1b41f2217f97",
    "noise": "01b2c59ee94b90c7",
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
    script = "import json; from tests.defocus.test_compiled import digests; print(json.dumps(digests()))"
    run = subprocess.run([sys.executable, "-c", script], env=plain, cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == DIGESTS


def test_division_by_zero_is_ieee_754_s() -> None:
    @compiled
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide(1.0, 0.0) == float("inf")


LOOPS = """
from medsynth.defocus.compiled import compiled

@compiled
def doubled(value: int) -> int:
    return 2 * value
"""


def test_machine_code_is_found_by_what_the_sources_say_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "kept"))

    def found(folder: str, beside: str) -> bool:
        """Whether a function that lies there is called without being compiled."""
        path = tmp_path / folder / "loops.py"
        path.parent.mkdir()
        path.write_text(LOOPS)
        (path.parent / "beside.py").write_text(beside)
        spec = importlib.util.spec_from_file_location("loops", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.doubled(21) == 42
        return sum(module.doubled.stats.cache_hits.values()) == 1

    assert not found("here", "A = 1")
    assert found("there", "A = 1")
    assert not found("changed", "A = 2")
