"""Exports are opened with the libraries that others open them with, and lie where the map lies."""

import io
import json

import numpy as np
import shapely
import tifffile
from PIL import Image

from medsynth.focus import export
from medsynth.focus.heatmap import GRADES, Grades
from tests.focus.test_heatmap import heat_of, stone


def test_colours_go_from_blue_through_green_and_yellow_to_red() -> None:
    painted = export.colours(np.array([0, 0.25, 0.75, 1.5, 3, 50, np.nan], np.float32), Grades()).astype(int)
    red, green, blue = painted.T
    assert blue[0] == blue[1] > max(red[0], green[0])
    assert green[2] > max(red[2], blue[2])
    assert min(red[3], green[3]) > 2 * blue[3]
    assert red[4] > 3 * max(green[4], blue[4])
    assert (painted[4] == painted[5]).all()
    assert (painted[6] == 255).all()


def test_regions_open_as_polygons_in_pixels_of_the_slide() -> None:
    heat = stone()
    found = json.loads(export.geojson(heat, Grades()))
    assert found["type"] == "FeatureCollection"
    assert len(found["features"]) == 2
    for feature in found["features"]:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid
        assert shapely.box(0, 0, heat.geometry.width, heat.geometry.height).contains(polygon)
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        assert properties["classification"]["name"].removeprefix("Out of focus: ") in GRADES
        assert len(properties["classification"]["color"]) == 3
        millimetres = polygon.area * (heat.geometry.mpp / 1000) ** 2
        assert abs(properties["measurements"]["Area mm^2"] - millimetres) < 1e-5
    assert shapely.geometry.shape(found["features"][0]["geometry"]).bounds == (176, 176, 432, 368)


def test_a_region_with_a_hole_keeps_it_and_one_at_the_border_stays_inside() -> None:
    radius = np.full((12, 12), 3, np.float32)
    radius[4:8, 4:8] = np.nan
    heat = heat_of(radius, spacing=160)
    (feature,) = json.loads(export.geojson(heat, Grades()))["features"]
    assert len(feature["geometry"]["coordinates"]) == 2
    polygon = shapely.geometry.shape(feature["geometry"])
    assert polygon.is_valid
    assert polygon.bounds == (0, 0, heat.geometry.width, heat.geometry.height)


def test_a_slide_in_focus_gives_an_empty_collection() -> None:
    found = json.loads(export.geojson(heat_of(np.full((9, 9), 0.2, np.float32)), Grades()))
    assert found == {"type": "FeatureCollection", "features": []}


def test_the_pyramid_is_read_back_with_its_sizes() -> None:
    rng = np.random.default_rng(2)
    radius = rng.random((600, 900)).astype(np.float32)
    radius[:200, 300:] = np.nan
    data = export.ome_tiff(heat_of(radius), "slide µ")
    assert data == export.ome_tiff(heat_of(radius), "slide µ")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.is_ome
        (series,) = file.series
        assert [level.shape for level in series.levels] == [(600, 900), (300, 450), (150, 225)]
        np.testing.assert_array_equal(series.asarray(), radius)
        half = radius.reshape(300, 2, 450, 2)[200:].mean(axis=(1, 3))
        np.testing.assert_allclose(series.levels[1].asarray()[200:], half, rtol=1e-6)
        assert np.isnan(series.levels[1].asarray()[:100, 150:]).all()
        assert len(file.pages) == 1, "the levels lie in sub-directories"
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 8.0
        assert pixels["PhysicalSizeXUnit"] == "µm"
        assert pixels["Plane"]["PositionX"] == 12.0
        assert pixels["Type"] == "float"


def test_means_of_a_square_leave_out_what_is_no_tissue() -> None:
    level = np.array([[1, np.nan, 5], [3, np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(export._halved(level), np.array([[2, 5]], np.float32))


def test_the_overlay_paints_tissue_alone() -> None:
    heat = stone()
    thumbnail = np.full((heat.geometry.height // 4, heat.geometry.width // 4, 3), 240, np.uint8)
    painted = export._blend(heat, thumbnail, Grades())
    assert painted.shape == thumbnail.shape

    def at(row: int, column: int) -> np.ndarray:
        return painted[(row * 32 + 64) // 4, (column * 32 + 64) // 4].astype(int)

    assert (at(0, 0) == 240).all()
    assert at(2, 2)[2] > at(2, 2)[0] + 50, "blue in focus"
    assert at(14, 15)[0] > at(14, 15)[2] + 50, "red where it is severe"
    assert (at(23, 33) == 240).all()


def test_the_overlay_is_a_picture_of_sensible_size_whatever_the_slides_shape() -> None:
    for rows, columns in ((4, 400), (400, 4), (3, 3)):
        heat = heat_of(np.full((rows, columns), 0.7, np.float32))
        height, width = heat.geometry.height, heat.geometry.width
        scale = 1600 / max(height, width)
        thumbnail = np.full((max(1, int(height * scale)), max(1, int(width * scale)), 3), 200, np.uint8)
        with Image.open(io.BytesIO(export.overlay(heat, thumbnail, "a slide", Grades()))) as picture:
            assert picture.format == "PNG"
            assert 300 < max(picture.size) < 2200
            assert picture.text["Description"] == export.NOTE
