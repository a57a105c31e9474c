"""The compiled sums before and after the products of :mod:`medsynth.skin.winograd`, for some of the blocks each.

All arrays of numbers are flat, with channels last. A field is what comes in for one point of a block, a product what
comes out; a point's lie one behind the other, for all ``count`` blocks, as products of matrices want them. ``half`` has
been through one direction, not yet through the other.
"""

import numba
import numpy as np

from medsynth.compiled import compiled


@numba.njit(error_model="numpy")
def _next(by, row, place):  # type: ignore[no-untyped-def]
    # Where the row goes on after a place with something that is not 0; at its end or later if it does not.
    place += 1
    while place < by.shape[1] and by[row, place] == 0:
        place += 1
    return place


@numba.njit(error_model="numpy")
def _mix(to, at, by, row, numbers, start, step, count):  # type: ignore[no-untyped-def]
    # The sum of by[row, i] times what begins at start + i * step, without those that are multiplied with 0. Up to four
    # at a time, since then less is written; unsigned, since for an index that might be negative a loop would not be
    # vectorised.
    size, to_at, more = by.shape[1], np.uintp(at), False
    i = _next(by, row, -1)
    while i < size:
        j = _next(by, row, i)
        k = _next(by, row, j)
        last = _next(by, row, k)
        own, nothing = by[row, i], by[row, i] - by[row, i]
        first = np.uintp(start + i * step)
        second, other = (np.uintp(start + j * step), by[row, j]) if j < size else (first, nothing)
        third, another = (np.uintp(start + k * step), by[row, k]) if k < size else (first, nothing)
        fourth, yet_another = (np.uintp(start + last * step), by[row, last]) if last < size else (first, nothing)
        if more:
            for c in range(np.uintp(count)):
                to[to_at + c] += (own * numbers[first + c] + other * numbers[second + c]) + (
                    another * numbers[third + c] + yet_another * numbers[fourth + c]
                )
        elif k < size:
            for c in range(np.uintp(count)):
                to[to_at + c] = (own * numbers[first + c] + other * numbers[second + c]) + (
                    another * numbers[third + c] + yet_another * numbers[fourth + c]
                )
        else:
            for c in range(np.uintp(count)):
                to[to_at + c] = own * numbers[first + c] + other * numbers[second + c]
        more = True
        i = _next(by, row, last)


@compiled
def of_kernel(kernel, out, side, _, channels, by, inside, weights, back, first, last):  # type: ignore[no-untyped-def]
    """What the products take in place of some kernels (out, side, side, channels); or their gradient, added, back."""
    count, size = side // inside, inside * inside
    for answer in range(first, last):
        for row in range(len(by)):
            for place in range(size):
                of_weights = np.uintp(((row * out + answer) * size + place) * channels)
                begun = False
                for tap in range(count * count):
                    factor = by[row, tap]
                    if factor == 0:
                        continue
                    down, right = tap // count * inside + place // inside, tap % count * inside + place % inside
                    tapped = np.uintp(((answer * side + down) * side + right) * channels)
                    if back:
                        for c in range(np.uintp(channels)):
                            kernel[tapped + c] += factor * weights[of_weights + c]
                    elif begun:
                        for c in range(np.uintp(channels)):
                            weights[of_weights + c] += factor * kernel[tapped + c]
                    else:
                        for c in range(np.uintp(channels)):
                            weights[of_weights + c] = factor * kernel[tapped + c]
                    begun = True


@compiled
def spread(x, height, width, channels, before, slope, shape, fields, count, size, at, first, last):  # type: ignore[no-untyped-def]
    """Fields, of which each has ``size`` numbers from ``at`` on, of pictures rectified by ``slope``."""
    answers, inside, rows, columns = shape
    points, run = len(before), inside * channels
    line = points * run
    lines, half = np.empty(points * line, x.dtype), np.empty(points * line, x.dtype)
    for block in range(first, last):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        left = (right * answers * inside - 1) * channels
        start = max(left, 0)
        there = min(left + line, width * channels) - start
        for place in range(inside):
            if there < line:
                lines[:] = 0
            for i in range(points):
                row = (down * answers + i) * inside + place - 1
                if row < 0 or row >= height:
                    lines[i * line : (i + 1) * line] = 0
                    continue
                seen, shown = (image * height + row) * width * channels + start, i * line + start - left
                for c in range(np.uintp(there)):
                    value = x[np.uintp(seen) + c]
                    lines[np.uintp(shown) + c] = value if value > 0 else slope * value
            for p in range(points):
                _mix(half, p * line, before, p, lines, 0, line, line)
            for p in range(points):
                for q in range(points):
                    field = ((p * points + q) * count + block) * size + at + place * run
                    _mix(fields, field, before, q, half, p * line, run, run)


@compiled
def spread_back(fields, count, size, before, shape, at, x, slope, found, height, width, channels, first, last):  # type: ignore[no-untyped-def]
    """The gradient of pictures ``x``, added to ``found``, from that of the fields; arguments as in :func:`spread`."""
    answers, inside, rows, columns = shape
    points, run = len(before), inside * channels
    line = points * run
    by = np.ascontiguousarray(before.T)
    half, whole = np.empty(points * line, x.dtype), np.empty(line, x.dtype)
    for block in range(first * rows * columns, last * rows * columns):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        left = (right * answers * inside - 1) * channels
        start = max(left, 0)
        there = min(left + line, width * channels) - start
        for place in range(inside):
            for p in range(points):
                for j in range(points):
                    field = (p * points * count + block) * size + at + place * run
                    _mix(half, p * line + j * run, by, j, fields, field, count * size, run)
            for i in range(points):
                row = (down * answers + i) * inside + place - 1
                if row < 0 or row >= height:
                    continue
                _mix(whole, 0, by, i, half, start - left, line, there)
                pixel = np.uintp((image * height + row) * width * channels + start)
                for c in range(np.uintp(there)):
                    found[pixel + c] += whole[c] if x[pixel + c] > 0 else slope * whole[c]


@compiled
def gathered(products, starts, own, after, phases, grid, bias, found, height, width, count, first, last):  # type: ignore[no-untyped-def]
    """Answers from products; of a phase where it has products of its own."""
    rows, columns = grid
    answers, points = after.shape
    out = len(bias)
    seen, half = np.empty(points * points * out, found.dtype), np.empty(answers * points * out, found.dtype)
    for block in range(first, last):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        for phase in range(phases * phases):
            low, odd = phase // phases, phase % phases
            for p in range(points):
                for q in range(points):
                    place = starts[p, q] * count + block * own[p] * own[q]
                    place += (low if own[p] > 1 else 0) * own[q] + (odd if own[q] > 1 else 0)
                    product, copy = np.uintp(place * out), np.uintp((p * points + q) * out)
                    for c in range(np.uintp(out)):
                        seen[copy + c] = products[product + c]
            for c in range(np.uintp(out)):
                seen[c] += bias[c]  # of the point 1, which is in each answer once
            for k in range(answers):
                _mix(half, k * points * out, after, k, seen, 0, points * out, points * out)
            for k in range(answers):
                row = (down * answers + k) * phases + low - phases + 1
                if row < 0 or row >= height:
                    continue
                for j in range(answers):
                    column = (right * answers + j) * phases + odd - phases + 1
                    if column < 0 or column >= width:
                        continue
                    answer = ((image * height + row) * width + column) * out
                    _mix(found, answer, after, j, half, k * points * out, out, out)


@compiled
def gathered_back(gradient, height, width, out, starts, own, after, phases, grid, products, count, first, last):  # type: ignore[no-untyped-def]
    """The gradient of products from that of the answers."""
    rows, columns = grid
    answers, points = after.shape
    by = np.ascontiguousarray(after.T)
    seen, half = np.zeros(answers * answers * out, gradient.dtype), np.empty(answers * points * out, gradient.dtype)
    more = np.empty(out, gradient.dtype)
    for block in range(first, last):
        image, down, right = block // (rows * columns), block // columns % rows, block % columns
        for phase in range(phases * phases):
            low, odd = phase // phases, phase % phases
            for k in range(answers):
                row = (down * answers + k) * phases + low - phases + 1
                for j in range(answers):
                    column = (right * answers + j) * phases + odd - phases + 1
                    copy = np.uintp((k * answers + j) * out)
                    if row < 0 or row >= height or column < 0 or column >= width:
                        for c in range(np.uintp(out)):
                            seen[copy + c] = 0
                        continue
                    answer = np.uintp(((image * height + row) * width + column) * out)
                    for c in range(np.uintp(out)):
                        seen[copy + c] = gradient[answer + c]
            for k in range(answers):
                for q in range(points):
                    _mix(half, (k * points + q) * out, by, q, seen, k * answers * out, out, out)
            for p in range(points):
                for q in range(points):
                    place = starts[p, q] * count + block * own[p] * own[q]
                    product = (place + (low if own[p] > 1 else 0) * own[q] + (odd if own[q] > 1 else 0)) * out
                    if (own[p] > 1 or low == 0) and (own[q] > 1 or odd == 0):
                        _mix(products, product, by, p, half, q * out, points * out, out)
                    else:  # one phase has been here before
                        _mix(more, 0, by, p, half, q * out, points * out, out)
                        for c in range(np.uintp(out)):
                            products[np.uintp(product) + c] += more[c]
