"""How like the nearest real photo a picture is, so that copies of training photos can be refused.

A picture is looked at lesion upon lesion: what lies about the box, brought to 16×16 pixels of CIELAB and freed
of its mean and its spread, so that neither place, size, tone nor contrast hide a copy. Training turns and
mirrors photos; so does the comparison.

Such a description is a thumbnail of the lesion, on which it can be made out. So none of the training photos' is shipped
with the weights, and copies are looked for where somebody who has the photos names them.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsynth import images, storage
from medsynth.errors import NotFoundError, Rejected
from medsynth.skin import tone
from medsynth.skin.pairs import Pairs, PairsError
from medsynth.skin.semantic_map import Box

_SIDE = 16
_AROUND = 1.5  # of the box's longer side: some skin belongs to what is recognised


@dataclass(frozen=True)
class Known:
    """Small descriptions of real photos: 768 bytes each, to be guarded as the photos are."""

    descriptors: NDArray[np.int8]
    """(N, 768)."""

    @property
    def digest(self) -> str:
        """SHA-256 of all of them."""
        return hashlib.sha256(self.descriptors.tobytes()).hexdigest()

    def nearest(self, picture: NDArray[np.uint8], box: Box) -> tuple[float, int]:
        """The photo that a picture is most like.

        Args:
            picture: (H, W, 3) sRGB.
            box: its lesion's.

        Returns:
            Their correlation, -1 to 1 and rounded to 4 digits, in the best of eight orientations; and the photo's
            place among those known.
        """
        small = describe(picture, box).reshape(_SIDE, _SIDE, 3)
        ways = [np.rot90(side, turn) for side in (small, small[:, ::-1]) for turn in range(4)]
        turned = np.stack([way.ravel() for way in ways]).astype(np.float32)
        # Whole numbers whose products add up to less than 2**24: exact, in whatever order they are added.
        products = self.descriptors.astype(np.float32) @ turned.T
        lengths = np.sqrt((self.descriptors.astype(np.float64) ** 2).sum(axis=1))
        own = np.sqrt(float((turned[0].astype(np.float64) ** 2).sum()))
        likeness = products.max(axis=1) / np.maximum(lengths * own, 1.0)
        place = int(likeness.argmax())
        return round(float(likeness[place]), 4), place


def describe(picture: NDArray[np.uint8], box: Box) -> NDArray[np.int8]:
    """Describe a picture about its lesion.

    Args:
        picture: (H, W, 3) sRGB.
        box: its lesion's.

    Returns:
        (768,): 16×16 pixels of L*, a* and b*, each channel without its mean, all with one spread.
    """
    side = _AROUND * max(box.x1 - box.x0, box.y1 - box.y0)
    left, top = (box.x0 + box.x1 - side) / 2, (box.y0 + box.y1 - side) / 2
    # Mirrored beyond the border, where the lesion lies near it.
    room = min(int(side) + 1, *(length - 1 for length in picture.shape[:2]))
    padded = np.pad(picture, ((room, room), (room, room), (0, 0)), mode="reflect")
    corners = [min(max(corner + room, 0.0), float(length)) for corner, length in (
        (left, padded.shape[1]), (top, padded.shape[0]), (left + side, padded.shape[1]), (top + side, padded.shape[0])
    )]  # fmt: skip
    cut = Image.fromarray(padded).resize(
        (_SIDE, _SIDE), Image.Resampling.BOX, box=(corners[0], corners[1], corners[2], corners[3])
    )
    lab = tone.to_lab(np.asarray(cut))
    lab -= lab.mean(axis=(0, 1))
    spread = max(float(lab.std()), 1e-3)
    return np.asarray(np.clip(np.rint(lab / spread * 32), -127, 127), dtype=np.int8).ravel()


def know(pairs: Pairs) -> Known:
    """Describe the photos of a table.

    Args:
        pairs: the photos, with their lesions' boxes.

    Raises:
        PairsError: a photo cannot be read, or its box lies outside it.
    """
    found = []
    for photo in pairs.photos:
        try:
            pixels = images.decode(storage.read(photo.uri))
        except (Rejected, NotFoundError) as error:
            raise PairsError(f"{photo.uri}: {error}; mend the photo, or leave it out of the table") from error
        photo.box.check(pixels.shape[1], pixels.shape[0], photo.uri)
        found.append(describe(pixels, photo.box))
    return Known(np.stack(found))
