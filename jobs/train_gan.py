"""Train the skin generator, which draws clinical photos from semantic maps."""

from typing import Annotated, Any, Literal

import typer
from _cli import place, run
from _console import say
from _training import command_line, finished, show_figures, trained

from medsynth import storage
from medsynth.distributed import likeness, runs, training
from medsynth.distributed.photos import survey
from medsynth.distributed.session import session
from medsynth.skin import presets
from medsynth.skin import run as skin
from medsynth.skin.begun import SHIPPED
from medsynth.skin.run import SkinRun
from medsynth.skin.validation import FIGURES


def train_gan(
    pairs: Annotated[str, typer.Option(help="CSV or Parquet of photos: image, condition, patient_id, x0, y0, x1, y1.")],
    out: Annotated[str, typer.Option(help="Where weights, curve and checkpoints go: a folder's path or URI.")],
    preset: Annotated[
        Literal["paper", "plus", "further", "smoke"], typer.Option(help="Settings to start from.")
    ] = "plus",
    machine: Annotated[
        Literal["cpu", "gpu", "cluster"], typer.Option(help="How large: two CPU cores, a GPU, or many.")
    ] = "cpu",
    size: Annotated[Literal["128", "256"] | None, typer.Option(help="Pixels on a side [the machine's].")] = None,
    begin: Annotated[
        str | None, typer.Option(help="Weights to learn on from, or 'shipped'; for the preset further.")
    ] = None,
    settings: Annotated[str | None, typer.Option(help="YAML file of settings that replace the preset's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trainers side by side [all GPUs, or 1].")] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where to train.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of first weights, samples and noise.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the training.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples of a step, over all workers.")] = None,
    hold_out: Annotated[float | None, typer.Option(help="Share of patients to validate on; 0 for none.")] = None,
    attribution: Annotated[
        str | None, typer.Option(help="Whose photos, under which terms [ATTRIBUTION.txt beside the table].")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder of jobs/evaluate.py, to tell KID as it goes.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curve for TensorBoard too.")] = False,
) -> None:
    """Train the skin generator. The same command goes on where an earlier run stopped, to the same weights."""
    sized = None if size is None else {"size": int(size)}
    flags: dict[str, Any] = {"steps": steps, "batch": batch, "hold_out": hold_out, "generator": sized, "samples": sized}
    if begin is not None:
        flags["begin"] = begin if begin == SHIPPED else storage.absolute(begin)
    given = {name: value for name, value in flags.items() if value is not None}
    chosen = presets.settings(preset, machine, settings, given)
    out, pairs = place(out, "--out"), storage.absolute(pairs)
    told = skin.attribution(pairs) if attribution is None else attribution
    order = skin.Order(out, chosen, seed, pairs, told)
    runs.check(out, order.header())
    if finished(storage.join(out, skin.WEIGHTS)):
        return
    material = skin.part(order)
    judge = None if encoder is None else likeness.judge(storage.absolute(encoder))
    with session():
        gpu, workers = training.processors(device, workers, chosen.batch)
        job = skin.set_up(order, material, survey(material.whole, chosen.samples), judge)
        runs.claim(out, job.header())
        _show_plan(job, workers, gpu)
        state, rows = trained(job, workers, gpu, tensorboard)
    weights = skin.finish(job, state, rows, command_line())
    show_figures(rows, [name for row in rows[-1:] for name in row if name.startswith(FIGURES)])
    say(f"weights: {weights}\ncurve: {storage.join(out, runs.METRICS)}\npictures: {storage.join(out, 'samples')}")


def _show_plan(job: SkinRun, workers: int, gpu: bool) -> None:
    there, own = job.material, job.settings
    held = there.validation
    against = f"validated on {len(held.photos):,} of {len(held.patients):,} others" if held.photos else "none held out"
    besides = there.left_out
    left = "" if besides is None else f" ({len(besides.photos):,} more show too much beside skin and are left out)"
    learnt = there.learnt
    say(
        f"training on {len(learnt.photos):,} photos of {len(learnt.patients):,} patients{left}, {against}, "
        f"at {own.generator.size} px, by {workers} {'GPU' if gpu else 'CPU'} worker(s)"
    )


if __name__ == "__main__":
    run(train_gan)
