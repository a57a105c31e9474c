"""Convolutions of few taps by Winograd's minimal filtering: fewer products, for float32 on CPUs.

In one direction, m answers of r taps follow from m + r - 1 neighbouring values. They are read as the coefficients of
polynomials that take as many points to tell apart, so that many products are enough, in place of m r: 5 for four
answers of two taps, not 8. In two directions it is the square: 25, not 64. A product is one of matrices, since every
value here has channels; what is done before and after it are sums.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from torch import Tensor

from medsynth.skin import threads, winograd_loops

_ROWS = 512
"""Rows of a product, at the least: with fewer it is slow, and of many more what is made of them leaves the cache."""

_CHANNELS = 64
"""Fewer than that, in or out, and the sums around the products take longer than the products that are saved."""

Matrix = NDArray[np.float64]


class Method:
    """One kind of convolution, in blocks of answers; edges are padded with one pixel of nothing.

    Args:
        answers: m, along a side of a block.
        points: m + r - 2 different ones at which the polynomials are taken, 1 the second; infinity is the last. Small
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
        out, channels, side, _ = weight.shape
        count = side // self.inside
        taps = weight.reshape(out, channels, count, self.inside, count, self.inside).permute(2, 4, 0, 3, 5, 1)
        by = torch.as_tensor(self._of_weights, dtype=weight.dtype)
        return (by @ taps.reshape(count * count, -1)).view(len(by), out, -1)

    def learnt(self, x: Tensor, weights: Tensor, bias: Tensor, side: tuple[int, int]) -> Tensor:
        """The convolution, with gradients.

        Args:
            x: (N, C, h, w).
            weights: as :meth:`weights` gives them.
            bias: (out,).
            side: height and width of the answer.

        Returns:
            (N, out, *side), channels last.
        """
        found: Tensor = _Convolution.apply(_last(x), weights, bias, self, side)  # type: ignore[no-untyped-call]
        return found.permute(0, 3, 1, 2)

    def drawn(
        self, parts: Sequence[Tensor], slope: float, weights: Tensor, bias: Tensor, side: tuple[int, int]
    ) -> Tensor:
        """The convolution of several tensors behind one another, rectified first; without gradients.

        Args:
            parts: (N, c, h, w) each, together C channels; one alone where positions have several pixels.
            slope: what negative numbers are multiplied with before.
            weights: as :meth:`weights` gives them.
            bias: (out,).
            side: height and width of the answer.

        Returns:
            (N, out, *side), channels last.
        """
        last = [_last(part) for part in parts]
        found = last[0].new_empty(len(last[0]), *side, len(bias))
        size = self.inside**2 * sum(part.shape[3] for part in last)

        def draw(images: slice) -> None:
            own, answers = [part[images] for part in last], found[images]
            shares = self._shares(len(answers), side)
            fields = found.new_empty(shares[0][1].stop, len(self._before) ** 2 * size)
            for some, rows in shares:
                made = fields[: rows.stop - rows.start]
                self._spread([part[some] for part in own], slope, side, made)
                self._gather(self._products(made, weights), bias, answers[some])

        threads.in_parts(draw, len(found))
        return found.permute(0, 3, 1, 2)

    def _blocks(self, side: tuple[int, int]) -> tuple[int, int]:
        # An enlargement has a position more than the picture, since what it gives lies around the pixels' corners.
        rows, columns = (-(-((length - 1) // self.phases + self.phases) // self.answers) for length in side)
        return rows, columns

    def _shares(self, images: int, side: tuple[int, int]) -> list[tuple[slice, slice]]:
        """Images that are worked on at a time, and their blocks; the first has the most."""
        rows, columns = self._blocks(side)
        blocks = rows * columns
        ends = [*range(0, images, -(-_ROWS // blocks)), images]
        return [(slice(first, last), slice(first * blocks, last * blocks)) for first, last in pairwise(ends)]

    def _spread(self, parts: Sequence[Tensor], slope: float, side: tuple[int, int], fields: Tensor) -> None:
        size, first = fields.shape[1] // len(self._before) ** 2, 0
        for part in parts:
            numbers = _flat(part)
            before, by = self._before.astype(numbers.dtype), numbers.dtype.type(slope)
            shape = (self.answers, self.inside, *self._blocks(side))
            given = (numbers, *part.shape[1:], before, by, shape, _flat(fields), size, first)
            threads.shared_out(winograd_loops.spread, len(fields), *given)
            first += self.inside**2 * part.shape[3]

    def _products(self, fields: Tensor, weights: Tensor) -> Tensor:
        products = fields.new_empty(len(fields), weights.shape[0] * weights.shape[1])
        for field, product, by in self._factors(fields, products, weights):
            torch.mm(field, by.t(), out=product)
        return products

    def _factors(self, fields: Tensor, products: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each point what comes in, what comes out, and the matrix between them."""
        total, out, size = weights.shape
        starts = [*self._starts.flat, total]
        for place, (first, last) in enumerate(pairwise(starts)):
            field = fields[:, place * size : (place + 1) * size]
            yield field, products[:, first * out : last * out], weights[first:last].view(-1, size)

    def _gather(self, products: Tensor, bias: Tensor, found: Tensor) -> None:
        numbers, side = _flat(found), (found.shape[1], found.shape[2])
        after = self._after.astype(numbers.dtype)
        given = (_flat(products), self._starts, self._own, after, self.phases, self._blocks(side), _flat(bias))
        threads.shared_out(winograd_loops.gathered, len(products), *given, numbers, *side)

    def _gather_back(self, gradient: Tensor, products: Tensor) -> None:
        numbers, side = _flat(gradient), (gradient.shape[1], gradient.shape[2])
        after = self._after.astype(numbers.dtype)
        given = (numbers, *gradient.shape[1:], self._starts, self._own, after, self.phases, self._blocks(side))
        threads.shared_out(winograd_loops.gathered_back, len(products), *given, _flat(products))

    def _spread_back(self, fields: Tensor, side: tuple[int, int], of_x: Tensor) -> None:
        numbers = _flat(of_x)
        before = self._before.astype(numbers.dtype)
        given = (_flat(fields), before, (self.answers, self.inside, *self._blocks(side)))
        threads.shared_out(
            winograd_loops.spread_back, len(of_x), *given, fields.shape[1] // before.size, numbers, *of_x.shape[1:]
        )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, bias: Tensor, method: Method, side: tuple[int, int]) -> Tensor:
        rows, columns = method._blocks(side)
        blocks = rows * columns
        fields = x.new_empty(len(x) * blocks, len(method._before) ** 2 * weights.shape[2])
        found = x.new_empty(len(x), *side, len(bias))

        def answer(images: slice) -> None:
            own, answers = x[images], found[images]
            made = fields[images.start * blocks : images.stop * blocks]
            for some, rows in method._shares(len(own), side):
                method._spread([own[some]], 1.0, side, made[rows])
                method._gather(method._products(made[rows], weights), bias, answers[some])

        threads.in_parts(answer, len(x))
        ctx.save_for_backward(fields, weights)
        ctx.method, ctx.shape, ctx.blocks = method, x.shape, blocks
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        fields, weights = ctx.saved_tensors
        method: Method = ctx.method
        gradient = gradients[0].contiguous()
        side = gradient.shape[1], gradient.shape[2]
        of_x = fields.new_zeros(ctx.shape) if ctx.needs_input_grad[0] else None
        products = fields.new_empty(len(fields), weights.shape[0] * weights.shape[1])

        def back(images: slice) -> None:
            own = gradient[images]
            made = products[images.start * ctx.blocks : images.stop * ctx.blocks]
            for some, rows in method._shares(len(own), side):
                method._gather_back(own[some], made[rows])
                if of_x is not None:
                    of_fields = fields.new_empty(rows.stop - rows.start, fields.shape[1])
                    for field, product, by in method._factors(of_fields, made[rows], weights):
                        torch.mm(product, by, out=field)
                    method._spread_back(of_fields, side, of_x[images][some])

        threads.in_parts(back, len(gradient))
        of_weights = None
        if ctx.needs_input_grad[1]:
            of_weights = torch.empty_like(weights)
            for field, product, by in method._factors(fields, products, of_weights):
                torch.mm(product.t(), field, out=by)
        of_bias = gradient.sum(dim=(0, 1, 2)) if ctx.needs_input_grad[2] else None
        return of_x, of_weights, of_bias, None, None


def pays(x: Tensor, channels: int, out: int, side: int, drawing: int, learning: int) -> bool:
    """Whether any method here takes less time than torch's own convolution, as measured on AVX2.

    Args:
        x: what comes in.
        channels: of it, all parts together.
        out: channels of the answer.
        side: of the picture, in pixels.
        drawing: side from which the method pays when drawing.
        learning: the same while learning, where its matrices are made at every step, and their gradients brought back.
    """
    return suits(x, channels, out) and side >= (learning if torch.is_grad_enabled() else drawing)


def suits(x: Tensor, channels: int, out: int) -> bool:
    """Whether there is anything to gain over torch's own convolution: many channels, in float32 on a CPU.

    Args:
        x: what comes in.
        channels: of it, all parts together.
        out: channels of the answer.
    """
    exact = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and exact and min(channels, out) >= _CHANNELS


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


HALVED = Method(4, (0, 1, -1, 2), [np.eye(2, dtype=int).tolist()], 2)
"""A 4×4 kernel with stride 2."""
HALVED_SMALL = Method(2, (0, 1), [np.eye(2, dtype=int).tolist()], 2)
"""The same in blocks of four answers, for small pictures: it takes fewer matrices of weights."""
EACH = Method(4, (0, 1, -1, 2, -2, 0.5), [np.eye(4, dtype=int).tolist()], 1)
"""A 4×4 kernel with stride 1."""
DOUBLED = Method(3, (0, 1, -1), [[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], 1)
"""Nearest neighbours twice as large, then a 3×3 kernel. The four pixels around a corner hang on the four around it
that come in: the odd ones before it and the even ones behind it, of two taps each."""
