"""A copy is found whatever was done to it; another picture is none."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medsynth.skin import likeness, pairs, tone
from medsynth.skin.likeness import Known
from medsynth.skin.pairs import PairsError
from medsynth.skin.semantic_map import Box, MapError

BOX = Box(30, 40, 80, 74)


def photo(seed: int, size: int = 128) -> NDArray[np.uint8]:
    """Coloured clouds."""
    noise = np.random.default_rng(seed).normal(0, 1, (size, size, 3))
    clouds = ndimage.gaussian_filter(noise, (6, 6, 0)) * 500
    return (clouds + np.array([190, 150, 130])).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def known() -> Known:
    return Known(np.stack([likeness.describe(photo(seed), BOX) for seed in range(5)]))


def turned(box: Box, size: int) -> Box:
    """The box of a picture turned a quarter to the left."""
    return Box(box.y0, size - box.x1, box.y1, size - box.x0)


def test_a_copy_is_found_turned_mirrored_retoned_moved_and_reduced(known: Known) -> None:
    original = photo(3)
    skin = tone.to_lab(np.array([190, 150, 130]))
    dark = tone.retone(original, skin.tolist(), tone.skin_of(-30).tolist())
    moved = np.roll(original, (-10, 5), axis=(0, 1))
    reduced = np.asarray(Image.fromarray(original).resize((64, 64), Image.Resampling.BOX))
    for shown, box in (
        (original, BOX),
        (original[:, ::-1], Box(128 - BOX.x1, BOX.y0, 128 - BOX.x0, BOX.y1)),
        (np.rot90(original), turned(BOX, 128)),
        (dark, BOX),
        (moved, Box(BOX.x0 + 5, BOX.y0 - 10, BOX.x1 + 5, BOX.y1 - 10)),
        (reduced, Box(15, 20, 40, 37)),
    ):
        near, place = known.nearest(np.ascontiguousarray(shown), box)
        assert (near > 0.93, place) == (True, 3)


def test_another_picture_is_no_copy(known: Known) -> None:
    assert max(known.nearest(photo(seed), BOX)[0] for seed in range(10, 20)) < 0.8


def test_a_picture_of_one_colour_is_like_nothing(known: Known) -> None:
    assert known.nearest(np.full((128, 128, 3), 120, dtype=np.uint8), BOX)[0] < 0.5


def test_boxes_at_the_border_are_mirrored_beyond_it(known: Known) -> None:
    for box in (Box(0, 0, 20, 20), Box(100, 100, 128, 128), Box(0, 0, 128, 128)):
        own = Known(likeness.describe(photo(1), box)[None])
        assert own.nearest(photo(1), box)[0] == 1.0


def test_photos_of_a_table_are_described_and_a_bad_one_is_named(tmp_path: Path) -> None:
    Image.fromarray(photo(3)).save(tmp_path / "a.png")
    table = tmp_path / "photos.csv"
    head = "image,condition,patient_id,x0,y0,x1,y1\n"
    table.write_text(f"{head}a.png,NEV,P1,30,40,80,74\n")
    found = likeness.know(pairs.read(str(table)))
    assert found.nearest(photo(3), BOX) == (1.0, 0)
    assert found.digest == likeness.know(pairs.read(str(table))).digest
    table.write_text(f"{head}a.png,NEV,P1,30,40,80,200\n")
    with pytest.raises(MapError, match=r"a.png: the box .* is not inside the picture"):
        likeness.know(pairs.read(str(table)))
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(PairsError, match=r"a.png: unreadable.*leave it out of the table"):
        likeness.know(pairs.read(str(table)))
    table.write_text(f"{head}b.png,NEV,P1,30,40,80,74\n")
    with pytest.raises(PairsError, match=r"b\.png.*leave it out of the table"):
        likeness.know(pairs.read(str(table)))
