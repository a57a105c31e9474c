"""Lesions' outlines: whether drawn ones are as irregular as real ones."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsynth.evaluation.pictures import Pictures
from medsynth.skin import tone
from medsynth.skin.semantic_map import Box

_BLUR = 0.03  # of the box's longer side, at least 1.5 px: grain and pores make no outline
_ABOUT, _WITHIN = 0.35, 0.15  # of the box's sides: skin is looked for so far about it, the lesion so far
_CONTRAST = 8.0  # CIELAB units; a fainter lesion's outline is chance
_SMALLEST = 0.1  # of the box


def overlap(picture: NDArray[np.uint8], box: Box) -> float:
    """How like an ellipse a lesion is.

    Args:
        picture: (H, W, 3) sRGB.
        box: the lesion's.

    Returns:
        The lesion's overlap (intersection over union) with the ellipse of its area and second moments, 0 to 1; not a
        number where no lesion stands out. The lesion is the largest part of what is far from the skin's colour, its
        holes filled, on the softened picture.

    Source:
        What is far: Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man
        and Cybernetics 1979. The rest is ours; photos come without outlines.
    """
    height, width = picture.shape[:2]
    wide, high = box.x1 - box.x0, box.y1 - box.y0

    def grown(share: float) -> tuple[slice, slice]:
        down, across = int(share * high), int(share * wide)
        return (
            slice(max(0, box.y0 - down), min(height, box.y1 + down)),
            slice(max(0, box.x0 - across), min(width, box.x1 + across)),
        )

    soft = cv2.GaussianBlur(tone.to_lab(picture).astype(np.float32), (0, 0), max(1.5, _BLUR * max(wide, high)))
    beside = np.zeros((height, width), dtype=bool)
    beside[grown(_ABOUT)] = True
    beside[box.y0 : box.y1, box.x0 : box.x1] = False
    if not beside.any():
        return float("nan")
    apart = np.linalg.norm(soft - np.median(soft[beside], axis=0), axis=-1)[grown(_WITHIN)]
    if apart.max() < _CONTRAST:
        return float("nan")
    codes = np.rint(apart * (255 / apart.max())).astype(np.uint8)
    limit, _ = cv2.threshold(codes, 0, 255, cv2.THRESH_OTSU)
    labels, count = ndimage.label(codes > limit)
    lesion = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))) if count else None
    if lesion is None or lesion.sum() < max(9, _SMALLEST * wide * high) or lesion.all():
        return float("nan")
    if apart[lesion].mean() - np.median(apart[~lesion]) < _CONTRAST:
        return float("nan")
    return _with_ellipse(lesion)


def _with_ellipse(lesion: NDArray[np.bool_]) -> float:
    places = np.argwhere(lesion).astype(float)
    offsets = np.argwhere(np.ones_like(lesion)) - places.mean(axis=0)
    shape = np.linalg.inv(np.cov(places.T) + 1e-6 * np.eye(2))
    distance = np.einsum("ni,ij,nj->n", offsets, shape, offsets).reshape(lesion.shape)
    ellipse = distance <= np.sort(distance, axis=None)[len(places) - 1]
    return float((ellipse & lesion).sum() / (ellipse | lesion).sum())


def compared(synthetic: Pictures, real: Pictures) -> dict[str, Any]:
    """How like ellipses the lesions of both kinds of picture are.

    Args:
        synthetic: drawn pictures.
        real: photos.

    Returns:
        ``whole`` and, by name, ``conditions``: for ``synthetic`` and ``real`` each, how many ``pictures`` there are and
        how many could be ``measured``, and of these the quartiles of :func:`overlap`, None where there are none.
    """
    names = sorted({*synthetic.conditions, *real.conditions})
    found: dict[str, Any] = {"whole": {}, "conditions": {name: {} for name in names}}
    for kind, side in (("synthetic", synthetic), ("real", real)):
        values = np.array([overlap(*one) for one in zip(side.images, side.boxes, strict=True)])
        found["whole"][kind] = _quartiles(values)
        for name in names:
            found["conditions"][name][kind] = _quartiles(values[np.array(side.conditions) == name])
    return found


def _quartiles(values: NDArray[np.float64]) -> dict[str, Any]:
    seen = values[np.isfinite(values)]
    quartiles = np.quantile(seen, [0.25, 0.5, 0.75]).tolist() if len(seen) else None
    return {"pictures": len(values), "measured": len(seen), "quartiles": quartiles}
