"""Each picture's channels brought to a mean of nothing and a spread of one, whatever company it is in."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medsynth.skin import normalisation_loops, threads

_EPSILON = 1e-5


def normalised(x: Tensor, slope: float = 1.0) -> Tensor:
    """Normalise instances, then rectify.

    On a CPU in float32 or more, and in as few passes over memory as it takes: torch's own takes twice as long, most of
    all backward, and in bf16 up to twenty times where channels lie last.

    Args:
        x: (N, C, h, w). Not to be used afterwards where nothing is learnt: it is overwritten if channels lie last.
        slope: above 0; what negative numbers are multiplied with after it, 1 for nothing.

    Returns:
        (N, C, h, w); on a CPU channels last.

    Source:
        Ulyanov, Vedaldi and Lempitsky, "Instance normalization", arXiv 1607.08022.
    """
    if x.device.type == "cpu":
        exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
        found: Tensor = _Normalised.apply(exact.permute(0, 2, 3, 1).contiguous(), slope)  # type: ignore[no-untyped-call]
        return found.permute(0, 3, 1, 2).to(x.dtype)
    # As groups of one channel: torch copies instances into another order and back, where channels lie last.
    made = functional.group_norm(x, x.shape[1], eps=_EPSILON)
    return functional.leaky_relu(made, slope) if slope != 1 else made


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        count, height, width, channels = x.shape
        found = torch.empty_like(x) if ctx.needs_input_grad[0] else x
        factors = x.new_empty(count, channels)
        numbers, by = (tensor.detach().view(-1).numpy() for tensor in (x, factors))
        given = numbers, height * width, channels, _EPSILON, numbers.dtype.type(slope), by
        threads.shared_out(normalisation_loops.normalised, count, *given, found.view(-1).numpy())
        ctx.save_for_backward(found, factors)
        ctx.slope = slope
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        answers, factors = ctx.saved_tensors
        count, height, width, channels = answers.shape
        found = torch.empty_like(answers)
        own, seen, by, to = (tensor.view(-1).numpy() for tensor in (gradients[0].contiguous(), answers, factors, found))
        kind = seen.dtype.type
        given = own, seen, height * width, channels, kind(1 / ctx.slope), kind(ctx.slope), by, to
        threads.shared_out(normalisation_loops.back, count, *given)
        return found, None
