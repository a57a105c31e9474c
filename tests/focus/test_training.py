import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy import ndimage, stats

from medsynth.defocus.settings import DEFAULT_RADII_PX
from medsynth.focus.network import NetworkSettings
from medsynth.focus.training import FIGURES, LearningSettings, Trainer, figures

CPU = torch.device("cpu")
SETTINGS = LearningSettings(
    network=NetworkSettings(kind="lite"), steps=12, batch=8, learning_rate=1e-2, warmup=0.25, ema=0.9
)


def batch(number: int, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Noise, blurred by radii that are told."""
    generator = np.random.default_rng(number)
    radii = generator.uniform(0, 12, size).astype(np.float32)
    images = generator.uniform(0, 255, (size, 128, 128, 3))
    blurred = [ndimage.gaussian_filter(image, (r / 2, r / 2, 0)) for image, r in zip(images, radii, strict=True)]
    return np.stack(blurred).round().astype(np.uint8), radii


BATCHES = [batch(number) for number in range(12)]


def trainer(settings: LearningSettings = SETTINGS, seed: int = 3, **kwargs: object) -> Trainer:
    return Trainer(settings, DEFAULT_RADII_PX, CPU, seed, **kwargs)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_going_on_from_a_state_is_the_undisturbed_run_to_the_bit() -> None:
    whole = trainer()
    losses = [float(whole.step(*one)) for one in BATCHES]
    first = trainer()
    for one in BATCHES[:5]:
        first.step(*one)
    kept = load(save({name: tensor.contiguous() for name, tensor in first.state().items()}))
    second = trainer(seed=99)
    second.load(kept)
    assert same(second.state(), first.state())
    assert [float(second.step(*one)) for one in BATCHES[5:]] == losses[5:]
    assert same(second.state(), whole.state())


def test_a_state_before_the_first_step_can_be_loaded_too() -> None:
    fresh, other = trainer(), trainer(seed=4)
    other.load(fresh.state())
    assert float(other.step(*BATCHES[0])) == float(fresh.step(*BATCHES[0]))


def test_first_weights_follow_from_the_seed_and_nothing_shared_is_touched() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same_seed, other = trainer(), trainer(), trainer(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one.state(), same_seed.state())
    assert not same(one.state(), other.state())


def test_two_halves_with_averaged_gradients_learn_what_the_whole_batch_teaches() -> None:
    images, radii = BATCHES[0]
    gradients: list[list[torch.Tensor]] = []
    halves = [trainer(average=lambda found: gradients.append([g.clone() for g in found])) for _ in range(2)]
    losses = [float(half.step(images[k::2], radii[k::2])) for k, half in enumerate(halves)]
    mean = [(a + b) / 2 for a, b in zip(*gradients, strict=True)]

    def give(found: list[torch.Tensor]) -> None:
        for gradient, value in zip(found, mean, strict=True):
            gradient.copy_(value)

    shared, whole = trainer(average=give), trainer()
    shared.step(images[::2], radii[::2])
    assert math.isclose(float(whole.step(images, radii)), np.mean(losses), rel_tol=1e-5)
    for name, tensor in whole.state().items():
        torch.testing.assert_close(shared.state()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["rps", "ce"])
def test_it_learns(loss: str) -> None:
    settings = LearningSettings(network=NetworkSettings(kind="lite"), loss=loss, steps=60, learning_rate=0.02, ema=0.5)
    learning = trainer(settings)
    losses = [float(learning.step(*BATCHES[step % 12])) for step in range(60)]
    assert np.mean(losses[-12:]) < 0.8 * np.mean(losses[:12])
    told = learning.validate([batch(100, 32), batch(101, 32)])
    assert list(told) == list(FIGURES)
    assert told["spearman"] > 0.5
    assert 0 <= told["within_one"] <= 1


def test_the_average_follows_the_weights_and_is_what_predicts() -> None:
    learning = trainer(SETTINGS.model_copy(update={"ema": 0.0}))
    learning.step(*BATCHES[0])
    assert same(learning.averaged.state_dict(), learning.module.state_dict())
    slow = trainer(SETTINGS.model_copy(update={"ema": 0.999}))
    for one in BATCHES:
        slow.step(*one)
    assert not same(slow.averaged.state_dict(), slow.module.state_dict())
    before = slow.predict(BATCHES[0][0])
    with torch.no_grad():
        for parameter in slow.module.parameters():
            parameter.zero_()
    assert np.array_equal(slow.predict(BATCHES[0][0]), before)
    assert before.shape == (8,)
    assert ((before >= 0) & (before <= DEFAULT_RADII_PX[-1])).all()


@given(st.integers(1, 500), st.floats(0, 0.5))
def test_the_learning_rate_rises_to_its_height_and_falls_to_almost_nothing(steps: int, warmup: float) -> None:
    settings = SETTINGS.model_copy(update={"steps": steps, "warmup": warmup})
    rates = [Trainer.learning_rate(_only(settings), step) for step in range(steps)]
    top = int(np.argmax(rates))
    assert max(rates) <= settings.learning_rate * (1 + 1e-12)
    assert min(rates) > 0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps >= 100:
        assert max(rates) > 0.99 * settings.learning_rate
        assert rates[-1] < 0.02 * settings.learning_rate


def _only(settings: LearningSettings) -> Trainer:
    bare = Trainer.__new__(Trainer)
    bare._settings = settings
    return bare


def test_figures_are_those_of_the_definition() -> None:
    table = (0.0, 1.0, 2.0, 4.0)
    wanted = np.array([0.0, 1.0, 2.0, 4.0, 4.0])
    found = np.array([0.0, 1.2, 4.0, 2.9, 1.0])  # classes 0, 1, 3, 2, 1 for 0, 1, 2, 3, 3
    told = figures(found, wanted, table)
    assert told["class_error"] == pytest.approx((0 + 0 + 1 + 1 + 2) / 5)
    assert told["within_one"] == pytest.approx(4 / 5)
    assert told["within_one_clear"] == pytest.approx(2 / 3)
    assert told["spearman"] == pytest.approx(stats.spearmanr(found, wanted).statistic)
    assert set(figures(np.ones(3), np.zeros(3), table)) == {"within_one", "class_error"}
