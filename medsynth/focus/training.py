"""How the focus network learns: one class that takes batches, and nothing of where they come from.

After the first weights nothing is drawn at random here, so the state is the weights, their average, the
optimizer's moments and the number of steps; the learning rate follows from that number.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats
from torch import Tensor

from medsynth.focus import network, ordinal
from medsynth.focus.network import NetworkSettings
from medsynth.seeds import digest64
from medsynth.spec import Settings

FIGURES = ("spearman", "within_one", "within_one_clear", "class_error")
"""What :func:`figures` tells, in the order in which it is shown."""

CLEAR_PX = 2.0
"""From this radius on, blur is told apart from the source tiles' own softness."""


class LearningSettings(Settings):
    """How the network learns, whatever from."""

    network: NetworkSettings = NetworkSettings()
    loss: Literal["rps", "ce"] = "rps"
    """Ranked probability score, or cross-entropy, which is blind to the classes' order."""
    steps: int = Field(default=6000, ge=1, le=10**8)
    batch: int = Field(default=64, ge=1, le=65536)
    """Samples of one step, over all workers."""
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
        device: where it learns; on a GPU in bf16 where that is safe.
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
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(digest64(seed, "weights") >> 1)
            self.module = network.build(settings.network)
            self.averaged = network.build(settings.network)
        self.averaged.load_state_dict(self.module.state_dict())
        for module in (self.module, self.averaged):
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged.requires_grad_(False).eval()
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
        with self._precision():
            logits = self.module(self._on_device(images))
        loss = self._loss(logits, target)
        self._optimizer.zero_grad(set_to_none=False)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        self._average(gradients)
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.clip_norm)
        self._optimizer.step()
        self.steps += 1
        decay = min(self._settings.ema, self.steps / (self.steps + 9))  # else a short run keeps its first weights
        with torch.no_grad():
            for mean, parameter in zip(self.averaged.parameters(), self._parameters.values(), strict=True):
                mean.lerp_(parameter, 1 - decay)
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
        with torch.no_grad(), self._precision():
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
        found = {"steps": torch.tensor(self.steps)}
        for kind, module in (("weights", self.module), ("average", self.averaged)):
            found |= {f"{kind}.{name}": tensor for name, tensor in module.state_dict().items()}
        for name, parameter in self._parameters.items():
            found |= {f"adamw.{name}.{key}": value for key, value in self._optimizer.state[parameter].items()}
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Args:
            state: what :meth:`state` gave, of a trainer with the same settings.
        """
        self.steps = int(state["steps"])
        for kind, module in (("weights", self.module), ("average", self.averaged)):
            module.load_state_dict(_below(state, kind))
        for name, parameter in self._parameters.items():
            kept = _below(state, f"adamw.{name}")
            # The moments lie as the weights do; the optimizer wants its own count of steps on the CPU.
            self._optimizer.state[parameter] = {
                key: value.clone() if key == "step" else torch.empty_like(parameter).copy_(value)
                for key, value in kept.items()
            }

    def _on_device(self, array: NDArray[Any]) -> Tensor:
        # A copy first: batches come read-only out of shared memory.
        return torch.from_numpy(np.array(array)).to(self._device, non_blocking=True)

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda")


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
        told["spearman"] = float(stats.spearmanr(found, wanted).statistic)
    return {name: told[name] for name in FIGURES if name in told}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}
