"""Semantic maps: a field of the skin's colour, with the lesion's place in the colour of its condition."""

import colorsys
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage

from medsynth import draws
from medsynth.errors import Reason, Rejected, UserError
from medsynth.skin import tone

_LOOKED_AT = 128  # px: hair is thinner than a pixel of a photo so reduced, or nearly
_CELL = 4.0
_BLUR = (12.0, 6.0, 6.0)  # what one patch of skin spreads over, and an even cloth does not
_REACHES = (20.0, 20.0, 20.0, 14.0)  # skin's own spread, mottling and soft shadow, about its usual colour
_LIGHT = 81.0  # L* + 16 of usual skin, where steps in these axes are steps in CIELAB
_ABOUT = 0.1  # of the picture: clothes, ground and shadows lie further off than skin


class MapError(UserError):
    """What was asked for cannot be drawn as a map."""


@dataclass(frozen=True)
class Box:
    """A lesion's box in pixels; the last column and row are not part of it."""

    x0: int
    y0: int
    x1: int
    y1: int

    def check(self, width: int, height: int, where: str) -> None:
        """Refuse a box that is empty or does not lie inside a picture.

        Raises:
            MapError: one line that names both.
        """
        if not (0 <= self.x0 < self.x1 <= width and 0 <= self.y0 < self.y1 <= height):
            raise MapError(
                f"{where}: the box {self.x0},{self.y0},{self.x1},{self.y1} is not inside the picture of "
                f"{width}x{height} px; give x0 < x1 <= {width} and y0 < y1 <= {height}"
            )


Region = Box | NDArray[np.bool_]
"""Where a lesion is: its box, or a mask of a picture's shape."""


def placed(size: float, x: float, y: float, side: int, aspect: float = 1.0) -> Box:
    """The box of a lesion by its size and place.

    Args:
        size: square root of its share of the picture's area, above 0 and up to 1.
        x: its centre, as a fraction of the width.
        y: its centre, as a fraction of the height.
        side: pixels of the picture on a side.
        aspect: width over height.

    Returns:
        The box, moved inside where it would stick out.

    Raises:
        MapError: a number is out of its range.
    """
    if not (0 < size <= 1 and 0 <= x <= 1 and 0 <= y <= 1 and aspect > 0):
        raise MapError(f"size {size:g} at {x:g},{y:g}: size must be above 0 and up to 1, x and y within 0 to 1")
    wide, high = (_pixels(size * root, side) for root in (math.sqrt(aspect), 1 / math.sqrt(aspect)))
    left, top = (min(max(round(c * side - n / 2), 0), side - n) for c, n in ((x, wide), (y, high)))
    return Box(left, top, left + wide, top + high)


def _pixels(share: float, side: int) -> int:
    return min(max(round(share * side), 2), side)


def colours(conditions: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """The colour of each condition in a map: hues that skin never has, far from one another.

    Args:
        conditions: their names; the colours follow from their order.

    Example:
        >>> colours(["a", "b"])["a"]
        (0, 255, 64)
    """
    found = {}
    for place, name in enumerate(conditions):
        hue = (135 + 165 * place / max(1, len(conditions))) / 360  # green over blue to magenta
        rgb = colorsys.hsv_to_rgb(hue, 1.0, 1.0 if place % 2 == 0 else 0.7)
        red, green, blue = (round(255 * v) for v in rgb)
        found[name] = (red, green, blue)
    return found


def colour_of(condition: str, conditions: Sequence[str]) -> tuple[int, int, int]:
    """The colour of a condition.

    Raises:
        MapError: it is not among those known; they are named.
    """
    if condition not in conditions:
        raise MapError(f"unknown condition {condition!r}; known: {', '.join(conditions)}")
    return colours(conditions)[condition]


def check_colour(skin: object) -> None:
    """Refuse a skin's colour that is not three numbers from 0 to 255.

    Raises:
        MapError: one line that tells what was given.
    """
    values = skin if isinstance(skin, tuple | list) else ()
    kinds = int | float | np.integer | np.floating
    if len(values) != 3 or not all(isinstance(value, kinds) and 0 <= value <= 255 for value in values):
        told = reprlib.repr(skin).replace("\n", " ")
        raise MapError(f"the skin colour {told} is not sRGB; give three numbers from 0 to 255, as (200, 160, 140)")


def draw(shape: tuple[int, int], skin: Sequence[int], region: Region, colour: Sequence[int]) -> NDArray[np.uint8]:
    """Draw a map.

    Args:
        shape: height and width in pixels.
        skin: its colour, sRGB.
        region: where the lesion is.
        colour: of its condition, sRGB.

    Returns:
        (H, W, 3) uint8.

    Raises:
        MapError: the box or mask does not fit the shape, or the mask is empty.
    """
    found = np.empty((*shape, 3), dtype=np.uint8)
    found[:] = np.asarray(skin, dtype=np.uint8)
    found[mask(shape, region)] = np.asarray(colour, dtype=np.uint8)
    return found


def mask(shape: tuple[int, int], region: Region) -> NDArray[np.bool_]:
    """Where the lesion is, pixel by pixel.

    Raises:
        MapError: as :func:`draw`.
    """
    if isinstance(region, Box):
        region.check(shape[1], shape[0], "map")
        found = np.zeros(shape, dtype=bool)
        found[region.y0 : region.y1, region.x0 : region.x1] = True
        return found
    if region.shape != shape:
        raise MapError(f"the mask has {region.shape[1]}x{region.shape[0]} px, the map {shape[1]}x{shape[0]}")
    if not region.any():
        raise MapError("the mask is empty; mark the lesion's place")
    return region.astype(bool)


def skin_colour(photo: NDArray[np.uint8], region: Region | None) -> NDArray[np.float64]:
    """The usual colour of the skin about a lesion.

    Not the mean, which hair, ink, clothes and shadows pull: of all pixels outside the lesion that skin could
    have, the place with most of them about it is sought, the near ones of the lesion counting more, and the answer
    is the weighted median of what lies there. "About it" is as wide as skin is uneven: at the finest, an even cloth
    would be densest. And it is told in the logarithm of lightness, and in chroma over lightness, in which a shadow
    moves skin to another place as wide as before; in CIELAB it draws it together.

    Args:
        photo: (H, W, 3) sRGB.
        region: the lesion's; None for a picture of skin alone.

    Returns:
        (3,) CIELAB, rounded to 6 digits.

    Raises:
        Rejected: next to nothing of the picture can be skin.

    Source:
        The mode as a robust estimate of location: Parzen 1962. The axes follow from CIE 15, 8.2.1: light times k
        makes L* + 16, a* and b* k^(1/3) times as large. The gate's limits in hue, chroma and lightness are our
        assumption, wide enough for every type and for warm and cold light.
    """
    pixels, outside, weights = _reduced(photo, region)
    lab = tone.to_lab(pixels)
    gate = outside & can_be_skin(lab)
    if gate.sum() < 0.01 * gate.size:
        raise Rejected(Reason.NO_SKIN, "nothing outside the lesion has a colour of skin")
    colours, weights = lab[gate], weights[gate]
    shaded = _shaded(colours)
    centre = _mode(shaded, weights)
    near = np.ones(len(colours), dtype=bool)
    for reach in _REACHES:
        close = np.linalg.norm(shaded - centre, axis=1) < reach
        if not close.any():
            break
        near = close
        centre = _median(shaded[near], weights[near])
    return np.round(_median(colours[near], weights[near]), tone.DIGITS)


def _shaded(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    light = (lab[:, :1] + 16) / _LIGHT
    return np.round(np.concatenate([_LIGHT * np.log(light), lab[:, 1:] / light], axis=1), tone.DIGITS)


def can_be_skin(lab: ArrayLike) -> NDArray[np.bool_]:
    """Whether skin of any type, in warm or cold light, can have a colour.

    Args:
        lab: (..., 3) CIELAB.

    Source:
        The limits in lightness, chroma and hue are our assumption, as in :func:`skin_colour`.
    """
    seen = np.asarray(lab, dtype=np.float64)
    lightness, chroma = seen[..., 0], np.hypot(seen[..., 1], seen[..., 2])
    hue = np.degrees(np.arctan2(seen[..., 2], seen[..., 1]))
    found = (lightness > 6) & (lightness < 97) & (chroma > 3) & (chroma < 65) & (hue > -5) & (hue < 100)
    return np.asarray(found, dtype=np.bool_)


def _reduced(
    photo: NDArray[np.uint8], region: Region | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]:
    height, width = photo.shape[:2]
    shrink = max(1.0, max(height, width) / _LOOKED_AT)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    pixels = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))
    shape = (size[1], size[0])
    if region is None:
        return pixels, np.ones(shape, dtype=bool), np.ones(shape)
    whole = mask((height, width), region)
    rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    inside = np.asarray(Image.fromarray(whole.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 0
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    # Distance from the box in units of the picture: what lies about the lesion is the most surely skin.
    beside = np.maximum(0, np.maximum(columns[0] / width - x / size[0], x / size[0] - (columns[-1] + 1) / width))
    above = np.maximum(0, np.maximum(rows[0] / height - y / size[1], y / size[1] - (rows[-1] + 1) / height))
    outside = ~inside if not inside.all() else np.ones(shape, dtype=bool)
    return pixels, outside, np.exp(-np.hypot(beside, above) / _ABOUT)


def _mode(colours: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    cells = np.floor(colours / _CELL).astype(np.int64)
    low = cells.min(axis=0)
    counts = np.zeros(cells.max(axis=0) - low + 1)
    np.add.at(counts, tuple((cells - low).T), weights)
    counts = ndimage.gaussian_filter(counts, [blur / _CELL for blur in _BLUR], mode="constant")
    place = np.unravel_index(int(counts.argmax()), counts.shape)
    found: NDArray[np.float64] = (np.array(place) + low + 0.5) * _CELL
    return found


def _median(colours: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.empty(3)
    for channel in range(3):
        order = np.argsort(colours[:, channel], kind="stable")
        through = np.cumsum(weights[order])
        found[channel] = colours[order[np.searchsorted(through, through[-1] / 2)], channel]
    return found


@dataclass(frozen=True)
class Geometry:
    """Where lesions of each condition lie and how large they are, as a training set shows them."""

    boxes: Mapping[str, tuple[tuple[float, float, float, float], ...]]
    """For each condition: centre x and y, width and height, as fractions of the picture, 4 digits."""

    @classmethod
    def of(cls, found: Mapping[str, Sequence[tuple[Box, int, int]]]) -> "Geometry":
        """Of boxes, each with its picture's width and height, by condition."""
        return cls(
            {
                name: tuple(
                    (
                        round((box.x0 + box.x1) / 2 / width, 4),
                        round((box.y0 + box.y1) / 2 / height, 4),
                        round((box.x1 - box.x0) / width, 4),
                        round((box.y1 - box.y0) / height, 4),
                    )
                    for box, width, height in boxes
                )
                for name, boxes in sorted(found.items())
            }
        )

    def sample(self, condition: str, side: int, seed: int) -> Box:
        """A box like those of a condition: one of them, its size and place changed a little.

        Args:
            condition: its name.
            side: pixels of the picture on a side.
            seed: of the sample.

        Raises:
            MapError: no box of that condition is known.
        """
        known = self.boxes.get(condition)
        if not known:
            raise MapError(f"unknown condition {condition!r}; known: {', '.join(self.boxes)}")
        u = draws.uniforms(seed, "lesion box", 5).tolist()
        x, y, wide, high = known[int(u[0] * len(known))]
        grown = float(f"{1.35 ** (2 * u[1] - 1):.6g}")
        stretched = float(f"{1.15 ** (2 * u[2] - 1):.6g}")
        # Some skin must be left to be seen.
        wide, high = min(0.94, wide * grown * stretched), min(0.94, high * grown / stretched)
        nw, nh = _pixels(wide, side), _pixels(high, side)
        left = min(max(round((x + 0.1 * (u[3] - 0.5)) * side - nw / 2), 0), side - nw)
        top = min(max(round((y + 0.1 * (u[4] - 0.5)) * side - nh / 2), 0), side - nh)
        return Box(left, top, left + nw, top + nh)
