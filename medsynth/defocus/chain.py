"""The chain from a sharp tile to one out of focus, in the order of the physics.

light -> the device's pixels -> bokeh -> sensor noise -> 8 bit -> sharpening -> JPEG

:func:`draw` settles everything that is random about a sample in a few numbers, which its row
records; :func:`render` makes the pixels from the tile, those numbers and the sample's seed.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsynth import draws, seeds
from medsynth.defocus import bokeh, halfres, sensor, sharpening
from medsynth.defocus.device import Device
from medsynth.defocus.light import LEVEL, code_table, light_table, look_up
from medsynth.defocus.resample import resample, source_size
from medsynth.defocus.settings import DEFAULT_RADII_PX, ChainSettings
from medsynth.errors import Reason, Rejected, SpecError
from medsynth.spec import Range, Settings, parse

__all__ = [
    "ChainParameters",
    "ChainSettings",
    "class_count",
    "crop_margin",
    "draw",
    "output_size",
    "render",
    "with_device",
]

_GRID = 8
_LARGEST_RADIUS = 30.0
_MOST_ENLARGING = 1.12


@dataclass(frozen=True)
class ChainParameters:
    """All that was drawn for one sample, as its row records it; None: the step is off or the scale unknown."""

    blur_kind: str | None
    """disc, gaussian or wave."""
    blur_radius_px: float
    """Radius of the geometric disc in output pixels."""
    blur_radius_um: float | None
    """The same in micrometres of the specimen."""
    defocus_um: float | None
    """The distance from the focal plane that gives this radius."""
    photons: float | None
    """Photo-electrons at full scale."""
    read_noise_e: float | None
    """Standard deviation of the read noise in electrons."""
    sharpening_amount: float | None
    """Strength of the unsharp mask."""
    sharpening_radius_px: float | None
    """Standard deviation of the unsharp mask."""
    jpeg_quality: int | None
    """1 to 100."""
    jpeg_subsampling: str | None
    """4:4:4, 4:2:2 or 4:2:0."""
    grid_dx: int
    """Pixels by which the crop is shifted to the right, 0 to 7."""
    grid_dy: int
    """Pixels by which the crop is shifted down, 0 to 7."""
    scale: float
    """Source pixels an output pixel."""
    mpp: float | None
    """Micrometres an output pixel."""


def class_count(settings: ChainSettings) -> int:
    """The number of focus classes, 0 the sharpest."""
    return len(_table(settings))


def with_device(settings: ChainSettings, device: Device) -> ChainSettings:
    """The settings, with every key that the device profile names in place of the chain's own.

    A step that the spec itself sets to null stays off.

    Raises:
        SpecError: the two cannot be had together.
    """
    merged: dict[str, Any] = dict(settings)
    for key in device.model_fields_set & merged.keys():
        own, named = merged[key], getattr(device, key)
        if own is None and key in settings.model_fields_set and key != "mpp":
            continue
        if isinstance(own, Settings) and isinstance(named, Settings):
            named = parse(type(named), dict(own) | named.model_dump(exclude_unset=True), f"device {device.name}: {key}")
        merged[key] = named
    if settings.fast and merged["bokeh"] is not None and merged["bokeh"].kind != "disc":
        raise SpecError(f"device {device.name}: fast blurs discs only; set fast: false or bokeh.kind: disc")
    return settings.model_copy(update=merged)


def crop_margin(settings: ChainSettings, mpp: float | None) -> int:
    """Source pixels lost on each side, whatever the class and whatever is drawn.

    Args:
        settings: the chain.
        mpp: micrometres a source pixel, None where unknown.

    Raises:
        Rejected: the radii are in micrometres and ``mpp`` is unknown, the largest radius is more than
            30 px, or the device's pixels are more than 12 % smaller than the tile's.
    """
    scale, output_mpp = _scale(settings, mpp)
    lost = _spread(settings, output_mpp) + _sharpening_reach(settings)
    return math.ceil(lost * scale) + _grid_room(settings) + (0 if scale == 1 else math.ceil(scale) + 1)


def output_size(settings: ChainSettings, size: int, mpp: float | None) -> int:
    """The largest output that every class can have.

    Args:
        settings: the chain.
        size: of the source tile in pixels.
        mpp: micrometres a source pixel, None where unknown.

    Returns:
        Output pixels along each side; 0 or less where the tile is too small for any.

    Raises:
        Rejected: as for :func:`crop_margin`.
    """
    scale, _ = _scale(settings, mpp)
    return math.floor((size - 2 * crop_margin(settings, mpp)) / scale)


def draw(settings: ChainSettings, focus_class: int, mpp: float | None, seed: int) -> ChainParameters:
    """Settle what is random about one sample.

    Args:
        settings: the chain.
        focus_class: in [0, class_count).
        mpp: micrometres a source pixel, None where unknown.
        seed: the sample's seed.

    Returns:
        The parameters; switching one step off leaves those of the others as they were.

    Raises:
        Rejected: as for :func:`crop_margin`.
        ValueError: there is no such class.
    """
    table = _table(settings)
    if not 0 <= focus_class < len(table):
        raise ValueError(f"focus class {focus_class} lies outside 0 to {len(table) - 1}")
    # One draw with a fixed place for each parameter: a generator costs more than all of its numbers.
    u = draws.uniforms(seed, "defocus", 7).tolist()
    scale, output_mpp = _scale(settings, mpp)
    optics, noise, mask, jpeg = settings.bokeh, settings.sensor, settings.sharpening, settings.jpeg
    radius = _radius_px(settings, focus_class, output_mpp) if optics else 0.0
    radius_um = float(f"{radius * output_mpp:.6g}") if optics and output_mpp else None
    if optics and optics.kind == "wave" and radius_um is None:
        raise Rejected(Reason.UNKNOWN_MPP, "wave optics need the tile's micrometres a pixel")
    shift = jpeg is not None and jpeg.grid_shift
    return ChainParameters(
        blur_kind=optics.kind if optics else None,
        blur_radius_px=radius,
        blur_radius_um=radius_um,
        defocus_um=(
            bokeh.defocus_um(radius_um, optics.na, optics.refractive_index)
            if optics is not None and radius_um is not None
            else None
        ),
        photons=noise.photons.at(u[0]) if noise else None,
        read_noise_e=noise.read_noise_e.at(u[1]) if noise else None,
        sharpening_amount=mask.amount.at(u[2]) if mask else None,
        sharpening_radius_px=mask.radius_px.at(u[3]) if mask else None,
        jpeg_quality=_whole(jpeg.quality, u[4]) if jpeg else None,
        jpeg_subsampling=jpeg.subsampling if jpeg else None,
        grid_dx=int(u[5] * _GRID) if shift else 0,
        grid_dy=int(u[6] * _GRID) if shift else 0,
        scale=scale,
        mpp=output_mpp,
    )


def render(
    tile: NDArray[np.uint8], settings: ChainSettings, parameters: ChainParameters, size: int, seed: int
) -> NDArray[np.uint8]:
    """Put a tile out of focus; all but the JPEG, which :func:`medsynth.defocus.compression.encode` does.

    Args:
        tile: (H, W, 3) uint8 RGB, in focus.
        settings: the chain, as given to :func:`draw`.
        parameters: what :func:`draw` settled.
        size: output pixels along each side.
        seed: the sample's seed, for the noise.

    Returns:
        (size, size, 3) uint8 RGB, cut from the tile's middle.

    Raises:
        Rejected: the tile is too small.
    """
    linear = settings.light == "linear"
    mask = parameters.sharpening_radius_px
    kept = size + 2 * (sharpening.reach(mask) if mask is not None else 0)
    levels = _blurred(tile, settings, parameters, kept, linear)
    codes = code_table(linear)
    image = np.empty((kept, kept * 3), dtype=np.uint8)
    if parameters.photons is not None and parameters.read_noise_e is not None:
        key = seeds.digest64(seed, "sensor")
        sensor.expose_to_codes(levels, parameters.photons, parameters.read_noise_e, key, codes, image)
    else:
        look_up(levels, codes, 0, 0, image)
    picture = image.reshape(kept, kept, 3)
    if mask is not None and parameters.sharpening_amount is not None:
        return sharpening.sharpen(picture, parameters.sharpening_amount, mask)
    return picture


def _blurred(
    tile: NDArray[np.uint8], settings: ChainSettings, parameters: ChainParameters, kept: int, linear: bool
) -> NDArray[np.uint16]:
    radius = parameters.blur_radius_px
    half = settings.fast and parameters.blur_kind == "disc" and radius >= halfres.FROM_RADIUS
    if half:
        # The half-resolution blur gives even numbers of pixels; one too many is cut off.
        needed = kept + kept % 2 + 2 * halfres.reach(radius)
        return halfres.blur(_light(tile, settings, parameters, needed, light_table(linear)), radius, kept)
    kernels = _kernels(settings, parameters)
    reach = kernels[0].reach
    if reach == 0 and parameters.scale == 1:
        return _light(tile, settings, parameters, kept, light_table(linear, LEVEL))
    light = _light(tile, settings, parameters, kept + 2 * reach, light_table(linear))
    if len(kernels) == 1:
        return bokeh.blur(light, kernels[0], 3)
    levels = np.empty((kept, kept * 3), dtype=np.uint16)
    for channel, kernel in enumerate(kernels):
        levels[:, channel::3] = bokeh.blur(np.ascontiguousarray(light[:, channel::3]), kernel, 1)
    return levels


def _light(
    tile: NDArray[np.uint8],
    settings: ChainSettings,
    parameters: ChainParameters,
    size: int,
    table: NDArray[np.uint16],
) -> NDArray[np.uint16]:
    # The light of the window that gives `size` output pixels, at the output's resolution.
    scale = parameters.scale
    window = size if scale == 1 else source_size(size, scale)
    shift = _grid_room(settings)
    top = (tile.shape[0] - window) // 2 + parameters.grid_dy - shift
    left = (tile.shape[1] - window) // 2 + parameters.grid_dx - shift
    if min(top, left, tile.shape[0] - window - top, tile.shape[1] - window - left) < 0:
        found = f"{tile.shape[1]}x{tile.shape[0]}"
        raise Rejected(Reason.TOO_SMALL, f"the tile has {found} px; {window + 2 * shift} are needed with the margin")
    light = np.empty((window, window * 3), dtype=np.uint16)
    # Compiled code knows arrays that may be written and arrays that may not as two types.
    values = np.require(tile, requirements=["C", "W"]).reshape(tile.shape[0], tile.shape[1] * 3)
    look_up(values, table, top, left * 3, light)
    return light if scale == 1 else resample(light, size, scale, 3)


def _kernels(settings: ChainSettings, parameters: ChainParameters) -> tuple[bokeh.Kernel | bokeh.Separable, ...]:
    radius, optics = parameters.blur_radius_px, settings.bokeh
    if optics is None or parameters.blur_kind == "disc":
        return (bokeh.disc(radius),)
    if parameters.blur_kind == "gaussian":
        return (bokeh.gaussian(radius),)
    if parameters.blur_radius_um is None or parameters.mpp is None:
        raise ValueError("wave optics need the tile's micrometres a pixel")
    places = [(parameters.blur_radius_um, parameters.mpp, optics.na, wavelength) for wavelength in optics.wavelengths]
    reach = max(bokeh.wave_reach(*place) for place in places)
    return tuple(bokeh.wave(*place, reach) for place in places)


def _table(settings: ChainSettings) -> tuple[float, ...]:
    if settings.radii_um is not None:
        return settings.radii_um
    return settings.radii_px if settings.radii_px is not None else DEFAULT_RADII_PX


def _radius_px(settings: ChainSettings, focus_class: int, mpp: float | None) -> float:
    radius = _table(settings)[focus_class]
    if settings.radii_um is None:
        return radius
    if mpp is None:
        raise Rejected(Reason.UNKNOWN_MPP, "the radii are in micrometres and the tile's mpp is unknown")
    return float(f"{radius / mpp:.6g}")


def _scale(settings: ChainSettings, mpp: float | None) -> tuple[float, float | None]:
    # Source pixels an output pixel, and the output's mpp. Where the tile's is unknown a device's
    # pixel size cannot be honoured; the tile keeps its own.
    if mpp is None or settings.mpp is None:
        return 1.0, mpp
    scale = float(f"{settings.mpp / mpp:.6g}")
    if scale * _MOST_ENLARGING < 1:
        detail = f"{mpp:g} um/px would be enlarged to {settings.mpp:g}; at most 12 % are allowed"
        raise Rejected(Reason.UNSUPPORTED, detail)
    return scale, settings.mpp


def _spread(settings: ChainSettings, mpp: float | None) -> int:
    # Output pixels that the blur takes on each side, the worst over all classes.
    optics = settings.bokeh
    if optics is None:
        return 0
    largest = _radius_px(settings, len(_table(settings)) - 1, mpp)
    if largest > _LARGEST_RADIUS:
        raise Rejected(Reason.UNSUPPORTED, f"the largest radius is {largest:g} px; at most 30 px are possible")
    if optics.kind == "gaussian":
        return bokeh.gaussian_reach(largest)
    if optics.kind == "wave":
        if mpp is None:
            raise Rejected(Reason.UNKNOWN_MPP, "wave optics need the tile's micrometres a pixel")
        return max(bokeh.wave_reach(largest * mpp, mpp, optics.na, wavelength) for wavelength in optics.wavelengths)
    if settings.fast and largest >= halfres.FROM_RADIUS:
        return halfres.reach(largest) + 1
    return math.ceil(max(largest, 1.0))


def _sharpening_reach(settings: ChainSettings) -> int:
    return sharpening.reach(settings.sharpening.radius_px.high) if settings.sharpening is not None else 0


def _grid_room(settings: ChainSettings) -> int:
    return _GRID // 2 if settings.jpeg is not None and settings.jpeg.grid_shift else 0


def _whole(wanted: Range, fraction: float) -> int:
    return int(min(wanted.high, _widened(wanted).at(fraction)))


@functools.lru_cache(maxsize=64)
def _widened(wanted: Range) -> Range:
    # Every whole number from end to end is equally likely, the last one too.
    return Range(low=wanted.low, high=wanted.high + 1, logarithmic=wanted.logarithmic)
