import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsynth import images
from medsynth.errors import Rejected
from medsynth.skin import semantic_map, tone
from medsynth.skin.semantic_map import Box, Geometry, MapError

NAMES = ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK")
BOX = Box(60, 60, 110, 105)


def skin(angle: float, seed: int, side: int = 160) -> np.ndarray:
    """Mottled skin with a dark lesion in the box, and a little shade from side to side."""
    generator = np.random.default_rng(seed)
    lab = np.tile(tone.skin_of(angle), (side, side, 1))
    lab += generator.normal(0, (3, 1.5, 1.5), lab.shape)
    lab[..., 0] += np.linspace(-1.5, 1.5, side)
    lab[BOX.y0 : BOX.y1, BOX.x0 : BOX.x1] = (20, 20, 10)
    return tone.to_rgb(lab)


CLOTHS = {
    "blue cloth": (30, 90, 160),
    "red cloth": (150, 40, 50),
    "brown cloth": (110, 75, 50),
    "beige cloth": (200, 180, 150),
    "pink cloth": (220, 150, 160),
}
"""All but the first of colours that skin can have."""


@pytest.mark.parametrize("angle", [62, 45, 30, 15, -10, -45])
@pytest.mark.parametrize("what", ["nothing", "hair", "ink", *CLOTHS, "shadow", "deep shadow", "soft shadow", "ground"])
def test_what_is_not_skin_does_not_pull_its_colour(angle: float, what: str) -> None:
    photo = skin(angle, 1)
    generator = np.random.default_rng(2)
    if what == "hair":
        for start in generator.integers(0, 160, 40):
            rows = np.arange(160)
            photo[rows, (start + rows // 3) % 160] = (40, 28, 20)
    elif what == "ink":
        y, x = np.mgrid[:160, :160]
        photo[abs(np.hypot(y - 82, x - 85) - 45) < 4] = (60, 50, 140)
    elif what in CLOTHS:
        weave = generator.normal(0, 10, (160, 48, 3)) + generator.normal(0, 8, (160, 48, 1))
        photo[:, :48] = np.clip(CLOTHS[what] + weave, 0, 255)
    elif what == "shadow":
        photo[110:, :] = (photo[110:, :] * 0.45).astype(np.uint8)
    elif what == "deep shadow":
        photo[100:, :] = np.rint(tone.coded(0.3 * tone.linear(photo[100:, :])))
    elif what == "soft shadow":
        through = 1 / (1 + np.exp((np.arange(160) - 112) / 6))
        photo = np.rint(tone.coded(tone.linear(photo) * (0.4 + 0.6 * through[:, None, None]))).astype(np.uint8)
    elif what == "ground":
        photo[:40] = 250
    found = semantic_map.skin_colour(photo, BOX)
    assert np.linalg.norm(found - tone.skin_of(angle)) < 4
    assert float(tone.ita(found)) == pytest.approx(angle, abs=6)


def beside(photo: NDArray[np.uint8], box: Box, share: float) -> slice | None:
    """Columns at a photo's edge, on the side away from its lesion; None where the lesion reaches in there."""
    width = photo.shape[1]
    columns = int(width * share)
    if box.x0 >= width - box.x1:
        return slice(0, columns) if columns <= box.x0 else None
    return slice(width - columns, width) if width - columns >= box.x1 else None


def test_neither_cloth_nor_shadow_pulls_the_colour_of_real_skin(shared_data: Path) -> None:
    generator = np.random.default_rng(0)
    moves: dict[str, list[float]] = {"shadow": [], **{cloth: [] for cloth in CLOTHS}}
    with open(shared_data / "skin/photos.csv") as file:
        rows = list(csv.DictReader(file))[::13]
    for row in rows:
        photo = images.decode((shared_data / "skin" / row["image"]).read_bytes())
        box = Box(*(int(row[corner]) for corner in ("x0", "y0", "x1", "y1")))
        columns = beside(photo, box, 0.25)
        if columns is None:
            continue
        angle = float(tone.ita(semantic_map.skin_colour(photo, box)))
        for what, found in moves.items():
            changed = photo.copy()
            part = photo[:, columns]
            if what == "shadow":
                changed[:, columns] = np.rint(tone.coded(0.4 * tone.linear(part)))
            else:
                weave = generator.normal(0, 10, part.shape) + generator.normal(0, 8, (*part.shape[:2], 1))
                changed[:, columns] = np.clip(CLOTHS[what] + weave, 0, 255)
            found.append(abs(float(tone.ita(semantic_map.skin_colour(changed, box))) - angle))
    far = {what: float(np.mean(np.array(found) > 20)) for what, found in moves.items()}
    assert len(moves["shadow"]) >= 10
    assert max(far.values()) <= 0.15, far
    assert np.mean(list(far.values())) <= 0.1, far


@given(st.floats(-55, 65), st.integers(0, 2**31), st.integers(0, 110), st.integers(0, 110))
@settings(max_examples=30)
def test_a_patch_of_any_colour_anywhere_does_not_pull_it(angle: float, seed: int, y: int, x: int) -> None:
    photo = skin(angle, seed)
    photo[y : y + 45, x : x + 45] = np.random.default_rng(seed).integers(0, 256, 3)
    assert np.linalg.norm(semantic_map.skin_colour(photo, BOX) - tone.skin_of(angle)) < 5


def test_a_picture_without_skin_is_refused() -> None:
    with pytest.raises(Rejected, match="no_skin"):
        semantic_map.skin_colour(np.full((64, 64, 3), (0, 90, 255), dtype=np.uint8), None)


def test_real_photos_have_colours_of_skin_near_their_clinical_type(shared_data: Path) -> None:
    rows = list(csv.DictReader((shared_data / "skin" / "photos.csv").open()))
    dark = [row for row in rows if row["fitzpatrick"] in ("5", "6")]
    light = [row for row in rows if row["fitzpatrick"] == "1"]
    lightness = []
    for group in (dark, light):
        found = []
        for row in group:
            photo = images.decode((shared_data / "skin" / row["image"]).read_bytes())
            found.append(semantic_map.skin_colour(photo, Box(*(int(row[name]) for name in ("x0", "y0", "x1", "y1")))))
        assert all(0 < colour[2] < 45 and 20 < colour[0] < 95 for colour in found)
        lightness.append(np.mean(found, axis=0)[0])
    assert lightness[0] < lightness[1]


def test_a_map_is_skin_with_the_conditions_colour_in_its_place() -> None:
    colour = semantic_map.colour_of("MEL", NAMES)
    drawn = semantic_map.draw((32, 48), (200, 150, 120), Box(4, 6, 20, 30), colour)
    assert drawn.shape == (32, 48, 3)
    assert (drawn == colour).all(axis=2).sum() == 16 * 24
    assert drawn[0, 0].tolist() == [200, 150, 120]
    free = np.zeros((32, 48), dtype=bool)
    free[3, 5] = True
    assert ((semantic_map.draw((32, 48), (200, 150, 120), free, colour) == colour).all(axis=2) == free).all()


def test_conditions_have_colours_of_their_own_that_skin_never_has() -> None:
    found = np.array(list(semantic_map.colours([f"condition {n}" for n in range(26)]).values()))
    apart = np.abs(found[:, None] - found[None]).sum(axis=2) + 999 * np.eye(26, dtype=int)
    assert apart.min() >= 5
    arc = tone.to_rgb([tone.skin_of(angle) for angle in range(-60, 68)])
    assert np.abs(found[:, None].astype(int) - arc[None]).sum(axis=2).min() > 120


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: semantic_map.colour_of("WART", NAMES), "unknown condition 'WART'; known: ACK, BCC"),
        (lambda: semantic_map.mask((32, 32), Box(4, 4, 40, 8)), "not inside the picture of 32x32 px"),
        (lambda: semantic_map.mask((32, 32), Box(4, 4, 4, 8)), "give x0 < x1"),
        (lambda: semantic_map.mask((32, 32), np.zeros((32, 32), dtype=bool)), "the mask is empty"),
        (lambda: semantic_map.mask((32, 32), np.ones((8, 8), dtype=bool)), "the mask has 8x8 px, the map 32x32"),
        (lambda: semantic_map.placed(1.5, 0.5, 0.5, 64), "size must be above 0 and up to 1"),
        (lambda: Geometry({"NEV": ()}).sample("NEV", 64, 1), "unknown condition 'NEV'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(MapError, match=message.replace("(", r"\(")) as caught:
        call()
    assert "\n" not in str(caught.value)


@given(st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 2))
def test_a_placed_box_is_inside_and_as_large_as_asked(size: float, x: float, y: float, aspect: float) -> None:
    box = semantic_map.placed(size, x, y, 128, aspect)
    box.check(128, 128, "test")
    wide, high = box.x1 - box.x0, box.y1 - box.y0
    assert wide == pytest.approx(min(128, size * aspect**0.5 * 128), abs=2)
    assert high == pytest.approx(min(128, size / aspect**0.5 * 128), abs=2)


@given(st.integers(0, 2**62))
def test_sampled_boxes_are_like_those_seen(seed: int) -> None:
    seen = {"NEV": [(Box(100, 200, 150, 260), 512, 512)], "BCC": [(Box(0, 0, 512, 512), 512, 512)]}
    geometry = Geometry.of(seen)
    box = geometry.sample("NEV", 128, seed)
    box.check(128, 128, "test")
    assert 7 <= box.x1 - box.x0 <= 21
    assert box == geometry.sample("NEV", 128, seed)
    geometry.sample("BCC", 128, seed).check(128, 128, "test")
