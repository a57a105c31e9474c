"""A catalog on Ray Data: one row is a batch of files, and small tables of tiles come back.

What is retry-safe and why: a batch only reads, so Ray may run it again anywhere. A finished wave is
written as a part beside the catalog, under a name of its own; the next run takes parts for an earlier
catalog, each file from one of them. The catalog is written once at the end, and then the parts go.
"""

import io
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import TaskPoolStrategy

from medsynth import storage
from medsynth.catalog import index as planning
from medsynth.catalog import table
from medsynth.catalog.index import IndexPlan, Previous
from medsynth.catalog.sharpness import DEFAULT_THRESHOLD, sharpness
from medsynth.catalog.units import Measured, Score, Unit, measure
from medsynth.distributed.exchange import answered, answers, numbers
from medsynth.distributed.session import session
from medsynth.errors import CatalogError, NotFoundError
from medsynth.spec import Index, Spec

_PART = "part-"
_BATCH_UNITS = 64
_BATCH_BYTES = 64 << 20
# What a killed run loses at the most; and a block costs the driver memory until its wave is done.
_WAVE_BATCHES = 128


class Progress(Protocol):
    """What is called as files are done."""

    def __call__(self, done: int, total: int, *, fresh: int) -> None:
        """Take the files (of Parquet: row groups) done, all there are to do, and those done by this run."""


@dataclass(frozen=True)
class IndexSummary:
    """What an index run found."""

    catalog: str
    """URI of its folder."""
    tiles: int
    soft: int
    """Tiles that may not be sources, since they are not in focus."""
    files: int
    """Files of the source that hold images."""
    measured: int
    """Files (of Parquet: row groups) that this run read; the others were known."""
    ignored: int
    """Files of the source that hold none."""
    rejects: dict[str, int]
    """Refused images by reason."""
    subgroups: dict[tuple[str, ...], tuple[int, int]]
    """Tiles, and those of them in focus, by subgroup."""
    unmatched: list[str]
    """Keys of the metadata table that no file has."""
    seconds: float


def index(
    source: str,
    settings: Index,
    out: str,
    *,
    workers: int | None = None,
    progress: Progress = lambda done, total, *, fresh: None,
    score: Score = sharpness,
    threshold: float = DEFAULT_THRESHOLD,
    apart: str | None = None,
) -> IndexSummary:
    """Make a catalog, or bring one up to date: only what is new or changed is read.

    A session is started where there is none, unless there is no more to read than one batch: that is read here.

    Args:
        source: a folder, bucket or single file of images, or of Parquet files with an image column.
        settings: how to index.
        out: URI of the catalog's folder.
        workers: batches in the making at the same time; by default as many as the session has CPUs.
        progress: called as batches finish.
        score: the sharpness figure of a tile.
        threshold: the figure from which a tile is in focus, where the settings do not say.
        apart: a folder whose files are never sources, where it lies inside the source; by default ``out``.

    Raises:
        CatalogError: no images, no usable image, or metadata or settings that do not fit.
        StorageError: the source cannot be read or the catalog cannot be written.
    """
    started = time.monotonic()
    source, out = storage.absolute(source), storage.absolute(out).rstrip("/")
    parts = _part_files(out)
    plan = planning.plan_index(source, settings, _previous(out, parts), score=score, out=apart or out)
    waves = list(_waves(plan.units))
    with session(workers, environments=False) if any(len(wave) > 1 for wave in waves) else nullcontext():
        fresh = list(_measured(waves, plan, out, parts, workers, progress, score))
    made = planning.assemble(plan, fresh, threshold)
    table.write(out, made.tiles, made.rejects, plan.about)
    for part in parts:
        storage.delete(part)
    storage.remove_staging(out)
    summary = _summary(out, plan, made, time.monotonic() - started)
    if not summary.tiles:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.rejects.items())
        raise CatalogError(f"{source}: no usable image ({reasons}); {storage.join(out, table.REJECTS)} names each")
    return summary


def _measured(
    waves: list[list[list[Unit]]],
    plan: IndexPlan,
    out: str,
    parts: list[str],
    workers: int | None,
    progress: Progress,
    score: Score,
) -> Iterator[Measured]:
    """Measure wave by wave; each but the last is written as a part, whose files are added to the list."""
    done = 0
    for wave in waves:
        found: list[Measured] = []
        for count, one in _run(wave, plan, workers, score):
            found.append(one)
            done += count
            progress(done, len(plan.units), fresh=done)
        tiles = pa.concat_tables([one.tiles for one in found])
        rejects = pa.concat_tables([one.rejects for one in found])
        if done < len(plan.units):
            name = f"{_PART}{secrets.token_hex(8)}."
            table.write(out, tiles, rejects, plan.about, part=name)
            parts += [storage.join(out, name + kind) for kind in (table.TABLE, table.REJECTS)]
        yield Measured(tiles, rejects)


def catalog_for(
    spec: Spec, corpus: str, *, workers: int | None = None, progress: Progress = lambda done, total, *, fresh: None
) -> tuple[pa.Table | None, str]:
    """The catalog that a spec's source is, or that is made of it on the fly.

    Args:
        spec: the order.
        corpus: URI of the corpus; the catalog of a source that is none goes into it, and no file of it is a source.
        workers: as for :func:`index`.
        progress: as for :func:`index`.

    Returns:
        The catalog's table and its URI; None and "" for a spec without a source.

    Raises:
        CatalogError: the source is neither a catalog nor images.
    """
    if spec.source is None:
        return None, ""
    if table.is_catalog(spec.source):
        return table.read(spec.source), spec.source
    out = storage.join(corpus, "catalog")
    index(spec.source, spec.index, out, workers=workers, progress=progress, apart=corpus)
    return table.read(out), out


def _part_files(out: str) -> list[str]:
    try:
        uris = [info.uri for info in storage.list_files(out)]
    except NotFoundError:
        return []
    return [uri for uri in uris if uri.startswith(storage.join(out, _PART))]


def _previous(out: str, part_files: list[str]) -> list[Previous]:
    # A part whose writer was killed in between has rejects but no table yet.
    found = [out] if table.is_catalog(out) else []
    found += [uri for uri in part_files if uri.endswith(table.TABLE)]
    return [Previous(Measured(table.read(uri), table.read_rejects(uri)), table.about(uri)) for uri in found]


def _waves(units: list[Unit]) -> Iterator[list[list[Unit]]]:
    """Batches of units, some at a time; a file's row groups stay in one wave, so that a part has whole files."""
    wave: list[list[Unit]] = []
    for _, grouped in itertools.groupby(units, key=lambda unit: unit.uri):
        members = list(grouped)
        if len(wave) >= _WAVE_BATCHES and not _has_room(wave[-1], members[0]):
            yield wave
            wave = []
        for unit in members:
            if wave and _has_room(wave[-1], unit):
                wave[-1].append(unit)
            else:
                wave.append([unit])
    if wave:
        yield wave


def _has_room(batch: list[Unit], unit: Unit) -> bool:
    return len(batch) < _BATCH_UNITS and sum(one.size for one in batch) + unit.size <= _BATCH_BYTES


def _run(wave: list[list[Unit]], plan: IndexPlan, workers: int | None, score: Score) -> Iterator[tuple[int, Measured]]:
    if len(wave) == 1:  # nothing to share out, and a worker takes longer to start than the batch does
        yield len(wave[0]), measure(wave[0], plan.settings, plan.columns, score)
        return
    shared = ray.put((wave, plan.settings, plan.columns, score))
    measured = numbers(len(wave)).map_batches(
        _measure,  # type: ignore[arg-type]  # Ray's types do not know fn_kwargs
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"shared": shared},
        compute=TaskPoolStrategy(size=workers),
        num_cpus=1,
    )
    for answer in answers(measured):
        yield answer["units"], Measured(_table(answer["tiles"]), _table(answer["rejects"]))


_ANSWER = pa.schema([("units", pa.int64()), ("tiles", pa.binary()), ("rejects", pa.binary()), ("error", pa.string())])


def _measure(batch: pa.Table, shared: Any) -> pa.Table:
    shared = ray.get(shared) if isinstance(shared, ray.ObjectRef) else shared
    wave, settings, columns, score = shared

    def answer(number: int) -> dict[str, Any]:
        found = measure(wave[number], settings, columns, score)
        return {"units": len(wave[number]), "tiles": _bytes(found.tiles), "rejects": _bytes(found.rejects)}

    return answered(batch, answer, _ANSWER)


def _bytes(part: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(part, sink)
    return sink.getvalue()


def _table(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def _summary(out: str, plan: IndexPlan, made: Measured, seconds: float) -> IndexSummary:
    names = plan.settings.subgroups
    in_focus = made.tiles["in_focus"].to_pylist()
    values = list(zip(*(made.tiles[name].to_pylist() for name in names), strict=True)) if names else []
    sharp = Counter(value for value, good in zip(values, in_focus, strict=False) if good)
    return IndexSummary(
        catalog=out,
        tiles=made.tiles.num_rows,
        soft=in_focus.count(False),
        files=plan.files,
        measured=len(plan.units),
        ignored=plan.ignored,
        rejects=dict(sorted(Counter(made.rejects["reason"].to_pylist()).items())),
        subgroups={value: (count, sharp[value]) for value, count in sorted(Counter(values).items())},
        unmatched=plan.unmatched,
        seconds=seconds,
    )
