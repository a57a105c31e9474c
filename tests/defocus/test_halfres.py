"""The fast blur: not exact, but near, and nowhere biased."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medsynth import images, storage
from medsynth.defocus import bokeh, halfres
from medsynth.defocus.light import LEVEL, LIGHT, code_table, light_table


def both(image: NDArray[np.uint8], radius: float, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes of the exact and of the fast blur of the image's middle."""
    results = []
    middle = len(image) // 2
    for reach, odd in ((bokeh.disc(radius).reach, 0), (halfres.reach(radius), size % 2)):
        start, side = middle - size // 2 - reach, size + 2 * reach + odd
        light = light_table(True)[image[start : start + side, start : start + side]].reshape(side, side * 3)
        light = np.ascontiguousarray(light)
        levels = halfres.blur(light, radius, size) if results else bokeh.blur(light, bokeh.disc(radius), 3)
        results.append(code_table(True)[levels].astype(np.int64))
    return results[0], results[1]


CEILINGS = {
    3.0: (10, 1.05),
    4.0: (6, 0.95),
    5.0: (5, 0.8),
    6.3: (4, 0.72),
    9.0: (4, 0.55),
    12.0: (3, 0.47),
    30.0: (2, 0.27),
}
"""Largest and root-mean-square difference from the exact blur in grey levels, as measured and a little more."""


@pytest.mark.parametrize("size", [400, 401])
@pytest.mark.parametrize("radius", [radius for radius in CEILINGS if radius >= halfres.FROM_RADIUS])
def test_a_real_image_is_near_the_exact_one(radius: float, size: int) -> None:
    exact, fast = both(images.decode(storage.read("package://skimage/data/ihc.png")), radius, size)
    assert exact.shape == fast.shape == (size, size * 3)
    error = fast - exact
    largest, rms = CEILINGS[radius]
    assert np.abs(error).max() <= largest
    assert np.sqrt((error**2).mean()) <= rms
    assert abs(error.mean()) < 0.1


@pytest.mark.parametrize("radius", [4.0, 9.5])
def test_energy_place_and_spread_are_the_discs(radius: float) -> None:
    size = 4 * int(radius) + 20
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        side = size + 2 * halfres.reach(radius)
        point = np.zeros((side, side, 3), dtype=np.uint16)
        centre = (side // 2 + dy, side // 2 + dx)
        # Nine pixels, or rounding would swallow most of a single one's light.
        point[centre[0] - 1 : centre[0] + 2, centre[1] - 1 : centre[1] + 2] = LIGHT
        spread = halfres.blur(point.reshape(side, -1), radius, size).reshape(size, size, 3)[..., 0].astype(float)
        assert spread.sum() / (9 * LEVEL) == pytest.approx(1, rel=0.02)
        places = np.arange(size) + halfres.reach(radius)
        down, along = spread.sum(axis=1) / spread.sum(), spread.sum(axis=0) / spread.sum()
        # Which of a coarse pixel's quarters the light fell on is what half the resolution forgets.
        assert abs((down * places).sum() - centre[0]) < 0.51
        assert abs((along * places).sum() - centre[1]) < 0.51
        variance = (along * places**2).sum() - (along * places).sum() ** 2
        assert variance == pytest.approx(radius**2 / 4 + 9 / 12, rel=0.05)


def test_flat_stays_flat() -> None:
    side = 64 + 2 * halfres.reach(5.0)
    for value in (0, 3, LIGHT):
        levels = halfres.blur(np.full((side, side * 3), value, dtype=np.uint16), 5.0, 64)
        assert np.abs(levels - value * LEVEL / LIGHT).max() <= 1
