"""What every network's training has in common: its pace, its state, where its tensors lie, and how its card ends."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Self

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from medsynth.spec import Settings

RUN_FORMAT = "medsynth-training-1"
"""Name and version of what stands in a run's ``training.json``."""


class PaceSettings(Settings):
    """How long a training is, and when it looks up."""

    steps: int = Field(default=6000, ge=1, le=10**8)
    batch: int = Field(default=64, ge=1, le=65536)
    """Samples of one step, over all workers."""
    validate_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    """Seconds between two checkpoints: what a killed run loses at the most."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of products within the networks; weights, losses and steps are in float32 always. ``auto``: bf16 on a GPU,
    float32 on CPUs. ``bf16`` on a CPU that reckons with it (AMX, AVX512-BF16) learns up to twice as fast."""

    @model_validator(mode="after")
    def _at_lines(self) -> Self:
        if self.validate_every % self.log_every:
            raise ValueError(f"validate_every must be a multiple of log_every ({self.log_every})")
        return self

    def deciding(self) -> dict[str, Any]:
        """All settings that decide the curve."""
        return self.model_dump(mode="json", exclude={"checkpoint_seconds"})


def made_repeatable(device: torch.device) -> None:
    """Have a GPU reckon in one way, always; torch warns of what has no such way, from then on in this process."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is reckoned
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array of a batch as a tensor."""
    # A copy first: batches come read-only out of shared memory.
    return torch.from_numpy(np.array(array)).to(device, non_blocking=True)


def precision(device: torch.device, wanted: str) -> AbstractContextManager[None]:
    """What the products within a network are reckoned in.

    Args:
        device: where.
        wanted: as :attr:`PaceSettings.precision` says.
    """
    bf16 = wanted == "bf16" or (wanted == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def follow(mean: nn.Module, module: nn.Module, decay: float, steps: int) -> None:
    """Bring a running average of weights on by a step.

    Args:
        mean: the average.
        module: the weights.
        decay: of the average.
        steps: done by now; in the first ones the decay is less, else a short run keeps its first weights.
    """
    decay = min(decay, steps / (steps + 9))
    with torch.no_grad():
        torch._foreach_lerp_(list(mean.parameters()), list(module.parameters()), 1 - decay)
    changed(mean)


def changed(module: nn.Module) -> None:
    """Have torch count a change of a module's weights, which whatever is made of them and kept goes by.

    Fused optimizers, and on a GPU joint operations on many tensors, change them without counting.
    """
    torch.autograd.graph.increment_version(list(module.parameters()))


def state_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors of modules, each below its module's name."""
    return {f"{kind}.{name}": value for kind, module in modules.items() for name, value in module.state_dict().items()}


def load_state(modules: Mapping[str, nn.Module], state: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`state_of`."""
    for kind, module in modules.items():
        module.load_state_dict(_below(state, kind))


def moments_of(
    prefix: str, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """What an optimizer knows of parameters, by their names below a prefix."""
    return {
        f"{prefix}.{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }


def load_moments(
    prefix: str,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
) -> None:
    """The inverse of :func:`moments_of`."""
    for name, parameter in parameters.items():
        # The moments lie as the weights do; of steps, only a fused optimizer counts where the weights are.
        place = parameter.device if optimizer.defaults.get("fused") else torch.device("cpu")
        optimizer.state[parameter] = {
            key: value.clone().to(place) if key == "step" else torch.empty_like(parameter).copy_(value)
            for key, value in _below(state, f"{prefix}.{name}").items()
        }


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}


def how_made(command: str, told: str, settings: Mapping[str, Any]) -> list[str]:
    """The end of a card in Markdown, line by line: what made the weights.

    Args:
        command: that made them.
        told: seed, versions and losses, in sentences.
        settings: that decide them.
    """
    return [
        "## How it was made",
        "",
        "```",
        command,
        "```",
        "",
        f"{told} Settings that decide the weights:",
        "",
        "```yaml",
        yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True).strip(),
        "```",
        "",
    ]
