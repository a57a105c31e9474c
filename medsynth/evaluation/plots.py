"""Plots of an evaluation as inline SVG in the page's own colours."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medsynth.skin import tone

# Stand-ins, replaced by the page's own colours once the drawing is text.
_COLOURS = {"#010203": "currentColor", "#010204": "var(--accent)", "#010205": "var(--warn)", "#010206": "var(--line)"}
_INK, _ACCENT, _WARN, _FAINT = _COLOURS


def tones(asked: NDArray[np.float64], measured: NDArray[np.float64]) -> str:
    """Asked against measured angles, with the edges between types."""
    figure, axes = _axes("asked (degrees)", "measured (degrees)")
    ends = [tone.RANGE[0] - 5, tone.RANGE[1] + 5]
    for edge in tone.EDGES:
        axes.axvline(edge, color=_FAINT, linewidth=0.8)
        axes.axhline(edge, color=_FAINT, linewidth=0.8)
    axes.plot(ends, ends, color=_INK, linewidth=0.8)
    axes.scatter(asked, measured, s=10, color=_ACCENT)
    axes.set_xlim(*ends)
    return _svg(figure)


def sizes(asked: Sequence[float], changed: Mapping[str, Sequence[float]]) -> str:
    """Asked against changed shares of the picture, a line a condition."""
    figure, axes = _axes("asked share of the picture", "changed share of the picture")
    for place, (name, values) in enumerate(changed.items()):
        axes.plot(
            asked, values, color=_ACCENT, linewidth=1.2, marker="osD^vP*X<>"[place % 10], markersize=4, label=name
        )
    axes.plot(asked, asked, color=_INK, linewidth=0.8, linestyle="--")
    axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
    return _svg(figure)


def distances(synthetic: NDArray[np.float64], null: NDArray[np.float64], threshold: float) -> str:
    """Distances to the nearest training photo, of synthetic pictures and of real strangers."""
    figure, axes = _axes("1 − correlation with the nearest training photo", "share of the pictures")
    bins = np.linspace(0, max(float(synthetic.max()), float(null.max())) * 1.02, 40)
    for values, colour, label in ((synthetic, _ACCENT, "synthetic"), (null, _INK, "real, other patients")):
        axes.stairs(np.histogram(values, bins)[0] / len(values), bins, color=colour, label=label)
    axes.axvline(threshold, color=_WARN, linewidth=1)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
    return _svg(figure)


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.2), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(across, color=_INK, fontsize=8)
    axes.set_ylabel(up, color=_INK, fontsize=8)
    axes.tick_params(colors=_INK, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
    return figure, axes


def _svg(figure: Figure) -> str:
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "medsynth"}
    sink = io.StringIO()
    with mpl.rc_context(style):
        FigureCanvasSVG(figure).print_svg(sink, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    # Size by the page; the view box keeps the proportions.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) xmlns(:xlink)?="[^"]*"', r"\1", text)
    text = text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    for stand_in, colour in _COLOURS.items():
        text = text.replace(stand_in, colour)
    return text
