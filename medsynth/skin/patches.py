"""Convolutions of small pictures with many channels, each as one product of matrices.

Their weights are many times what comes in, and torch's own convolutions copy them into an order of their own, forward
and backward. Where channels lie last the weights are a matrix as they are, and only the patches that meet them are
laid out anew.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medsynth.skin.packed import packed, product


def matrix(weight: Tensor) -> Tensor:
    """What patches are multiplied with, packed where nothing is learnt.

    Args:
        weight: (out, C, k, k).

    Returns:
        (out, k · k · C).
    """
    return packed(weight.permute(0, 2, 3, 1).reshape(len(weight), -1))


def halved(x: Tensor, by: Tensor, bias: Tensor) -> Tensor:
    """A 4×4 kernel with stride 2, and one pixel of nothing at the edges.

    Args:
        x: (N, C, h, w), h and w even.
        by: the kernel, as :func:`matrix` gives it.
        bias: (out,).

    Returns:
        (N, out, h / 2, w / 2), channels last.
    """
    return _product(_Patches.apply(_last(x), 4, 2), by, bias)  # type: ignore[no-untyped-call]


def doubled(x: Tensor, by: Tensor, bias: Tensor) -> Tensor:
    """Nearest neighbours twice as large, then a 3×3 kernel, with one pixel of nothing at the edges.

    Args:
        x: (N, C, h, w).
        by: the kernel, as :func:`matrix` gives it.
        bias: (out,).

    Returns:
        (N, out, 2 h, 2 w), channels last.
    """
    larger = functional.interpolate(x, scale_factor=2.0, mode="nearest")
    return _product(_Patches.apply(_last(larger), 3, 1), by, bias)  # type: ignore[no-untyped-call]


def placed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 4×4 kernel with one pixel of nothing at the edges, for few answers: first what each pixel adds to sixteen.

    Args:
        x: (N, C, h, w).
        weight: (out, C, 4, 4).
        bias: (out,).

    Returns:
        (N, out, h - 1, w - 1).
    """
    by = weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, weight.shape[1])
    products = functional.linear(_last(x).flatten(1, 2), by).transpose(1, 2)
    return functional.fold(products, (x.shape[2] - 1, x.shape[3] - 1), 4, padding=2) + bias[:, None, None]


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _product(patches: Tensor, by: Tensor, bias: Tensor) -> Tensor:
    return product(patches.flatten(3), by, bias).permute(0, 3, 1, 2)


class _Patches(torch.autograd.Function):
    """(N, h, w, C) to (N, rows, columns, side, side · C): what a kernel sees from each place, edges of nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int, stride: int) -> Tensor:
        padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
        count, height, width, channels = padded.shape
        rows, columns = ((length - side) // stride + 1 for length in (height, width))
        ctx.shape, ctx.stride = padded.shape, stride
        image, row, pixel, _ = padded.stride()
        return padded.as_strided(
            (count, rows, columns, side, side * channels), (image, stride * row, stride * pixel, row, 1)
        ).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        rows, columns, side = gradient.shape[1:4]
        stride, channels = ctx.stride, ctx.shape[3]
        found = gradient.new_zeros(ctx.shape)
        for down in range(side):
            for right in range(side):
                seen = slice(down, down + stride * rows, stride), slice(right, right + stride * columns, stride)
                found[:, seen[0], seen[1]] += gradient[:, :, :, down, right * channels : (right + 1) * channels]
        return found[:, 1:-1, 1:-1].contiguous(), None, None
