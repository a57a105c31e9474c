"""Targets, losses and read-outs of ordered classes, against plain NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medsynth.defocus.settings import DEFAULT_RADII_PX
from medsynth.focus import ordinal


@given(st.lists(st.floats(0, 12), min_size=1, max_size=5))
def test_soft_targets_keep_the_radius(radii: list[float]) -> None:
    target = ordinal.soft_target(torch.tensor(radii, dtype=torch.float64), DEFAULT_RADII_PX)
    assert ((target > 0).sum(dim=1) <= 2).all()
    np.testing.assert_allclose(target.sum(dim=1), 1, atol=1e-6)
    np.testing.assert_allclose(ordinal.expected_radius(target, DEFAULT_RADII_PX), radii, atol=1e-5)


def test_radii_beyond_the_table_go_to_its_ends() -> None:
    target = ordinal.soft_target(torch.tensor([-1.0, 0.0, 12.0, 99.0]), DEFAULT_RADII_PX)
    assert target[0, 0] == target[1, 0] == target[2, -1] == target[3, -1] == 1


def test_ranked_probability_score_is_the_formula() -> None:
    generator = np.random.default_rng(1)
    logits, target = generator.normal(size=(4, 30)), generator.dirichlet(np.ones(30), size=4)
    predicted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = ((predicted.cumsum(axis=1) - target.cumsum(axis=1)) ** 2).sum(axis=1).mean()
    found = ordinal.ranked_probability_score(torch.tensor(logits), torch.tensor(target))
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_near_misses_cost_less() -> None:
    target = ordinal.soft_target(torch.tensor([3.0]), tuple(range(8)))
    costs = [
        ordinal.ranked_probability_score(20 * torch.nn.functional.one_hot(torch.tensor([k]), 8).float(), target).item()
        for k in range(8)
    ]
    assert costs[3] < costs[4] < costs[5] < costs[6] < costs[7]
    assert costs[3] < costs[2] < costs[1] < costs[0]


def test_losses_over_cells_are_the_mean_of_the_cells() -> None:
    logits = torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    target = ordinal.soft_target(torch.tensor([1.2, 3.4]), tuple(range(5)))
    for loss in (ordinal.ranked_probability_score, ordinal.cross_entropy):
        alone = [loss(logits[:, :, i, j], target) for i in range(2) for j in range(3)]
        assert loss(logits, target).item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_cross_entropy_is_least_at_the_target() -> None:
    target = ordinal.soft_target(torch.tensor([1.5]), tuple(range(4)))
    best = ordinal.cross_entropy(torch.log(target + 1e-9), target)
    assert best.item() == pytest.approx(math.log(2), abs=1e-4)
    assert ordinal.cross_entropy(torch.zeros(1, 4), target) > best


def test_certainty_has_its_ends() -> None:
    assert ordinal.certainty(torch.full((1, 30), 1 / 30)).item() == pytest.approx(0, abs=1e-6)
    assert ordinal.certainty(torch.eye(30)[:1]).item() == 1


@given(st.floats(-1, 20))
def test_the_nearest_class_is_nearest_on_the_scale_of_classes(radius: float) -> None:
    found = int(ordinal.nearest_class(radius, DEFAULT_RADII_PX))
    assert abs(np.interp(radius, DEFAULT_RADII_PX, range(30)) - found) <= 0.5
    assert ordinal.nearest_class(DEFAULT_RADII_PX, DEFAULT_RADII_PX).tolist() == list(range(30))
