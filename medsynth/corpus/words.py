"""How a corpus's numbers and settings are put to a person."""

from collections.abc import Iterator
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
    Parameter("photons", "Photons at full scale (fewer: noisier)", "photons", logarithmic=True),
    Parameter("read_noise_e", "Read noise", "electrons"),
    Parameter("jpeg_quality", "JPEG quality", ""),
    Parameter("ita_deg", "Skin tone (ITA)", "degrees"),
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
}
_SHOWN = 8


def setting_lines(section: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """A settings section as lines for a person.

    Args:
        section: settings as ``corpus.json`` has them.
        depth: how deep the section itself stands.

    Yields:
        Depth, name, and value in words with its unit; no value where deeper lines follow.
    """
    for key, value in section.items():
        name = str(key).replace("_", " ")
        if isinstance(value, dict) and not _is_range(value):
            if value:
                yield depth, name, ""
                yield from setting_lines(value, depth + 1)
        else:
            text = _value(value)
            unit = _unit(str(key)) if any(letter.isdigit() for letter in text) else ""
            yield depth, name, f"{text} {unit}".strip()


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


def _value(value: Any) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        if value["low"] == value["high"]:
            return f"{value['low']:g}"
        kind = "log-uniform" if value.get("logarithmic") else "uniform"
        return f"{value['low']:g} to {value['high']:g} ({kind})"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        texts = [_value(item) for item in value]
        if len(texts) > _SHOWN:
            return f"{', '.join(texts[: _SHOWN - 1])}, … {texts[-1]} ({len(texts)} values)"
        return ", ".join(texts) or "none"
    return str(value)


def _unit(key: str) -> str:
    return _UNITS.get(key) or _UNITS.get(key.rpartition("_")[2], "")
