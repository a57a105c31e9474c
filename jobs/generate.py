"""Make a corpus from a spec: balanced, resumable, verifiable."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated

import typer
from _cli import place, run
from _console import ProgressLine, duration, say, table

from medsynth import spec as specs
from medsynth import storage
from medsynth.catalog import table as catalogs
from medsynth.distributed import generation, indexing
from medsynth.distributed.session import session
from medsynth.errors import ShortfallError
from medsynth.plan import Subgroup
from medsynth.recipes import build, preparation
from medsynth.recipes.preparation import Prepared

_TRIAL_SAMPLES = 32
_MOST_VALUES = 12
_MOST_NAMED = 5


def generate(
    spec: Annotated[str, typer.Option(help="The order: a YAML file's path or URI.")],
    out: Annotated[str, typer.Option(help="Where the corpus goes: a folder's path or URI.")],
    source: Annotated[str | None, typer.Option(help="Catalog or images to use instead of the spec's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Shards in the making at a time [all CPUs].")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and an estimate; make nothing but a folder's catalog.")
    ] = False,
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
        say(f"{out}: the server ignores conditional writes; a commit overwrites with the same bytes", "yellow")
    with session(workers, environments=False):
        line = ProgressLine("files")
        catalog, where = indexing.catalog_for(order, out, workers=workers, progress=line.show)
        line.end()
        if where != (order.source or ""):
            _show_refused(where)
        prepared = preparation.prepare(order, recipe, catalog, where)
        if not makes:
            _show_plan(prepared, workers)
            if preview:
                _preview(prepared, preview, out)
            return
        line = ProgressLine("tiles" if recipe.needs_sources else "images")
        summary = generation.generate(
            prepared,
            out,
            conditional=conditional,
            workers=workers,
            progress=lambda p: line.show(p.rows, p.rows_planned, fresh=p.rows_made, note=f", {p.rejects:,} rejects"),
        )
        line.end()
    _show_result(prepared, summary)
    if summary.undelivered and order.balance.on_shortfall == "error":
        why, remedy = (
            ("sources went bad after the catalog was made", "mend them")
            if recipe.needs_sources
            else ("no drawing of them passed", "look at the folder rejects, widen skin.reject or take better weights")
        )
        raise ShortfallError(
            f"{out}: {sum(summary.undelivered.values()):,} rows are undelivered, since {why}; {remedy} and make the "
            "corpus in another place, or set balance.on_shortfall: report"
        )


def _show_refused(catalog: str) -> None:
    """What a catalog made on the fly is without; of a finished one jobs/index.py has told."""
    reasons = Counter(catalogs.read_rejects(catalog)["reason"].to_pylist())
    if reasons:
        named = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(reasons.items()))
        where = storage.join(catalog, catalogs.REJECTS)
        say(f"images of the source that could not be used: {reasons.total():,} ({named}); {where} names each", "yellow")


def _show_plan(prepared: Prepared, workers: int | None) -> None:
    plan = prepared.plan
    quotas = plan.quotas()
    table(
        f"{prepared.header['name']}: {plan.rows:,} rows in {plan.shards:,} shards"
        + (f" from {prepared.header['sources']:,} sources" if prepared.recipe.needs_sources else ""),
        [*plan.axes, "asked", "planned"],
        [[*quota.subgroup, quota.asked, quota.planned] for quota in quotas],
    )
    trial = preparation.trial(prepared, _TRIAL_SAMPLES)
    cpus = workers or generation.cpus()
    seconds = plan.rows * trial.seconds_per_row / cpus
    say(
        f"estimate from {trial.samples} samples: {_bytes(plan.rows * trial.bytes_per_row)}, "
        f"{duration(seconds)} on {cpus} CPUs ({1 / trial.seconds_per_row:,.0f} images/s each)"
    )
    for note in prepared.header["notes"]:
        say(f"note: {note}")
    short = {quota.subgroup: quota.asked - quota.planned for quota in quotas if quota.asked > quota.planned}
    if short:
        say(f"shortfall: {_named(plan.axes, short)}", "yellow")
    rejected = {reject.source_uri or reject.reason: reject for reject in trial.made.rejects}
    for name, reject in list(rejected.items())[:_MOST_NAMED]:
        where = f"{name}: {reject.reason}" if reject.source_uri else reject.reason
        say(f"reject in the trial: {where}: {reject.detail}", "yellow")


def _preview(prepared: Prepared, count: int, out: str) -> None:
    uri = storage.join(out, "preview.png")
    storage.put(uri, preparation.preview(prepared, count))
    say(f"contact sheet: {uri}")


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
    short = {quota.subgroup: quota.asked - quota.planned for quota in plan.quotas() if quota.asked > quota.planned}
    if short:
        say(f"shortfall, rows that could not be planned: {_named(plan.axes, short)}", "yellow")
    if summary.undelivered:
        why = "found no good tile" if prepared.recipe.needs_sources else "were refused as often as they were drawn"
        say(f"undelivered, rows that {why}: {_named(plan.axes, summary.undelivered)}", "yellow")
    if summary.rejects:
        how = "replaced while tiles were left" if prepared.recipe.needs_sources else "replaced by drawing again"
        table(f"rejects ({how})", ["reason", "samples"], sorted(summary.rejects.items()))
    say(
        f"{summary.rows:,} rows, {summary.shards:,} shards, {_bytes(summary.bytes)}; "
        f"{summary.made:,} rows made now, in {summary.seconds:.1f} s"
    )
    say(f"corpus: {summary.corpus}\nreport: {storage.join(summary.corpus, 'report.html')}")


def _named(axes: tuple[str, ...], rows: Mapping[Subgroup, int]) -> str:
    """How many rows, and of which subgroups, the largest numbers first."""
    worst = sorted(rows.items(), key=lambda item: -item[1])[:_MOST_NAMED]
    shown = [f"{', '.join(f'{a}={v}' for a, v in zip(axes, s, strict=True))}: {count:,}" for s, count in worst]
    more = f"; and {len(rows) - len(shown):,} more subgroups" if len(rows) > len(shown) else ""
    return f"{sum(rows.values()):,} ({'; '.join(shown)}{more})"


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
