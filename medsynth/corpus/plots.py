"""Plots as inline SVG whose colours follow the page, so that one drawing serves light and dark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from medsynth.inline_svg import ACCENT, FAINT, INK, WARN, inline

_LONG_LABELS = 32
_LABELS_ACROSS = 20
_THINNEST_BAR = 80


def bars(labels: Sequence[str], asked: Sequence[int], delivered: Sequence[int]) -> str:
    """Rows delivered as bars, with a mark at the rows asked for; what is missing stands out.

    Args:
        labels: one a bar.
        asked: rows asked for.
        delivered: rows delivered.

    Returns:
        An ``<svg>`` element.
    """
    lying = sum(len(label) for label in labels) > 3 * _LONG_LABELS or max(map(len, labels)) > 12
    figure = Figure(figsize=(7.2, 0.7 + 0.24 * len(labels)) if lying else (7.2, 2.3))
    axes = _axes(figure)
    places = np.arange(len(labels))
    missing = np.maximum(np.asarray(asked) - np.asarray(delivered), 0)
    if lying:
        axes.barh(places, delivered, 0.7, color=ACCENT)
        axes.barh(places, missing, 0.7, left=delivered, color="none", edgecolor=WARN, hatch="////")
        axes.vlines(asked, places - 0.42, places + 0.42, color=INK, linewidth=1.4)
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.set_xlabel("rows", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="x", color=FAINT)
    else:
        axes.bar(places, delivered, 0.7, color=ACCENT)
        axes.bar(places, missing, 0.7, bottom=delivered, color="none", edgecolor=WARN, hatch="////")
        axes.hlines(asked, places - 0.42, places + 0.42, color=INK, linewidth=1.4)
        step = -(-len(labels) // _LABELS_ACROSS)
        axes.set_xticks(places[::step], labels[::step])
        axes.set_ylabel("rows", color=INK)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y", color=FAINT)
    shown: list[Any] = [Patch(color=ACCENT, label="delivered")]
    shown.append(Line2D([], [], color=INK, linewidth=1.4, label="asked for"))
    if missing.any():
        shown.append(Patch(facecolor="none", edgecolor=WARN, hatch="////", label="missing"))
    figure.legend(
        handles=shown, loc="outside upper right", ncols=len(shown), frameon=False, labelcolor=INK, handlelength=1.4
    )
    return inline(figure)


def histogram(values: NDArray[np.float64], label: str, *, logarithmic: bool) -> str:
    """How often the values of a parameter occur.

    Args:
        values: at least one.
        label: name and unit of the axis.
        logarithmic: draw over a logarithmic axis.

    Returns:
        An ``<svg>`` element.
    """
    figure = Figure(figsize=(4.6, 2.2))
    axes = _axes(figure)
    low, high = float(values.min()), float(values.max())
    logarithmic = logarithmic and low > 0 and high > low
    distinct = np.unique(values)
    steps = np.diff(distinct)
    if not logarithmic and (not len(steps) or steps.min() >= (high - low) / _THINNEST_BAR):
        # A table's radii, or whole numbers: a bar for each value says more than bins that share some.
        counts = [int((values == value).sum()) for value in distinct]
        axes.bar(distinct, counts, width=0.7 * float(steps.min()) if len(steps) else 0.8, color=ACCENT)
        if low == high:
            axes.set_xlim(low - 1, high + 1)
    else:
        edges = np.geomspace(low, high, 31) if logarithmic else np.linspace(low, high, 31)
        axes.hist(values, bins=edges.tolist(), color=ACCENT, rwidth=0.9)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label, color=INK)
    axes.set_ylabel("rows", color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y", color=FAINT)
    return inline(figure)


def scatter(asked: NDArray[np.float64], measured: NDArray[np.float64], label: str) -> str:
    """What was measured against what was asked for, with the line on which both are the same.

    Args:
        asked: one a point, at least one.
        measured: as many.
        label: name and unit of both.

    Returns:
        An ``<svg>`` element.
    """
    figure = Figure(figsize=(4.6, 3.4))
    axes = _axes(figure)
    ends = [float(min(asked.min(), measured.min())), float(max(asked.max(), measured.max()))]
    axes.plot(ends, ends, color=INK, linewidth=1)
    axes.plot(asked, measured, ".", color=ACCENT, markersize=4, alpha=0.6)
    axes.set_xlabel(f"asked for: {label}", color=INK)
    axes.set_ylabel(f"measured: {label}", color=INK)
    axes.grid(color=FAINT)
    return inline(figure)


def _axes(figure: Figure) -> Axes:
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=2.5, color=FAINT)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)
    return axes
