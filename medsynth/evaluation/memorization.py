"""Whether synthetic pictures are copies of training photos: how near the nearest one is, against real strangers.

A photo of another patient has a nearest training photo too. Only what lies nearer than that is suspicious. Pictures
are compared lesion upon lesion, free of place, size, tone and contrast, in all eight orientations, since training
turns and mirrors: see :mod:`medsynth.skin.likeness`. Audit pictures drawn from new maps: a training map
reproduces its photo by design.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsynth.evaluation.pictures import Pictures
from medsynth.skin.likeness import Known, describe


@dataclass(frozen=True)
class Nearest:
    """For each picture the training photo nearest to it."""

    distance: NDArray[np.float64]
    """(N,): 1 less the correlation, 0 for a copy, about 1 for what has nothing in common."""
    place: NDArray[np.int64]
    """(N,): of the photo among the training ones."""


def known(training: Pictures) -> Known:
    """Describe training photos, as they are shown to a generator."""
    pairs = zip(training.images, training.boxes, strict=True)
    return Known(np.stack([describe(image, box) for image, box in pairs]))


def nearest(pictures: Pictures, training: Known) -> Nearest:
    """Find the training photo nearest to each picture, turned and mirrored as it may be.

    Args:
        pictures: synthetic, or real ones of other patients.
        training: photos.
    """
    found = [training.nearest(image, box) for image, box in zip(pictures.images, pictures.boxes, strict=True)]
    return Nearest(np.array([1 - likeness for likeness, _ in found]), np.array([place for _, place in found]))


def audit(synthetic: Nearest, null: Nearest) -> dict[str, Any]:
    """Flag synthetic pictures nearer to a training photo than photos of strangers are.

    Args:
        synthetic: of the pictures.
        null: of real held-out photos.

    Returns:
        ``threshold``: the null's 1st percentile; ``flagged``: places below it; ``share``; ``expected``: the share
        that strangers' photos have below it, by its definition; medians and least distances of both; ``null``: how
        many stand for it. With fewer than 100 the percentile is hardly more than the least of them.
    """
    threshold = float(np.percentile(null.distance, 1))
    flagged = np.flatnonzero(synthetic.distance < threshold)
    return {
        "pictures": len(synthetic.distance),
        "null": len(null.distance),
        "threshold": threshold,
        "flagged": [int(place) for place in flagged],
        "share": len(flagged) / len(synthetic.distance),
        "expected": 0.01,
        "median": float(np.median(synthetic.distance)),
        "null_median": float(np.median(null.distance)),
        "least": float(synthetic.distance.min()),
        "null_least": float(null.distance.min()),
        "nearest": [int(place) for place in np.argsort(synthetic.distance, kind="stable")[:12]],
    }
