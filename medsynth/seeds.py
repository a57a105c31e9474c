"""Randomness that depends on names, never on order.

A sample's seed is a hash of the run's seed and of the sample's place, and what is drawn for it
(:mod:`medsynth.draws`) comes from that seed and a purpose. Nothing here holds state.
"""

import hashlib
import operator

import numpy as np
from numpy.typing import NDArray


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
