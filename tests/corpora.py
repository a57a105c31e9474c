"""Small corpora made without Ray, for tests of what stands below it."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from medsynth import spec as specs
from medsynth import storage
from medsynth.catalog import index, table
from medsynth.catalog.sharpness import sharpness
from medsynth.catalog.units import measure
from medsynth.corpus import card, manifest, report, sources
from medsynth.recipes import build, preparation
from medsynth.recipes.preparation import Prepared
from medsynth.recipes.work import Job, make_and_commit
from medsynth.spec import Spec, parse

IHC = "package://skimage/data/ihc.png"
ORDER: dict[str, Any] = {
    "name": "small",
    "recipe": "out_of_focus",
    "seed": 7,
    "source": "catalog",
    "balance": {"axes": {"tissue": ["colon", "gland"], "focus_class": [0, 10, 29]}, "per_subgroup": 5},
    "output": {"rows_per_shard": 8},
}


def catalog(tissues: tuple[str, ...] = ("colon", "colon", "gland", "gland"), side: int = 256) -> pa.Table:
    """A catalog of windows of scikit-image's ihc.png, a tissue each."""
    digest = hashlib.sha256(storage.read(IHC)).hexdigest()
    rows = [
        {"uri": IHC, "x": 60 * number, "y": 30 * number, "width": side, "height": side, "sha256": digest,
         "in_focus": True, "tissue": tissue}
        for number, tissue in enumerate(tissues)
    ]  # fmt: skip
    schema = pa.schema(
        [("uri", pa.string()), ("row", pa.int64()), ("image_column", pa.string()), ("x", pa.int32()),
         ("y", pa.int32()), ("width", pa.int32()), ("height", pa.int32()), ("mpp", pa.float64()),
         ("sha256", pa.string()), ("in_focus", pa.bool_()), ("tissue", pa.string())]
    )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)


def prepared(table: pa.Table | None = None, **changes: Any) -> Prepared:
    """A run that can start: the small order, with top-level keys replaced."""
    spec = parse(Spec, {**ORDER, **changes}, "test")
    return preparation.prepare(spec, build(spec), catalog() if table is None else table, "catalog")


def job(run: Prepared, corpus: str) -> Job:
    """Write what stands before the shards, and give the job that makes them."""
    manifest.write_header(corpus, run.header, conditional=True)
    assert run.sources is not None
    storage.put_new(storage.join(corpus, sources.NAME), run.sources)
    return Job(corpus, run.fingerprint, run.recipe, run.plan, run.plan.axes, run.plan.seed, conditional=True)


def make(corpus: str | Path, run: Prepared) -> None:
    """Make a whole corpus, but for the card and the report."""
    corpus = str(corpus)
    work = job(run, corpus)
    writer = manifest.Writer()
    writer.write([make_and_commit(work, number) for number in range(run.plan.shards)])
    manifest.write_manifest(corpus, writer.finish())


def make_ordered(order: str | Path, corpus: str | Path, *, described: bool = False) -> None:
    """Do what jobs/generate.py does with an order whose source is images, one thing after another, without Ray.

    Args:
        order: the spec.
        corpus: where to.
        described: whether card and report are written.
    """
    spec, corpus = specs.load(str(order)), str(corpus)
    assert spec.source is not None
    source, where = storage.absolute(spec.source), storage.join(corpus, "catalog")
    plan = index.plan_index(source, spec.index, score=sharpness, out=corpus)
    made = index.assemble(plan, [measure(plan.units, plan.settings, plan.columns, sharpness)])
    table.write(where, made.tiles, made.rejects, plan.about)
    spec = spec.model_copy(update={"source": source})
    make(corpus, preparation.prepare(spec, build(spec), table.read(where), where))
    if described:
        card.write_card(corpus)
        report.write_report(corpus)
        storage.remove_staging(corpus)
