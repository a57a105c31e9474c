"""The sums behind a Gaussian blur, along the rows and then along the columns.

All of it is whole numbers in double floats, which hold every sum exactly: 13 bits of light, and twice 15 of weights.
So neither the order of the additions nor a fused one shows, and the result is the same on every processor.
"""

import numpy as np
from numpy.typing import NDArray

from medsynth.compiled import compiled


@compiled
def convolve_along_both(
    light: NDArray[np.uint16], channels: int, along: NDArray[np.int64], scale: np.float32, out: NDArray[np.uint16]
) -> None:
    """Convolve with one symmetric function along rows and columns.

    Args:
        light: (H + 2 reach, W + 2 reach * channels) uint16, contiguous, at most 13 bits.
        channels: interleaved channels.
        along: (reach + 1,) weights from the centre outwards, which with the other side's sum up to 15 bits.
        scale: what the weighted sums are multiplied by.
        out: (H, W) uint16, contiguous; filled.
    """
    height, width = out.shape
    reach = len(along) - 1
    middle = reach * channels
    weights = along.astype(np.float64)
    values = np.empty(light.shape[1], dtype=np.float64)
    rows = np.empty((height + 2 * reach, width), dtype=np.float64)
    for y in range(len(rows)):
        source, sums = light[y], rows[y]
        for x in range(len(values)):
            values[x] = source[x]
        for x in range(width):
            sums[x] = weights[0] * values[middle + x]
        for place in range(1, reach + 1):
            weight = weights[place]
            left = values[middle - place * channels : middle - place * channels + width]
            right = values[middle + place * channels : middle + place * channels + width]
            for x in range(width):
                sums[x] += weight * (left[x] + right[x])
    sums = np.empty(width, dtype=np.float64)
    for y in range(height):
        for x in range(width):
            sums[x] = weights[0] * rows[y + reach, x]
        for place in range(1, reach + 1):
            weight = weights[place]
            above, below = rows[y + reach - place], rows[y + reach + place]
            for x in range(width):
                sums[x] += weight * (above[x] + below[x])
        for x in range(width):
            out[y, x] = np.uint16(np.float32(sums[x]) * scale + np.float32(0.5))
