"""A focus network marks the tiles that may be sources."""

import pickle

import numpy as np
import pytest

from medsynth.catalog.index import plan_index
from medsynth.errors import Reason, Rejected
from medsynth.focus import screening
from medsynth.focus.model import FocusModel
from medsynth.spec import Index
from tests.slides import RADII, network, stained

TILE = stained(256, 256)


def test_the_figure_falls_as_blur_grows() -> None:
    radii = np.linspace(0, 15, 50)
    figures = [screening.figure(radius) for radius in radii]
    assert figures[0] == 1
    assert (np.diff(figures) < 0).all()
    assert screening.figure(2) == pytest.approx(1 / 3, abs=1e-4)


def test_a_tile_gets_the_figure_of_its_blur_and_an_empty_one_nothing() -> None:
    model = network()
    screen = screening.Screen(model)
    assert screen(TILE) == screening.figure(model.score(TILE).radius_px)
    assert screen(np.full((256, 256, 3), 240, np.uint8)) == 0
    with pytest.raises(Rejected) as refused:
        screen(TILE[:100])
    assert refused.value.reason is Reason.TOO_SMALL


def test_another_network_is_another_figure_for_the_catalog() -> None:
    model = network()
    other = FocusModel(model.network, tuple(2 * radius for radius in RADII), {})
    names = []
    for one in (model, other):
        screen = pickle.loads(pickle.dumps(screening.Screen(one)))
        assert screen(TILE) == screening.Screen(one)(TILE)
        plan = plan_index("package://skimage/data/ihc.png", Index(), score=screen)
        names.append(plan.measure["score"])
    assert names[0] != names[1]
    assert all(name.startswith("medsynth.focus.screening.Screen(") for name in names)
