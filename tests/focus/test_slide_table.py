"""The table of a scored folder keeps what is there and takes what is new."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medsynth import storage
from medsynth.errors import ScoringError
from medsynth.focus import heatmap, slide_table
from medsynth.focus.heatmap import Grades
from tests.focus.test_heatmap import stone

FOCUS = {**heatmap.summary(stone(), Grades()).as_dict(), "mpp": 0.25, "width": 1000, "height": 800}


def identity(name: str, status: str = "scored") -> dict[str, object]:
    same = {"reason": None, "detail": None, "weights_sha256": "abc"}
    return {"slide": name, "uri": f"/x/{name}.svs", "status": status, **same}


def read(folder: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(io.BytesIO(storage.read(f"{folder}/slides.parquet"))).to_pylist()
    return rows


def test_a_row_holds_the_summary(tmp_path: Path) -> None:
    slide_table.write(str(tmp_path), [slide_table.row(identity("a"), FOCUS, 0.125)])
    (row,) = read(tmp_path)
    assert row["share_in_focus"] == FOCUS["shares"]["in focus"]
    assert row["worst_radius_um"] == 2.5
    assert (row["worst_x"], row["expected_error"], row["mpp"]) == (368, 0.125, 0.25)
    assert len(row["classes"]) == 30
    assert "not for diagnosis" in str(row["note"])


def test_slides_that_are_there_stay_and_the_same_again_writes_nothing(tmp_path: Path) -> None:
    slide_table.write(str(tmp_path), [slide_table.row(identity("b"), FOCUS, None)])
    slide_table.write(str(tmp_path), [slide_table.row(identity("a", "rejected"), {}, None)])
    assert [row["slide"] for row in read(tmp_path)] == ["a", "b"]
    before = (tmp_path / "slides.parquet").stat().st_mtime_ns
    slide_table.write(str(tmp_path), [slide_table.row(identity("b"), FOCUS, None)])
    assert (tmp_path / "slides.parquet").stat().st_mtime_ns == before


def test_another_table_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "slides.parquet").write_bytes(b"mine")
    with pytest.raises(ScoringError, match="damaged"):
        slide_table.write(str(tmp_path), [])
