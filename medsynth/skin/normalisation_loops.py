"""The compiled passes of :mod:`medsynth.skin.normalisation`, over pictures with channels last; all arrays are flat."""

import numpy as np

from medsynth.compiled import compiled

_ROWS = 32
"""Pixels that are summed up at a time in the pictures' own precision, while they are in the cache."""


@compiled
def normalised(x, pixels, channels, epsilon, slope, factors, found, first, last):  # type: ignore[no-untyped-def]
    """Pictures ``first`` to ``last``, and what each channel was multiplied with; ``found`` may be ``x`` itself."""
    size = np.uintp(channels)
    mean, spread = np.empty(channels, np.float64), np.empty(channels, np.float64)
    near, apart = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    middle, by = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    for image in range(first, last):
        for c in range(size):
            mean[c] = spread[c] = 0
        for start in range(0, pixels, _ROWS):
            rows = min(_ROWS, pixels - start)
            begin = np.uintp((image * pixels + start) * channels)
            for c in range(size):
                near[c] = apart[c] = 0
            for row in range(np.uintp(rows)):
                for c in range(size):
                    near[c] += x[begin + row * size + c]
            for c in range(size):
                near[c] /= rows
            for row in range(np.uintp(rows)):
                for c in range(size):
                    off = x[begin + row * size + c] - near[c]
                    apart[c] += off * off
            share = rows / (start + rows)
            for c in range(size):
                off = near[c] - mean[c]
                mean[c] += off * share
                spread[c] += apart[c] + off * off * share * start
        for c in range(size):
            middle[c] = mean[c]
            by[c] = 1 / np.sqrt(spread[c] / pixels + epsilon)
            factors[np.uintp(image) * size + c] = by[c]
        begin = np.uintp(image * pixels) * size
        for row in range(np.uintp(pixels)):
            for c in range(size):
                value = (x[begin + row * size + c] - middle[c]) * by[c]
                found[begin + row * size + c] = value if value > 0 else slope * value


@compiled
def back(gradient, answers, pixels, channels, over, slope, factors, found, first, last):  # type: ignore[no-untyped-def]
    """The gradient of what came in, from that of the answers; ``over`` is one over the slope."""
    size = np.uintp(channels)
    mean, along = np.empty(channels, np.float64), np.empty(channels, np.float64)
    near, apart = np.empty(channels, answers.dtype), np.empty(channels, answers.dtype)
    for image in range(first, last):
        for c in range(size):
            mean[c] = along[c] = 0
        for start in range(0, pixels, _ROWS):
            begin = np.uintp((image * pixels + start) * channels)
            for c in range(size):
                near[c] = apart[c] = 0
            for row in range(np.uintp(min(_ROWS, pixels - start))):
                for c in range(size):
                    answer, own = answers[begin + row * size + c], gradient[begin + row * size + c]
                    # The slope of the one is undone by the other.
                    apart[c] += own * answer
                    near[c] += own if answer > 0 else slope * own
            for c in range(size):
                mean[c] += near[c]
                along[c] += apart[c]
        for c in range(size):
            near[c], apart[c] = mean[c] / pixels, along[c] / pixels
        begin = np.uintp(image * pixels) * size
        for row in range(np.uintp(pixels)):
            for c in range(size):
                answer, own = answers[begin + row * size + c], gradient[begin + row * size + c]
                here, value = (own, answer) if answer > 0 else (slope * own, over * answer)
                found[begin + row * size + c] = (here - near[c] - value * apart[c]) * factors[
                    np.uintp(image) * size + c
                ]
