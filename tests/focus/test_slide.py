"""A slide's cells, bands and scores: the same however it is cut, and nothing for glass."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medsynth.catalog import slides
from medsynth.errors import Reason, Rejected
from medsynth.focus import heatmap
from medsynth.focus import slide as scoring
from medsynth.focus.model import FocusModel
from medsynth.focus.slide import Band, Survey
from tests.slides import network, on_glass, stained, write_tiff
from tests.torch_threads import torch_threads

SMALL_PIECE = 6


@pytest.fixture(scope="module")
def model() -> FocusModel:
    return network()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # As the job's workers have: two threads may share a matrix product otherwise from run to run, down to the last bit.
    with torch_threads(1):
        yield


def slide_of(folder: Path, picture: NDArray[np.uint8]) -> slides.Slide:
    return slides.open_slide(write_tiff(folder / "slide.tif", picture))


def scored(slide: slides.Slide, model: FocusModel, bands: int, spacing: int = 32) -> heatmap.HeatMap:
    found = scoring.survey(slide, scoring.geometry(slide, model, spacing))
    total = found.geometry.bands
    parts = [
        (first, scoring.score_band(slide, found, model, first, min(first + bands, total)))
        for first in range(0, total, bands)
    ]
    return heatmap.assemble(found, parts)


def test_the_map_is_the_same_whatever_the_bands(
    tmp_path: Path, model: FocusModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PIECE_CELLS", SMALL_PIECE)
    slide = slide_of(tmp_path, on_glass(1100, 900, (90, 130, 800, 600)))
    maps = [scored(slide, model, bands) for bands in (1, 2, 3, 100)]
    assert maps[0].geometry.bands > 4
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0].radius_um, other.radius_um)
        np.testing.assert_array_equal(maps[0].certainty, other.certainty)
        np.testing.assert_allclose(maps[0].classes, other.classes, rtol=1e-12)


def test_the_map_is_what_the_network_says_of_the_whole_picture(
    tmp_path: Path, model: FocusModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PIECE_CELLS", SMALL_PIECE)
    picture = on_glass(1000, 900, (90, 130, 800, 600))
    heat = scored(slide_of(tmp_path, picture), model, 1)
    whole = model.score_map(picture)
    seen = np.isfinite(heat.radius_um)
    assert 0.2 < seen.mean() < 0.8
    assert heat.radius_um.shape == whole.radius_px.shape
    np.testing.assert_allclose(heat.radius_um[seen], whole.radius_px[seen] * 0.25, rtol=1e-4)
    np.testing.assert_allclose(heat.certainty[seen], whole.certainty[seen], atol=1e-4)
    np.testing.assert_allclose(heat.classes, whole.probabilities[seen].mean(axis=0), atol=1e-5)


def test_glass_is_never_scored(tmp_path: Path, model: FocusModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PIECE_CELLS", SMALL_PIECE)
    heat = scored(slide_of(tmp_path, on_glass(1000, 900, (300, 300, 400, 300))), model, 1)
    rows, columns = np.nonzero(np.isfinite(heat.radius_um))
    # More than half of each window is tissue, so its middle is, to the 4 µm that tissue may seem wider.
    middles = np.stack([rows * 32 + 64, columns * 32 + 64])
    assert middles[0].min() >= 300 - 16
    assert middles[0].max() <= 700 + 16
    assert middles[1].min() >= 300 - 16
    assert middles[1].max() <= 600 + 16


def test_pieces_without_tissue_are_not_read(tmp_path: Path, model: FocusModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PIECE_CELLS", SMALL_PIECE)
    slide = slide_of(tmp_path, on_glass(1500, 1500, (600, 600, 300, 300)))
    found = scoring.survey(slide, scoring.geometry(slide, model, 32))
    read: list[int] = []
    inner = slide.read
    slide.read = lambda x, y, w, h, level=0: (read.append(w * h), inner(x, y, w, h, level))[1]  # type: ignore[method-assign]
    assert 0 < len(found.bands_with_tissue()) < found.geometry.bands
    for band in range(found.geometry.bands):
        scoring.score_band(slide, found, model, band)
    assert sum(read) < 0.2 * 1500 * 1500


def test_a_wider_spacing_takes_every_other_cell(tmp_path: Path, model: FocusModel) -> None:
    slide = slide_of(tmp_path, stained(700, 900))
    fine, coarse = (scored(slide, model, 1, spacing) for spacing in (32, 96))
    assert coarse.radius_um.shape == ((700 - 128) // 96 + 1, (900 - 128) // 96 + 1)
    np.testing.assert_allclose(coarse.radius_um, fine.radius_um[::3, ::3], rtol=1e-4)


def test_the_stride_is_rounded_to_the_networks(model: FocusModel) -> None:
    assert [scoring.spacing_for(stride, model) for stride in (None, 1, 32, 47, 49, 64)] == [32, 32, 32, 32, 64, 64]


def test_radii_come_in_micrometres(tmp_path: Path, model: FocusModel) -> None:
    slide = slide_of(tmp_path, stained(300, 300))
    found = scoring.survey(slide, scoring.geometry(slide, model, 32))
    band = scoring.score_band(slide, found, model, 0)
    twice = dataclasses.replace(found, geometry=dataclasses.replace(found.geometry, mpp=0.5))
    np.testing.assert_allclose(
        heatmap.assemble(twice, [(0, band)]).radius_um, 2 * heatmap.assemble(found, [(0, band)]).radius_um
    )


def test_the_same_tissue_at_half_the_pixels_has_the_same_blur(tmp_path: Path, shared_data: Path) -> None:
    """A real slide at 20x, put out of focus by known discs, and its reduction to 10x."""
    shipped = FocusModel.load()
    with slides.opened(str(shared_data / "pathology" / "CMU-1-Small-Region.svs")) as slide:
        mpp, real = slide.mpp, slide.read(0, 0, 1600, 1600)
    assert mpp is not None
    for radius in (3.0, 4.5, 6.0, 9.0):
        whole = cv2.filter2D(real, -1, _disc(radius))
        half = cv2.resize(whole, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        seen = []
        for name, picture, pixel in (("20x.tif", whole, mpp), ("10x.tif", half, 2 * mpp)):
            path = write_tiff(tmp_path / f"{radius}-{name}", picture, pixel)
            seen.append(np.nanmedian(scored(slides.open_slide(path), shipped, 100).radius_um))
        assert seen[0] == pytest.approx(radius * mpp, rel=0.1)
        assert seen[1] == pytest.approx(seen[0], rel=0.1, abs=0.5), f"a disc of {radius} px"


def _disc(radius: float) -> NDArray[np.float32]:
    reach = int(radius) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)
    return (inside / inside.sum()).astype(np.float32)


@pytest.mark.parametrize(
    ("picture", "mpp", "reason"),
    [
        (stained(100, 400), 0.25, Reason.TOO_SMALL),
        (stained(300, 300), None, Reason.UNKNOWN_MPP),
        (on_glass(400, 400, (0, 0, 0, 0)), 0.25, Reason.NO_TISSUE),
        (np.full((400, 400, 3), 255, np.uint8), 0.25, Reason.NO_TISSUE),
        (on_glass(400, 400, (180, 180, 30, 30)), 0.25, Reason.NO_TISSUE),
        (stained(400, 400).mean(axis=2).astype(np.uint8), 0.25, Reason.NOT_BRIGHT_FIELD),
    ],
    ids=["small", "no-mpp", "glass", "white", "speck", "grey"],
)
def test_what_cannot_be_scored_says_why(
    tmp_path: Path, model: FocusModel, picture: NDArray[np.uint8], mpp: float | None, reason: Reason
) -> None:
    options = {"photometric": "minisblack"} if picture.ndim == 2 else {}
    slide = slides.open_slide(write_tiff(tmp_path / "bad.tif", picture, mpp, **options))
    with pytest.raises(Rejected) as refused:
        scoring.survey(slide, scoring.geometry(slide, model, 32))
    assert refused.value.reason is reason


def test_a_given_mpp_stands_for_the_files(tmp_path: Path, model: FocusModel) -> None:
    slide = slides.open_slide(write_tiff(tmp_path / "none.tif", stained(300, 300), None))
    assert scoring.geometry(slide, model, 32, 0.5).mpp == 0.5


def test_surveys_and_bands_come_back_from_their_bytes(tmp_path: Path, model: FocusModel) -> None:
    slide = slide_of(tmp_path, on_glass(600, 500, (100, 100, 350, 300)))
    found = scoring.survey(slide, scoring.geometry(slide, model, 32))
    again = Survey.from_bytes(found.to_bytes())
    assert again.geometry == found.geometry
    np.testing.assert_array_equal(again.tissue, found.tissue)
    np.testing.assert_array_equal(again.thumbnail, found.thumbnail)
    band = scoring.score_band(slide, found, model, 0)
    for mine, theirs in zip(vars(band).values(), vars(Band.from_bytes(band.to_bytes())).values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert found.to_bytes() == again.to_bytes()
