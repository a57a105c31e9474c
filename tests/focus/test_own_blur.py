"""The own blur of source tiles, with predictors whose answers are known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from medsynth import images
from medsynth.catalog import table, tiles
from medsynth.defocus.settings import DEFAULT_RADII_PX
from medsynth.focus import own_blur, samples
from medsynth.focus.model import FocusModel
from medsynth.focus.network import NetworkSettings, build
from medsynth.focus.samples import Source, Tile

SEEN = {60: 4.0, 120: 4.5, 180: 5.0}


def flat(code: int) -> np.ndarray:
    return np.full((400, 400, 3), code, dtype=np.uint8)


def predict(image: np.ndarray) -> float:
    return SEEN[min(SEEN, key=lambda code: abs(code - float(image.mean())))]


def test_the_excess_is_that_of_the_squares_over_the_softest_of_three_quarters_of_the_tiles() -> None:
    source = Source(list("abcde"), lambda i: Tile(flat((60, 60, 60, 120, 180)[i])))
    found = own_blur.excess(predict, source, count=4)
    less, more = 4.0**2 - 4.5**2, 5.0**2 - 4.5**2
    assert found == pytest.approx([less, less, less, 0, more], abs=1e-3)


def test_tiles_of_a_slide_are_drawn_together() -> None:
    source = Source(list("aaaaabb"), lambda i: Tile(flat((60, 60, 60, 60, 60, 60, 180)[i])))
    found = own_blur.excess(predict, source, count=4)
    assert found == pytest.approx([-1.125] * 5 + [1.125, 5.625], abs=1e-3)


def test_the_catalog_written_has_the_column_and_no_soft_tiles(tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        data = images.encode_png(pixels)
        (tmp_path / f"{number}.png").write_bytes(data)
        window = {"x": 0, "y": 0, "width": 300, "height": 300, "margin": 0, "sharpness": 5.0, "in_focus": True}
        file = {"uri": str(tmp_path / f"{number}.png"), "etag": "", "bytes": len(data), "sha256": tiles.digest(data)}
        rows.append({**window, **file})
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    table.write(before, pa.Table.from_pylist(rows, table.schema([])), table.REJECT_COLUMNS.empty_table(), {"a": 1})
    torch.manual_seed(0)
    own = own_blur.rewrite(before, FocusModel(build(NetworkSettings(width=4)), DEFAULT_RADII_PX, {}), after)
    kept = [value for value in own if value <= own_blur.LIMIT]
    assert sorted(samples.open_catalog(after).own_blur2) == sorted(kept)
    assert table.about(after)["a"] == 1
