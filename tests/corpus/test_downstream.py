"""The error of a classifier on a corpus is counted from its answers, by asking it or from a table."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from medsynth.corpus import downstream
from medsynth.errors import ScoringError
from tests import corpora


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    corpora.make(folder, corpora.prepared())
    return folder


@pytest.fixture(scope="module")
def rows(corpus: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((corpus / "data").glob("*.parquet"))])


def test_a_table_of_errors_is_counted_by_class(corpus: Path, rows: pa.Table, tmp_path: Path) -> None:
    wrong = [number > 5 for number in rows["focus_class"].to_pylist()]
    pq.write_table(pa.table({"sample_id": rows["sample_id"], "error": wrong}), tmp_path / "s.parquet")
    found = downstream.by_scores(str(corpus), str(tmp_path / "s.parquet"), None)
    assert found.focus_class is not None
    assert found.count is not None
    assert found.focus_class.tolist() == [0, 10, 29]
    assert found.error.tolist() == [0, 1, 1]
    assert found.count.tolist() == [10, 10, 10]


def test_predictions_are_held_against_the_label_and_other_rows_left_out(
    corpus: Path, rows: pa.Table, tmp_path: Path
) -> None:
    some = rows.filter(pa.array([number == 10 for number in rows["focus_class"].to_pylist()]))
    lines = [f"{name},colon" for name in some["sample_id"].to_pylist()]
    (tmp_path / "s.csv").write_text("\n".join(["sample_id,prediction", *lines, "unknown,gland"]))
    found = downstream.by_scores(str(corpus), str(tmp_path / "s.csv"), "tissue")
    assert found.focus_class is not None
    assert (found.focus_class.tolist(), found.error.tolist()) == ([10], [0.5])
    with pytest.raises(ScoringError, match="--label"):
        downstream.by_scores(str(corpus), str(tmp_path / "s.csv"), None)
    with pytest.raises(ScoringError, match="no column 'organ'"):
        downstream.by_scores(str(corpus), str(tmp_path / "s.csv"), "organ")
    (tmp_path / "n.csv").write_text("sample_id,error\nunknown,1\n")
    with pytest.raises(ScoringError, match="no row of the corpus has a score"):
        downstream.by_scores(str(corpus), str(tmp_path / "n.csv"), None)


def always_colon(pictures: NDArray[np.uint8]) -> list[str]:
    assert pictures.dtype == np.uint8
    assert pictures.shape[3] == 3
    return ["colon"] * len(pictures)


def sure_of_gland(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.tile([0.1, 0.9], (len(pictures), 1))


def test_a_classifier_is_asked_about_every_image(corpus: Path) -> None:
    seen: list[tuple[int, int]] = []
    for name in ("always_colon", "sure_of_gland"):
        classifier = downstream.load(f"{__name__}:{name}")
        found = downstream.by_classifier(
            str(corpus), "tissue", classifier, lambda done, total: seen.append((done, total))
        )
        assert found.error.tolist() == [0.5, 0.5, 0.5]
    assert seen[-1] == (30, 30)


@pytest.mark.parametrize("name", ["nothing", "no.such.module:f", "json:nothing"])
def test_a_classifier_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ScoringError, match=f"--classifier {name}"):
        downstream.load(name)
