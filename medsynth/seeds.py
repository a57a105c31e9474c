"""Randomness that depends on names, never on order.

Every draw comes from a counter-based generator keyed by (run seed, sample index, purpose), so a
sample's draws are the same on every worker, in every order, and alone. Nothing here holds state.
"""

import hashlib
import operator

import numpy as np
from numpy.typing import NDArray

_WORD = 0xFFFFFFFFFFFFFFFF


def digest64(*parts: int | str) -> int:
    """Hash a sequence of names and numbers to 64 bits.

    Args:
        parts: integers and strings; their order and their kinds matter (``1`` is not ``"1"``).

    Returns:
        An integer in [0, 2**64), the same on every machine.

    Example:
        >>> digest64(7, "noise") == digest64(7, "noise")
        True
        >>> digest64(7) == digest64("7")
        False
    """
    text = "\x1f".join(_tagged(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _tagged(part: int | str) -> str:
    # NumPy's integers count as Python's; a separator inside a string is doubled, so that it does not separate.
    if isinstance(part, str):
        return "str:" + part.replace("\x1f", "\x1f\x1f")
    return f"int:{operator.index(part)}"


def sample_seed(run_seed: int, index: int) -> int:
    """Seed of one sample, the only number from which all of its randomness comes.

    Args:
        run_seed: the spec's ``seed``.
        index: the sample's place in the plan.

    Returns:
        An integer in [0, 2**63), so that it fits an int64 column.
    """
    return digest64(run_seed, index, "sample") >> 1


def uniforms(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """Draw uniform numbers for one purpose of one sample.

    Args:
        seed: a sample's seed (:func:`sample_seed`).
        purpose: what the numbers are for; another purpose gives an independent stream.
        count: how many numbers, a handful; the first k of a longer draw equal a draw of k.

    Returns:
        float64 array of shape (count,), each in [0, 1).

    Source:
        Philox4x64-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    # The numbers of numpy's Generator(Philox(key=...)).random(count). To build that generator for the
    # few numbers that a sample needs costs more than to reckon them here.
    key = (digest64(seed, purpose), int(seed) & _WORD)
    words = [word for block in range(1, -(-count // 4) + 1) for word in _philox(block, *key)]
    return np.array([(word >> 11) * 2.0**-53 for word in words[:count]], dtype=np.float64)


def _philox(counter: int, key: int, other_key: int) -> tuple[int, int, int, int]:
    a, b, c, d = counter, 0, 0, 0
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (high >> 64) ^ b ^ key, high & _WORD, (low >> 64) ^ d ^ other_key, low & _WORD
        key, other_key = (key + 0x9E3779B97F4A7C15) & _WORD, (other_key + 0xBB67AE8584CAA73B) & _WORD
    return a, b, c, d


def permute(positions: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Send positions to their places under a keyed permutation of range(size), without a table.

    A six-round Feistel network over the next even power of two, walked until it lands inside.

    Args:
        positions: int64 array, each in [0, size).
        size: length of the permuted range, 1 to 2**62.
        key: 64-bit key; each key is another permutation.

    Returns:
        int64 array of the same shape; over all of range(size) each value comes exactly once.

    Raises:
        ValueError: a position lies outside the range.

    Source:
        Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 4
        (cycle walking).
    """
    walked = np.asarray(positions, dtype=np.int64)
    if walked.size and not (0 <= int(walked.min()) and int(walked.max()) < size):
        raise ValueError(f"positions must lie in [0, {size})")
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    values = walked.astype(np.uint64)
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], half, key)
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: int, key: int) -> NDArray[np.uint64]:
    mask = np.uint64((1 << half) - 1)
    left, right = values >> np.uint64(half), values & mask
    for turn in range(6):  # with four, a permuted range(9) is visibly uneven
        left, right = right, left ^ (_mix(right ^ np.uint64(digest64(key, turn))) & mask)
    return (left << np.uint64(half)) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, figure 16).
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
