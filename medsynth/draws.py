"""The random numbers of one sample.

They come from a counter-based generator keyed by (run seed, sample index, purpose), so a sample's
draws are the same on every worker, in every order, and alone.
"""

import numpy as np
from numpy.typing import NDArray

from medsynth.compiled import compiled
from medsynth.seeds import digest64

_WORD = 0xFFFFFFFFFFFFFFFF


def uniforms(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """Draw uniform numbers for one purpose of one sample.

    Args:
        seed: a sample's seed (:func:`medsynth.seeds.sample_seed`).
        purpose: what the numbers are for; another purpose gives an independent stream.
        count: how many numbers, a handful; the first k of a longer draw equal a draw of k.

    Returns:
        float64 array of shape (count,), each in [0, 1).

    Source:
        Philox4x64-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    # The numbers of numpy's Generator(Philox(key=...)).random(count). To build that generator for the
    # few numbers that a sample needs costs more than to reckon them here.
    out = np.empty(count, dtype=np.float64)
    _philox(np.uint64(digest64(seed, purpose)), np.uint64(int(seed) & _WORD), out)
    return out


@compiled
def _philox(key: np.uint64, other_key: np.uint64, out: NDArray[np.float64]) -> None:
    for first in range(0, len(out), 4):
        a, b, c, d = np.uint64(first // 4 + 1), np.uint64(0), np.uint64(0), np.uint64(0)
        one, other = key, other_key
        for _ in range(10):
            low, high = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
            a, b, c, d = (
                _high_half(high, c) ^ b ^ one,
                np.uint64(high * c),
                _high_half(low, a) ^ d ^ other,
                np.uint64(low * a),
            )
            one, other = one + np.uint64(0x9E3779B97F4A7C15), other + np.uint64(0xBB67AE8584CAA73B)
        for place, word in enumerate((a, b, c, d)):
            if first + place < len(out):
                out[first + place] = np.float64(word >> np.uint64(11)) * 2.0**-53


@compiled
def _high_half(a: np.uint64, b: np.uint64) -> np.uint64:
    # The upper 64 bits of the product, from products of halves.
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    lowest, lower = (a & low) * (b & low), (a >> half) * (b & low)
    middle = (a & low) * (b >> half) + ((lower + (lowest >> half)) & low)
    return (a >> half) * (b >> half) + ((lower + (lowest >> half)) >> half) + (middle >> half)
