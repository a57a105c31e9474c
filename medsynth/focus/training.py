"""How the focus network learns: one class that takes batches, and nothing of where they come from.

After the first weights nothing is drawn at random here, so the state is the weights, their average, the
optimizer's moments and the number of steps; the learning rate follows from that number.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from medsynth import learning
from medsynth.focus import network, ordinal
from medsynth.focus.network import NetworkSettings
from medsynth.learning import PaceSettings
from medsynth.seeds import digest64

FIGURES = ("spearman", "within_one", "within_one_clear", "class_error")
"""What :func:`figures` tells, in the order in which it is shown."""

CLEAR_PX = 2.0
"""From this radius on, blur is told apart from the source tiles' own softness."""


class LearningSettings(PaceSettings):
    """How the network learns, whatever from."""

    network: NetworkSettings = NetworkSettings()
    loss: Literal["rps", "ce"] = "rps"
    """Ranked probability score, or cross-entropy, which is blind to the classes' order."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    """Its highest value, reached after the warm-up; a cosine takes it from there to nearly nothing."""
    warmup: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is kept; less in the first steps."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Length to which a longer gradient is cut."""


class Trainer:
    """The network in training.

    Args:
        settings: how it learns.
        radii_px: blur radius of each class, as many as the network has classes.
        device: where it learns.
        seed: of the first weights.
        average: called with the gradients of each step, to replace them by their means over all workers.
    """

    def __init__(
        self,
        settings: LearningSettings,
        radii_px: Sequence[float],
        device: torch.device,
        seed: int,
        average: Callable[[Sequence[Tensor]], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._radii_px = tuple(radii_px)
        self._device = device
        self._average = average
        self._loss = {"rps": ordinal.ranked_probability_score, "ce": ordinal.cross_entropy}[settings.loss]
        learning.made_repeatable(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(digest64(seed, "weights") >> 1)
            self.module = network.build(settings.network)
            self.averaged = network.build(settings.network)
        self.averaged.load_state_dict(self.module.state_dict())
        for module in (self.module, self.averaged):
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged.requires_grad_(False).eval()
        self._modules = {"weights": self.module, "average": self.averaged}
        self._parameters = dict(self.module.named_parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=0.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.steps = 0

    def step(self, images: NDArray[np.uint8], radii: NDArray[np.float32]) -> Tensor:
        """Learn from a batch.

        Args:
            images: (N, H, W, 3) RGB.
            radii: (N,) blur radii in pixels.

        Returns:
            The loss before the step, a scalar on the device.
        """
        self._optimizer.param_groups[0]["lr"] = self.learning_rate(self.steps)
        target = ordinal.soft_target(self._on_device(radii), self._radii_px)
        with learning.precision(self._device, self._settings.precision):
            logits = self.module(self._on_device(images))
        loss = self._loss(logits, target)
        self._optimizer.zero_grad(set_to_none=False)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        self._average(gradients)
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.clip_norm)
        self._optimizer.step()
        self.steps += 1
        learning.follow(self.averaged, self.module, self._settings.ema, self.steps)
        return loss.detach()

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        settings = self._settings
        rising = settings.warmup * settings.steps
        if step < rising:
            return settings.learning_rate * (step + 1) / math.ceil(rising + 1)
        through = min(1.0, (step - rising) / (settings.steps - rising))
        return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * through)) / 2)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Expected blur radius of each image by the averaged weights.

        Args:
            images: (N, H, W, 3) RGB.

        Returns:
            (N,) radii in pixels, of an image's mean distribution, its cells weighted by their certainty as
            :meth:`medsynth.focus.model.FocusModel.score` does.
        """
        with torch.no_grad(), learning.precision(self._device, self._settings.precision):
            logits = self.averaged(self._on_device(images))
        cells = torch.softmax(logits.float(), dim=1)
        weights = ordinal.certainty(cells)[:, None] + 1e-6
        chances = (cells * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3))
        found: NDArray[np.float32] = ordinal.expected_radius(chances, self._radii_px).cpu().numpy()
        return found

    def validate(self, batches: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> dict[str, float]:
        """Figures of the averaged weights on held-out samples; see :func:`figures`.

        Args:
            batches: images and radii, as :meth:`step` takes them.
        """
        pairs = [(self.predict(images), radii) for images, radii in batches]
        found, wanted = (np.concatenate(column).astype(np.float64) for column in zip(*pairs, strict=True))
        return figures(found, wanted, self._radii_px)

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on exactly."""
        moments = learning.moments_of("adamw", self._parameters, self._optimizer)
        return {"steps": torch.tensor(self.steps), **learning.state_of(self._modules), **moments}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Args:
            state: what :meth:`state` gave, of a trainer with the same settings.
        """
        self.steps = int(state["steps"])
        learning.load_state(self._modules, state)
        learning.load_moments("adamw", self._parameters, self._optimizer, state)

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        return learning.on_device(array, self._device)


def figures(found: NDArray[np.float64], wanted: NDArray[np.float64], radii_px: Sequence[float]) -> dict[str, float]:
    """How well blur radii were told.

    Args:
        found: (N,) predicted radii in pixels.
        wanted: (N,) true radii in pixels.
        radii_px: blur radius of each class.

    Returns:
        ``spearman`` between the two; ``within_one``, the share whose class is missed by one at the most, and
        ``within_one_clear``, the same of those with a radius of 2 px or more; ``class_error``, the mean
        distance in classes. What cannot be told of so few samples is left out.
    """
    guessed, true = (ordinal.nearest_class(radii, radii_px) for radii in (found, wanted))
    apart = np.abs(guessed - true)
    near = apart <= 1
    clear = wanted >= CLEAR_PX
    told = {"within_one": float(near.mean()), "class_error": float(apart.mean())}
    if clear.any():
        told["within_one_clear"] = float(near[clear].mean())
    if np.ptp(found) > 0 and np.ptp(wanted) > 0:
        from scipy import stats  # here: it takes longer to load than all else but torch, in each process of a run

        told["spearman"] = float(stats.spearmanr(found, wanted).statistic)
    return {name: told[name] for name in FIGURES if name in told}
