"""A camera sees a picture: nothing moves, every step does something, and a row's columns bring it back."""

from dataclasses import asdict

import numpy as np
import pytest

from medsynth import images
from medsynth.defocus import device
from medsynth.defocus.chain import ChainParameters
from medsynth.errors import SpecError
from medsynth.recipes import camera
from medsynth.recipes.camera import CameraSettings
from medsynth.recipes.photo import camera_of
from medsynth.spec import parse

PHONES = [name for name in device.known() if name.startswith("phone-")]
PICTURE = np.full((64, 64, 3), (200, 160, 140), dtype=np.uint8)
PICTURE[20:30, 40:52] = (90, 50, 40)


def test_three_phones_come_along() -> None:
    assert len(PHONES) == 3


@pytest.mark.parametrize("name", [*PHONES, "aperio-at2-like"])
def test_nothing_moves_and_the_row_brings_it_back(name: str) -> None:
    settings = camera_of(name, "test")
    parameters = camera.draw(settings, 5)
    shown = camera.photograph(PICTURE, settings, parameters, 5)
    assert shown.shape == PICTURE.shape
    dark = shown[..., 0] < 145
    y, x = np.nonzero(dark)
    assert abs(y.mean() - 24.5) < 0.5
    assert abs(x.mean() - 45.5) < 0.5
    assert (parameters.grid_dx, parameters.grid_dy, parameters.scale, parameters.mpp) == (0, 0, 1.0, None)
    row = camera.to_row(parameters)
    assert set(row) == set(camera.COLUMNS) == {item.name for item in camera.columns(camera.COLUMNS)}
    assert asdict(camera.from_row(row)) == asdict(parameters)


def test_a_phone_in_the_dark_is_noisier_and_softer() -> None:
    flat = np.full((64, 64, 3), (150, 110, 90), dtype=np.uint8)
    noise, radii = {}, {}
    for name in PHONES:
        settings = camera_of(name, "test")
        drawn = [camera.draw(settings, seed) for seed in range(8)]
        noise[name] = np.median([camera.photograph(flat, settings, item, 5).std(axis=(0, 1)).mean() for item in drawn])
        radii[name] = np.mean([item.blur_radius_px for item in drawn])
        assert all(settings.radius_px.low <= item.blur_radius_px <= settings.radius_px.high for item in drawn)
    assert noise["phone-lowlight"] > 1.5 * noise["phone-flagship"]
    assert radii["phone-flagship"] < radii["phone-budget"] < radii["phone-lowlight"]


def test_without_a_camera_only_the_compression_is_left() -> None:
    settings = CameraSettings()
    parameters = camera.draw(settings, 1)
    assert np.array_equal(camera.photograph(PICTURE, settings, parameters, 1), PICTURE)
    data = camera.encode(PICTURE, parameters, png=False)
    assert data.startswith(b"\xff\xd8")
    assert np.array_equal(images.decode(camera.encode(PICTURE, parameters, png=True)), images.decode(data))


def test_a_flat_picture_keeps_its_colour_at_the_border() -> None:
    settings = parse(CameraSettings, {"bokeh": {}, "radius_px": 12}, "test")
    flat = np.full((32, 32, 3), 120, dtype=np.uint8)
    shown = camera.photograph(flat, settings, camera.draw(settings, 1), 1)
    assert np.abs(shown.astype(int) - 120).max() <= 1


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"bokeh": {"kind": "wave"}}, "bokeh.kind wave needs micrometres a pixel"),
        ({"radius_px": 31}, "radius_px must lie between 0 and 30"),
    ],
)
def test_what_needs_a_scale_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(CameraSettings, section, "camera")


def test_columns_are_typed_as_their_values() -> None:
    kinds = {item.name: str(item.type) for item in camera.columns()}
    assert set(kinds) == set(ChainParameters.__annotations__)
    assert (kinds["blur_radius_px"], kinds["jpeg_quality"], kinds["blur_kind"]) == ("double", "int64", "string")
