"""From 8-bit codes to light and back, by table.

Light enters the chain as 13-bit integers, of which eight can be added in 16 bits, and leaves the
blur, which averages many, as 14-bit *levels*.
"""

import functools
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medsynth.compiled import compiled

A = TypeVar("A", np.uint8, np.uint16)
B = TypeVar("B", np.uint8, np.uint16)

LIGHT = 8191
"""Light of the code 255; the darkest steps of sRGB are 2.5 apart on this scale."""
LEVEL = 16383
"""Level of the code 255."""


@functools.lru_cache(maxsize=4)
def light_table(linear: bool, full: int = LIGHT) -> NDArray[np.uint16]:
    """The light of each 8-bit code.

    Args:
        linear: True to undo the sRGB curve, False to take the code itself for light.
        full: the light of the code 255.

    Returns:
        uint16 array of shape (256,).

    Source:
        IEC 61966-2-1:1999, section 5.2 (sRGB).
    """
    values = [code / 255 for code in range(256)]
    if linear:
        values = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return np.array([_nearest(value * full) for value in values], dtype=np.uint16)


@functools.lru_cache(maxsize=2)
def code_table(linear: bool) -> NDArray[np.uint8]:
    """The 8-bit code of each level, the inverse of :func:`light_table`.

    Args:
        linear: True to apply the sRGB curve.

    Returns:
        uint8 array of shape (LEVEL + 1,).
    """
    values = [level / LEVEL for level in range(LEVEL + 1)]
    if linear:
        values = [value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055 for value in values]
    return np.array([_nearest(value * 255) for value in values], dtype=np.uint8)


@compiled
def look_up(values: NDArray[A], table: NDArray[B], top: int, left: int, out: NDArray[B]) -> None:
    """Write ``table[values]`` for the window at (top, left) that has the shape of ``out``.

    Args:
        values: (rows, columns) unsigned integers, interleaved channels counting as columns.
        table: one entry for each possible value.
        top: first row of the window.
        left: first column of the window.
        out: (rows, columns), filled.
    """
    height, width = out.shape
    for y in range(height):
        source = values[top + y, left : left + width]
        target = out[y]
        for x in range(width):
            target[x] = table[source[x]]


def _nearest(value: float) -> int:
    # Rounded to 9 digits first: the C library's pow may differ in the last bit from machine to machine.
    return int(float(f"{value:.9g}") + 0.5)
