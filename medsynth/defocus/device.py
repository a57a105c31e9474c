"""Device profiles: what a scanner or a camera does to the light it gets.

A profile is a YAML file of the chain's settings, and overrides the keys that it names. Those
shipped with medsynth are known by name; any other is named by its path or URI.
"""

import difflib
import functools
import importlib.resources

from pydantic import Field

from medsynth import spec
from medsynth.defocus.settings import BokehSettings, JpegSettings, SensorSettings, SharpeningSettings
from medsynth.errors import SpecError
from medsynth.spec import Range, Settings


class Device(Settings):
    """One device profile; a key left out leaves the chain's own setting."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    mpp: float | None = Field(default=None, gt=0)
    """Micrometres of the specimen a pixel."""
    bokeh: BokehSettings | None = None
    sensor: SensorSettings | None = None
    sharpening: SharpeningSettings | None = None
    jpeg: JpegSettings | None = None
    radius_px: Range = Range(low=0, high=0)
    """How far out of focus its pictures are, where no focus class says so: the disc's radius in pixels."""


def known() -> tuple[str, ...]:
    """The names of the profiles that medsynth brings along, sorted."""
    folder = importlib.resources.files("medsynth.defocus") / "devices"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


@functools.cache
def scanners() -> tuple[str, ...]:
    """The names of those among them that say how large a pixel is, sorted: slide scanners, no phones."""
    return tuple(name for name in known() if load(name).mpp is not None)


def load(name_or_uri: str) -> Device:
    """Find and check a device profile.

    Args:
        name_or_uri: one of :func:`known`, or a YAML file's path or URI (it ends in .yaml or .yml).

    Raises:
        SpecError: there is no such profile, or it says something that cannot be.
        StorageError: it cannot be read.

    Example:
        >>> load("aperio-at2-like").mpp
        0.25
    """
    uri = name_or_uri
    if not name_or_uri.endswith((".yaml", ".yml")):
        names = known()
        if name_or_uri not in names:
            nearest = difflib.get_close_matches(name_or_uri, names, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known devices: {', '.join(names)}"
            raise SpecError(f"unknown device {name_or_uri!r}; {hint} (or name a .yaml file)")
        uri = f"package://medsynth/defocus/devices/{name_or_uri}.yaml"
    return spec.parse(Device, spec.load_yaml(uri), uri)
