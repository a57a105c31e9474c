"""Body hair over a drawn photo, by rule: a generator of few photos learns no line as fine and as long as a hair.

A hair is a bent line that grows thinner from its root to its tip, in about the direction of the others.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from medsynth import draws
from medsynth.skin import tone

_FEWEST, _MOST = 3, 70
_FINER = 4  # times the picture's resolution, at which lines are drawn: the finest are a quarter of a pixel wide
_PIECES = 12  # straight ones of a hair
_EACH = 8  # numbers of chance for each hair
_SHORTEST, _LONGEST = 0.08, 0.5  # of the picture's side
_THIN, _THICK = 0.0018, 0.0042  # of the side, at the root
_AROUND = 0.15  # of the side: so far outside of the picture roots lie, too
_FRACTION = 4  # bits after the point of a place
_BLACK, _BROWN, _FAIR, _GREY = (26, 21, 20), (74, 50, 36), (164, 132, 94), (204, 198, 190)
_LIGHT_SKIN = 28.0  # degrees; on darker skin hair is black or grey
_SHADOW = 0.25  # how much light a hair takes from the skin beside it


def grown(
    picture: NDArray[np.uint8], skin: tuple[int, int, int], seed: int, share: float
) -> tuple[NDArray[np.uint8], int]:
    """Let hair grow on a picture, or not.

    Args:
        picture: (S, S, 3) sRGB.
        skin: the skin's colour, sRGB, which decides what colours hair may have.
        seed: the sample's; it decides whether there is hair, and all of it.
        share: of seeds by which there is, 0 to 1.

    Returns:
        (S, S, 3), another picture, and how many hairs grew, seldom all out of sight; or ``picture`` itself and 0.

    Source:
        Hairs as curves of falling width: Mirzaalian, Lee and Hamarneh, "Hair enhancement in dermoscopic images using
        dual-channel quaternion tubularness filters and MRF-based multilabel optimization", IEEE TIP 2014, whose
        simulator draws such on dermoscopic images. Numbers, widths, lengths and colours are ours, by a look at photos
        of PAD-UFES-20.
    """
    some, many, way, apart, curl, wide, shade, _ = draws.uniforms(seed, "hair", 8).tolist()
    if some >= share:
        return picture, 0
    side = picture.shape[0]
    count = round(_FEWEST * (_MOST / _FEWEST) ** many)
    lines = np.zeros((side * _FINER, side * _FINER), dtype=np.uint8)
    for own in draws.uniforms(seed, "each hair", _EACH * count).reshape(count, _EACH).tolist():
        width = (_THIN + (_THICK - _THIN) * wide) * len(lines)
        _draw(lines, own, 2 * math.pi * way, 0.2 + 0.6 * apart, 0.05 + 0.3 * curl**2, width)
    covered = lines.reshape(side, _FINER, side, _FINER).sum(axis=(1, 3), dtype=np.uint32)
    cover = covered.astype(np.float32) / (255 * _FINER**2)
    shaded = picture * (1 - _SHADOW * _shadow(cover))[..., None]
    colour = np.array(_colour(skin, shade), dtype=np.float32)
    found: NDArray[np.uint8] = np.rint(shaded + cover[..., None] * (colour - shaded)).astype(np.uint8)
    return found, count


def _draw(
    lines: NDArray[np.uint8], own: list[float], main_way: float, spread: float, curl: float, width: float
) -> None:
    side = len(lines)
    # Box and Muller's: the ways of hairs are spread normally.
    way = main_way + spread * math.sqrt(-2 * math.log(1 - own[0])) * math.cos(2 * math.pi * own[1])
    length = side * _SHORTEST * (_LONGEST / _SHORTEST) ** own[2]
    x, y = (side * ((1 + 2 * _AROUND) * u - _AROUND) for u in own[3:5])
    turn = curl * 8 * (own[5] - 0.5) / _PIECES * (0.5 + length / side / _LONGEST)
    more = curl * 2 * (own[6] - 0.5) / _PIECES**2
    strength = round(255 * (0.35 + 0.55 * own[7]))
    for piece in range(_PIECES):
        to = (x + length / _PIECES * math.cos(way), y + length / _PIECES * math.sin(way))
        thick = max(1, round(width * (1 - 0.75 * piece / _PIECES)))
        ends = [[round(v * 2**_FRACTION) for v in point] for point in ((x, y), to)]
        cv2.line(lines, ends[0], ends[1], strength, thick, cv2.LINE_8, _FRACTION)
        (x, y), way = to, way + turn + more * piece


def _shadow(cover: NDArray[np.float32]) -> NDArray[np.float32]:
    side = len(cover)
    down, right = max(1, side // 160), max(1, side // 200)
    beside = np.zeros_like(cover)
    beside[down:, right:] = cover[:-down, :-right]
    found: NDArray[np.float32] = cv2.blur(beside, (3, 3)).astype(np.float32)
    return found


def _colour(skin: tuple[int, int, int], u: float) -> tuple[int, int, int]:
    if float(tone.ita(tone.to_lab(skin))) < _LIGHT_SKIN:
        return _GREY if u < 0.12 else _BLACK
    return _GREY if u < 0.2 else _FAIR if u < 0.4 else _BROWN if u < 0.75 else _BLACK
