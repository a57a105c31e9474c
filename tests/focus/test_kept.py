"""Samples kept on disk."""

import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from medsynth.errors import TrainingError
from medsynth.focus import kept, samples
from medsynth.focus.kept import Kept
from medsynth.focus.samples import SampleSettings, Source, Tile


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_what_one_keeps_another_finds() -> None:
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    one, other = Kept("a", 5, 8), Kept("a", 5, 8)
    assert other.get(3) is None
    assert one.put(3, image, 0.0) == 0
    found = other.get(3)
    assert found is not None
    np.testing.assert_array_equal(found[0], image)
    assert found[1] == 0
    assert Kept("b", 5, 8).get(3) is None
    kept.remove("a")
    assert Kept("a", 5, 8).get(3) is None


def test_a_full_disk_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 100))
    with pytest.raises(TrainingError, match=r"samples\.distinct: .* lower it, or set TMPDIR"):
        Kept("a", 5, 8)


def test_kept_samples_are_the_samples_that_would_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    source, settings = Source(["a"], lambda _: Tile(pixels)), SampleSettings(size=32, distinct=4)
    fresh = samples.make_batch(source, settings, 1, range(8))
    made, make_sample = [], samples.make_sample
    monkeypatch.setattr(samples, "make_sample", lambda *args: made.append(args[3]) or make_sample(*args))
    store = Kept("c", 4, 32)
    for _ in range(2):
        images, radii = samples.make_batch(source, settings, 1, range(8), store)
        np.testing.assert_array_equal(images, fresh[0])
        np.testing.assert_allclose(radii, fresh[1], atol=1e-6)
    assert sorted(made) == [0, 1, 2, 3]
