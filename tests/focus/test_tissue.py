"""Tissue is told from glass, ink and black borders, and a picture that is all of one kind stays of one kind."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medsynth.catalog import slides
from medsynth.errors import Rejected
from medsynth.focus.tissue import cell_shares, tissue
from tests.slides import GLASS, on_glass, stained

BOX = (100, 60, 150, 180)


def inside(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    return mask[BOX[0] + margin : BOX[0] + BOX[2] - margin, BOX[1] + margin : BOX[1] + BOX[3] - margin]


def outside(mask: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    rest = mask.copy()
    rest[BOX[0] - margin : BOX[0] + BOX[2] + margin, BOX[1] - margin : BOX[1] + BOX[3] + margin] = False
    return rest


@pytest.mark.parametrize("pixel_um", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("tint", [(0, 0, 0), (-20, -25, -5), (-40, -40, -40)])
def test_tissue_is_found_on_glass_of_any_tint(pixel_um: float, tint: tuple[int, int, int]) -> None:
    picture = np.clip(on_glass(320, 300, BOX).astype(int) + tint, 0, 255).astype(np.uint8)
    mask = tissue(picture, pixel_um)
    assert inside(mask, 2).all()
    assert not outside(mask, 18).any()


def test_glass_alone_holds_no_tissue() -> None:
    rng = np.random.default_rng(1)
    for level in (255, 230):
        glass = np.clip(level + rng.normal(0, 4, (200, 200, 3)), 0, 255).astype(np.uint8)
        assert not tissue(glass, 1.0).any()
    shaded = np.linspace(235, 248, 200)[None, :, None] * np.ones((200, 1, 3))
    assert not tissue(shaded.astype(np.uint8), 1.0).any()


def test_tissue_alone_is_all_tissue() -> None:
    assert tissue(stained(200, 200), 1.0).mean() > 0.99


def test_pale_tissue_is_tissue() -> None:
    pale = on_glass(320, 300, BOX)
    rows, columns = slice(BOX[0], BOX[0] + BOX[2]), slice(BOX[1], BOX[1] + BOX[3])
    pale[rows, columns] = (0.35 * pale[rows, columns] + 0.65 * np.array(GLASS)).astype(np.uint8)
    assert inside(tissue(pale, 1.0), 10).mean() > 0.95


@pytest.mark.parametrize("ink", [(30, 140, 60), (25, 70, 190), (15, 15, 18)], ids=["green", "blue", "black"])
def test_a_pen_stroke_and_its_edge_are_no_tissue(ink: tuple[int, int, int]) -> None:
    picture = on_glass(320, 300, BOX)
    picture[20:60] = ink
    picture[60:64] = (np.array(ink) + np.array(GLASS)) // 2
    mask = tissue(picture, 1.0)
    assert not mask[:75].any()
    assert inside(mask, 2).all()


def test_dark_nuclei_in_dense_tissue_are_no_ink() -> None:
    dense = stained(200, 200)
    dense[50:150:14, 50:150:14] = (40, 30, 55)
    assert tissue(dense, 1.0).mean() > 0.99


def test_what_is_no_bright_field_is_refused() -> None:
    grey = on_glass(200, 200, (50, 50, 80, 80)).mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    with pytest.raises(Rejected, match="greyscale"):
        tissue(grey, 1.0)
    dark = np.zeros((200, 200, 3), np.uint8)
    dark[80:120, 80:120] = (20, 200, 90)
    with pytest.raises(Rejected, match="dark background"):
        tissue(dark, 1.0)


def test_a_black_border_is_no_dark_background() -> None:
    picture = np.zeros((640, 600, 3), np.uint8)
    picture[:320, :300] = on_glass(320, 300, BOX)
    mask = tissue(picture, 1.0)
    assert inside(mask, 2).all()
    assert not mask[340:].any()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("CMU-1-Small-Region.svs", 0.33, 0.45), ("OS-1-detail.ome.tif", 0.99, 1), ("OS-2-ndpi.ome.tif", 0.65, 0.85)],
)
def test_real_slides(shared_data: Path, name: str, low: float, high: float) -> None:
    slide = slides.open_slide(shared_data / "pathology" / name)
    assert slide.mpp is not None
    assert low <= tissue(slides.overview(slide, 4), 4 * slide.mpp).mean() <= high


def test_a_cells_share_is_counted_over_its_window() -> None:
    rng = np.random.default_rng(5)
    mask = rng.random((50, 60)) < 0.4
    shares = cell_shares(mask, 4, 32, 128, 3, 4)
    for row in range(3):
        for column in range(4):
            window = mask[row * 8 : row * 8 + 32, column * 8 : column * 8 + 32]
            assert shares[row, column] == pytest.approx(window.mean())
