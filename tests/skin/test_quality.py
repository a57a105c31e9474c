"""Each rule refuses what it is for, and lets a plain picture with a lesion pass."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medsynth.errors import Reason, Rejected
from medsynth.skin import quality, tone
from medsynth.skin.quality import Thresholds
from medsynth.skin.semantic_map import Box

BOX = Box(40, 48, 80, 84)


def picture(angle: float = 30.0, spot: float = 0.6, size: int = 128) -> NDArray[np.uint8]:
    """Skin of an angle with a little grain, and a round spot of some share of its light in the box."""
    y, x = (np.mgrid[:size, :size] + 0.5) * (128 / size)
    inside = ((x - 60) / 20) ** 2 + ((y - 66) / 18) ** 2 < 1
    colour = tone.to_rgb(tone.skin_of(angle)).astype(float)
    grain = np.random.default_rng(0).normal(0, 4, (size, size, 1))
    shown = np.broadcast_to(colour, (size, size, 3)) * np.where(inside, spot, 1.0)[..., None] + grain
    return shown.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("angle", [60.0, 35.0, 0.0, -50.0])
def test_what_was_asked_for_passes_and_is_measured(angle: float) -> None:
    found = quality.judge(picture(angle), BOX, angle, Thresholds())
    assert abs(found.ita_deg - angle) < 2
    assert found.change > 4
    assert found.saturated == 0


@pytest.mark.parametrize("size", [64, 256])
def test_the_size_of_the_picture_changes_little(size: int) -> None:
    found, usual = quality.measure(picture(size=size), scaled(size)), quality.measure(picture(), BOX)
    assert abs(found.ita_deg - usual.ita_deg) < 1
    assert abs(found.change - usual.change) < 3


def flat() -> NDArray[np.uint8]:
    return np.full((128, 128, 3), (190, 150, 130), dtype=np.uint8)


def half_white() -> NDArray[np.uint8]:
    shown = picture()
    shown[:, 90:] = 255
    return shown


def scribbled(share: float = 0.02) -> NDArray[np.uint8]:
    """Worms of purple and white over some of the skin below the box."""
    shown = picture()
    rows = round(share * 128)
    y, x = np.mgrid[:rows, :128]
    worms = np.where(((x // 3 + y // 3) % 2 == 0)[..., None], (110, 70, 160), (240, 230, 240))
    shown[124 - rows : 124] = worms
    return shown


def ringed(height: float = 12.0, radius: float = 0.6, size: int = 128, open_: bool = False) -> NDArray[np.uint8]:
    """A dark lesion that fills the box, with a field in it that is paler by a height in L*."""
    y, x = (np.mgrid[:size, :size] + 0.5) * (128 / size)
    deep = np.hypot((x - 60) / 20, (y - 66) / 18)
    lightness = np.where(deep < 1, 40.0, 65.0) + np.where(deep < radius, height, 0.0)
    if open_:
        lightness = np.where((np.abs(y - 66) < 5) & (x > 60), 40 + height, lightness)
    lab = np.stack([lightness, np.full_like(y, 15.0), np.full_like(y, 20.0)], axis=-1)
    return tone.to_rgb(lab)


def green() -> NDArray[np.uint8]:
    return np.full((128, 128, 3), (0, 200, 0), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shown", "asked", "reason", "detail"),
    [
        (flat(), 30.0, Reason.EMPTY, "L* has a standard deviation of"),
        (half_white(), 30.0, Reason.SATURATED, "30% of its pixels are white or black, over 20%"),
        (picture(), -10.0, Reason.TONE, "asked for -10.0: more than 10 apart"),
        (picture(spot=1.0), 30.0, Reason.NO_LESION, "stands out from the skin by 0."),
        (scribbled(), 30.0, Reason.PATTERN, "of what lies outside of the box is a purple pattern, over 0.4%"),
        (ringed(), 37.0, Reason.FIELD, "a field paler than all about it is 29% as large as the box, over 15%"),
        (green(), 30.0, Reason.NO_SKIN, "nothing outside the lesion"),
    ],
)
def test_what_was_not_asked_for_is_refused(shown: NDArray[np.uint8], asked: float, reason: Reason, detail: str) -> None:
    with pytest.raises(Rejected) as found:
        quality.judge(shown, BOX, asked, Thresholds(spread=1.5 if reason is Reason.EMPTY else 0))
    assert found.value.reason == reason
    assert detail in found.value.detail


def test_a_rule_that_is_off_refuses_nothing() -> None:
    off = Thresholds(ita_deg=None, spread=None, saturated=None, change=None, pattern=None, field=None)
    for shown in (flat(), half_white(), picture(spot=1.0), scribbled()):
        quality.judge(shown, BOX, -60.0, off)


def test_a_box_that_fills_the_picture_can_be_judged() -> None:
    assert np.isfinite(quality.measure(picture(), Box(0, 0, 128, 128)).change)
    assert np.isfinite(quality.measure(picture(), Box(60, 60, 61, 61)).change)
    assert quality.pattern(scribbled(), Box(0, 0, 128, 128)) == 0


def test_a_pattern_is_seen_outside_of_the_box_alone_and_at_any_size() -> None:
    shown = scribbled(0.2)
    share = quality.pattern(shown, BOX)
    assert 0.1 < share < 0.3
    assert quality.pattern(shown, Box(0, 90, 128, 128)) == 0
    assert quality.pattern(picture(), BOX) == 0
    twice = np.repeat(np.repeat(shown, 2, axis=0), 2, axis=1)
    assert quality.pattern(twice, Box(80, 96, 160, 168)) == share
    plain = picture()
    plain[100:124] = (110, 70, 160)
    assert quality.pattern(plain, BOX) < 0.04, "purple without detail, but for its border"


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.7])
def test_a_fields_area_is_told_as_a_share_of_the_box(radius: float) -> None:
    found = [quality.field(ringed(radius=radius, size=size), scaled(size)) for size in (64, 128, 256)]
    np.testing.assert_allclose(found, np.pi / 4 * radius**2, rtol=0, atol=0.04)


def test_a_field_is_paler_than_what_encloses_it_and_by_enough() -> None:
    assert quality.field(ringed(height=7), BOX) > 0.2
    assert quality.field(ringed(height=5), BOX) == 0
    assert quality.field(ringed(height=-12), BOX) == 0, "darker"
    assert quality.field(ringed(open_=True), BOX) == 0, "it reaches the skin"
    assert quality.field(picture(), BOX) == 0
    assert quality.field(ringed(height=40), BOX) > 0.2, "paler than the skin, too"


def test_fields_are_looked_for_at_the_lesion_alone() -> None:
    for far in (Box(45, 2, 75, 32), Box(45, 100, 75, 126), Box(2, 50, 24, 80), Box(96, 50, 126, 80)):
        assert quality.field(ringed(), far) == 0
    for box in (Box(0, 0, 128, 128), Box(127, 127, 128, 128), Box(0, 0, 2, 128)):
        assert 0 <= quality.field(ringed(), box) < 0.1


def scaled(size: int) -> Box:
    return Box(*(round(corner * size / 128) for corner in (BOX.x0, BOX.y0, BOX.x1, BOX.y1)))
