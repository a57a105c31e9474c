"""A corpus on Ray Data: one row is one shard descriptor, and only small records come back.

What is retry-safe and why: a descriptor is a number, a shard's bytes follow from the number and the
job alone, and the commit is a conditional create. Ray may therefore run a shard again after any
failure, on any machine; whatever finishes first stands.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from medsynth import storage
from medsynth.corpus import manifest, sources
from medsynth.corpus.shard import Record
from medsynth.distributed.description import Describer
from medsynth.distributed.exchange import answered, answers, numbers
from medsynth.errors import CorpusError, UserError
from medsynth.plan import Plan, Subgroup
from medsynth.recipes.preparation import Prepared
from medsynth.recipes.work import Job, make_and_commit
from medsynth.replacement import Lost, Replacement, replace
from medsynth.spec import Spec

# A block costs the driver about 9 KB until its dataset is done; a wave gives that back. Each wave starts its
# workers anew, which takes seconds: hence the longer ones where there are many CPUs.
_WAVE, _WAVE_A_CPU = 2048, 64
# Ray Data notices the end of a task some 0.2 s late. A worker that has its next shard already does not wait for that.
_SHARDS_AT_HAND = 3
# The card's writer starts when each worker has this many shards left, which take longer than its start.
_LAST_SHARDS = 5


@dataclass
class Progress:
    """How far a run is; handed to the caller after every shard."""

    rows_planned: int
    started: float = field(default_factory=time.monotonic)
    shards: int = 0
    """Shards seen, made now or found."""
    shards_planned: int = 0
    rows: int = 0
    """Rows delivered, made now or found."""
    rows_made: int = 0
    """Rows made by this run."""
    rejects: int = 0


@dataclass(frozen=True)
class Summary:
    """What a complete corpus holds."""

    corpus: str
    rows: int
    shards: int
    bytes: int
    delivered: dict[Subgroup, int]
    """Rows by subgroup."""
    rejects: dict[str, int]
    """Refused samples by reason, counted over all rounds."""
    undelivered: dict[Subgroup, int]
    """Planned samples that no tile was left for, by subgroup; only where there are any."""
    seconds: float
    """Of this run."""
    made: int
    """Rows made by this run; the others were there."""


class _Tally:
    """Sums over the records, so that the records themselves need not be kept."""

    def __init__(self, writer: manifest.Writer) -> None:
        self.writer = writer
        self.delivered: Counter[Subgroup] = Counter()
        self.rejects: Counter[str] = Counter()
        self.shards = self.bytes = self.made = 0

    def add(self, records: list[Record]) -> None:
        for record in records:
            self.delivered.update(record.counts)
            self.shards += 1
            self.bytes += record.bytes
            self.made += record.rows if record.seconds else 0
            for (_, reason), count in record.rejects.items():
                self.rejects[reason] += count
        self.writer.write(records)


def cpus() -> int:
    """CPUs of the session."""
    return int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]


def _gpus() -> float:
    found = float(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if not found:
        raise UserError("skin.gpu: the session has no GPU; add one, or remove the setting to draw on CPUs")
    return found


def check_place(corpus: str, spec: Spec) -> None:
    """Refuse a place that holds a corpus of another spec, before anything is read or written.

    Raises:
        CorpusConflictError: what differs is named.
    """
    if storage.head(storage.join(corpus, manifest.HEADER)) is None:
        return
    there = manifest.read_header(corpus)["spec"]
    here = spec.model_dump(mode="json", exclude={"out_of_focus", "skin"})
    manifest.refuse_differences(corpus, {key: there.get(key) for key in here}, here, "spec")


def generate(
    prepared: Prepared,
    corpus: str,
    *,
    conditional: bool,
    workers: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Summary:
    """Make a corpus, or what is missing of it. Call it inside a session.

    Args:
        prepared: the plan and what belongs to it.
        corpus: URI of the output.
        conditional: whether the output's server honours conditional writes.
        workers: shards in the making at the same time; by default as many as the session has CPUs.
        progress: called after every shard.

    Raises:
        UserError: the output is another corpus's or cannot be written, or a source cannot be read
            for a reason other than its own.
    """
    started = time.monotonic()
    manifest.write_header(corpus, prepared.header, conditional=conditional)
    if prepared.sources is not None:
        _write_sources(corpus, prepared.sources, conditional)
    there = manifest.read_manifest(corpus)
    if there is not None and not manifest.missing(corpus, there):
        tally = _Tally(manifest.Writer())
        tally.add(there)
        tally.made = 0
        if storage.head(storage.join(corpus, manifest.REPORT)) is None:
            Describer().describe(corpus)  # the run that made it was killed between its last files
        storage.remove_staging(corpus)
        return _summary(prepared, corpus, tally, started)
    state = Progress(prepared.plan.rows)
    describer = Describer()
    tally = _Tally(manifest.Writer())
    previous: Replacement | None = None
    current: Plan | Replacement = prepared.plan
    bad_tiles = np.zeros(0, dtype=np.int64)
    unfilled = np.zeros(0, dtype=np.int64)
    while current.shards:
        job = Job(
            corpus, prepared.fingerprint, prepared.recipe, current, prepared.plan.axes, prepared.plan.seed, conditional
        )
        state.shards_planned += current.shards
        lost: list[tuple[int, int]] = []
        bad: set[int] = set()
        for records in _waves(job, workers, state, progress, describer):
            tally.add(records)
            for record in records:
                lost.extend(record.lost)
                bad.update(record.bad_tiles)
        bad_tiles = np.union1d(bad_tiles, np.array(sorted(bad), dtype=np.int64))
        missing = np.concatenate([unfilled, *(np.arange(first, last, dtype=np.int64) for first, last in lost)])
        previous = replace(prepared.plan, Lost(np.sort(missing), bad_tiles), previous)
        current, unfilled = previous, previous.unfilled
    manifest.write_manifest(corpus, tally.writer.finish())
    describer.describe(corpus)
    return _summary(prepared, corpus, tally, started)


def _summary(prepared: Prepared, corpus: str, tally: _Tally, started: float) -> Summary:
    short = {quota.subgroup: quota.planned - tally.delivered[quota.subgroup] for quota in prepared.plan.quotas()}
    return Summary(
        corpus=corpus,
        rows=tally.delivered.total(),
        shards=tally.shards,
        bytes=tally.bytes,
        delivered=dict(tally.delivered),
        rejects=dict(tally.rejects),
        undelivered={subgroup: rows for subgroup, rows in short.items() if rows},
        seconds=time.monotonic() - started,
        made=tally.made,
    )


def _waves(
    job: Job, workers: int | None, state: Progress, progress: Callable[[Progress], None], describer: Describer
) -> Iterator[list[Record]]:
    shared = ray.put(job)
    # A pool that may shrink: where machines are lost for good, the shards of their workers go to those that are left.
    # It grows with the cluster, unless the caller set its size.
    size = workers or max(1, cpus())
    gpus = job.recipe.gpus
    if gpus:
        size = max(1, min(size, int(_gpus() / gpus)))
    pool = ActorPoolStrategy(
        min_size=1, initial_size=size, max_size=size if gpus else workers, max_tasks_in_flight_per_actor=_SHARDS_AT_HAND
    )
    wave = max(_WAVE, _WAVE_A_CPU * size)
    for start in range(0, job.round.shards, wave):
        count = min(wave, job.round.shards - start)
        descriptors: Any = numbers(count)
        if gpus:
            # Ray runs stages of different needs apart, and a task that reads would wait for one of the pool's CPUs.
            descriptors = ray.data.from_arrow([pa.table({"id": [number]}) for number in range(count)])
        made = descriptors.map_batches(
            _Maker,
            batch_size=1 if gpus else None,  # Ray asks for a number where there are GPUs; a block has one row
            batch_format="pyarrow",
            fn_constructor_kwargs={"job": shared, "start": start},
            compute=pool,
            num_cpus=1,
            num_gpus=gpus or None,
        )
        records = []
        for answer in answers(made):
            record = Record.from_json(answer["record"])
            records.append(record)
            state.shards += 1
            state.rows += record.rows
            state.rows_made += record.rows if record.seconds else 0
            state.rejects += sum(record.rejects.values())
            progress(state)
            if state.shards_planned - state.shards <= _LAST_SHARDS * size:
                describer.start()
        yield sorted(records, key=lambda record: record.shard)


class _Maker:
    """A worker: it makes the shards whose numbers come to it, and commits them."""

    def __init__(self, job: Any, start: int) -> None:
        self._job: Job = ray.get(job)
        self._start = start

    def __call__(self, batch: Any) -> Any:
        return answered(batch, self._made, _ANSWER)

    def _made(self, number: int) -> dict[str, str]:
        return {"record": make_and_commit(self._job, self._start + number).to_json()}


_ANSWER = pa.schema([("record", pa.string()), ("error", pa.string())])


def _write_sources(corpus: str, data: bytes, conditional: bool) -> None:
    uri = storage.join(corpus, sources.NAME)
    if not storage.put_new(uri, data, conditional=conditional) and storage.read(uri) != data:
        raise CorpusError(f"{uri}: damaged; remove the corpus and make it again")
