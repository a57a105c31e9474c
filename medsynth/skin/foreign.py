"""How much of a photo is neither skin nor lesion: ink, hair, cloth, what lies behind.

A judge takes all that photos show for real. A generator that learns from it draws fields as dark as hair beside its
lesions, and worms as blue as a surgeon's pen: so photos that show much of it can be left out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsynth.skin import tone
from medsynth.skin.pairs import Pairs
from medsynth.skin.semantic_map import Box

LEAST = 3
"""Photos of each condition that are always kept."""

_SIDE = 64  # of the shorter one: a pen's line is still a pixel wide
_DARKER, _LIGHTER, _OTHER = 22.0, 25.0, 18.0  # CIELAB units off the skin's lightness and chroma: wider than skin varies
_MARGIN = 0.15  # of the box's longer side: a lesion's redness reaches beyond its box
_ENOUGH = 60  # pixels to judge by
_BLUE, _NOT_RED = -8.0, 6.0  # b* and a* that no blood, pigment or hair has


def share(photo: NDArray[np.uint8], box: Box, skin: Sequence[float]) -> float:
    """How much of a photo is something else.

    Args:
        photo: (H, W, 3) sRGB.
        box: the lesion's.
        skin: the skin's colour, CIELAB.

    Returns:
        The larger of two shares, 0 to 1, rounded to 4 digits: of what lies beside the lesion, with a colour far from
        its skin's; and of all, blue, the lesion too. Without enough beside the lesion, the second.

    Source:
        None: the limits are ours, chosen by a look at 197 photos of PAD-UFES-20 in the order of this share.
    """
    height, width = photo.shape[:2]
    scale = min(1.0, _SIDE / min(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    lab = tone.to_lab(np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX)))
    off = lab - np.asarray(skin, dtype=np.float64)
    margin = _MARGIN * max(box.x1 - box.x0, box.y1 - box.y0)
    beside = np.ones(lab.shape[:2], dtype=bool)
    rows = slice(int(max(0.0, (box.y0 - margin) * scale)), int(np.ceil((box.y1 + margin) * scale)))
    columns = slice(int(max(0.0, (box.x0 - margin) * scale)), int(np.ceil((box.x1 + margin) * scale)))
    beside[rows, columns] = False
    far = (off[..., 0] < -_DARKER) | (off[..., 0] > _LIGHTER) | (np.hypot(off[..., 1], off[..., 2]) > _OTHER)
    blue = (lab[..., 2] < _BLUE) & (lab[..., 1] < _NOT_RED)
    count = int(beside.sum())
    near = float((far & beside).sum()) / count if count >= _ENOUGH else 0.0
    return round(max(near, float(blue.mean())), 4)


def left_out(pairs: Pairs, shares: Sequence[float], limit: float) -> Pairs:
    """The photos that show too much else.

    Args:
        pairs: the photos.
        shares: of each, as :func:`share` tells it.
        limit: the greatest share that is kept.

    Returns:
        Those with more, in the order of the table; never the ``LEAST`` of a condition that have the least of it.
    """
    order = sorted(range(len(shares)), key=lambda place: shares[place])
    kept = {place for place in order if shares[place] <= limit}
    for name in pairs.conditions:
        kept.update([place for place in order if pairs.photos[place].condition == name][:LEAST])
    return Pairs(pairs.uri, tuple(photo for place, photo in enumerate(pairs.photos) if place not in kept))
