"""``report.html``: what was measured, on one page that opens offline."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from medsynth.evaluation.judging import Sheet

TEMPLATES = Path(__file__).parent / "templates"


def page(told: Mapping[str, Any], sheets: Sequence[Sheet], plots: Mapping[str, str]) -> str:
    """Make the page.

    Args:
        told: as ``evaluation.json`` has it.
        sheets: pictures to look at.
        plots: ``<svg>`` elements by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = figure
    pictures = [(sheet, base64.b64encode(sheet.jpeg).decode()) for sheet in sheets]
    drawn = {name: Markup(svg) for name, svg in plots.items()}
    return environment.get_template("evaluation.html.j2").render(told=told, sheets=pictures, plots=drawn)


def figure(value: float | int | None) -> str:
    """A number for a person: three significant digits, none of them an exponent; a dash for what is not known.

    Example:
        >>> figure(0.01234), figure(123.4), figure(12000), figure(None)
        ('0.0123', '123', '12,000', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.5f}"
