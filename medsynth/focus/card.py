"""The card of trained weights: what they were made from, how, and what they reach."""

from collections.abc import Mapping, Sequence
from typing import Any

from medsynth.learning import how_made

_NAMES = {
    "spearman": "Spearman correlation of predicted and true blur radius",
    "within_one": "share within one class",
    "within_one_clear": "share within one class, radius 2 px or more",
    "class_error": "mean error in classes",
}


def text(about: Mapping[str, Any], curve: Sequence[Mapping[str, str]], command: str) -> str:
    """The card in Markdown.

    Args:
        about: what the weights' own file says of them.
        curve: the lines of the training's curve.
        command: that made them.
    """
    settings, training, validation = about["settings"], about["training"], about["validation"]
    figures = [f"| {_NAMES[name]} | {float(value):.4f} |" for name, value in about["figures"].items()]
    shown = ["| figure | value |", "| --- | ---: |", *figures] if figures else ["Not validated."]
    held = ", ".join(f"`{slide}`" for slide in training["slides"]) or "none"
    other = about["validate_on"]
    against = "nothing" if not validation else f"`{other}`" if other else "the slides held out"
    loss = curve[-1]["loss"] if curve else "none"
    lines = [
        "# Focus network",
        "",
        f"Tells how far out of focus a tile is, in {len(settings['samples']['radii_px'])} ordered classes from "
        f"{settings['samples']['radii_px'][0]:g} to {settings['samples']['radii_px'][-1]:g} px of blur radius. "
        f"Network `{settings['network']['kind']}`, trained for {about['steps']:,} steps of {settings['batch']} "
        "samples on semi-synthetic tiles alone; what is kept is the running average of the weights.",
        "",
        "## Data",
        "",
        f"- trained on: `{about['source']}` (digest `{training['digest'][:16]}`)",
        f"- slides held out: {held}",
        f"- validated on: {against}",
        "",
        "Its training samples are synthetic: real tiles that a computer put out of focus. No real image out of "
        "focus was learnt from.",
        "",
        "## Figures on held-out slides",
        "",
        "Tiles of slides that training never saw, put out of focus by the same chain. This tells how well the "
        "chain is undone, not how well people's grades are met.",
        "",
        *shown,
        "",
        *how_made(command, f"Seed {about['seed']}, torch {about['torch']}, last loss {loss}.", settings),
    ]
    return "\n".join(lines)
