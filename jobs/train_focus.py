"""Train the focus network, on tiles put out of focus on the fly or on a corpus that is already."""

from typing import Annotated, Literal

import typer
from _cli import place, run
from _console import ProgressLine, say
from _training import command_line, finished, show_figures, trained

from medsynth import storage
from medsynth.catalog import table as catalog
from medsynth.distributed import indexing, runs, training
from medsynth.distributed.focus_corpus import corpus_tiles, is_corpus, refuse_validation
from medsynth.distributed.session import session
from medsynth.focus import run as focus
from medsynth.focus.feed import Tiles
from medsynth.focus.run import FocusRun
from medsynth.focus.training import FIGURES


def train_focus(
    source: Annotated[str, typer.Option(help="Catalog, images (indexed on the fly), or a corpus of jobs/generate.py.")],
    out: Annotated[str, typer.Option(help="Where weights, curve and checkpoints go: a folder's path or URI.")],
    preset: Annotated[Literal["small", "paper", "smoke"], typer.Option(help="Settings to start from.")] = "small",
    settings: Annotated[str | None, typer.Option(help="YAML file of settings that replace the preset's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trainers side by side [all GPUs, or 1].")] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where to train.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of first weights and samples.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the training.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples of a step, over all workers.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Its highest value.")] = None,
    loss: Annotated[Literal["rps", "ce"] | None, typer.Option(help="Ordinal loss, or cross-entropy.")] = None,
    slide_column: Annotated[str | None, typer.Option(help="Catalog's column of slides [each image is one].")] = None,
    hold_out: Annotated[float | None, typer.Option(help="Share of slides to validate on; 0 for none.")] = None,
    validate_on: Annotated[str | None, typer.Option(help="Catalog or images to validate on instead.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of images indexed on the fly.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curve for TensorBoard too.")] = False,
) -> None:
    """Train the focus network. The same command goes on where an earlier run stopped, to the same weights."""
    flags = {
        "steps": steps, "batch": batch, "learning_rate": learning_rate, "loss": loss,
        "slide_column": slide_column, "hold_out": hold_out, "index": None if mpp is None else {"mpp": mpp},
    }  # fmt: skip
    chosen = focus.settings(preset, settings, {name: value for name, value in flags.items() if value is not None})
    out = place(out, "--out")
    source, validate_on = storage.absolute(source), storage.absolute(validate_on) if validate_on else None
    order = focus.Order(out, chosen, seed, source, validate_on)
    runs.check(out, order.header())
    if finished(storage.join(out, focus.WEIGHTS)):
        return
    with session():
        gpu, workers = training.processors(device, workers, chosen.batch)
        if validate_on:
            refuse_validation(validate_on)
        size = chosen.samples.size
        found = corpus_tiles(source, size) if is_corpus(source) else _catalog(source, order, "catalog")
        other = _catalog(validate_on, order, "catalog-validation") if validate_on else None
        job = focus.set_up(order, found, other)
        runs.claim(out, job.header())
        _show_plan(job, workers, gpu)
        state, rows = trained(job, workers, gpu, tensorboard)
    weights = focus.finish(job, state, rows, command_line())
    show_figures(rows, FIGURES)
    say(f"weights: {weights}\ncurve: {storage.join(out, runs.METRICS)}")


def _show_plan(job: FocusRun, workers: int, gpu: bool) -> None:
    if isinstance(job.training, Tiles):
        made = job.training.opened()
        tiles = f"{len(made):,} tiles of {len(set(made.slides)):,} slides"
    else:
        tiles = f"the corpus {job.training.uri}"
    held = job.validation.opened() if job.validation else None
    against = f"validated on {len(held):,} tiles of {len(set(held.slides)):,} others" if held else "without validation"
    say(f"training on {tiles}, {against}, by {workers} {'GPU' if gpu else 'CPU'} worker(s)")
    if held is None and not isinstance(job.training, Tiles):
        say("a corpus is training data as a whole: name other images by --validate-on to see figures", "yellow")


def _catalog(source: str, order: focus.Order, name: str) -> str:
    """The source itself where it is a catalog, else the catalog that is made of it now."""
    if catalog.is_catalog(source):
        return source
    out = storage.join(order.out, name)
    line = ProgressLine("files")
    indexing.index(source, order.settings.index, out, progress=line.show, apart=order.out)
    line.end()
    return out


if __name__ == "__main__":
    run(train_focus)
