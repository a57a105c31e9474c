"""Skin tone: CIELAB, the individual typology angle, Fitzpatrick types, and skin of another tone.

Everything here is float64. Cube roots and powers may differ in their last bit from machine to machine, so
what decides bytes is rounded: colours to 8 bits, angles to :data:`DIGITS` digits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

TYPES = ("I", "II", "III", "IV", "V", "VI")
"""Fitzpatrick types by their names; type n of 1 to 6 is ``TYPES[n - 1]``."""

BINS = ("very light", "light", "intermediate", "tan", "brown", "dark")
"""Names of the bins of the individual typology angle, from the lightest."""

EDGES = (55.0, 41.0, 28.0, 10.0, -30.0)
"""Degrees between one bin and the next; an angle on an edge belongs to the darker bin."""

RANGE = (-60.0, 68.0)
"""Degrees within which skin is drawn."""

CENTRES = (60.0, 48.0, 34.5, 19.0, -10.0, -45.0)
"""A representative angle of each bin, degrees: its middle, and a little inside for the two without an end."""

DIGITS = 6

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_TO_RGB = np.linalg.inv(_TO_XYZ)
_WHITE = _TO_XYZ.sum(axis=1)
_EDGE = 6 / 29
# Angle, a* and b* of skin from dark to light; L* follows from the angle.
_CURVE = np.array(
    [
        [-60.0, 8.0, 10.0],
        [-45.0, 10.0, 13.0],
        [-10.0, 12.5, 17.5],
        [19.0, 12.5, 19.5],
        [34.5, 11.5, 18.5],
        [48.0, 10.5, 16.0],
        [60.0, 9.0, 12.5],
        [68.0, 8.0, 9.5],
    ]
)


def linear(codes: ArrayLike) -> NDArray[np.float64]:
    """Light from sRGB codes.

    Args:
        codes: any shape, 0 to 255.

    Returns:
        The same shape, 0 to 1.

    Source:
        IEC 61966-2-1.
    """
    v = np.asarray(codes, dtype=np.float64) / 255
    return np.where(v <= 0.04045, v / 12.92, ((np.maximum(v, 0) + 0.055) / 1.055) ** 2.4)


def coded(light: ArrayLike) -> NDArray[np.float64]:
    """The sRGB codes of light, not rounded; the inverse of :func:`linear`, light outside 0 to 1 clipped."""
    v = np.clip(np.asarray(light, dtype=np.float64), 0, 1)
    return 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def to_lab(rgb: ArrayLike) -> NDArray[np.float64]:
    """CIELAB of sRGB colours.

    Args:
        rgb: (..., 3), 0 to 255.

    Returns:
        (..., 3): L* 0 to 100, a* and b*, against the white of D65.

    Source:
        IEC 61966-2-1 (sRGB to XYZ); CIE 15:2004, section 8.2.1.

    Example:
        >>> to_lab([255, 255, 255]).round(3).tolist()
        [100.0, 0.0, 0.0]
    """
    return _lab(linear(rgb) @ _TO_XYZ.T)


def to_rgb(lab: ArrayLike) -> NDArray[np.uint8]:
    """The sRGB colours nearest to CIELAB ones; what a display cannot show is clipped channel by channel.

    Args:
        lab: (..., 3).

    Returns:
        (..., 3) uint8.
    """
    return np.rint(coded(_xyz(np.asarray(lab, dtype=np.float64)) @ _TO_RGB.T)).astype(np.uint8)


def _lab(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    t = xyz / _WHITE
    f = np.where(t > _EDGE**3, np.cbrt(t), t / (3 * _EDGE**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _xyz(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    light = np.where(f > _EDGE, f**3, 3 * _EDGE**2 * (f - 4 / 29))
    return np.asarray(light * _WHITE, dtype=np.float64)


def ita(lab: ArrayLike) -> NDArray[np.float64]:
    """The individual typology angle of colours: how light skin is, against how yellow.

    Args:
        lab: (..., 3) CIELAB.

    Returns:
        (...) degrees, -180 to 180, rounded to 6 digits; skin lies between about -70 and 90.

    Source:
        Chardon, Cretois and Hourseau, "Skin colour typology and suntanning pathways", Int J Cosmet Sci 1991:
        arctan((L* - 50) / b*); with two arguments, so that it is defined for b* <= 0 too.
    """
    colours = np.asarray(lab, dtype=np.float64)
    angles = np.degrees(np.arctan2(colours[..., 0] - 50, colours[..., 2]))
    return np.asarray(np.round(angles, DIGITS), dtype=np.float64)


def fitzpatrick(angles: ArrayLike) -> NDArray[np.int64]:
    """The Fitzpatrick type that stands for an angle here, 1 to 6: the place of its bin.

    The Fitzpatrick type is a clinical grade: how skin burns and tans, asked of a person. The angle is the
    colour of one place under one light. They correlate and do not determine each other, the less so in
    photographs whose light and white balance are unknown. So this mapping is a convention that makes "type V"
    drawable and countable: the six bins of the angle, from light to dark, are given the six types in their
    order. It is no diagnosis, and a photo's clinical type, where a table tells one, is kept as it is.

    Args:
        angles: (...) degrees.

    Source:
        Bins: Chardon et al. 1991, with the dark end as in Del Bino and Bernerd, Br J Dermatol 2013. That bin n
        stands for type n is our assumption; others (Kinyanjui et al., MICCAI 2020; Groh et al., CVPR workshops
        2021) put the edges of the dark types elsewhere.

    Example:
        >>> fitzpatrick([60, 55, 30, 11, 0, -40]).tolist()
        [1, 2, 3, 4, 5, 6]
    """
    values = np.asarray(angles, dtype=np.float64)
    return np.asarray((values[..., None] <= np.array(EDGES)).sum(axis=-1) + 1, dtype=np.int64)


def angles_of(kind: int) -> tuple[float, float]:
    """The bin of angles that stands for a Fitzpatrick type, as the lowest and the highest degree drawn.

    Args:
        kind: 1 to 6.
    """
    edges = (RANGE[1], *EDGES, RANGE[0])
    return edges[kind], edges[kind - 1]


def parse_type(text: str | int) -> int | None:
    """A Fitzpatrick type from what people write, 1 to 6 or I to VI; None for anything else.

    Example:
        >>> parse_type("iv"), parse_type(4), parse_type("4.0"), parse_type("7")
        (4, 4, 4, None)
    """
    name = str(text).strip().upper().removesuffix(".0")
    if name in TYPES:
        return TYPES.index(name) + 1
    return int(name) if name in {"1", "2", "3", "4", "5", "6"} else None


def skin_of(angle: float, *, redness: float = 0.0, yellowness: float = 0.0) -> NDArray[np.float64]:
    """A colour of skin with a given angle.

    Args:
        angle: degrees, taken into :data:`RANGE`.
        redness: added to a*.
        yellowness: factor on b* is ``1 + yellowness``; L* follows, so that the angle stays what it is.

    Returns:
        (3,) CIELAB.

    Source:
        That the colours of skin lie on an arc, yellowest in the middle: after Chardon et al. 1991. The numbers
        of the arc are our assumption, chosen by hand and fitted to no measurement.
    """
    inside = min(max(angle, RANGE[0]), RANGE[1])
    a = np.interp(inside, _CURVE[:, 0], _CURVE[:, 1]) + redness
    b = np.interp(inside, _CURVE[:, 0], _CURVE[:, 2]) * (1 + yellowness)
    return np.array([50 + b * np.tan(np.radians(inside)), a, b])


def colour_of_type(kind: int) -> tuple[int, int, int]:
    """The colour that stands for a Fitzpatrick type where nothing but the type is asked for.

    Args:
        kind: 1 to 6.

    Returns:
        sRGB.
    """
    red, green, blue = to_rgb(skin_of(CENTRES[kind - 1])).tolist()
    return red, green, blue


def retone(
    image: NDArray[np.uint8], skin: Sequence[float], wanted: Sequence[float], gloss_kept: bool = False
) -> NDArray[np.uint8]:
    """A photo as if its skin had another tone, lesion and all.

    Melanin in the epidermis filters all light that comes out of the skin, so what it adds to the optical
    density of one place it adds everywhere: reflected light changes by the same factor in the whole picture.
    Here the factors are those that bring the skin's own X, Y and Z to the wanted ones; in CIELAB that scales
    L* + 16 and moves a* and b* along.

    What this does not do: gloss is darkened too, or pale spots would glare; blood under dark skin keeps
    its share of redness where really it is less seen; clothes and pen marks are filtered as well. Pictures
    made so teach a network to follow the asked colour. They are no evidence of how a disease looks on dark skin.

    Args:
        image: (H, W, 3) sRGB.
        skin: CIELAB of its skin.
        wanted: CIELAB that its skin shall have.
        gloss_kept: hold light beyond the skin's own luminance for gloss, which comes from the surface and passes no
            melanin: a factor over 1 does not make it stronger, by which every glint would become a white speck.

    Returns:
        As ``image``.

    Source:
        Tsumura et al., "Image-based skin color and texture analysis/synthesis by extracting hemoglobin and
        melanin information in the skin", SIGGRAPH 2003, section 3: densities of pigments add. One common
        filter instead of a map of melanin, in XYZ instead of the camera's channels, is our assumption. That what the
        surface reflects adds to what comes out of the body: Shafer, "Using color to separate reflection components",
        Color Research & Application 1985, section 2; where one ends and the other begins is ours.
    """
    ends = _xyz(np.array([skin, wanted], dtype=np.float64))
    gains = ends[1] / np.maximum(ends[0], 1e-6)
    before = _LINEAR[image]
    light = _filtered(before, gains)
    if gloss_kept and (gains > 1).any():
        luminance = before @ _TO_XYZ[1].astype(np.float32)
        gloss = np.maximum(1 - np.float32(ends[0, 1]) / np.maximum(luminance, np.float32(1e-6)), 0)[..., None]
        light += gloss * (_filtered(before, np.minimum(gains, 1)) - light)
    places = np.clip(light * (len(_CODED) - 1), 0, len(_CODED) - 1).astype(np.int32)
    found: NDArray[np.uint8] = _CODED[places]
    return found


def _filtered(light: NDArray[np.float32], gains: NDArray[np.float64]) -> NDArray[np.float32]:
    # Linear sRGB, each of its X, Y and Z times a gain.
    matrix = (_TO_RGB @ np.diag(gains) @ _TO_XYZ).astype(np.float32)
    found: NDArray[np.float32] = light @ matrix.T
    return found


# Tables, since a power for each pixel takes ten times as long.
_LINEAR = linear(np.arange(256)).astype(np.float32)
_CODED = np.rint(coded((np.arange(1 << 14) + 0.5) / (1 << 14))).astype(np.uint8)
