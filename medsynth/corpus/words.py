"""How a corpus's numbers and settings are put to a person."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """A numeric column that is worth a plot."""

    column: str
    title: str
    unit: str
    logarithmic: bool = False


PARAMETERS = (
    Parameter("blur_radius_px", "Blur radius", "px"),
    Parameter("blur_radius_um", "Blur radius in the specimen", "µm"),
    Parameter("defocus_um", "Distance from the focal plane", "µm"),
    Parameter("photons", "Photons at full scale (fewer: noisier)", "photons", logarithmic=True),
    Parameter("read_noise_e", "Read noise", "electrons"),
    Parameter("jpeg_quality", "JPEG quality", ""),
    Parameter("ita_deg", "Skin tone asked for (ITA)", "degrees"),
    Parameter("ita_measured_deg", "Skin tone measured (ITA)", "degrees"),
    Parameter("lesion_share", "Lesion's share of the picture", ""),
    Parameter("lesion_change", "How far the lesion stands out", "CIELAB units"),
    Parameter("likeness", "Likeness to the nearest training photo", "correlation"),
)

_UNITS = {
    "um": "µm",
    "px": "px",
    "nm": "nm",
    "deg": "degrees",
    "mpp": "µm per pixel",
    "photons": "photons at full scale",
    "e": "electrons",
    "quality": "of 100",
    "size": "px",
    "stride": "px",
    "margin": "px",
}
_SUFFIXES = ("um", "px", "nm", "deg", "e")
_STEPS = ("bokeh", "sensor", "sharpening", "jpeg")
_SHOWN = 8


def setting_lines(section: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """A settings section as lines for a person.

    Args:
        section: settings as ``corpus.json`` has them.
        depth: how deep the section itself stands.

    Yields:
        Depth, name, and value in words with its unit; no value where deeper lines follow. A step that is off
        says so; another setting that is not set is left out.
    """
    for key, value in section.items():
        stem, _, suffix = str(key).rpartition("_")
        name = (stem if stem and suffix in _SUFFIXES else str(key)).replace("_", " ")
        if isinstance(value, dict) and not _is_range(value):
            if value:
                yield depth, name, ""
                yield from setting_lines(value, depth + 1)
        elif value is not None:
            yield depth, name, _value(value, _unit(str(key)))
        elif key in _STEPS:
            yield depth, name, "off"


def recipe_settings(header: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which a corpus's images were made, each said once.

    Args:
        header: ``corpus.json``.

    Returns:
        A section for :func:`setting_lines`: what holds for all images, then for each device what is its own.
    """
    made = dict(header["recipe_settings"])
    chains: dict[str, dict[str, Any]] = made.pop("chains", {})
    settings = made.pop("settings", {})
    if not chains:
        return {**settings, **made}
    first, *rest = chains.values()
    common = {key: value for key, value in first.items() if all(chain.get(key) == value for chain in rest)}
    own = {
        f"device {name}": {key: value for key, value in chain.items() if key not in common}
        for name, chain in chains.items()
    }
    besides = {key: value for key, value in settings.items() if key not in first}
    return {**besides, **common, **made, **own}


def figure(value: float) -> str:
    """A measured number, short and without an exponent where it has none of its own."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def size(count: int) -> str:
    """Bytes in the unit that suits."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        amount /= 1000
    return f"{amount:,.3g} TB"


def _is_range(value: dict[str, Any]) -> bool:
    return {"low", "high"} <= set(value) <= {"low", "high", "logarithmic"}


def _value(value: Any, unit: str = "") -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        if value["low"] == value["high"]:
            return f"{value['low']:g} {unit}".strip()
        kind = "log-uniform" if value.get("logarithmic") else "uniform"
        return f"{value['low']:g} to {value['high']:g} {unit}".strip() + f", {kind}"
    if isinstance(value, int | float):
        return f"{value:g} {unit}".strip() if isinstance(value, float) else f"{value} {unit}".strip()
    if isinstance(value, list):
        texts = [_value(item) for item in value]
        if len(texts) > _SHOWN:
            return f"{', '.join(texts[: _SHOWN - 1])}, … {texts[-1]} {unit}".strip() + f" ({len(texts)} values)"
        return f"{', '.join(texts)} {unit}".strip() or "none"
    return str(value)


def _unit(key: str) -> str:
    return _UNITS.get(key.rpartition("_")[2], "")
