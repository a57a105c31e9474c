"""A lesion's place as a mask: read from a picture, made of a box, and how deep in it each pixel lies."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medsynth import images, storage
from medsynth.errors import NotFoundError, Rejected
from medsynth.skin.semantic_map import Box, MapError

RegionKind = Literal["box", "mask"]
"""What tells where a lesion is."""

_JPEG = b"\xff\xd8\xff"


def read_mask(uri: str, width: int, height: int) -> tuple[NDArray[np.bool_], bytes]:
    """Read a mask.

    Args:
        uri: a picture in any lossless format, not black where the lesion is.
        width: of its photo, as it is shown, in pixels.
        height: of its photo.

    Returns:
        (H, W), True where the lesion is; and the file's bytes.

    Raises:
        MapError: it cannot be read, is of another size, or marks nothing or everything.
        StorageError: the storage does not answer.
    """
    try:
        data = storage.read(uri)
        pixels = images.decode(data)
    except NotFoundError as error:
        raise MapError(f"mask {uri}: no such file; check the column mask") from error
    except Rejected as error:
        raise MapError(f"mask {uri}: {error}; save it anew, as PNG") from error
    if data.startswith(_JPEG):
        raise MapError(f"mask {uri}: a JPEG, which blurs where the lesion ends; save it as PNG, in black and white")
    if pixels.shape[:2] != (height, width):
        raise MapError(
            f"mask {uri}: {pixels.shape[1]}x{pixels.shape[0]} px, its photo {width}x{height}; give it the photo's size"
        )
    found = pixels.max(axis=2) > 0
    if not found.any():
        raise MapError(f"mask {uri}: empty; mark the lesion's place in white")
    if found.all():
        raise MapError(f"mask {uri}: marks the whole photo; make the skin black, not transparent, which is white here")
    return found, data


def bounds(mask: NDArray[np.bool_]) -> Box:
    """The box about a mask that has something in it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
