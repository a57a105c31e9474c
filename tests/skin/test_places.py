import numpy as np
import pytest
import torch

from medsynth.skin import form, generator, places, regions, semantic_map
from medsynth.skin.semantic_map import Box, MapError
from tests.skin.photos import shapes

BOX = Box(10, 12, 40, 52)
SIZE, SHAPE = 64, (64, 64)


@pytest.mark.parametrize("spread", [0.0, 0.4])
@pytest.mark.parametrize("name", list(shapes(SIZE)))
def test_a_masks_form_is_followed_whatever_was_learnt_from(name: str, spread: float) -> None:
    mask = shapes(SIZE)[name]
    for learnt, taken in (("mask", mask), ("box", semantic_map.mask(SHAPE, regions.bounds(mask)))):
        found = places.of(mask, learnt, SIZE, 3, spread)  # type: ignore[arg-type]
        assert np.array_equal(found.shown, mask)
        assert np.array_equal(found.mask, taken)
        assert np.array_equal(found.depth, regions.depth(mask))


def test_in_a_box_there_is_a_form_of_its_own_or_the_ellipse() -> None:
    square = semantic_map.mask(SHAPE, BOX)
    ellipse = generator.inside(torch.from_numpy(square)[None, None].float())[0, 0].numpy()
    for spread, wanted in ((0.4, form.depth(BOX, SHAPE, 3, 0.4)), (0.0, ellipse)):
        found = places.of(BOX, "box", SIZE, 3, spread)
        assert np.array_equal(found.shown, square)
        assert np.array_equal(found.mask, square)
        assert np.array_equal(found.depth, wanted)
        same = places.of(square, "box", SIZE, 3, spread)
        assert np.array_equal(same.depth, found.depth), "a mask that is a rectangle is a box"


def test_to_a_network_that_learnt_from_masks_a_box_is_a_mask() -> None:
    for spread, wanted in ((0.4, form.depth(BOX, SHAPE, 3, 0.4) > 0), (0.0, regions.ellipse(BOX, SHAPE))):
        found = places.of(BOX, "mask", SIZE, 3, spread)
        assert np.array_equal(found.shown, wanted)
        assert np.array_equal(found.mask, wanted)
        assert np.array_equal(found.depth, regions.depth(wanted))
    square = semantic_map.mask(SHAPE, BOX)
    assert np.array_equal(places.of(square, "mask", SIZE, 3, 0.4).shown, square)


@pytest.mark.parametrize("learnt", ["box", "mask"])
def test_boxes_of_a_few_pixels_and_of_the_whole_picture_have_a_place(learnt: regions.RegionKind) -> None:
    for side in (1, 2, 3, SIZE):
        for seed in range(40):
            found = places.of(Box(0, 0, side, side), learnt, SIZE, seed, 0.5)
            assert found.shown.any()
            assert np.isfinite(found.depth).all()


def test_a_form_without_a_pixel_is_an_ellipse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "depth", lambda box, shape, seed, spread: np.full(shape, -1, dtype=np.float32))
    found = places.of(Box(3, 3, 5, 5), "mask", SIZE, 3, 0.5)
    assert np.array_equal(found.shown, regions.ellipse(Box(3, 3, 5, 5), SHAPE))


@pytest.mark.parametrize("learnt", ["box", "mask"])
def test_what_does_not_fit_the_picture_is_refused(learnt: regions.RegionKind) -> None:
    for region in (Box(0, 0, 65, 10), np.ones((64, 32), dtype=bool), np.zeros(SHAPE, dtype=bool)):
        with pytest.raises(MapError):
            places.of(region, learnt, SIZE, 3, 0.4)
