import numpy as np
import pytest
from numpy.typing import NDArray

from medsynth.evaluation import outlines
from medsynth.evaluation.pictures import Pictures
from medsynth.skin import form, tone
from medsynth.skin.semantic_map import Box

BOX = Box(20, 30, 100, 90)


def drawn(lesion: NDArray[np.bool_], darker: float = 25.0, grain: float = 2.0) -> NDArray[np.uint8]:
    lab = np.empty((*lesion.shape, 3))
    lab[:] = (65, 15, 20)
    lab[..., 0] -= darker * lesion
    return tone.to_rgb(lab + np.random.default_rng(0).normal(0, grain, lab.shape))


def formed(spread: float, seed: int) -> NDArray[np.uint8]:
    return drawn(form.depth(BOX, (128, 128), seed, spread) > 0)


def cross() -> NDArray[np.bool_]:
    found = np.zeros((128, 128), dtype=bool)
    found[52:68, 20:100] = found[30:90, 50:70] = True
    return found


def test_an_ellipse_overlaps_itself_whatever_its_place_and_direction() -> None:
    y, x = np.mgrid[:128, :128] - 60.0
    for turn in (0.0, 0.6, 1.2):
        along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        lesion = (along / 32) ** 2 + (across / 18) ** 2 < 1
        rows, columns = np.flatnonzero(lesion.any(axis=1)), np.flatnonzero(lesion.any(axis=0))
        box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        assert outlines.overlap(drawn(lesion), box) > 0.95


def test_a_cross_overlaps_its_ellipse_as_reckoned_by_hand() -> None:
    # Arms of 80 x 16 and 20 x 60 pixels; softening rounds their ends.
    lesion = cross()
    places = np.argwhere(lesion)
    spread = np.sqrt(np.var(places, axis=0))
    middle = places.mean(axis=0)
    half = spread * np.sqrt(len(places) / (np.pi * spread.prod()))
    y, x = np.mgrid[:128, :128]
    ellipse = ((y - middle[0]) / half[0]) ** 2 + ((x - middle[1]) / half[1]) ** 2 <= 1
    wanted = (ellipse & lesion).sum() / (ellipse | lesion).sum()
    assert wanted < 0.75
    assert outlines.overlap(drawn(lesion), BOX) == pytest.approx(wanted, abs=0.05)


def test_holes_are_filled_and_small_parts_beside_the_lesion_do_not_count() -> None:
    y, x = np.mgrid[:128, :128] - 60.0
    lesion = (x / 30) ** 2 + (y / 25) ** 2 < 1
    lesion &= np.hypot(x, y) > 8
    lesion[32:40, 22:30] = True
    assert outlines.overlap(drawn(lesion), BOX) > 0.93


@pytest.mark.parametrize(
    ("picture", "box"),
    [
        (drawn(cross(), darker=0.0), BOX),
        (drawn(cross(), darker=4.0), BOX),
        (np.full((128, 128, 3), 120, dtype=np.uint8), BOX),
        (drawn(cross()), Box(0, 0, 128, 128)),
        (drawn(cross()), Box(2, 2, 4, 4)),
    ],
)
def test_what_does_not_stand_out_has_no_outline(picture: NDArray[np.uint8], box: Box) -> None:
    assert np.isnan(outlines.overlap(picture, box))


def test_two_kinds_are_compared_as_a_whole_and_by_condition() -> None:
    def side(spread: float, faint: int) -> Pictures:
        images = [formed(spread, seed) for seed in range(20)] + [drawn(cross(), darker=0.0)] * faint
        count = len(images)
        names = tuple(["NEV", "MEL"][number % 2] for number in range(count))
        kinds = np.zeros(count, dtype=np.int64)
        groups = tuple(str(number) for number in range(count))
        return Pictures(np.stack(images), names, kinds, (BOX,) * count, groups, np.zeros(count))

    found = outlines.compared(side(0.0, 0), side(0.5, 4))
    assert {kind: (one["pictures"], one["measured"]) for kind, one in found["whole"].items()} == {
        "synthetic": (20, 20),
        "real": (24, 20),
    }
    low, middle, high = found["whole"]["real"]["quartiles"]
    assert low < middle < high < found["whole"]["synthetic"]["quartiles"][1]
    assert sorted(found["conditions"]) == ["MEL", "NEV"]
    assert sum(one["real"]["measured"] for one in found["conditions"].values()) == 20
    other = side(0.5, 4).take([20, 22])
    none = outlines.compared(side(0.0, 0), other)["conditions"]
    assert none["NEV"]["real"] == {"pictures": 2, "measured": 0, "quartiles": None}
    assert none["MEL"]["real"] == {"pictures": 0, "measured": 0, "quartiles": None}
