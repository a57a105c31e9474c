import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsynth.skin import semantic_map, tone
from medsynth.skin.hair import _shadow, grown
from medsynth.skin.semantic_map import Box

SKIN = (205, 160, 138)
SEEDS = st.integers(0, 2**62)


def even(side: int = 128, skin: tuple[int, int, int] = SKIN) -> NDArray[np.uint8]:
    return np.full((side, side, 3), skin, dtype=np.uint8)


def changed(picture: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float((np.abs(picture.astype(int) - other).max(axis=2) > 8).mean())


@given(SEEDS)
def test_without_a_share_nothing_grows(seed: int) -> None:
    picture = even(32)
    found, count = grown(picture, SKIN, seed, 0.0)
    assert found is picture
    assert count == 0


def test_as_many_pictures_have_hair_as_were_asked_for() -> None:
    picture = even(16)
    some = [grown(picture, SKIN, seed, 0.2)[1] > 0 for seed in range(2000)]
    assert np.mean(some) == pytest.approx(0.2, abs=0.03)


@given(SEEDS)
def test_hair_follows_from_the_seed_alone_and_lies_where_it_lies_on_any_skin(seed: int) -> None:
    dark = tone.colour_of_type(6)
    first, again = (grown(even(64), SKIN, seed, 1.0)[0] for _ in range(2))
    assert np.array_equal(first, again)
    there, on_dark = first != even(64), grown(even(64, dark), dark, seed, 1.0)[0] != even(64, dark)
    assert (there.any(axis=2) & on_dark.any(axis=2)).sum() >= 0.6 * on_dark.any(axis=2).sum()
    assert not np.array_equal(first, grown(even(64), SKIN, seed + 1, 1.0)[0])


@settings(max_examples=50)
@given(SEEDS)
def test_hair_is_fine_leaves_most_of_the_skin_and_does_not_pull_its_colour(seed: int) -> None:
    picture = even(256)
    hairy, count = grown(picture, SKIN, seed, 1.0)
    assert 3 <= count <= 70
    assert changed(hairy, picture) < 0.15
    found = semantic_map.skin_colour(hairy, Box(100, 100, 156, 156))
    assert np.linalg.norm(found - tone.to_lab(SKIN)) < 1.5


def test_hair_is_seldom_out_of_sight() -> None:
    plain = even(256)
    assert sum(changed(grown(plain, SKIN, seed, 1.0)[0], plain) > 0 for seed in range(100)) >= 95


@pytest.mark.parametrize("side", [16, 256])
def test_a_shadow_lies_below_its_hair_and_not_across_the_edge(side: int) -> None:
    cover = np.zeros((side, side), dtype=np.float32)
    cover[-1, :] = cover[:, -1] = cover[side // 2, side // 2] = 1
    cast = _shadow(cover)
    assert not cast[: side // 4].any()
    assert not cast[:, : side // 4].any()
    assert cast[: 3 * side // 4, : 3 * side // 4].sum() == pytest.approx(1, abs=1e-5)
    assert cast[side // 2 + 1, side // 2 + 1] > 0


@settings(max_examples=30)
@given(SEEDS)
def test_hair_is_as_dense_on_a_picture_of_another_size(seed: int) -> None:
    large, small = (grown(even(side), SKIN, seed, 1.0)[0] for side in (256, 128))
    halved = large.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 0.5 * np.abs(halved - even(128)).mean() + 0.5


def test_on_dark_skin_hair_is_black_or_grey_and_on_light_skin_brown_and_fair_too() -> None:
    def colours(skin: tuple[int, int, int]) -> list[NDArray[np.int64]]:
        far = []
        for seed in range(60):
            off = grown(even(128, skin), skin, seed, 1.0)[0].astype(np.int64) - skin
            flat = off.reshape(-1, 3)
            far.append(flat[np.abs(flat).sum(axis=1).argmax()] + skin)
        return far

    dark, light = (tone.to_lab(np.array(colours(tone.colour_of_type(kind)))) for kind in (6, 1))
    lighter = tone.to_lab(tone.colour_of_type(6))[0]
    assert (dark[:, 0] < lighter).mean() > 0.7
    assert (dark[:, 0] > lighter).any()
    # Fair and brown hair is yellower than black and grey.
    on_dark, on_light = (np.hypot(found[:, 1], found[:, 2]).max() for found in (dark, light))
    assert on_dark < 18 < on_light
