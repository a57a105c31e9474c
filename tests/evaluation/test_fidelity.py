"""Figures of likeness against slow plain references, and against what is known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsynth.evaluation import fidelity


def normal(count: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size))


def slow_kid(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3)

    def own(z: np.ndarray) -> float:
        pairs = [k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(pairs) / len(pairs)

    return own(x) + own(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(1, 4), st.integers(0, 10**6))
def test_kid_is_the_plain_double_sum(n: int, m: int, size: int, seed: int) -> None:
    x, y = normal(n, size, seed), normal(m, size, seed + 1) + 0.3
    assert fidelity.kid(x, y) == pytest.approx(slow_kid(x, y), rel=1e-9, abs=1e-9)


def test_kid_is_unbiased_and_grows_with_distance() -> None:
    near = [fidelity.kid(normal(20, 8, 2 * seed), normal(20, 8, 2 * seed + 1)) for seed in range(200)]
    assert abs(np.mean(near)) < 3 * np.std(near) / np.sqrt(len(near))
    x = normal(60, 8, 1)
    shifted = [fidelity.kid(x, normal(60, 8, 2) + shift) for shift in (0, 0.5, 1, 2)]
    assert shifted == sorted(shifted)


def test_pairs_of_one_group_are_left_out() -> None:
    x, y = normal(12, 4, 1), normal(12, 4, 2)
    groups = [str(number) for number in range(12)]
    doubled = fidelity.kid(np.repeat(x, 2, axis=0), y, list(np.repeat(groups, 2)))
    assert doubled == pytest.approx(fidelity.kid(x, y)), "a patient photographed twice alike is no likeness"
    assert fidelity.kid(np.repeat(x, 2, axis=0), y) > doubled


def test_the_interval_holds_the_truth_and_shrinks() -> None:
    held = 0
    for seed in range(40):
        x, y = normal(40, 6, 3 * seed), normal(40, 6, 3 * seed + 1) + 0.5
        found = fidelity.kid_interval(x, y, draws=200, seed=seed)
        assert found.low <= found.value <= found.high
        truth = 1.182292  # by the moments of normal distributions
        held += found.low <= truth <= found.high
    assert held >= 33
    wide = fidelity.kid_interval(normal(20, 6, 1), normal(20, 6, 2) + 0.5, draws=200)
    narrow = fidelity.kid_interval(normal(300, 6, 1), normal(300, 6, 2) + 0.5, draws=200)
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
    assert wide == fidelity.kid_interval(normal(20, 6, 1), normal(20, 6, 2) + 0.5, draws=200), "the seed decides"


def test_a_difference_is_surer_than_two_figures() -> None:
    x, y = normal(40, 6, 1), normal(40, 6, 2)
    worse = y + 0.4
    apart = fidelity.kid_difference(x, y, worse, draws=300)
    assert apart.high < 0
    ends = [fidelity.kid_interval(x, side, draws=300) for side in (y, worse)]
    assert apart.high - apart.low < sum(end.high - end.low for end in ends)


def test_the_floor_lies_about_nothing() -> None:
    x = normal(40, 6, 5)
    floor = fidelity.kid_floor(x, [str(number // 2) for number in range(40)])
    assert floor.low < 0 < floor.high
    assert abs(floor.value) < floor.high
    with pytest.raises(ValueError, match="halves"):
        fidelity.kid_floor(x[:6], ["a", "a", "b", "b", "c", "c"])


def slow_neighbourhood(real: np.ndarray, other: np.ndarray, k: int) -> list[float]:
    def d(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).sum()))

    def radius(points: np.ndarray, i: int) -> float:
        return sorted(d(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    of_real = [radius(real, i) for i in range(len(real))]
    of_other = [radius(other, i) for i in range(len(other))]
    n, m = range(len(real)), range(len(other))
    return [
        sum(any(d(real[j], other[i]) <= of_real[j] for j in n) for i in m) / len(m),
        sum(any(d(real[j], other[i]) <= of_other[i] for i in m) for j in n) / len(n),
        sum(d(real[j], other[i]) <= of_real[j] for i in m for j in n) / (k * len(m)),
        sum(any(d(real[j], other[i]) <= of_real[j] for i in m) for j in n) / len(n),
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 9), st.integers(4, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_neighbourhoods_are_those_of_the_definition(n: int, m: int, k: int, seed: int) -> None:
    real, other = normal(n, 3, seed), 0.7 * normal(m, 3, seed + 1)
    found = fidelity.neighbourhood(real, other, k)
    assert [found.precision, found.recall, found.density, found.coverage] == pytest.approx(
        slow_neighbourhood(real, other, k)
    )


def test_density_and_coverage_of_equal_distributions() -> None:
    # ../shared/methods.md tells density 1.06 and coverage 0.97 for 10,000 points of 1,000 dimensions.
    found = fidelity.neighbourhood(normal(1500, 64, 1), normal(1500, 64, 2))
    assert found.density == pytest.approx(1.0, abs=0.12)
    assert found.coverage == pytest.approx(0.97, abs=0.03)


def test_one_picture_again_and_again_is_precise_and_covers_little() -> None:
    real = normal(100, 4, 1)
    found = fidelity.neighbourhood(real, np.repeat(real[:2], 50, axis=0) + 1e-6 * normal(100, 4, 2))
    assert found.precision == 1
    assert found.coverage < 0.25
    assert found.recall < 0.05


def test_equal_numbers_are_compared() -> None:
    real, other = normal(30, 4, 1), normal(300, 4, 2)
    equal = fidelity.neighbourhood_equal(real, other)
    assert equal.coverage < fidelity.neighbourhood(real, other).coverage
    same = fidelity.neighbourhood_equal(real, other[:30])
    assert vars(same) == pytest.approx(vars(fidelity.neighbourhood(real, other[:30])))


def test_too_few_are_told_as_such() -> None:
    names = [str(number) for number in range(9)]
    found = fidelity.compare(normal(9, 4, 1), normal(9, 4, 2), names, names)
    assert found == {"real": 9, "synthetic": 9, "patients": 9, "too_few": True}
    enough = fidelity.compare(normal(12, 4, 1), normal(30, 4, 2), list("abcdefghijkl"), [str(n) for n in range(30)])
    assert {"kid", "precision", "recall", "density", "coverage"} <= set(enough)
    with pytest.raises(ValueError, match="two groups"):
        fidelity.kid(normal(9, 4, 1), normal(9, 4, 2), ["a"] * 9)
    with pytest.raises(ValueError, match="more than k=5"):
        fidelity.neighbourhood(normal(5, 4, 1), normal(9, 4, 2))
