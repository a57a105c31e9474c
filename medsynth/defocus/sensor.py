"""Sensor noise: the photons that happen to arrive, and the electronics that count them.

A level L of full scale F lets lambda = photons * L / F electrons be expected. What is read is
(Poisson(lambda) + read_noise_e * z) / photons of full scale, z standard normal, clipped to [0, 1].

Every value's randomness is a hash of the sample's key and the value's place, so it does not depend
on order. Below 16 electrons the Poisson law is drawn exactly from tables; above, a normal of the same
mean and variance takes its place, bent to the skewness that the sum of both noises has at half of
full scale, and Poisson's own where there is no read noise. Nothing here calls the C library's
functions per value, and square roots are rounded one way by IEEE 754, so the bytes are the same everywhere.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from medsynth.compiled import compiled
from medsynth.defocus.light import LEVEL

_BEND = (6.46452523e-3, 6.59102626e-9, -4.83653128e-14, 2.76095373e-19)
"""Coefficients of n, n^3, n^5 and n^7 that bend the sum n of four random bytes, less its mean, to the
normal law: the second, fourth, sixth and eighth moments are the normal's."""
_FEW = 16.0
_STEPS = 32
"""Tables a unit of sqrt(lambda)."""
_PIECE = 32
"""Pixels that are looked at together for one below _FEW."""
_COUNTS = 64
"""Counts that a table can tell: 12 standard deviations above the mean of 16."""


_Constants = tuple[
    np.uint16,
    np.float32,
    np.float32,
    np.float32,
    np.float32,
    np.uint32,
    np.uint32,
    NDArray[np.uint16],
    NDArray[np.uint8],
]


def expose(levels: NDArray[np.uint16], photons: float, read_noise_e: float, key: int) -> NDArray[np.float32]:
    """The noisy levels, unclipped and unrounded.

    Args:
        levels: (H, W) uint16 in [0, LEVEL], interleaved channels counting as columns.
        photons: electrons at full scale, above 0.
        read_noise_e: standard deviation of the read noise in electrons, 0 or more.
        key: 64 well-mixed bits, such as a digest; another key, another noise.

    Returns:
        float32 array of the same shape.
    """
    out = np.empty(levels.shape, dtype=np.float32)
    _expose(levels, *_constants(photons, read_noise_e, key), out)
    return out


def expose_to_codes(
    levels: NDArray[np.uint16],
    photons: float,
    read_noise_e: float,
    key: int,
    codes: NDArray[np.uint8],
    out: NDArray[np.uint8],
) -> None:
    """The noisy levels as 8-bit codes: :func:`expose`, clipped, rounded and looked up, in one go.

    Args:
        levels: as for :func:`expose`.
        photons: as for :func:`expose`.
        read_noise_e: as for :func:`expose`.
        key: as for :func:`expose`.
        codes: the code of each level, of shape (LEVEL + 1,).
        out: uint8 array of the shape of ``levels``, filled.
    """
    _expose_to_codes(levels, *_constants(photons, read_noise_e, key), codes, out)


def _constants(photons: float, read_noise_e: float, key: int) -> _Constants:
    thresholds, aliases = poisson_tables()
    few = min(math.ceil(_FEW * LEVEL / photons), LEVEL + 1)
    return (
        np.uint16(few),
        np.float32(photons / LEVEL),
        np.float32(LEVEL / photons),
        np.float32(read_noise_e),
        np.float32(photons / (photons + 2 * read_noise_e**2) / 6),
        np.uint32(key & 0xFFFFFFFF),
        np.uint32(key >> 32 & 0xFFFFFFFF),
        thresholds.ravel(),
        aliases.ravel(),
    )


@functools.lru_cache(maxsize=1)
def poisson_tables() -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Alias tables of Poisson laws whose means are the squares of 0, 1/32, 2/32 ... past 4.

    A mean between two of them is drawn from the two laws mixed, which keeps the mean exact and adds
    at most 0.1 % to the variance.

    Returns:
        The threshold of each slot in 1/65536, uint16 (tables, 64), and what stands above it, uint8
        of the same shape.

    Source:
        Walker, "An efficient method for generating discrete random variables with general
        distributions", ACM TOMS 3(3), 1977.
    """
    tables = int(math.sqrt(_FEW)) * _STEPS + 2
    thresholds = np.zeros((tables, _COUNTS), dtype=np.uint16)
    aliases = np.zeros((tables, _COUNTS), dtype=np.uint8)
    for table in range(tables):
        mean = (table / _STEPS) ** 2
        share = [math.exp(-mean)]
        for count in range(1, _COUNTS):
            share.append(share[-1] * mean / count)
        # In 1/65536 of a slot and in integers, so that nothing is lost on the way.
        whole = [int(float(f"{value:.9g}") * 65536 * _COUNTS + 0.5) for value in share]
        whole[whole.index(max(whole))] += 65536 * _COUNTS - sum(whole)
        poor = [count for count in range(_COUNTS) if whole[count] < 65536]
        rich = [count for count in range(_COUNTS) if whole[count] >= 65536]
        while poor:
            low, high = poor.pop(), rich[-1]
            thresholds[table, low], aliases[table, low] = whole[low], high
            whole[high] -= 65536 - whole[low]
            if whole[high] < 65536:
                poor.append(rich.pop())
        for count in rich:
            thresholds[table, count], aliases[table, count] = 0, count
    return thresholds, aliases


@compiled
def _hash(place: np.uint32, key: np.uint32, turn: np.uint32) -> np.uint32:
    # The mixing steps and constants of "lowbias32" (C. Wellons, "Prospecting for hash functions", 2018).
    value = np.uint32(place ^ key)
    value = np.uint32((value ^ (value >> np.uint32(16))) * np.uint32(0x7FEB352D))
    value = np.uint32((value ^ (value >> np.uint32(15))) + turn)
    value = np.uint32((value ^ (value >> np.uint32(14))) * np.uint32(0x846CA68B))
    return np.uint32(value ^ (value >> np.uint32(16)))


@compiled
def _normal(random: np.uint32) -> np.float32:
    # The sum of a few uniform numbers, here the four bytes, bent by an odd polynomial. All of it is vector
    # arithmetic, where a table fills the cache nearest to the processor. Source: Teichroew's method, in
    # Muller, "A comparison of methods for generating normal deviates on digital computers", JACM 6(3), 1959.
    every_other = np.uint32(0x00FF00FF)
    pairs = np.uint32(np.uint32(random & every_other) + np.uint32(np.uint32(random >> np.uint32(8)) & every_other))
    total = np.uint32(np.uint32(pairs & np.uint32(0xFFFF)) + np.uint32(pairs >> np.uint32(16)))
    n = np.float32(np.int32(total)) - np.float32(510)
    square = n * n
    bend = np.float32(_BEND[2]) + square * np.float32(_BEND[3])
    return n * (np.float32(_BEND[0]) + square * (np.float32(_BEND[1]) + square * bend))


@compiled
def _expose_row(
    levels: NDArray[np.uint16],
    first: np.uint32,
    few: np.uint16,
    gain: np.float32,
    back: np.float32,
    read: np.float32,
    skew: np.float32,
    key: np.uint32,
    turn: np.uint32,
    thresholds: NDArray[np.uint16],
    aliases: NDArray[np.uint8],
    random: NDArray[np.uint32],
    out: NDArray[np.float32],
) -> None:
    # One plain loop a step, each of which becomes a loop of vectors.
    width = len(levels)
    for x in range(width):
        random[x] = _hash(np.uint32(first + np.uint32(x)), key, turn)
    for x in range(width):
        out[x] = _normal(random[x])
    variance = read * read - np.float32(2) * skew * skew
    for x in range(width):
        # Cornish-Fisher: a parabola's worth of skewness, and its small share of the variance taken off.
        mean = np.float32(levels[x]) * gain
        z = out[x]
        out[x] = (mean + np.sqrt(mean + variance) * z + skew * (z * z - np.float32(1))) * back
    if _least(levels) < few:
        _expose_few(levels, first, few, gain, back, read, key, turn, thresholds, aliases, out)


@compiled
def _least(levels: NDArray[np.uint16]) -> np.uint16:
    least = np.uint16(65535)
    for x in range(len(levels)):
        least = min(least, levels[x])
    return least


@compiled
def _expose_few(
    levels: NDArray[np.uint16],
    first: np.uint32,
    few: np.uint16,
    gain: np.float32,
    back: np.float32,
    read: np.float32,
    key: np.uint32,
    turn: np.uint32,
    thresholds: NDArray[np.uint16],
    aliases: NDArray[np.uint8],
    out: NDArray[np.float32],
) -> None:
    # Found first, in pieces of which most hold none, and all without a branch a pixel: it would cost
    # more than the normals did.
    dark = np.empty(len(levels) + 1, dtype=np.uint32)
    count = 0
    for start in range(0, len(levels), _PIECE):
        piece = levels[start : start + _PIECE]
        if _least(piece) < few:
            for x in range(len(piece)):
                dark[count] = start + x
                count += int(piece[x] < few)
    for place in range(count):
        x = dark[place]
        mean = np.float32(levels[x]) * gain
        random = _hash(np.uint32(first + x), turn, key)
        more = _hash(random, key, turn)
        root = np.uint32(np.sqrt(mean) * np.float32(_STEPS))
        low = np.float32(root * root) * np.float32(1 / _STEPS**2)
        gap = np.float32(np.uint32(2) * root + np.uint32(1)) * np.float32(1 / _STEPS**2)
        share = np.float32(more & np.uint32(0xFFFF)) * np.float32(1 / 65536)
        slot = random >> np.uint32(26)
        within = (random >> np.uint32(10)) & np.uint32(0xFFFF)
        entry = (root + np.uint32(share * gap < mean - low)) * np.uint32(_COUNTS) + slot
        alias = np.uint32(aliases[entry])
        electrons = alias + np.uint32(within < thresholds[entry]) * (slot - alias)
        out[x] = (np.float32(np.uint32(electrons)) + read * _normal(_hash(more, turn, key))) * back


@compiled
def _expose(
    levels: NDArray[np.uint16],
    few: np.uint16,
    gain: np.float32,
    back: np.float32,
    read: np.float32,
    skew: np.float32,
    key: np.uint32,
    turn: np.uint32,
    thresholds: NDArray[np.uint16],
    aliases: NDArray[np.uint8],
    out: NDArray[np.float32],
) -> None:
    height, width = levels.shape
    random = np.empty(width, dtype=np.uint32)
    for y in range(height):
        _expose_row(
            levels[y], np.uint32(y * width), few, gain, back, read, skew, key, turn, thresholds, aliases, random, out[y]
        )


@compiled
def _expose_to_codes(
    levels: NDArray[np.uint16],
    few: np.uint16,
    gain: np.float32,
    back: np.float32,
    read: np.float32,
    skew: np.float32,
    key: np.uint32,
    turn: np.uint32,
    thresholds: NDArray[np.uint16],
    aliases: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    out: NDArray[np.uint8],
) -> None:
    height, width = levels.shape
    random = np.empty(width, dtype=np.uint32)
    noisy = np.empty(width, dtype=np.float32)
    # Unsigned: a signed place might count from the end, and that check costs time.
    places = np.empty(width, dtype=np.uint32)
    for y in range(height):
        _expose_row(
            levels[y], np.uint32(y * width), few, gain, back, read, skew, key, turn, thresholds, aliases, random, noisy
        )
        for x in range(width):
            value = min(max(noisy[x], np.float32(0)), np.float32(LEVEL))
            places[x] = np.uint32(np.int32(value + np.float32(0.5)))
        row = out[y]
        for x in range(width):
            row[x] = codes[places[x]]
