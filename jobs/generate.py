"""Make a corpus from a spec: balanced, resumable, verifiable."""

from collections import Counter
from typing import Annotated

import typer
from _cli import place, run
from _console import ProgressLine, console, table

from medsynth import spec as specs
from medsynth import storage
from medsynth.distributed import generation, indexing
from medsynth.distributed.session import session
from medsynth.recipes import build, preparation
from medsynth.recipes.preparation import Prepared

_TRIAL_SAMPLES = 32
_MOST_VALUES = 12


def generate(
    spec: Annotated[str, typer.Option(help="The order: a YAML file's path or URI.")],
    out: Annotated[str, typer.Option(help="Where the corpus goes: a folder's path or URI.")],
    source: Annotated[str | None, typer.Option(help="Catalog or images to use instead of the spec's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Shards in the making at a time [all CPUs].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and an estimate; make nothing.")] = False,
    preview: Annotated[
        int,
        typer.Option(min=0, help="Write a contact sheet of this many samples to OUT/preview.png; make nothing else."),
    ] = 0,
) -> None:
    """Make a balanced corpus of synthetic images. The same command goes on where an earlier run stopped."""
    order = specs.load(spec)
    chosen = source or order.source
    order = order.model_copy(update={"source": storage.absolute(chosen) if chosen else None})
    out = place(out, "--out")
    recipe = build(order)
    generation.check_place(out, order)
    makes = not (dry_run or preview)
    conditional = storage.honours_put_new(out) if makes else True
    if not conditional:
        console.print(f"[yellow]{out}: the server ignores conditional writes; a commit overwrites with the same bytes")
    with session(workers):
        line = ProgressLine("files")
        catalog, where = indexing.catalog_for(order, storage.join(out, "catalog"), workers=workers, progress=line.show)
        prepared = preparation.prepare(order, recipe, catalog, where)
        if not makes:
            _show_plan(prepared, workers)
            if preview:
                _preview(prepared, preview, out)
            return
        line = ProgressLine("tiles")
        summary = generation.generate(
            prepared,
            out,
            conditional=conditional,
            workers=workers,
            progress=lambda p: line.show(p.rows, p.rows_planned, fresh=p.rows_made, note=f", {p.rejects:,} rejects"),
        )
        line.end()
    _show_result(prepared, summary)


def _show_plan(prepared: Prepared, workers: int | None) -> None:
    plan = prepared.plan
    quotas = plan.quotas()
    table(
        f"{prepared.header['name']}: {plan.rows:,} rows in {plan.shards:,} shards "
        f"from {prepared.header['sources']:,} sources",
        [*plan.axes, "asked", "planned"],
        [[*quota.subgroup, quota.asked, quota.planned] for quota in quotas],
    )
    trial = preparation.trial(prepared, _TRIAL_SAMPLES)
    cpus = workers or generation.cpus()
    seconds = plan.rows * trial.seconds_per_row / cpus
    console.print(
        f"estimate from {trial.samples} samples: {_bytes(plan.rows * trial.bytes_per_row)}, "
        f"{seconds / 60:,.1f} min on {cpus} CPUs ({1 / trial.seconds_per_row:,.0f} tiles/s each)"
    )
    for note in prepared.header["notes"]:
        console.print(f"note: {note}")
    for reject in trial.made.rejects[:5]:
        console.print(f"[yellow]reject in the trial: {reject.source_uri}: {reject.reason}: {reject.detail}")


def _preview(prepared: Prepared, count: int, out: str) -> None:
    uri = storage.join(out, "preview.png")
    storage.put(uri, preparation.preview(prepared, count))
    console.print(f"contact sheet: {uri}")


def _show_result(prepared: Prepared, summary: generation.Summary) -> None:
    plan = prepared.plan
    rows: list[list[object]] = []
    for position, axis in enumerate(plan.axes):
        planned, delivered = Counter[str](), Counter[str]()
        for quota in plan.quotas():
            planned[quota.subgroup[position]] += quota.planned
        for subgroup, count in summary.delivered.items():
            delivered[subgroup[position]] += count
        values = prepared.header["axes"][axis]
        if len(values) <= _MOST_VALUES:
            rows += [[axis, value, planned[value], delivered[value]] for value in values]
        else:
            ends = f"{values[0]} to {values[-1]} ({len(values)} values)"
            rows.append([axis, ends, *(_each([count[value] for value in values]) for count in (planned, delivered))])
    table(summary.corpus, ["axis", "value", "planned", "delivered"], rows)
    short = sum(quota.asked - quota.planned for quota in plan.quotas())
    if short:
        console.print(
            f"[yellow]shortfall: {short:,} rows asked for could not be planned; the report names the subgroups"
        )
    if summary.undelivered:
        console.print(f"[yellow]undelivered: {summary.undelivered:,} planned rows found no good tile")
    if summary.rejects:
        table("rejects (replaced while tiles were left)", ["reason", "samples"], sorted(summary.rejects.items()))
    console.print(
        f"{summary.rows:,} rows, {summary.shards:,} shards, {_bytes(summary.bytes)}; "
        f"{summary.made:,} rows made now, in {summary.seconds:.1f} s"
    )
    console.print(f"corpus: {summary.corpus}\nreport: {storage.join(summary.corpus, 'report.html')}")


def _each(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,} each" if low == high else f"{low:,} to {high:,} each"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


if __name__ == "__main__":
    run(generate)
