"""Resize and convolution, which the generators draw larger with, in as few products as we know.

Nearest neighbours twice as large and a 3×3 convolution make 36 products for each pixel that comes in, input channel
and output channel. Several of the nine at a place meet the same pixel: with their weights added first, 16 are left,
and the layer is a transposed convolution. Neighbouring answers share still more: :func:`_corners` makes nine.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsynth.skin import patches, threads, upsampling_loops, winograd
from medsynth.skin.of_weights import OfWeights
from medsynth.skin.packed import packed, product

_MANY, _FEW = 96, 8
"""Answers a pixel from which products of differences pay, and below which one product does."""
_DOUBLING = ((8, 32, winograd.DOUBLED), (8, 16, winograd.DOUBLED_SMALL))
"""Sides from which other methods pay in place of them, drawing and learning."""
_ROWS = 1024
"""Pixels of a product at a time, which stay in the cache."""
_SMALL = 2
"""The side up to which one product pays, learning."""


class UpConvolution(nn.Module):
    """Nearest neighbours twice as large, then a 3×3 convolution.

    There is no checkerboard, since the transposed convolution's weights are not free. Which way is taken on a CPU is a
    matter of time alone: where many channels come out, products of differences take the least.

    Source:
        Odena, Dumoulin and Olah, "Deconvolution and checkerboard artifacts", Distill 2016, for resize and convolution.
    """

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        plain = nn.Conv2d(into, out, 3)
        assert plain.bias is not None
        self.weight, self.bias = plain.weight, plain.bias
        self._of_weights = OfWeights()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, out, 2 h, 2 w)."""
        if x.device.type != "cpu" or len(self.bias) < _MANY:
            return functional.conv_transpose2d(x, self._of_weights(self.weight, summed), self.bias, stride=2, padding=1)
        return self._by_corners(x, self._of_weights(self.weight, _weights))

    def _by_corners(self, x: Tensor, weights: "_Weights") -> Tensor:
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        corners = [above + rest for above, rest in _corners(padded, weights, self.bias)]
        whole: Tensor = torch.stack([torch.stack(corners[:2], dim=3), torch.stack(corners[2:], dim=3)], dim=2)
        return whole.reshape(len(x), 2 * x.shape[2], 2 * x.shape[3], -1).permute(0, 3, 1, 2)

    def of_rectified(self, parts: Sequence[Tensor], name: str | None = None) -> Tensor:
        """The same of several tensors' positive parts, one behind the other; on a CPU with fewer products and copies.

        Args:
            parts: (N, c, h, w) each, together C channels.
            name: of this thread's scratch memory that the answer may lie in, where nothing is learnt: until the next
                one by that name.

        Returns:
            (N, out, 2 h, 2 w).
        """
        out, channels = self.weight.shape[:2]
        rows, columns = parts[0].shape[2:]
        method = winograd.fastest(parts[0], channels, out, min(rows, columns), _DOUBLING)
        if method:
            side = 2 * rows, 2 * columns
            if torch.is_grad_enabled():
                return method.learnt(parts, 0.0, method.weights(self.weight), self.bias, side)
            return method.drawn(parts, 0.0, self._of_weights(self.weight, method.packed), self.bias, side, name)
        if torch.is_grad_enabled() and max(rows, columns) <= _SMALL and winograd.suits(parts[0], min(channels, out)):
            return patches.doubled(_positive(parts), patches.matrix(self.weight), self.bias)
        many = winograd.suits(parts[0], channels)
        exact = many or (parts[0].device.type == "cpu" and not torch.is_grad_enabled())
        if many and out >= _MANY:
            return self._by_corners(_positive(parts), self._of_weights(self.weight, _packed_weights))
        if out >= _FEW or not exact:
            return self.forward(_positive(parts))
        by = self._of_weights(self.weight, summed).permute(0, 2, 3, 1).reshape(channels, -1)
        found: Tensor = _Places.apply(by, self.bias, *[part.permute(0, 2, 3, 1) for part in parts])  # type: ignore[no-untyped-call]
        return found.permute(0, 3, 1, 2)


def smoothed(x: Tensor) -> Tensor:
    """Each channel with a quarter, a half and a quarter of three pixels in both directions, edges repeated.

    After :class:`UpConvolution` it makes of nearest neighbours a bilinear enlargement, away from the edges, since
    convolutions may change places; without it neighbouring pixels of one origin have weights of their own, and a fine
    grid stays where a generator learns little.

    Args:
        x: (N, C, h, w).

    Source:
        Karras et al., "A style-based generator architecture", CVPR 2019, appendix C, after Zhang, "Making
        convolutional networks shift-invariant again", ICML 2019.
    """
    taps = 0.5 - 0.25 * torch.arange(-1, 2, device=x.device, dtype=x.dtype).abs()
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
    return functional.conv2d(repeated(x), kernel, groups=x.shape[1])


def doubled(x: Tensor) -> Tensor:
    """Bilinear, twice as large: (N, C, h, w) to (N, C, 2 h, 2 w); on a GPU the same gradient every time."""
    return smoothed(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def repeated(x: Tensor) -> Tensor:
    """A pixel more on each side, the edges' own: (N, C, h, w) to (N, C, h + 2, w + 2).

    Not torch's own padding, whose gradient differs in its last bits from time to time on a GPU.
    """
    found: Tensor = _Repeated.apply(x)  # type: ignore[no-untyped-call]
    return found


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return functional.pad(x, (1, 1, 1, 1), mode="replicate")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        rows = gradient[:, :, 1:-1].clone()
        rows[:, :, 0] += gradient[:, :, 0]
        rows[:, :, -1] += gradient[:, :, -1]
        found = rows[:, :, :, 1:-1].clone()
        found[:, :, :, 0] += rows[:, :, :, 0]
        found[:, :, :, -1] += rows[:, :, :, -1]
        return found


def summed(weight: Tensor) -> Tensor:
    """The 4×4 transposed kernel of nearest ×2 and a 3×3 convolution.

    Args:
        weight: (out, in, 3, 3).

    Returns:
        (in, out, 4, 4).
    """
    # An even pixel sees its left neighbour and twice itself; an odd one itself twice, and its right neighbour.
    first, middle, last = weight.unbind(2)
    rows = torch.stack([last, middle + last, first + middle, first], dim=2)
    first, middle, last = rows.unbind(3)
    return torch.stack([last, middle + last, first + middle, first], dim=3).transpose(0, 1)


class _Weights(NamedTuple):
    """(out, in), (2 out, in), (2 out, in) and (4 out, in), for :func:`_corners`."""

    pixel: Tensor
    across: Tensor
    down: Tensor
    both: Tensor


def _weights(weight: Tensor) -> _Weights:
    # Of each direction: all three weights, less the first, and the last.
    def split(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, middle, last = weights.unbind(0)
        return first + middle + last, -first, last

    (pixel, *across), *ends = (split(rows) for rows in split(weight.permute(2, 3, 0, 1)))
    down, both = [end[0] for end in ends], [part for end in ends for part in end[1:]]
    return _Weights(pixel, torch.cat(across), torch.cat(down), torch.cat(both))


def _packed_weights(weight: Tensor) -> _Weights:
    return _Weights(*map(packed, _weights(weight)))


def _corners(padded: Tensor, weights: _Weights, bias: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The four pixels that each one becomes, by nine products.

    In one direction, of weights a, b, c, the answers at a pixel x with neighbours l and r are a l + (b + c) x and
    (a + b) x + c r. That is (a + b + c) x - a (x - l) and (a + b + c) x + c (r - x): three products in place of four,
    since the first is in both; and the differences are the neighbours' too. In both directions it is three times three.

    Args:
        padded: (n, h + 2, w + 2, C), with the rows and columns around.
        weights: as :func:`_weights` gives them.
        bias: (out,).

    Yields:
        Two (n, h, w, out), whose sum is the answer at the upper left; then upper right, lower left, lower right.

    Source:
        The algorithm for two answers of two weights of Winograd, "Arithmetic complexity of computations", 1980, with
        weights that sum up alike.
    """
    size = len(bias)
    down = padded[:, 1:] - padded[:, :-1]
    here = padded[:, 1:-1]
    across = here[:, :, 1:] - here[:, :, :-1]
    both = down[:, :, 1:] - down[:, :, :-1]

    def times(field: Tensor, by: Tensor) -> Tensor:
        return product(field.reshape(-1, field.shape[3]), by).view(*field.shape[:3], -1)

    pixel = times(here[:, :, 1:-1], weights.pixel) + bias
    of_across, of_down = times(across, weights.across), times(down[:, :, 1:-1], weights.down)
    of_both = times(both, weights.both)
    sides = slice(0, -1), slice(1, None)
    beside = [pixel + of_across[:, :, columns, odd * size : (odd + 1) * size] for odd, columns in enumerate(sides)]
    for low, rows in enumerate(sides):
        for odd, columns in enumerate(sides):
            place = (2 * low + odd) * size
            above = beside[odd] + of_down[:, rows, :, low * size : (low + 1) * size]
            yield above, of_both[:, rows, columns, place : place + size]


class _Places(torch.autograd.Function):
    """What each pixel of the parts, rectified, adds to the sixteen around it, in one product; for few answers a pixel.

    Takes (C, 16 out), (out,) and the parts, (N, h, w, c) each; gives (N, 2 h, 2 w, out).
    """

    @staticmethod
    def forward(ctx: Any, by: Tensor, bias: Tensor, *parts: Tensor) -> Tensor:
        count, height, width, _ = parts[0].shape
        found = by.new_empty(count, 2 * height, 2 * width, len(bias))
        numbers = bias.detach().numpy()

        def draw(images: slice) -> None:
            products = threads.scratch("products", by, height * width, by.shape[1])
            for number in range(images.start, images.stop):
                for rows, some in _rectified(parts, number, by):
                    torch.mm(some, by, out=products[rows])
                given = products.view(-1).numpy(), numbers, height, width, found[number].view(-1).numpy()
                upsampling_loops.placed(*given)  # type: ignore[no-untyped-call]

        threads.in_parts(draw, count)
        ctx.save_for_backward(by, *parts)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by, *parts = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        count, height, width, _ = parts[0].shape
        of_parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in parts]
        of_by = by.new_zeros(count, *by.shape)
        widths = [part.shape[3] for part in parts]

        def back(images: slice) -> None:
            products = threads.scratch("products", by, height * width, by.shape[1])
            for number in range(images.start, images.stop):
                given = gradient[number].view(-1).numpy(), height, width, products.view(-1).numpy()
                upsampling_loops.placed_back(*given)  # type: ignore[no-untyped-call]
                for rows, some in _rectified(parts, number, by):
                    of_by[number].addmm_(some.t(), products[rows])
                    own = torch.mm(products[rows], by.t()).mul_(some.sign_())
                    for part, found in zip(torch.split(own, widths, dim=1), of_parts, strict=True):
                        found[number].view(height * width, -1)[rows] = part

        threads.in_parts(back, count)
        return of_by.sum(dim=0), gradient.sum(dim=(0, 1, 2)), *of_parts


def _rectified(parts: Sequence[Tensor], number: int, by: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some pixels of a picture at a time, (rows, C), as ``by`` is to be multiplied with; to be used before the next."""
    own = [part[number].flatten(0, 1) for part in parts]
    pixels = len(own[0])
    field = threads.scratch("fields", by, min(_ROWS, pixels), len(by))
    for rows in (slice(first, min(first + _ROWS, pixels)) for first in range(0, pixels, _ROWS)):
        yield rows, torch.cat([part[rows] for part in own], dim=1, out=field[: rows.stop - rows.start]).clamp_min_(0)


def _positive(parts: Sequence[Tensor]) -> Tensor:
    return functional.relu(torch.cat(list(parts), dim=1))
