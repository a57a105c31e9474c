import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medsynth.skin import foreign, tone
from medsynth.skin.pairs import Pairs, Photo
from medsynth.skin.semantic_map import Box

BOX = Box(100, 100, 150, 150)
SKIN = tone.skin_of(35.0).tolist()


def photo(size: int = 256) -> NDArray[np.uint8]:
    """Skin in the light of one side, with grain, and a dark lesion that fills its box."""
    light = np.linspace(0.85, 1.1, size)[None, :, None]
    grain = np.random.default_rng(1).normal(0, 6, (size, size, 1))
    shown = (tone.to_rgb(SKIN).astype(float) * light + grain) * np.ones((size, size, 3))
    edge = [round(corner * size / 256) for corner in (100, 150)]
    shown[edge[0] : edge[1], edge[0] : edge[1]] *= 0.4
    return shown.round().clip(0, 255).astype(np.uint8)


def test_skin_in_uneven_light_and_its_lesion_are_nothing_else() -> None:
    assert foreign.share(photo(), BOX, SKIN) == 0
    assert foreign.share(photo(), Box(0, 0, 256, 256), SKIN) == 0


@pytest.mark.parametrize(
    ("colour", "name"),
    [((30, 25, 25), "hair"), ((70, 60, 150), "ink"), ((250, 250, 252), "cloth"), ((40, 120, 60), "cloth")],
)
def test_a_field_of_another_colour_counts_as_much_as_it_takes(colour: tuple[int, int, int], name: str) -> None:
    shown = photo()
    shown[:, 216:] = colour
    found = foreign.share(shown, BOX, SKIN)
    margin = round(0.15 * 50)
    assert found == pytest.approx(40 * 256 / (256**2 - (50 + 2 * margin) ** 2), abs=0.01), name


def test_a_thin_line_of_ink_is_seen_at_any_size_of_photo() -> None:
    for size in (128, 256, 1024):
        shown = photo(size)
        width, at = size // 50, round(0.7 * size)
        shown[at : at + width] = (60, 50, 140)
        scaled = Box(*(round(corner * size / 256) for corner in (100, 100, 150, 150)))
        assert foreign.share(shown, scaled, SKIN) > 0.01, size


def test_within_the_lesion_only_what_no_lesion_is_counts() -> None:
    shown = photo()
    shown[100:150, 100:150] = (60, 20, 25)
    assert foreign.share(shown, BOX, SKIN) == 0
    shown[100:150, 100:150] = (20, 80, 100)
    assert foreign.share(shown, BOX, SKIN) == pytest.approx(50 * 50 / 256**2, abs=0.005)


def test_redness_about_the_box_is_the_lesions() -> None:
    shown = photo()
    shown[94:156, 94:156] = (170, 60, 60)
    assert foreign.share(shown, BOX, SKIN) == 0


def test_a_photo_that_its_lesion_fills_is_told_by_blue_alone() -> None:
    shown = np.asarray(Image.new("RGB", (300, 200), (90, 40, 30)))
    assert foreign.share(shown, Box(5, 5, 295, 195), SKIN) == 0


def test_of_each_condition_the_three_with_the_least_are_kept_and_the_others_by_the_limit() -> None:
    names = ("MEL", "NEV", "MEL", "MEL", "NEV", "MEL", "NEV", "NEV")
    photos = tuple(Photo(f"{n}.png", name, None, BOX, f"P{n}") for n, name in enumerate(names))
    shares = (0.5, 0.0, 0.3, 0.4, 0.02, 0.6, 0.01, 0.03)
    left = foreign.left_out(Pairs("table", photos), shares, 0.02)
    assert [one.uri for one in left.photos] == ["5.png", "7.png"]
    assert foreign.left_out(Pairs("table", photos), shares, 1.0).photos == ()
