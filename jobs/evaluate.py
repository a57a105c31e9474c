"""Measure how good synthetic skin photos are: like real ones, as asked for, diverse, and not copies."""

from typing import Annotated

import typer
from _cli import place, run
from _console import ProgressLine, say, table

from medsynth import storage
from medsynth.corpus import evaluating
from medsynth.evaluation.report import figure


def evaluate(
    real: Annotated[str, typer.Option(help="Table of real photos, as for jobs/train_gan.py.")],
    out: Annotated[str, typer.Option(help="Where report and figures go: a folder's path or URI.")],
    corpus: Annotated[str | None, typer.Option(help="A corpus of the recipe skin [draw from the weights].")] = None,
    weights: Annotated[str | None, typer.Option(help="A generator [the corpus's, or the shipped one].")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The encoder.safetensors of an earlier evaluation [learn one].")
    ] = None,
    count: Annotated[int, typer.Option(min=20, max=5000, help="Synthetic pictures to look at.")] = 304,
    turing: Annotated[
        int | None, typer.Option(min=2, max=400, help="Also make a blinded page of so many pictures.")
    ] = None,
    encoder_steps: Annotated[int, typer.Option(min=1, help="Length of the encoder's training.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Of choice, noise and resampling.")] = 0,
) -> None:
    """Measure synthetic skin photos against photos of patients that the generator has not seen."""
    line = ProgressLine("steps")
    order = evaluating.Order(
        real=storage.absolute(real),
        out=place(out, "--out"),
        corpus=storage.absolute(corpus) if corpus else None,
        weights=storage.absolute(weights) if weights else None,
        encoder=storage.absolute(encoder) if encoder else None,
        count=count,
        turing=turing,
        encoder_steps=encoder_steps,
        seed=seed,
    )
    told = evaluating.evaluate(order, say, lambda done, total: line.show(done, total, fresh=done))
    whole = told["fidelity"]["whole"]
    rows = [(name, figure(whole[name])) for name in ("precision", "recall", "density", "coverage") if name in whole]
    if "kid" in whole:
        rows.insert(0, ("KID", " to ".join(figure(whole["kid"][end]) for end in ("low", "high"))))
    rows += [
        ("tone, Spearman", figure(told["tone"]["spearman"])),
        ("tone, error", figure(told["tone"]["median_error"])),
    ]
    if told["tone_sweep"]:
        swept, grown = told["tone_sweep"], told["growing"]
        rows += [
            ("tone sweep, Spearman of single pictures", figure(swept["spearman"])),
            ("tone sweep, Spearman of the cells' medians", figure(swept["cells"]["spearman"])),
            ("growing lesions, Spearman, median", figure(grown["spearman"]["median"])),
            ("growing lesions, Spearman, least", figure(grown["spearman"]["least"])),
        ]
    table("held-out patients", ["measure", "figure"], rows)
    for note in told["notes"]:
        say(note, "yellow")
    say(f"report: {storage.join(order.out, evaluating.REPORT)}")


if __name__ == "__main__":
    run(evaluate)
