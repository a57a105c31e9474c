import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import color

from medsynth.skin import tone

COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


@given(COLOURS)
def test_lab_is_the_references_and_goes_back(rgb: tuple[int, int, int]) -> None:
    lab = tone.to_lab(rgb)
    assert np.abs(lab - color.rgb2lab(np.array(rgb) / 255)).max() < 0.02  # which rounds its white
    assert tone.to_rgb(lab).tolist() == list(rgb)


@given(st.floats(-89, 89), st.floats(1, 40))
def test_the_angle_is_that_of_the_definition(angle: float, b: float) -> None:
    lab = [50 + b * np.tan(np.radians(angle)), 10, b]
    assert float(tone.ita(lab)) == pytest.approx(angle, abs=1e-5)


def test_bins_go_from_light_to_dark_and_edges_belong_to_the_darker_one() -> None:
    assert tone.fitzpatrick(np.array([*tone.EDGES])).tolist() == [2, 3, 4, 5, 6]
    assert tone.fitzpatrick(np.array(tone.EDGES) + 1e-6).tolist() == [1, 2, 3, 4, 5]
    assert tone.fitzpatrick(np.array(tone.CENTRES)).tolist() == [1, 2, 3, 4, 5, 6]
    assert len(tone.BINS) == len(tone.TYPES) == 6


@pytest.mark.parametrize("kind", range(1, 7))
def test_the_colour_of_a_type_has_the_types_angle(kind: int) -> None:
    angle = float(tone.ita(tone.to_lab(tone.colour_of_type(kind))))
    assert angle == pytest.approx(tone.CENTRES[kind - 1], abs=2)
    low, high = tone.angles_of(kind)
    assert low < angle < high
    assert int(tone.fitzpatrick(angle)) == kind


@given(st.floats(*tone.RANGE), st.floats(-3, 3), st.floats(-0.2, 0.2))
def test_skin_has_the_angle_asked_for_and_darker_skin_is_darker(angle: float, red: float, yellow: float) -> None:
    found = tone.skin_of(angle, redness=red, yellowness=yellow)
    assert float(tone.ita(found)) == pytest.approx(angle, abs=1e-4)
    assert 25 < found[0] < 85
    assert tone.skin_of(angle - 5)[0] <= tone.skin_of(angle)[0] + 1e-9  # equal where both are at the dark end


@given(COLOURS.filter(lambda c: min(c) > 70), st.floats(*tone.RANGE), st.booleans())
def test_retoned_skin_has_the_wanted_colour(rgb: tuple[int, int, int], angle: float, gloss_kept: bool) -> None:
    image = np.full((2, 2, 3), rgb, dtype=np.uint8)
    wanted = tone.skin_of(angle)
    found = tone.retone(image, tone.to_lab(rgb).tolist(), wanted.tolist(), gloss_kept)
    assert np.abs(found.astype(int) - tone.to_rgb(wanted)).max() <= 1


def test_retoning_keeps_ratios_of_light_so_a_lesion_stays_darker_than_its_skin() -> None:
    skin, lesion = tone.to_lab([200, 150, 120]), np.array([90, 50, 45], dtype=np.uint8)
    image = np.stack([np.full((4, 3), tone.to_rgb(skin)), np.full((4, 3), lesion)]).astype(np.uint8)
    dark = tone.retone(image, skin.tolist(), tone.skin_of(-40).tolist())
    before, after = (tone.linear(picture) @ tone._TO_XYZ[1] for picture in (image, dark))
    assert after[1, 0] / after[0, 0] == pytest.approx(before[1, 0] / before[0, 0], rel=0.1)
    assert tone.retone(image, skin.tolist(), skin.tolist()).tolist() == image.tolist()


def light(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = tone.linear(image) @ tone._TO_XYZ[1]
    return found


def test_lightened_skin_takes_no_more_light_from_gloss_than_it_had_where_that_is_asked() -> None:
    shades = np.arange(40, 256, dtype=np.uint8)
    image = np.stack([shades] * 3, axis=1)[None]
    skin = tone.to_lab([130, 130, 130])
    pale = tone.retone(image, skin.tolist(), (float(skin[0]) + 25, 0.0, 0.0), gloss_kept=True)
    own, before, after = light(np.full((1, 3), 130, dtype=np.uint8))[0], light(image)[0], light(pale)[0]
    wanted = light(tone.to_rgb([float(skin[0]) + 25, 0.0, 0.0])[None])[0]
    below = before <= own
    assert after[below] == pytest.approx(before[below] * wanted / own, abs=0.01)
    kept = ~below & (after < 0.98)
    assert kept.sum() > 20
    assert after[kept] - wanted == pytest.approx(before[kept] - own, abs=0.01)
    assert (np.diff(after) >= 0).all()
    filtered = light(tone.retone(image, skin.tolist(), (float(skin[0]) + 25, 0.0, 0.0)))[0]
    assert filtered == pytest.approx(np.minimum(before * wanted / own, 1), abs=0.01)
    darker = [tone.retone(image, skin.tolist(), (float(skin[0]) - 25, 0.0, 0.0), kept) for kept in (False, True)]
    assert np.array_equal(*darker)


@pytest.mark.parametrize(
    ("text", "kind"), [("I", 1), ("vi", 6), (" 3 ", 3), (2, 2), ("4.0", 4), ("0", None), ("x", None)]
)
def test_types_are_read_as_people_write_them(text: str | int, kind: int | None) -> None:
    assert tone.parse_type(text) == kind
