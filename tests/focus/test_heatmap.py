"""Grades, regions and their outlines: counted by hand where that can be done, and by shapely where not."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from medsynth import spec
from medsynth.errors import SpecError
from medsynth.focus import heatmap
from medsynth.focus.heatmap import Grades, HeatMap
from medsynth.focus.slide import Geometry


def heat_of(radius: NDArray[np.float32], spacing: int = 32, mpp: float = 0.25) -> HeatMap:
    rows, columns = radius.shape
    shape = Geometry((columns - 1) * spacing + 128, (rows - 1) * spacing + 128, mpp, 32, spacing, 128)
    certainty = np.where(np.isnan(radius), np.nan, 0.75).astype(np.float32)
    return HeatMap(shape, radius.astype(np.float32), certainty, np.full(30, 1 / 30))


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
@settings(max_examples=300, deadline=None)
def test_outlines_are_valid_polygons_that_cover_the_cells_and_nothing_else(cells: NDArray[np.bool_]) -> None:
    labels, count = ndimage.label(cells)
    for label in range(1, count + 1):
        region = labels == label
        outer, *holes = heatmap.outline(region)
        polygon = shapely.Polygon(outer, holes)
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert polygon.area == region.sum()
        squares = [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(region)]
        assert polygon.equals(shapely.union_all(squares))
        assert polygon.exterior.is_ccw
        assert all(not ring.is_ccw for ring in polygon.interiors)
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            assert len(set(ring)) == len(ring) - 1


def test_grades_part_where_they_say() -> None:
    radius = np.array([[0.0, 0.5, 0.51, 1.0, 1.5, 2.0, 2.01, 9.0, np.nan]], np.float32)
    assert heatmap.graded(radius, Grades()).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, -1]]


def test_grades_must_grow() -> None:
    with pytest.raises(SpecError, match="grow"):
        spec.parse(Grades, {"slight": 1, "moderate": 1, "severe": 2}, "--grades")


def test_the_default_grades_follow_from_the_depth_of_field() -> None:
    defocus = 0.55 / 0.75**2 / 2  # half of the depth of field λ / NA², in µm
    assert defocus * np.tan(np.arcsin(0.75)) == pytest.approx(0.55, abs=0.01)
    assert Grades().slight <= 0.55


def stone() -> HeatMap:
    """Tissue of 20 x 30 cells, with a moderate block, a severe one, and a speck."""
    radius = np.full((24, 34), np.nan, np.float32)
    radius[2:22, 2:32] = 0.3
    radius[4:10, 4:12] = 1.5
    radius[12:18, 10:20] = 2.5
    radius[20, 30] = 5
    return heat_of(radius)


def test_regions_are_found_and_specks_are_not() -> None:
    found = heatmap.regions(stone(), Grades())
    assert [(one.row, one.column, one.cells.shape, one.grade) for one in found] == [
        (4, 4, (6, 8), 2),
        (12, 10, (6, 10), 3),
    ]
    cell = (32 * 0.25 / 1000) ** 2
    assert [one.area_mm2 for one in found] == pytest.approx([48 * cell, 60 * cell])
    assert [one.radius_um for one in found] == pytest.approx([1.5, 2.5])
    # A cell's own square lies in the middle of its window.
    assert heatmap.rectangle(found[0], stone()) == (4 * 32 + 48, 4 * 32 + 48, 8 * 32, 6 * 32)


def test_a_summary_counts_the_tissue_alone() -> None:
    found = heatmap.summary(stone(), Grades())
    cell = (32 * 0.25 / 1000) ** 2
    assert found.tissue_mm2 == pytest.approx(600 * cell)
    assert found.shares == {
        "in focus": pytest.approx(491 / 600, abs=1e-6),
        "slight": 0,
        "moderate": pytest.approx(48 / 600),
        "severe": pytest.approx(61 / 600, abs=1e-6),
    }
    assert found.radius_um_median == pytest.approx(0.3)
    assert found.radius_um_mean == pytest.approx((491 * 0.3 + 48 * 1.5 + 60 * 2.5 + 5) / 600, rel=1e-5)
    assert found.certainty == 0.75
    assert found.worst is not None
    assert (found.worst["x"], found.worst["y"], found.worst["radius_um"]) == (368, 432, 2.5)
    assert (found.worst["width"], found.worst["height"]) == (320, 192)


def test_a_slide_in_focus_has_no_worst_region() -> None:
    found = heatmap.summary(heat_of(np.full((9, 9), 0.2, np.float32)), Grades())
    assert found.worst is None
    assert found.shares["in focus"] == 1


def test_a_map_comes_back_from_its_bytes() -> None:
    heat = stone()
    again = HeatMap.from_bytes(heat.to_bytes())
    assert again.geometry == heat.geometry
    np.testing.assert_array_equal(again.radius_um, heat.radius_um)
    np.testing.assert_array_equal(again.classes, heat.classes)
    assert again.to_bytes() == heat.to_bytes()
