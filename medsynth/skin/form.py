"""Lesions' forms, by rule: a generator that learnt from boxes draws a lesion in any outline that it is given.

An ellipse is bent by smooth noise, more on some pictures than on others, and put into the box anew.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from medsynth import draws
from medsynth.skin.semantic_map import Box

_REACH = 2.0  # radii of the ellipse, from its centre, within which places are told apart
_FADES = (1.0, 1.7)  # radii within which the noise fades, so that no second lesion rises beside the first
_OCTAVES = ((0.7, 1.0), (0.35, 0.5))  # how far apart knots lie, in radii; the noise's strength
_STRENGTH = sum(strength**2 for _, strength in _OCTAVES)
_SPREAD = 151 / 315 * (_STRENGTH / 3) ** 0.5  # of the noise: a cubic B-spline's mean square on each axis; of -1 to 1
_LEAST = 0.3  # radii about the centre that are in the lesion, however strong the noise
_SIDE = 97  # places on a side; one is the centre


def depth(box: Box, shape: tuple[int, int], seed: int, spread: float) -> NDArray[np.float32]:
    """How deep each pixel lies in a lesion of a form of its own.

    Args:
        box: the lesion's, inside the picture.
        shape: of the picture, height and width in pixels.
        seed: the sample's; it decides the form, which is the same in boxes of any size.
        spread: standard deviation of the noise, in radii of the ellipse, where it is strongest; up to 1. How strong it
            is on one picture, from none to that, is drawn evenly.

    Returns:
        (H, W), the same to the bit on every machine: 1 where it is deepest, 0 on the edge, down to -1 well outside; of
        an ellipse that no noise bends, what :func:`medsynth.skin.generator.inside` tells, within 0.01. What is above 0
        hangs together, reaches from one end of the box to the other on both axes, and may have holes.

    Source:
        An outline is where a distance and lattice noise of two octaves add up to nothing: Perlin and Hoffert,
        "Hypertexture", SIGGRAPH 1989, section 3. B-splines between knots, the fading and the numbers are ours.
    """
    strength = spread * float(draws.uniforms(seed, "form", 1)[0])
    field = _lesion(_field(strength, seed))
    rows, columns = (
        _places(field.max(axis=axis), count, low, high)
        for axis, count, low, high in ((1, shape[0], box.y0, box.y1), (0, shape[1], box.x0, box.x1))
    )
    whole = _between(_between(field, rows).T, columns).T
    found: NDArray[np.float32] = np.clip(whole / field.max(), -1, 1).astype(np.float32)
    return found


def _field(strength: float, seed: int) -> NDArray[np.float64]:
    # Above 0 in the lesion. Nothing but what IEEE 754 rounds exactly: no product of matrices, no transcendental.
    places = (np.arange(_SIDE) / (_SIDE - 1) * 2 - 1) * _REACH
    ellipse = 1 - np.sqrt(places[:, None] ** 2 + places[None, :] ** 2)
    fades, ends = _FADES
    noise = sum(_noise(places, apart, seed) * share for apart, share in _OCTAVES)
    bent = ellipse + strength / _SPREAD * np.clip((ellipse + ends - 1) / (ends - fades), 0, 1) * noise
    return np.asarray(np.maximum(bent, ellipse - 1 + _LEAST))


def _noise(places: NDArray[np.float64], apart: float, seed: int) -> NDArray[np.float64]:
    count = int(2 * _REACH / apart) + 4
    knots = 2 * draws.uniforms(seed, f"form {apart:g}", count * count).reshape(count, count) - 1
    weights = _spline((places + _REACH) / apart)
    rows, found = np.zeros((count, _SIDE)), np.zeros((_SIDE, _SIDE))
    for first, weight in weights:
        rows += weight * knots[:, first]
    for first, weight in weights:
        found += weight[:, None] * rows[first]
    return found


def _spline(place: NDArray[np.float64]) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    # The four knots about each place, and their weights: a uniform cubic B-spline's.
    first = np.floor(place).astype(np.int64)
    t = place - first
    s = 1 - t
    square, other = t * t, s * s
    weights = (other * s, 4 - 3 * square * (1 + s), 4 - 3 * other * (1 + t), square * t)
    return [(first + knot, weight / 6) for knot, weight in enumerate(weights)]


def _lesion(field: NDArray[np.float64]) -> NDArray[np.float64]:
    # Of all that is above 0, the largest part alone.
    _, labels, told, _ = cv2.connectedComponentsWithStats((field > 0).astype(np.uint8), connectivity=4)
    largest = 1 + int(np.argmax(told[1:, cv2.CC_STAT_AREA])) if len(told) > 1 else 0
    return np.where((labels > 0) & (labels != largest), -field, field)


def _places(highest: NDArray[np.float64], count: int, low: int, high: int) -> NDArray[np.float64]:
    # Of pixels in the field, for it to rise above 0 where a box begins, and to fall where it ends.
    above = np.flatnonzero(highest > 0)
    first, last = int(above[0]), int(above[-1])
    begins = first - highest[first] / (highest[first] - highest[first - 1])
    ends = last + highest[last] / (highest[last] - highest[last + 1])
    pixels = (np.arange(count) + 0.5 - low) / (high - low)
    return np.asarray(np.clip(begins + pixels * (ends - begins), 0, _SIDE - 1))


def _between(rows: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    first = np.minimum(places.astype(np.int64), _SIDE - 2)
    further = (places - first)[:, None]
    return np.asarray(rows[first] * (1 - further) + rows[first + 1] * further)
