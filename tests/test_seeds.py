"""Randomness depends on names alone, never on order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsynth import seeds

SEEDS = st.integers(0, 2**63 - 1)
KEYS = st.integers(0, 2**64 - 1)


@given(st.integers(1, 5000), KEYS)
def test_permute_is_a_permutation(size: int, key: int) -> None:
    places = seeds.permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(places), np.arange(size))


@given(st.integers(1, 2**62), KEYS, st.data())
def test_permute_of_a_few_is_that_of_all(size: int, key: int, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20, unique=True)))
    places = seeds.permute(positions, size, key)
    assert len(set(places.tolist())) == len(positions)
    assert 0 <= places.min()
    assert places.max() < size
    alone = [int(seeds.permute(positions[n : n + 1], size, key)[0]) for n in range(len(positions))]
    assert alone == places.tolist()


def test_permute_refuses_what_lies_outside() -> None:
    for position in (-1, 10):
        with pytest.raises(ValueError, match=r"positions must lie in \[0, 10\)"):
            seeds.permute(np.array([position]), 10, 1)
    assert seeds.permute(np.array([], dtype=np.int64), 10, 1).tolist() == []


def test_permute_scatters() -> None:
    # Over many keys each place is as likely as any other for each position: chi-squared with 81 - 17
    # degrees of freedom; its standard deviation is sqrt(2 * 64) = 11.3, and 5 of them are allowed.
    turns = 3000
    counts = np.zeros((9, 9))
    for key in range(turns):
        counts[np.arange(9), seeds.permute(np.arange(9), 9, key)] += 1
    chi_squared = ((counts - turns / 9) ** 2 / (turns / 9)).sum()
    assert abs(chi_squared - 64) < 5 * 11.3


@given(SEEDS, SEEDS)
def test_a_sample_s_seed_fits_int64(run_seed: int, index: int) -> None:
    assert 0 <= seeds.sample_seed(run_seed, index) < 2**63


def test_samples_and_runs_do_not_share_seeds() -> None:
    drawn = {seeds.sample_seed(run, index) for run in range(10) for index in range(2000)}
    assert len(drawn) == 20_000


PARTS = st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=5), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_digests_differ_where_the_names_do(one: list[int | str], other: list[int | str]) -> None:
    assert (seeds.digest64(*one) == seeds.digest64(*other)) == (one == other)


def test_a_separator_in_a_name_does_not_separate() -> None:
    assert seeds.digest64("a", "b") != seeds.digest64("a\x1fstr:b")


def test_numpy_s_integers_count_as_python_s() -> None:
    assert seeds.digest64(np.int64(7), "a") == seeds.digest64(7, "a")
    assert seeds.sample_seed(np.uint32(1), np.int32(2)) == seeds.sample_seed(1, 2)


def test_the_numbers_stay_as_they_are() -> None:
    # A change here changes every corpus that was ever made: raise medsynth's version with it.
    assert seeds.digest64(7, "noise") == 987846990965041888
    assert seeds.sample_seed(20260101, 0) == 5020383085592891007
    assert seeds.permute(np.arange(10), 10, 3).tolist() == [8, 2, 5, 7, 0, 6, 1, 9, 3, 4]
