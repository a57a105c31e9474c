"""Plots of an evaluation as inline SVG in the page's own colours."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medsynth.inline_svg import ACCENT, FAINT, INK, WARN, inline
from medsynth.skin import tone


def tones(asked: NDArray[np.float64], measured: NDArray[np.float64]) -> str:
    """Asked against measured angles, with the edges between types."""
    figure, axes = _axes("asked (degrees)", "measured (degrees)")
    ends = [tone.RANGE[0] - 5, tone.RANGE[1] + 5]
    for edge in tone.EDGES:
        axes.axvline(edge, color=FAINT, linewidth=0.8)
        axes.axhline(edge, color=FAINT, linewidth=0.8)
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.scatter(asked, measured, s=10, color=ACCENT)
    axes.set_xlim(*ends)
    return inline(figure)


def sizes(asked: Sequence[float], changed: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Asked against changed shares of the picture, a line a condition: the median over its types and seeds."""
    figure, axes = _axes("asked share of the picture", "changed share of the picture")
    for place, (name, types) in enumerate(changed.items()):
        values = np.median([shares for of_seeds in types.values() for shares in of_seeds], axis=0)
        axes.plot(asked, values, color=ACCENT, linewidth=1.2, marker="osD^vP*X<>"[place % 10], markersize=4, label=name)
    axes.plot(asked, asked, color=INK, linewidth=0.8, linestyle="--")
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return inline(figure)


def distances(synthetic: NDArray[np.float64], null: NDArray[np.float64], threshold: float) -> str:
    """Distances to the nearest training photo, of synthetic pictures and of real strangers."""
    figure, axes = _axes("1 − correlation with the nearest training photo", "share of the pictures")
    bins = np.linspace(0, max(float(synthetic.max()), float(null.max())) * 1.02, 40)
    for values, colour, label in ((synthetic, ACCENT, "synthetic"), (null, INK, "real, other patients")):
        axes.stairs(np.histogram(values, bins)[0] / len(values), bins, color=colour, label=label)
    axes.axvline(threshold, color=WARN, linewidth=1)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return inline(figure)


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 3.2), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(across, color=INK, fontsize=8)
    axes.set_ylabel(up, color=INK, fontsize=8)
    axes.tick_params(colors=INK, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    return figure, axes
