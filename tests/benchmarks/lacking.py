"""The network plus without one of its parts, for bench_gan_ablation.py: what the part needs stays at nothing.

So the files of weights are those of plus, and are drawn with as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from medsynth.skin import semantic_map
from medsynth.skin.generator import PlusNetwork
from medsynth.skin.run import SkinRun
from medsynth.skin.training import Trainer

Part = Literal["grain", "regions", "embeddings"]
PARTS: tuple[Part, ...] = get_args(Part)

_OF_NUMBERS: Mapping[Part, tuple[int, ...]] = {
    "grain": (2, 5),  # noise by pixel, in the skin and in the lesion; the lowest level's 8x8 of it stays
    "regions": (3, 5),  # the lesion scales nothing and has no noise of its own: it shifts, as one more channel would
}
"""Which of the six numbers of each channel of a layer a part is."""


@dataclass(frozen=True)
class Lacking(SkinRun):
    """A run whose network lacks a part."""

    part: Part = "grain"

    @classmethod
    def of(cls, run: SkinRun, part: Part) -> "Lacking":
        """The same run without the part."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(run)}, part=part)

    def trainer(
        self, device: torch.device, average: Callable[[Sequence[Tensor]], None] = lambda _: None, rank: int = 0
    ) -> Trainer:
        """The networks at their start."""
        found = super().trainer(device, average, rank)
        for network in (found.module, found.averaged):
            assert isinstance(network, PlusNetwork)
            without(network, self.part, self.material.conditions)
        return found

    def header(self) -> dict[str, Any]:
        """All that decides the result."""
        return {**super().header(), "without": self.part}


def without(network: PlusNetwork, part: Part, conditions: Sequence[str]) -> None:
    """Take a part from a network, for good: where it is, nothing is learnt.

    Args:
        network: to change.
        part: ``grain``, the noise by pixel and scale; ``regions``, that the lesion has a scale and a noise of its own;
            or ``embeddings``, of conditions and types: conditions then are what the map tells of them, three numbers
            of a colour, in a fixed mix.
        conditions: in their order.
    """
    if part == "embeddings":
        colours = [semantic_map.colour_of(name, conditions) for name in conditions]
        mix = torch.randn(3, network.condition.embedding_dim, generator=torch.Generator().manual_seed(0))
        fixed = (torch.tensor(colours).float() / 127.5 - 1) @ mix
        _hold(network.condition, torch.zeros_like(fixed), fixed)
        _hold(network.tone, torch.zeros_like(network.tone.weight), torch.zeros_like(network.tone.weight))
        return
    for side, style in zip(network.sides, network.styles, strict=True):
        kept = torch.ones(len(style.weight))  # type: ignore[arg-type]
        kept.view(-1, 6, network.settings.channels(side))[:, list(_OF_NUMBERS[part])] = 0
        _hold(style, kept, torch.zeros_like(kept))


def _hold(layer: nn.Module, kept: Tensor, value: Tensor) -> None:
    # What is not kept has this value from now on, and no gradient.
    for parameter in layer.parameters():
        rows, fixed = (field.to(parameter.device) for field in (kept, value))
        if more := parameter.ndim - rows.ndim:
            rows, fixed = (field.reshape(*field.shape, *[1] * more) for field in (rows, fixed))
        with torch.no_grad():
            parameter.copy_(parameter * rows + (1 - rows) * fixed)
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient, rows=rows: gradient * rows)
