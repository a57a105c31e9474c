"""Weights that a training begins with in place of random ones: those of an earlier one, on other photos perhaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from medsynth.errors import TrainingError
from medsynth.skin.model import DEFAULT_URI, SkinModel
from medsynth.skin.presets import TrainSettings

SHIPPED = "shipped"
"""Names the weights that medsynth comes with, as the setting ``begin``."""
_CONDITION = "condition.weight"


@dataclass(frozen=True)
class Begun:
    """The generator's weights at the start."""

    where: str
    """Their file."""
    sha256: str
    """Of it."""
    state: Mapping[str, Tensor]
    """By name, as a network of the training's conditions takes them."""


def read(settings: TrainSettings, conditions: Sequence[str]) -> Begun:
    """Read the weights that settings tell to begin with.

    Args:
        settings: of the training, with ``begin``.
        conditions: of the training, in its order; the weights may know more, unless they are a U-Net's.

    Raises:
        ModelError: there are no such weights.
        StorageError: they cannot be read.
        TrainingError: they are of another network, know a condition too few, are a U-Net's of other conditions, or
            learnt from another kind of region.
    """
    where = DEFAULT_URI if settings.begin == SHIPPED else settings.begin
    model = SkinModel.load(where)
    asked, there = settings.generator, model.network.settings
    for name in ("kind", "size", "width", "widest", "latent", "embedding"):
        one, other = getattr(asked, name), getattr(there, name)
        if one != other:
            raise TrainingError(f"{where}: generator.{name} is {other} there and {one} in the settings; give the same")
    if model.region != settings.samples.region:
        raise TrainingError(
            f"{where}: learnt from lesions of samples.region {model.region}, not {settings.samples.region}; "
            "give the same, or begin anew"
        )
    for condition in conditions:
        if condition not in model.conditions:
            raise TrainingError(
                f"{where}: does not know the condition {condition!r}, only {', '.join(model.conditions)}; leave it out "
                "by the setting conditions, or begin anew"
            )
    if asked.kind == "unet" and tuple(conditions) != tuple(model.conditions):
        # It is told a condition by its map's colour alone.
        raise TrainingError(
            f"{where}: a U-Net knows conditions by colours that follow from all of them in their order, "
            f"{', '.join(model.conditions)}; give the setting conditions the same, or begin anew"
        )
    state = model.network.state_dict()
    if _CONDITION in state:
        state[_CONDITION] = state[_CONDITION][[model.conditions.index(name) for name in conditions]]
    return Begun(where, model.sha256, state)
