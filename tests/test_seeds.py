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


@given(SEEDS, st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_a_shorter_draw_is_the_start_of_a_longer(seed: int, purpose: str, few: int, more: int) -> None:
    long = seeds.uniforms(seed, purpose, few + more)
    assert np.array_equal(seeds.uniforms(seed, purpose, few), long[:few])
    assert long.dtype == np.float64
    assert ((long >= 0) & (long < 1)).all()


@given(SEEDS, st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True))
def test_another_purpose_is_another_stream(seed: int, purposes: list[str]) -> None:
    one, other = (seeds.uniforms(seed, purpose, 8) for purpose in purposes)
    assert not np.array_equal(one, other)


def test_streams_are_uniform_and_unrelated() -> None:
    one, other = (np.concatenate([seeds.uniforms(s, p, 10) for s in range(5000)]) for p in ("radius", "noise"))
    for stream in (one, other):
        # 5 standard deviations of the mean of n uniform numbers.
        assert abs(stream.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(stream))
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(one))
    neighbours = np.array([seeds.uniforms(seeds.sample_seed(1, n), "radius", 1)[0] for n in range(5001)])
    assert abs(np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1]) < 5 / np.sqrt(5000)


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


@given(SEEDS, st.text(max_size=9), st.integers(0, 13))
def test_uniforms_are_numpys_philox(seed: int, purpose: str, count: int) -> None:
    key = np.array([seeds.digest64(seed, purpose), seed], dtype=np.uint64)
    assert np.array_equal(
        seeds.uniforms(seed, purpose, count), np.random.Generator(np.random.Philox(key=key)).random(count)
    )


def test_numpy_s_integers_count_as_python_s() -> None:
    assert seeds.digest64(np.int64(7), "a") == seeds.digest64(7, "a")
    assert seeds.sample_seed(np.uint32(1), np.int32(2)) == seeds.sample_seed(1, 2)


def test_the_numbers_stay_as_they_are() -> None:
    # A change here changes every corpus that was ever made: raise medsynth's version with it.
    assert seeds.digest64(7, "noise") == 987846990965041888
    assert seeds.sample_seed(20260101, 0) == 5020383085592891007
    assert seeds.uniforms(1, "radius", 2).tolist() == [0.7076651073717758, 0.9527302036306786]
    assert seeds.permute(np.arange(10), 10, 3).tolist() == [8, 2, 5, 7, 0, 6, 1, 9, 3, 4]
