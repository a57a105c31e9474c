"""What a layer makes of its weights."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


class OfWeights:
    """Makes something of a layer's weights; where nothing is learnt, it is kept until they change.

    A copy of it, or what comes out of a pickle, keeps nothing yet.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[Tensor, tuple[int, int], Any]] = {}

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return OfWeights, ()

    def __call__(self, weight: Tensor, make: Callable[[Tensor], Made]) -> Made:
        """What ``make`` makes of ``weight``."""
        if torch.is_grad_enabled() or weight.is_inference():  # which counts no changes
            return make(weight)
        # The tensor itself too: one that is reckoned at each call may lie where the last one did.
        now = weight.data_ptr(), weight._version
        kept = self._kept.get(make)
        if kept is None or kept[0] is not weight or kept[1] != now:
            kept = self._kept[make] = weight, now, make(weight)
        made: Made = kept[2]
        return made
