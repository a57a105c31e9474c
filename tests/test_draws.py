"""A sample's random numbers depend on its seed and on what they are for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medsynth import draws, seeds

SEEDS = st.integers(0, 2**63 - 1)


@given(SEEDS, st.text(max_size=20), st.integers(0, 100), st.integers(0, 100))
def test_a_shorter_draw_is_the_start_of_a_longer(seed: int, purpose: str, few: int, more: int) -> None:
    long = draws.uniforms(seed, purpose, few + more)
    assert np.array_equal(draws.uniforms(seed, purpose, few), long[:few])
    assert long.dtype == np.float64
    assert ((long >= 0) & (long < 1)).all()


@given(SEEDS, st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True))
def test_another_purpose_is_another_stream(seed: int, purposes: list[str]) -> None:
    one, other = (draws.uniforms(seed, purpose, 8) for purpose in purposes)
    assert not np.array_equal(one, other)


def test_streams_are_uniform_and_unrelated() -> None:
    one, other = (np.concatenate([draws.uniforms(s, p, 10) for s in range(5000)]) for p in ("radius", "noise"))
    for stream in (one, other):
        # 5 standard deviations of the mean of n uniform numbers.
        assert abs(stream.mean() - 0.5) < 5 * np.sqrt(1 / 12 / len(stream))
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(one))
    neighbours = np.array([draws.uniforms(seeds.sample_seed(1, n), "radius", 1)[0] for n in range(5001)])
    assert abs(np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1]) < 5 / np.sqrt(5000)


@given(SEEDS, st.text(max_size=9), st.integers(0, 13))
def test_uniforms_are_numpys_philox(seed: int, purpose: str, count: int) -> None:
    key = np.array([seeds.digest64(seed, purpose), seed], dtype=np.uint64)
    assert np.array_equal(
        draws.uniforms(seed, purpose, count), np.random.Generator(np.random.Philox(key=key)).random(count)
    )


def test_the_numbers_stay_as_they_are() -> None:
    # A change here changes every corpus that was ever made: raise medsynth's version with it.
    assert draws.uniforms(1, "radius", 2).tolist() == [0.7076651073717758, 0.9527302036306786]
