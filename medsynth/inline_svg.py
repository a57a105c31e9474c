"""A matplotlib figure as inline SVG whose colours follow the page, so that one drawing serves light and dark."""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, ACCENT, WARN, FAINT = "#010203", "#010204", "#010205", "#010206"
"""To draw with: stand-ins, replaced by the page's own colours once the drawing is text."""

_COLOURS = {INK: "currentColor", ACCENT: "var(--accent)", WARN: "var(--warn)", FAINT: "var(--line)"}
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "medsynth"}


def inline(figure: Figure) -> str:
    """An ``<svg>`` element: without background and metadata, as wide as the page lets it, the same for the same figure.

    Args:
        figure: drawn in the colours above, on a page that defines ``--accent``, ``--warn`` and ``--line``.
    """
    sink = io.StringIO()
    with mpl.rc_context(_STYLE):
        FigureCanvasSVG(figure).print_svg(sink, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    # Size by the page; the view box keeps the proportions. The figure's own background goes.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'<g id="patch_1">.*?</g>', "", text, count=1, flags=re.DOTALL)
    text = text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    for colour, own in _COLOURS.items():
        text = text.replace(colour, own)
    return text
