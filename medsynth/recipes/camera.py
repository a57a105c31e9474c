"""What recipes share of the chain: its devices, its parameters' columns, the encoding, and a camera for pictures."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from medsynth import draws, images
from medsynth.defocus import chain, compression
from medsynth.defocus.chain import ChainParameters, ChainSettings
from medsynth.defocus.settings import BokehSettings, JpegSettings, SensorSettings
from medsynth.errors import SpecError
from medsynth.images import Pixels
from medsynth.spec import Range, Settings, Spec

DEVICE = "device"
"""The axis of scanners or cameras."""

_ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}

COLUMNS = (
    *("blur_kind", "blur_radius_px", "photons", "read_noise_e"),
    *("sharpening_amount", "sharpening_radius_px", "jpeg_quality", "jpeg_subsampling"),
)
"""The chain's parameters that a camera draws; the others are the microscope's."""


class CameraSettings(ChainSettings):
    """The chain, for pictures without a scale or a focus class. As it stands it only compresses, a little."""

    bokeh: BokehSettings | None = None
    sensor: SensorSettings | None = None
    jpeg: JpegSettings | None = JpegSettings(quality=Range(low=95, high=95), subsampling="4:4:4", grid_shift=False)
    radius_px: Range = Range(low=0, high=0)
    """The blur disc's radius in pixels of the picture."""

    @model_validator(mode="after")
    def _without_a_scale(self) -> "CameraSettings":
        if self.bokeh is not None and self.bokeh.kind == "wave":
            raise ValueError("bokeh.kind wave needs micrometres a pixel, which a photo has not; use disc or gaussian")
        if not 0 <= self.radius_px.low <= self.radius_px.high <= 30:
            raise ValueError("radius_px must lie between 0 and 30")
        return self


def devices(spec: Spec, one: str | None) -> tuple[str, ...]:
    """The devices that a spec names, as an axis or as one for all.

    Args:
        spec: the order.
        one: ``device`` of the recipe's section.

    Raises:
        SpecError: it names both.
    """
    named = spec.balance.axes[DEVICE].values if DEVICE in spec.balance.axes else ()
    if named and one is not None:
        raise SpecError(f"{spec.recipe}.device: device is an axis too; remove one of the two")
    return named or ((one,) if one is not None else ())


def draw(camera: CameraSettings, seed: int) -> ChainParameters:
    """Settle what is random about one photo.

    Args:
        camera: the chain.
        seed: the sample's.
    """
    parameters = chain.draw(_fixed(camera), 0, None, seed)
    if camera.bokeh is None:
        return parameters
    return replace(parameters, blur_radius_px=camera.radius_px.at(float(draws.uniforms(seed, "camera focus", 1)[0])))


def photograph(picture: Pixels, camera: CameraSettings, parameters: ChainParameters, seed: int) -> Pixels:
    """Put a picture through a camera; all but the JPEG, which :func:`encode` does.

    Args:
        picture: (S, S, 3).
        camera: the chain.
        parameters: what :func:`draw` settled.
        seed: the sample's, for the noise.

    Returns:
        (S, S, 3): nothing moves, so a box stays where it is. What the blur needs beyond the border is mirrored.
    """
    settings = _fixed(camera)
    margin = chain.crop_margin(settings, None)
    wide = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return chain.render(wide, settings, parameters, picture.shape[0], seed)


def encode(image: Pixels, parameters: ChainParameters, png: bool) -> bytes:
    """Compress an image as its parameters say, and put it into a file.

    Args:
        image: (H, W, 3).
        parameters: of the chain; without a JPEG quality there is no compression.
        png: whether the file is a PNG, of the compressed image too.
    """
    if parameters.jpeg_quality is None or parameters.jpeg_subsampling is None:
        return images.encode_png(image)
    data = compression.encode(image, parameters.jpeg_quality, parameters.jpeg_subsampling)
    return images.encode_png(images.decode(data)) if png else data


def columns(names: Collection[str] | None = None) -> list[pa.Field]:
    """The columns of the chain's parameters.

    Args:
        names: of which; by default of all.
    """
    hints = get_type_hints(ChainParameters)
    found = []
    for item in fields(ChainParameters):
        kinds = [kind for kind in getattr(hints[item.name], "__args__", (hints[item.name],)) if kind is not type(None)]
        if names is None or item.name in names:
            found.append(pa.field(item.name, _ARROW_TYPES[kinds[0]]))
    return found


def to_row(parameters: ChainParameters) -> dict[str, Any]:
    """The columns :data:`COLUMNS` of a photo."""
    values = asdict(parameters)
    return {name: values[name] for name in COLUMNS}


def from_row(row: Mapping[str, Any]) -> ChainParameters:
    """The parameters back from a row's columns."""
    own = {name: row[name] for name in COLUMNS}
    return ChainParameters(blur_radius_um=None, defocus_um=None, grid_dx=0, grid_dy=0, scale=1.0, mpp=None, **own)


def _fixed(camera: CameraSettings) -> ChainSettings:
    # One class, the widest blur, so that the margin is the same for all; no scale, and no shifted grid.
    changes: dict[str, Settings | tuple[float, ...] | None] = {"radii_px": (camera.radius_px.high,), "radii_um": None}
    if camera.jpeg is not None:
        changes["jpeg"] = camera.jpeg.model_copy(update={"grid_shift": False})
    return camera.model_copy(update={**changes, "mpp": None})
