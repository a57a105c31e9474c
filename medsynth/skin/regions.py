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


def ellipse(box: Box, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The ellipse that fills a box, as a mask.

    Args:
        box: inside the picture.
        shape: of the picture, height and width in pixels.

    Returns:
        (H, W), True where a pixel's centre is in it.
    """
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    across, down = (2 * x - box.x0 - box.x1) / (box.x1 - box.x0), (2 * y - box.y0 - box.y1) / (box.y1 - box.y0)
    found: NDArray[np.bool_] = across**2 + down**2 <= 1
    return found


def depth(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How deep in a lesion of any form each pixel lies.

    In the units of :func:`medsynth.skin.generator.inside`, and for a disc nearly the same numbers.

    Args:
        mask: (H, W), with something in it.

    Returns:
        (H, W): 1 where it is deepest, 0 on its edge, down to -1 outside, as far from the edge as it is deep. What the
        picture's edge cuts off goes on beyond it; 1 everywhere where all is lesion.

    Source:
        Exact Euclidean distances (Maurer, Qi and Raghavan, TPAMI 2003): square roots of whole numbers, so the same on
        every machine. They are between centres of pixels, and the edge is half a pixel nearer.
    """
    from scipy import ndimage  # here: it takes a while to load, in each process of a run, most of which know boxes only

    if mask.all():
        return np.ones(mask.shape, dtype=np.float32)
    within = ndimage.distance_transform_edt(mask) - 0.5
    distance = np.where(mask, within, 0.5 - ndimage.distance_transform_edt(~mask))
    found: NDArray[np.float32] = np.maximum(distance / within.max(), -1).astype(np.float32)
    return found
