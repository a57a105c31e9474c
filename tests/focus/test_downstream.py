"""The error by degree of blur: intervals and smoothing against references, and what becomes of a slide."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import isotonic_regression

from medsynth.errors import ScoringError
from medsynth.focus import downstream
from medsynth.focus.downstream import ErrorTable


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_intervals_are_wilsons(case: tuple[int, int]) -> None:
    errors, count = case
    expected = stats.binomtest(errors, count).proportion_ci(0.95, "wilson")
    assert downstream.wilson(errors, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000)), min_size=1, max_size=40))
def test_smoothing_is_isotonic_regression(pairs: list[tuple[float, int]]) -> None:
    values, weights = (list(column) for column in zip(*pairs, strict=True))
    expected = isotonic_regression(values, weights=weights).x
    np.testing.assert_allclose(downstream.isotonic(values, weights), expected, atol=1e-9)


def simulated(rate: np.ndarray, count: int = 400) -> ErrorTable:
    rng = np.random.default_rng(8)
    classes = np.repeat(np.arange(len(rate)), count)
    return downstream.learn(classes, classes * 0.5, rng.random(len(classes)) < rate[classes])


def test_the_learned_error_is_the_true_one_within_its_interval() -> None:
    rate = np.linspace(0.05, 0.6, 30)
    found = simulated(rate)
    assert found.low is not None
    assert found.high is not None
    assert found.smooth is not None
    assert ((found.low <= rate) & (rate <= found.high)).mean() >= 0.85
    assert (np.diff(found.smooth) >= 0).all()
    assert np.abs(found.smooth - rate).mean() < np.abs(found.error - rate).mean()
    assert (found.count == 400).all()


def test_an_error_that_falls_with_blur_is_not_smoothed_away() -> None:
    found = simulated(np.linspace(0.6, 0.05, 30))
    assert found.smooth is None
    np.testing.assert_array_equal(found.applied, found.error)


def test_the_expected_error_is_the_mean_over_the_class_distribution() -> None:
    radii = [0.0, 2.0, 4.0, 8.0]
    table = ErrorTable(None, np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.2, 0.6]))
    # At 0.5 µm per pixel the classes lie at 0, 1, 2 and 4 µm; beyond the table its end holds.
    assert downstream.expected_error([0.4, 0.3, 0.2, 0.1], radii, 0.5, table) == pytest.approx(
        0.4 * 0.1 + 0.3 * 0.2 + 0.2 * 0.6 + 0.1 * 0.6
    )
    by_class = ErrorTable(np.array([0, 3]), None, np.array([0.0, 0.3]))
    assert downstream.expected_error([0.4, 0.3, 0.2, 0.1], radii, 0.5, by_class) == pytest.approx(0.03 + 0.04 + 0.03)


def test_a_learned_table_is_read_back_to_the_same_errors(tmp_path: Path) -> None:
    found = simulated(np.linspace(0.05, 0.6, 30))
    (tmp_path / "e.parquet").write_bytes(downstream.to_parquet(found))
    again = downstream.read(str(tmp_path / "e.parquet"))
    np.testing.assert_array_equal(again.applied, found.applied)
    np.testing.assert_array_equal(again.radius_um, found.radius_um)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("focus_class,mistakes\n0,0.1\n", "wants a column 'error'"),
        ("error\n0.1\n", "blur_radius_um' or 'focus_class"),
        ("focus_class,error\n0,1.5\n", "row 0: the error 1.5 is no share"),
        ("focus_class,error\n0,much\n", "holds what is no number"),
        ("focus_class,error\n0,0.1\n0,0.2\n", "stands twice"),
        ("focus_class,error\n0.5,0.1\n", "whole numbers"),
        ("blur_radius_um,error\n,0.1\n", "blur_radius_um is no number"),
        ("focus_class,error\n", "no rows"),
    ],
)
def test_a_wrong_table_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ScoringError, match=message) as error:
        downstream.read(str(tmp_path / "t.csv"))
    assert str(tmp_path / "t.csv") in str(error.value)


def test_a_csv_by_class_is_taken(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("focus_class,error\n2,0.5\n0,0.1\n")
    found = downstream.read(str(tmp_path / "t.csv"))
    assert found.focus_class is not None
    assert (found.focus_class.tolist(), found.error.tolist()) == ([0, 2], [0.1, 0.5])
    pq.write_table(pa.table({"blur_radius_um": [0.0, 1.0], "error": [0, 1]}), tmp_path / "t.parquet")
    assert downstream.read(str(tmp_path / "t.parquet")).error.tolist() == [0, 1]


def test_answers_may_be_labels_or_scores() -> None:
    labels = ["b", "a", "c"]
    assert downstream.mistakes(np.array(["b", "b", "c"]), labels, ["a", "b", "c"]).tolist() == [False, True, False]
    scores = np.array([[0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.5, 0.3, 0.2]])
    assert downstream.mistakes(scores, labels, ["a", "b", "c"]).tolist() == [False, False, True]
    with pytest.raises(ScoringError, match="--classifier"):
        downstream.mistakes(np.zeros((3, 2)), labels, ["a", "b", "c"])
