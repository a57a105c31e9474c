import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsynth.skin import regions
from medsynth.skin.semantic_map import Box
from medsynth.skin.warp import warped

SIDE = 64
SEEDS = st.integers(0, 2**40)
SHARES = st.floats(0.01, 0.15)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    width, height = draw(st.integers(8, 40)), draw(st.integers(8, 40))
    x, y = draw(st.integers(0, SIDE - width)), draw(st.integers(0, SIDE - height))
    return Box(x, y, x + width, y + height)


def filled(box: Box) -> NDArray[np.uint8]:
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[box.y0 : box.y1, box.x0 : box.x1] = 1
    return mask


def corners(box: Box) -> NDArray[np.int64]:
    return np.array([box.x0, box.y0, box.x1, box.y1])


def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


@given(boxes(), SEEDS, st.booleans())
def test_by_nothing_all_stays_where_it_is(box: Box, own: int, boxed: bool) -> None:
    image, mask = noise(), filled(box)
    same, there = warped(image, mask, boxed, 0.0, own)
    assert np.abs(same.astype(int) - image).max() <= 1  # Pillow does not round
    assert np.array_equal(there, mask)


def test_another_seed_is_another_way_and_the_same_is_the_same() -> None:
    image, mask = noise(), filled(Box(16, 20, 40, 44))
    one, one_mask = warped(image, mask, True, 0.12, 5)
    again, again_mask = warped(image, mask, True, 0.12, 5)
    assert np.array_equal(one, again)
    assert np.array_equal(one_mask, again_mask)
    assert not np.array_equal(one, warped(image, mask, True, 0.12, 6)[0])
    assert not np.array_equal(one, image)


@given(boxes(), SEEDS, SHARES)
def test_no_place_is_left_empty(box: Box, own: int, share: float) -> None:
    plain = np.full((SIDE, SIDE, 3), 117, dtype=np.uint8)
    moved = warped(plain, filled(box), True, share, own)[0].astype(int)
    assert np.abs(moved - 117).max() <= 1


@given(boxes(), SEEDS, SHARES)
@settings(max_examples=60)
def test_the_box_is_about_the_lesion_where_it_was_moved_to(box: Box, own: int, share: float) -> None:
    mask = filled(box)
    image = np.full((SIDE, SIDE, 3), 200, dtype=np.uint8)
    image[regions.ellipse(box, mask.shape)] = 40
    moved, there = warped(image, mask, True, share, own)
    about = regions.bounds(there > 0)
    assert there.sum() == (about.x1 - about.x0) * (about.y1 - about.y0), "a box"
    seen = regions.bounds(moved[..., 0] < 120)
    assert np.abs(corners(seen) - corners(about)).max() <= 1


@given(boxes(), SEEDS, SHARES)
@settings(max_examples=60)
def test_a_mask_goes_where_its_pixels_go(box: Box, own: int, share: float) -> None:
    mask = filled(box)
    image = np.repeat((200 * mask)[..., None], 3, axis=2)
    moved, there = warped(image, mask, False, share, own)
    border = there != (moved[..., 0] > 100)
    assert border.mean() <= 0.02  # pixels on its edge are weighed there, and are of one side or the other here


@given(SEEDS)
def test_places_keep_their_order(own: int) -> None:
    ramp = np.repeat(np.repeat(np.arange(SIDE, dtype=np.uint8)[None, :, None] * 3, SIDE, axis=0), 3, axis=2)
    length = 30
    mask = filled(Box(16, 16, 16 + length, 16 + length))
    for image, axis in ((ramp, 1), (ramp.transpose(1, 0, 2), 0)):
        moved, _ = warped(np.ascontiguousarray(image), mask, True, 0.15, own)
        # But for what the border mirrors.
        inner = slice(int(0.15 * length) + 2, -int(0.15 * length) - 2)
        assert (np.diff(moved[..., 0].astype(int), axis=axis)[inner, inner] >= -1).all()


@pytest.mark.parametrize("boxed", [True, False])
def test_a_lesion_is_never_moved_out_of_sight(boxed: bool) -> None:
    image, mask = noise(), filled(Box(2, 0, 62, 1))
    made = [warped(image, mask, boxed, 0.15, own) for own in range(60)]
    assert all(there.any() for _, there in made)
    left = sum(np.array_equal(moved, image) for moved, _ in made)
    assert 0 < left < 30, "what would move it out leaves the sample as it is, and little does"


def test_a_short_lesion_is_moved_by_little_and_a_long_one_by_more() -> None:
    image = noise()
    by = []
    for length in (6, 36):
        box = Box(14, 14, 14 + length, 14 + length)
        places = [regions.bounds(warped(image, filled(box), True, 0.12, own)[1] > 0) for own in range(40)]
        by.append(np.abs(np.array([corners(place) for place in places]) - corners(box)).max())
    assert by[0] <= 1 < by[1] <= 0.12 * 36 + 1
