"""Check that a corpus is what it says: every digest, every count, and rows made again."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medsynth import storage
from medsynth.corpus import manifest, shard, sources
from medsynth.corpus.shard import Record
from medsynth.errors import CorpusError, NotFoundError, Rejected, UserError
from medsynth.plan import Subgroup
from medsynth.recipes import rebuild
from medsynth.recipes.base import Recipe
from medsynth.seeds import digest64

_READERS = 8


@dataclass
class Findings:
    """What a verification found."""

    shards: int = 0
    rows: int = 0
    remade: int = 0
    problems: list[str] = field(default_factory=list)
    """One line each, naming the file or row; empty for a sound corpus."""
    counts: Counter[Subgroup] = field(default_factory=Counter)
    """Rows by subgroup, as recounted."""
    undelivered: int = 0
    """Planned rows that are not there and have a reject that says why."""


def verify(corpus: str, rows: int, *, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> Findings:
    """Re-read every digest, recount every subgroup, and make rows again from their own metadata.

    Args:
        corpus: URI of a complete corpus.
        rows: how many rows to make again, drawn evenly at random from the whole corpus.
        seed: which ones.
        progress: called with (shards done, shards in all).

    Raises:
        CorpusError: there is no complete corpus there.
        UserError: its recipe's weights are gone, or this machine cannot make the same bytes.
    """
    header = manifest.read_header(corpus)
    records = manifest.read_manifest(corpus)
    if records is None:
        raise CorpusError(f"{corpus}: not complete (no {manifest.NAME}); run the job that makes it again")
    # Where no row is made again, a machine that could not make the same bytes will do.
    recipe = rebuild(header["recipe"], header["recipe_settings"]) if rows else None
    axes = list(header["axes"])
    findings = Findings()
    _check_header(corpus, header, findings)
    _check_files(corpus, records, findings)
    seen = np.zeros(header["rows"], dtype=bool)
    picks = _picks(records, rows, seed)
    with ThreadPoolExecutor(_READERS) as pool:
        for done, (record, data) in enumerate(_read_all(pool, corpus, records), start=1):
            _check_shard(corpus, record, data, axes, seen, findings)
            if data is not None and recipe is not None and record.shard in picks:
                _check_rows(corpus, record, data, picks[record.shard], recipe, findings)
            if progress:
                progress(done, len(records))
    _check_plan(header, axes, records, findings)
    return findings


def _picks(records: list[Record], rows: int, seed: int) -> dict[str, list[int]]:
    total = sum(record.rows for record in records)
    draw = np.random.Generator(np.random.Philox(digest64("verify", seed)))
    chosen = np.sort(draw.choice(total, size=min(rows, total), replace=False))
    picks: dict[str, list[int]] = {}
    ends = np.cumsum([record.rows for record in records])
    for row in chosen.tolist():
        place = int(np.searchsorted(ends, row, side="right"))
        picks.setdefault(records[place].shard, []).append(row - int(ends[place]) + records[place].rows)
    return picks


def _read_all(pool: ThreadPoolExecutor, corpus: str, records: list[Record]) -> Iterator[tuple[Record, bytes | None]]:
    # A window, not pool.map: that would read the whole corpus ahead of its consumer.
    for start in range(0, len(records), _READERS):
        window = records[start : start + _READERS]
        futures = [pool.submit(_read, storage.join(corpus, record.path)) for record in window]
        yield from ((record, future.result()) for record, future in zip(window, futures, strict=True))


def _read(uri: str) -> bytes | None:
    try:
        return storage.read(uri)
    except NotFoundError:
        return None


def _check_header(corpus: str, header: dict[str, Any], findings: Findings) -> None:
    uri = storage.join(corpus, manifest.HEADER)
    if manifest.fingerprint_of(header) != header["fingerprint"]:
        findings.problems.append(f"{uri}: its fingerprint is not that of its content; make the corpus again elsewhere")
    told = header["fingerprint_parts"]["sources"]
    place = storage.join(corpus, sources.NAME)
    data = _read(place) if told is not None else None
    if told is not None and (data is None or hashlib.sha256(data).hexdigest() != told):
        findings.problems.append(f"{place}: not the sources that corpus.json names; remove it and run the job again")


def _check_files(corpus: str, records: list[Record], findings: Findings) -> None:
    """What a reader that takes all files of a folder would find there besides."""
    for folder, known in (
        (shard.DATA, {record.path for record in records}),
        (shard.REJECTS, {shard.reject_path(record.shard) for record in records if record.rejects}),
    ):
        place = storage.join(corpus, folder)
        try:
            there = {info.uri.removeprefix(corpus.rstrip("/") + "/") for info in storage.list_files(place)}
        except NotFoundError:
            there = set()
        for path in sorted(there - known):
            findings.problems.append(f"{storage.join(corpus, path)}: not in the manifest; remove it")
        if folder == shard.REJECTS:
            for path in sorted(known - there):
                findings.problems.append(f"{storage.join(corpus, path)}: missing, with the reasons of its shard's gaps")


def _check_shard(
    corpus: str, record: Record, data: bytes | None, axes: list[str], seen: NDArray[np.bool_], findings: Findings
) -> None:
    uri = storage.join(corpus, record.path)
    if data is None:
        findings.problems.append(f"{uri}: missing; run the job that made the corpus again")
        return
    findings.shards += 1
    if hashlib.sha256(data).hexdigest() != record.sha256:
        findings.problems.append(f"{uri}: its bytes are not those in the manifest; remove it and run the job again")
    try:
        table = pq.read_table(io.BytesIO(data), columns=["index", "synthetic", *axes])
    except (pa.ArrowException, OSError) as error:
        findings.problems.append(f"{uri}: not readable ({str(error).splitlines()[0]}); remove it and run the job again")
        return
    findings.rows += table.num_rows
    columns = [[str(value) for value in table[axis].to_pylist()] for axis in axes]
    counts = Counter(zip(*columns, strict=True))
    findings.counts.update(counts)
    if dict(counts) != record.counts:
        findings.problems.append(f"{uri}: its rows by subgroup are not those in the manifest")
    if not all(table["synthetic"].to_pylist()):
        findings.problems.append(f"{uri}: holds rows that do not say that they are synthetic")
    index = table["index"].to_numpy()
    inside = index[(index >= 0) & (index < len(seen))]
    if len(inside) < len(index) or len(np.unique(inside)) < len(inside) or seen[inside].any():
        findings.problems.append(f"{uri}: holds rows of numbers that stand twice or are not in the plan")
    seen[inside] = True


def _check_rows(
    corpus: str, record: Record, data: bytes, numbers: list[int], recipe: Recipe, findings: Findings
) -> None:
    uri = storage.join(corpus, record.path)
    try:
        rows = pq.read_table(io.BytesIO(data)).take(pa.array(numbers)).to_pylist()
    except (pa.ArrowException, OSError):
        return  # said already, of the whole file
    for number, row in zip(numbers, rows, strict=True):
        findings.remade += 1
        try:
            same = recipe.remake(row) == row["image"]["bytes"]
        except Rejected as why:
            findings.problems.append(f"{uri} row {number} ({row['sample_id']}): cannot be made again, {why}")
        except UserError:
            raise  # of all rows alike
        except Exception as error:
            findings.problems.append(
                f"{uri} row {number} ({row['sample_id']}): its parameters make no image, {error!r}"
            )
        else:
            if not same:
                findings.problems.append(f"{uri} row {number} ({row['sample_id']}): made again, its bytes differ")


def _check_plan(header: dict[str, Any], axes: list[str], records: list[Record], findings: Findings) -> None:
    rejected: Counter[Subgroup] = Counter()
    for record in records:
        for (subgroup, _), count in record.rejects.items():
            rejected[subgroup] += count
    for quota in header["quotas"]:
        subgroup = tuple(quota["subgroup"][axis] for axis in axes)
        delivered = findings.counts[subgroup]
        # Each planned sample is delivered, or has a reject; a reject that was replaced is delivered too.
        if delivered > quota["planned"] or quota["planned"] > delivered + rejected[subgroup]:
            findings.problems.append(
                f"{', '.join(f'{k}={v}' for k, v in quota['subgroup'].items())}: {quota['planned']} planned, "
                f"{delivered} delivered, {rejected[subgroup]} rejected"
            )
        else:
            findings.undelivered += quota["planned"] - delivered
