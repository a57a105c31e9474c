"""Convolutions of few taps by Winograd's minimal filtering: fewer products, for float32 on CPUs.

In one direction, m answers of r taps follow from m + r - 1 neighbouring values. They are read as the coefficients of
polynomials that take as many points to tell apart, so that many products are enough, in place of m r: 5 for four
answers of two taps, not 8. In two directions it is the square: 25, not 64. A product is one of matrices, since every
value here has channels; what is done before and after it are sums.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from torch import Tensor

from medsynth.skin import threads, winograd_loops
from medsynth.skin.packed import packed, product

_ROWS = 256
"""Rows of a product, at the least: with fewer it is slow, and of many more what is made of them leaves the cache."""

_CHANNELS = 64
"""Fewer than that, in or out, and the sums around the products take longer than the products that are saved."""

Matrix = NDArray[np.float64]


class Method:
    """One kind of convolution, in blocks of answers; edges are padded with one pixel of nothing.

    Args:
        answers: m, along a side of a block.
        points: m + r - 2 different ones at which the polynomials are taken, 1 the first; infinity is the last. Small
            ones, since their powers are multiplied with: rounding grows with them.
        taps: for each phase, (r, n): the taps that its answers have, as sums of a kernel's n weights along a side.
            A position has as many answers as there are phases, side by side: one, or two of an enlargement.
        inside: pixels along a side of a position that comes in; 2 halves the picture.

    Source:
        Winograd, "Arithmetic complexity of computations", 1980; for networks, Lavin and Gray, "Fast algorithms for
        convolutional neural networks", CVPR 2016.
    """

    def __init__(self, answers: int, points: Sequence[float], taps: Sequence[Sequence[Sequence[int]]], inside: int):
        self.answers, self.inside, self.phases = answers, inside, len(taps)
        before, of_taps, self._after = _algorithm(answers, len(taps[0]), points)
        self._before = before
        by_phase = [of_taps @ np.array(phase) for phase in taps]
        # At the point 1 a polynomial is the sum of its taps, which two phases of the same weights have in common.
        self._own = np.array(
            [1 if all(np.array_equal(phase[p], by_phase[0][p]) for phase in by_phase) else len(taps)
             for p in range(len(before))]
        )  # fmt: skip
        self._each = np.outer(self._own, self._own).ravel().tolist()
        rows: list[Matrix] = []
        self._starts = np.zeros((len(before), len(before)), dtype=np.int64)
        for p, count in enumerate(self._own):
            for q, beside in enumerate(self._own):
                self._starts[p, q] = len(rows)
                rows += [np.kron(by_phase[f][p], by_phase[g][q]) for f in range(count) for g in range(beside)]
        self._of_weights = np.array(rows)

    def weights(self, weight: Tensor) -> Tensor:
        """What the products take in place of a kernel.

        Args:
            weight: (out, C, k, k).

        Returns:
            (P, out, K): a matrix for each product of a block and phase, over the K numbers of a position.
        """
        found: Tensor = _OfKernel.apply(_last(weight), self)  # type: ignore[no-untyped-call]
        return found

    def packed(self, weight: Tensor) -> list[Tensor]:
        """The same for :meth:`drawn`: of each point a matrix, packed.

        Args:
            weight: (out, C, k, k).

        Returns:
            For each of a block's points (out, K), or several phases' below one another.
        """
        weights, found, start = self.weights(weight), [], 0
        for each in self._each:
            found.append(packed(weights[start : start + each].flatten(0, 1)))
            start += each
        return found

    def learnt(
        self, parts: Sequence[Tensor], slope: float, weights: Tensor, bias: Tensor, side: tuple[int, int]
    ) -> Tensor:
        """The same as :meth:`drawn`, with gradients, of what :meth:`weights` gives."""
        last = [_last(part) for part in parts]
        found: Tensor = _Convolution.apply(self, slope, side, weights, bias, *last)  # type: ignore[no-untyped-call]
        return found.permute(0, 3, 1, 2)

    def drawn(
        self,
        parts: Sequence[Tensor],
        slope: float,
        weights: Sequence[Tensor],
        bias: Tensor,
        side: tuple[int, int],
        name: str | None = None,
    ) -> Tensor:
        """The convolution of several tensors behind one another, rectified first; without gradients.

        Args:
            parts: (N, c, h, w) each, together C channels; one alone where positions have several pixels.
            slope: what negative numbers are multiplied with before.
            weights: as :meth:`packed` gives them.
            bias: (out,).
            side: height and width of the answer.
            name: of the scratch memory (:func:`medsynth.skin.threads.scratch`) that the answer may lie in.

        Returns:
            (N, out, *side), channels last.
        """
        last = [_last(part) for part in parts]
        shape = len(last[0]), *side, len(bias)
        found = last[0].new_empty(shape) if name is None else threads.scratch(name, last[0], *shape)
        shares = self._shares(len(found), side)

        def draw(some: slice) -> None:
            for images in shares[some]:
                fields = threads.scratch("fields", found, *self._shape(last, images, side))
                self._spread([part[images] for part in last], slope, side, fields)
                products = threads.scratch("products", found, fields.shape[1] * sum(self._each) * len(bias))
                start = 0
                for field, by in zip(fields, weights, strict=True):
                    own = product(field, by)
                    products[start : start + own.numel()] = own.flatten()
                    start += own.numel()
                self._gather(products, bias, found[images])

        threads.in_parts(draw, len(shares))
        return found.permute(0, 3, 1, 2)

    def _of_kernel(self, kernel: Tensor, weights: Tensor, back: bool) -> None:
        numbers = _flat(kernel)
        by = self._of_weights.astype(numbers.dtype)
        given = numbers, *kernel.shape, by, self.inside, _flat(weights), back
        threads.shared_out(winograd_loops.of_kernel, len(kernel), *given)

    def _grid(self, side: tuple[int, int]) -> tuple[int, int]:
        # An enlargement has a position more than the picture, since what it gives lies around the pixels' corners.
        rows, columns = (-(-((length - 1) // self.phases + self.phases) // self.answers) for length in side)
        return rows, columns

    def _blocks(self, side: tuple[int, int]) -> int:
        return math.prod(self._grid(side))

    def _shares(self, images: int, side: tuple[int, int]) -> list[slice]:
        """Images that are worked on at a time; the first share has the most."""
        size = min(-(-_ROWS // self._blocks(side)), -(-images // torch.get_num_threads()))
        return [slice(first, min(first + size, images)) for first in range(0, images, size)]

    def _shape(self, parts: Sequence[Tensor], images: slice, side: tuple[int, int]) -> tuple[int, int, int]:
        """(t · t, blocks, K): of what the products of a share take."""
        size = self.inside**2 * sum(part.shape[3] for part in parts)
        return self._starts.size, (images.stop - images.start) * self._blocks(side), size

    def _spread(self, parts: Sequence[Tensor], slope: float, side: tuple[int, int], fields: Tensor) -> None:
        first = 0
        for part in parts:
            numbers = _flat(part)
            before, by = self._before.astype(numbers.dtype), numbers.dtype.type(slope)
            shape = (self.answers, self.inside, *self._grid(side))
            given = (numbers, *part.shape[1:], before, by, shape, _flat(fields), *fields.shape[1:], first)
            threads.shared_out(winograd_loops.spread, fields.shape[1], *given)
            first += self.inside**2 * part.shape[3]

    def _products(self, fields: Tensor, weights: Tensor) -> Tensor:
        products = threads.scratch("products", fields, fields.shape[1] * weights.shape[0] * weights.shape[1])
        for field, made, by in self._factors(fields, products, weights):
            torch.bmm(field, by.transpose(1, 2), out=made)
        return products

    def _factors(self, fields: Tensor, products: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of points that have as many products each: what comes in, what comes out, and the matrices between them."""
        _, out, size = weights.shape
        rows, first, start = fields.shape[1], 0, 0
        for each, points in groupby(self._each):
            count = len(list(points))
            last, stop = first + count, start + count * each
            made = products[start * rows * out : stop * rows * out].view(count, rows, each * out)
            yield fields[first:last], made, weights[start:stop].view(count, each * out, size)
            first, start = last, stop

    def _gather(self, products: Tensor, bias: Tensor, found: Tensor) -> None:
        numbers, side = _flat(found), (found.shape[1], found.shape[2])
        after, grid = self._after.astype(numbers.dtype), self._grid(side)
        given = (_flat(products), self._starts, self._own, after, self.phases, grid, _flat(bias), numbers, *side)
        count = len(found) * self._blocks(side)
        threads.shared_out(winograd_loops.gathered, count, *given, count)

    def _gather_back(self, gradient: Tensor, products: Tensor) -> None:
        numbers, side = _flat(gradient), (gradient.shape[1], gradient.shape[2])
        after, grid = self._after.astype(numbers.dtype), self._grid(side)
        given = (numbers, *gradient.shape[1:], self._starts, self._own, after, self.phases, grid, _flat(products))
        count = len(gradient) * self._blocks(side)
        threads.shared_out(winograd_loops.gathered_back, count, *given, count)

    def _spread_back(
        self, fields: Tensor, parts: Sequence[Tensor], slope: float, side: tuple[int, int], found: Sequence[Tensor]
    ) -> None:
        first = 0
        for part, of_part in zip(parts, found, strict=True):
            numbers = _flat(part)
            before, by = self._before.astype(numbers.dtype), numbers.dtype.type(slope)
            shape = (self.answers, self.inside, *self._grid(side))
            given = (_flat(fields), *fields.shape[1:], before, shape, first, numbers, by, _flat(of_part))
            threads.shared_out(winograd_loops.spread_back, len(part), *given, *part.shape[1:])
            first += self.inside**2 * part.shape[3]


class _OfKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Tensor, method: Method) -> Tensor:
        out, channels = kernel.shape[0], kernel.shape[3]
        found = kernel.new_empty(len(method._of_weights), out, method.inside**2 * channels)
        method._of_kernel(kernel, found, back=False)
        ctx.method, ctx.shape = method, kernel.shape
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = gradients[0].new_zeros(ctx.shape)
        ctx.method._of_kernel(found, gradients[0].contiguous(), back=True)
        return found, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, method: Method, slope: float, side: tuple[int, int], weights: Tensor, bias: Tensor, *parts: Tensor
    ) -> Tensor:
        found = weights.new_empty(len(parts[0]), *side, len(bias))
        shares = method._shares(len(found), side)
        # Each share's in memory of its own: the allocator asks the system anew for what is very large.
        fields = [found.new_empty(method._shape(parts, images, side)) for images in shares]

        def answer(some: slice) -> None:
            for images, made in zip(shares[some], fields[some], strict=True):
                method._spread([part[images] for part in parts], slope, side, made)
                method._gather(method._products(made, weights), bias, found[images])

        threads.in_parts(answer, len(shares))
        ctx.save_for_backward(weights, *parts, *fields)
        ctx.method, ctx.slope, ctx.shares = method, slope, shares
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.needs_input_grad) - 5
        weights, *rest = ctx.saved_tensors
        parts, fields = rest[:count], rest[count:]
        method: Method = ctx.method
        gradient = gradients[0].contiguous()
        side = gradient.shape[1], gradient.shape[2]
        of_parts = [torch.zeros_like(part) for part in parts] if any(ctx.needs_input_grad[5:]) else []
        products = [made.new_empty(made.shape[1] * weights.shape[0] * weights.shape[1]) for made in fields]

        def back(some: slice) -> None:
            for images, made, product in zip(ctx.shares[some], fields[some], products[some], strict=True):
                method._gather_back(gradient[images], product)
                if of_parts:
                    of_fields = threads.scratch("fields", made, *made.shape)
                    for of_field, own, by in method._factors(of_fields, product, weights):
                        torch.bmm(own, by, out=of_field)
                    seen, found = ([part[images] for part in tensors] for tensors in (parts, of_parts))
                    method._spread_back(of_fields, seen, ctx.slope, side, found)

        threads.in_parts(back, len(fields))
        of_weights = None
        if ctx.needs_input_grad[3]:
            of_weights = torch.empty_like(weights)
            for place, (made, product) in enumerate(zip(fields, products, strict=True)):
                for field, own, by in method._factors(made, product, of_weights):
                    torch.baddbmm(by, own.transpose(1, 2), field, beta=min(place, 1), out=by)
        of_bias = gradient.sum(dim=(0, 1, 2)) if ctx.needs_input_grad[4] else None
        return None, None, None, of_weights, of_bias, *of_parts, *[None] * (count - len(of_parts))


def fastest(x: Tensor, channels: int, out: int, side: int, ways: Sequence[tuple[int, int, Method]]) -> Method | None:
    """The method that takes the least time, or none where torch's own convolution does.

    Args:
        x: what comes in.
        channels: of it, all parts together.
        out: channels of the answer.
        side: of the picture, in pixels.
        ways: methods, each with the sides from which it pays when drawing, and while learning, where its matrices are
            made at every step, and their gradients brought back; as measured on AVX2 and AVX-512. The first that does.
    """
    if suits(x, min(channels, out)):
        for drawing, learning, method in ways:
            if side >= (learning if torch.is_grad_enabled() else drawing):
                return method
    return None


def suits(x: Tensor, channels: int) -> bool:
    """Whether there is anything to gain over torch's own convolution: many channels, in float32 on a CPU.

    Args:
        x: what comes in.
        channels: of what comes in or of the answer, whichever are fewer.
    """
    exact = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and exact and channels >= _CHANNELS


def _algorithm(answers: int, taps: int, points: Sequence[float]) -> tuple[Matrix, Matrix, Matrix]:
    """What values, taps and products are multiplied with: (t, t), (t, r) and (m, t), for t = m + r - 1 points."""
    count = len(points) + 1
    before, of_taps, after = np.zeros((count, count)), np.zeros((count, taps)), np.zeros((answers, count))
    for place, point in enumerate(points):
        others = [other for other in points if other != point]
        before[place, :-1] = polynomial.polyfromroots(others)
        of_taps[place] = float(point) ** np.arange(taps) / np.prod([point - other for other in others])
        after[:, place] = float(point) ** np.arange(answers)
    before[-1] = polynomial.polyfromroots(points)
    of_taps[-1, -1] = after[-1, -1] = 1.0
    return before, of_taps, after


def _last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _flat(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().view(-1).numpy()


HALVED = Method(4, (1, 0, -1, 2), [np.eye(2, dtype=int).tolist()], 2)
"""A 4×4 kernel with stride 2."""
HALVED_SMALL = Method(2, (1, 0), [np.eye(2, dtype=int).tolist()], 2)
"""The same in blocks of four answers, for small pictures: it takes fewer matrices of weights."""
EACH = Method(4, (1, 0, -1, 2, -2, 0.5), [np.eye(4, dtype=int).tolist()], 1)
"""A 4×4 kernel with stride 1."""
DOUBLED = Method(3, (1, 0, -1), [[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], 1)
"""Nearest neighbours twice as large, then a 3×3 kernel. The four pixels around a corner hang on the four around it
that come in: the odd ones before it and the even ones behind it, of two taps each."""
DOUBLED_SMALL = Method(2, (1, 0), [[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], 1)
"""The same in blocks of four places."""
