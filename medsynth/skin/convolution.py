"""The convolutions that the networks make smaller with, and judge with."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsynth.skin import patches, winograd
from medsynth.skin.of_weights import OfWeights
from medsynth.skin.winograd import Method

_HALVING = ((16, 32, winograd.HALVED), (8, 16, winograd.HALVED_SMALL))
_EACH = ((8, 16, winograd.EACH),)
"""Sides of answers from which methods pay, drawing and learning."""
_SMALL_DRAWING, _SMALL_LEARNING = 4, 8
"""Sides of answers up to which a halving pays as one product of matrices."""
_FEW = 8
"""Answers a pixel below which what each pixel adds to others is reckoned in one product."""


class Convolution(nn.Conv2d):
    """A 4×4 kernel with a pixel of nothing at the edges.

    Which way is taken on a CPU is a matter of time alone.

    Args:
        into: channels that come in.
        out: channels of the answer.
        stride: 1, or 2 to halve the picture.
    """

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__(into, out, 4, stride, 1)
        self._of_weights = OfWeights()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, out, h / 2, w / 2), or with stride 1 to (N, out, h - 1, w - 1)."""
        return self.of_rectified(x, 1.0)

    def of_rectified(self, x: Tensor, slope: float, name: str | None = None) -> Tensor:
        """The same of x with its negative numbers multiplied by ``slope``; on a CPU with a copy fewer.

        Args:
            x: (N, C, h, w).
            slope: 1 for x as it is.
            name: of this thread's scratch memory that the answer may lie in, where nothing is learnt: until the next
                one by that name.
        """
        side = (x.shape[2] // 2, x.shape[3] // 2) if self.stride == (2, 2) else (x.shape[2] - 1, x.shape[3] - 1)
        assert self.bias is not None
        method = self._method(x, min(side))
        if method:
            if torch.is_grad_enabled():
                return method.learnt([x], slope, method.weights(self.weight), self.bias, side)
            return method.drawn([x], slope, self._of_weights(self.weight, method.packed), self.bias, side, name)
        x = functional.leaky_relu(x, slope) if slope != 1 else x
        if self._small(x, max(side)):
            return patches.halved(x, self._of_weights(self.weight, patches.matrix), self.bias)
        if self.stride == (1, 1) and self.out_channels < _FEW and winograd.suits(x, self.in_channels):
            return patches.placed(x, self.weight, self.bias)
        return super().forward(x)

    def _small(self, x: Tensor, side: int) -> bool:
        at_most = _SMALL_LEARNING if torch.is_grad_enabled() else _SMALL_DRAWING
        halving = self.stride == (2, 2) and not (x.shape[2] % 2 or x.shape[3] % 2)
        return halving and side <= at_most and winograd.suits(x, min(self.in_channels, self.out_channels))

    def _method(self, x: Tensor, side: int) -> Method | None:
        ways = _HALVING if self.stride == (2, 2) else _EACH
        return winograd.fastest(x, self.in_channels, self.out_channels, side, ways)
