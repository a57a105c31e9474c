import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsynth.skin import generator, regions
from medsynth.skin.semantic_map import Box
from tests.skin.photos import shapes


def by_every_pair(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Depths by the distance of each pixel's centre from each other's."""
    places = np.argwhere(np.ones_like(mask)).astype(float)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    within, flat = np.empty(mask.size), mask.ravel()
    for number, there in enumerate(flat):
        nearest = apart[number, flat != there].min() - 0.5
        within[number] = nearest if there else -nearest
    return np.maximum(within / within.max(), -1).reshape(mask.shape)


@given(st.integers(0, 2**32), st.floats(0.02, 0.95))
@settings(max_examples=30)
def test_depth_is_the_distance_from_the_edge_in_units_of_the_deepest(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((9, 13)) < share
    mask[4, 5], mask[0, 0] = True, False
    np.testing.assert_allclose(regions.depth(mask), by_every_pair(mask), rtol=1e-6)


def test_depth_is_the_same_to_the_bit_on_every_machine() -> None:
    data = b"".join(regions.depth(mask).tobytes() for mask in shapes(64).values())
    assert hashlib.sha256(data).hexdigest()[:16] == "4222a4af1eb7d7db"


@pytest.mark.parametrize("side", [1, 2, 7, 30, 60])
def test_a_disc_is_as_deep_as_the_ellipse_of_its_box(side: int) -> None:
    box = Box(2, 3, 2 + side, 3 + side)
    square = torch.zeros(1, 1, 64, 64)
    square[..., box.y0 : box.y1, box.x0 : box.x1] = 1
    mask = regions.ellipse(box, (64, 64))
    assert regions.bounds(mask) == box
    wanted = generator.inside(square).numpy()[0, 0]
    assert np.array_equal(mask, wanted >= 0)
    # A pixel is in or out as a whole: the edge is up to one away from the curve, and the deepest place a little.
    assert np.abs(regions.depth(mask) - wanted).max() <= 3 / side
    assert regions.depth(mask).max() == 1


def test_a_lesion_goes_on_beyond_the_pictures_edge() -> None:
    half = np.zeros((16, 16), dtype=bool)
    half[:, :8] = True
    found = regions.depth(half)
    assert (found[:, 0] == 1).all()
    assert (found[:, -1] == -1).all()
    assert found[0].tolist() == found[8].tolist()
    assert (regions.depth(np.ones((4, 4), dtype=bool)) == 1).all()


def test_each_part_of_a_mask_is_a_lesion_and_a_hole_is_none() -> None:
    for name, mask in shapes(64).items():
        found = regions.depth(mask)
        assert np.array_equal(found > 0, mask), name
        assert (found != 0).all(), name
