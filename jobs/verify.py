"""Check that a corpus is what it says."""

import sys
from typing import Annotated

import typer
from _cli import place, run
from _console import ProgressLine, say

from medsynth import verify as verification


def verify(
    corpus: Annotated[str, typer.Argument(help="The corpus: a folder's path or URI.")],
    rows: Annotated[int, typer.Option(min=0, help="How many rows to make again and compare.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Which rows: another seed picks others.")] = 0,
) -> None:
    """Re-read every digest, recount every subgroup, and make rows again from their own metadata."""
    line = ProgressLine("shards")
    findings = verification.verify(
        place(corpus, "CORPUS"), rows, seed=seed, progress=lambda done, total: line.show(done, total, fresh=done)
    )
    line.end()
    for problem in findings.problems:
        say(problem, "red")
    if findings.undelivered:
        say(f"{findings.undelivered:,} planned rows could not be made; report.html names their subgroups", "yellow")
    say(
        f"{findings.shards:,} shards and {findings.rows:,} rows read, {findings.remade:,} rows made again: "
        + (f"{len(findings.problems):,} problems" if findings.problems else "all as the manifest says")
    )
    if findings.problems:
        sys.exit(1)


if __name__ == "__main__":
    run(verify)
