from matplotlib.figure import Figure

from medsynth.inline_svg import ACCENT, inline


def figure() -> Figure:
    made = Figure(figsize=(2, 1))
    made.add_subplot().plot([0, 1], [0, 1], color=ACCENT)
    return made


def test_a_figure_becomes_an_element_in_the_pages_colours() -> None:
    text = inline(figure())
    assert text.startswith("<svg")
    assert "var(--accent)" in text
    assert ACCENT not in text
    head = text[: text.index(">")]
    assert "viewBox" in head
    assert "width=" not in head
    assert "xmlns" not in head
    assert "<metadata" not in text


def test_the_same_figure_gives_the_same_text() -> None:
    assert inline(figure()) == inline(figure())
