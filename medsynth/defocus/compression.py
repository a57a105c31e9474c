"""JPEG, the last thing that happens to an image."""

from typing import Literal, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


def encode(image: NDArray[np.uint8], quality: int, subsampling: str) -> bytes:
    """Compress an image with libjpeg-turbo, whose transforms give the same bytes on every processor.

    Args:
        image: (H, W, 3) uint8 RGB.
        quality: 1 to 100.
        subsampling: of the chroma: 4:4:4, 4:2:2 or 4:2:0.

    Returns:
        A baseline JFIF file.
    """
    chroma = subsampling.replace(":", "")
    return cast(bytes, simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling=chroma))
