"""The compiled sums before and after the products of :mod:`medsynth.skin.winograd`, for some of the blocks each.

All arrays of numbers are flat, with channels last. A field is what comes in for one point of a block, a product what
comes out; a block's lie one behind the other. ``half`` has been through one direction, not yet through the other.
"""

import numba
import numpy as np

from medsynth.defocus.compiled import compiled


@numba.njit(inline="always", error_model="numpy")
def _add(to, at, by, numbers, start, count):  # type: ignore[no-untyped-def]
    # Unsigned, since for an index that might be negative the loop would not be vectorised.
    if by != 0:
        for c in range(np.uintp(count)):
            to[np.uintp(at) + c] += by * numbers[np.uintp(start) + c]


@compiled
def spread(x, height, width, channels, before, slope, shape, fields, size, at, first, last):  # type: ignore[no-untyped-def]
    """Fields, of which each has ``size`` numbers from ``at`` on, of pictures rectified by ``slope``."""
    answers, inside, rows, columns = shape
    points, run = len(before), inside * channels
    half = np.empty(points * points * run, x.dtype)
    line = np.empty(points * run, x.dtype)
    for block in range(first, last):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        left = (right * answers * inside - 1) * channels
        start = max(left, 0)
        count = min(left + points * run, width * channels) - start
        for place in range(inside):
            half[:] = 0
            for i in range(points):
                row = (down * answers + i) * inside + place - 1
                if row < 0 or row >= height:
                    continue
                seen = (image * height + row) * width * channels + start
                for c in range(np.uintp(count)):
                    value = x[np.uintp(seen) + c]
                    line[c] = value if value > 0 else slope * value
                for p in range(points):
                    _add(half, p * points * run + start - left, before[p, i], line, 0, count)
            for p in range(points):
                for q in range(points):
                    field = (block * points * points + p * points + q) * size + at + place * run
                    for c in range(np.uintp(run)):
                        fields[np.uintp(field) + c] = 0
                    for j in range(points):
                        _add(fields, field, before[q, j], half, (p * points + j) * run, run)


@compiled
def spread_back(fields, before, shape, size, x, height, width, channels, first, last):  # type: ignore[no-untyped-def]
    """The gradient of ``x``, which holds nothing yet, from that of the fields; of some of the pictures."""
    answers, inside, rows, columns = shape
    points, run = len(before), inside * channels
    half = np.empty(points * points * run, x.dtype)
    for block in range(first * rows * columns, last * rows * columns):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        left = (right * answers * inside - 1) * channels
        start = max(left, 0)
        count = min(left + points * run, width * channels) - start
        for place in range(inside):
            half[:] = 0
            for p in range(points):
                for q in range(points):
                    field = (block * points * points + p * points + q) * size + place * run
                    for j in range(points):
                        _add(half, (p * points + j) * run, before[q, j], fields, field, run)
            for i in range(points):
                row = (down * answers + i) * inside + place - 1
                if row < 0 or row >= height:
                    continue
                pixel = (image * height + row) * width * channels + start
                for p in range(points):
                    _add(x, pixel, before[p, i], half, p * points * run + start - left, count)


@compiled
def gathered(products, starts, own, after, phases, blocks, bias, found, height, width, first, last):  # type: ignore[no-untyped-def]
    """Answers from products; of a phase where it has products of its own."""
    rows, columns = blocks
    answers, points = after.shape
    out, total = len(bias), starts[points - 1, points - 1] + own[points - 1] ** 2
    half = np.empty(answers * points * out, found.dtype)
    for block in range(first, last):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        for phase in range(phases * phases):
            low, odd = phase // phases, phase % phases
            half[:] = 0
            for p in range(points):
                for q in range(points):
                    place = starts[p, q] + (low if own[p] > 1 else 0) * own[q] + (odd if own[q] > 1 else 0)
                    for k in range(answers):
                        _add(half, (k * points + q) * out, after[k, p], products, (block * total + place) * out, out)
            for k in range(answers):
                row = (down * answers + k) * phases + low - phases + 1
                if row < 0 or row >= height:
                    continue
                for j in range(answers):
                    column = (right * answers + j) * phases + odd - phases + 1
                    if column < 0 or column >= width:
                        continue
                    answer = ((image * height + row) * width + column) * out
                    for c in range(np.uintp(out)):
                        found[np.uintp(answer) + c] = bias[c]
                    for q in range(points):
                        _add(found, answer, after[j, q], half, (k * points + q) * out, out)


@compiled
def gathered_back(gradient, height, width, out, starts, own, after, phases, blocks, products, first, last):  # type: ignore[no-untyped-def]
    """The gradient of products from that of the answers."""
    rows, columns = blocks
    answers, points = after.shape
    total = starts[points - 1, points - 1] + own[points - 1] ** 2
    half = np.empty(answers * points * out, gradient.dtype)
    for block in range(first, last):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        products[block * total * out : (block + 1) * total * out] = 0
        for phase in range(phases * phases):
            low, odd = phase // phases, phase % phases
            half[:] = 0
            for k in range(answers):
                row = (down * answers + k) * phases + low - phases + 1
                if row < 0 or row >= height:
                    continue
                for j in range(answers):
                    column = (right * answers + j) * phases + odd - phases + 1
                    if column < 0 or column >= width:
                        continue
                    answer = ((image * height + row) * width + column) * out
                    for q in range(points):
                        _add(half, (k * points + q) * out, after[j, q], gradient, answer, out)
            for p in range(points):
                for q in range(points):
                    place = starts[p, q] + (low if own[p] > 1 else 0) * own[q] + (odd if own[q] > 1 else 0)
                    for k in range(answers):
                        _add(products, (block * total + place) * out, after[k, p], half, (k * points + q) * out, out)
