"""What the manifest adds up to, read in pieces so that its size does not matter."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.corpus import manifest
from medsynth.corpus.reader import Corpus
from medsynth.errors import CorpusError

_RECORDS_AT_ONCE = 1024
_REJECTING_SHARDS = 4


@dataclass(frozen=True)
class Tally:
    """The rows of one subgroup, or of one value of an axis."""

    values: tuple[str, ...]
    """One value on every axis, or the one value."""
    asked: int
    """Rows the spec asks for."""
    planned: int
    """Rows planned, before any reject."""
    delivered: int
    """Rows the data files hold."""
    rejected: int
    """Rows given up with a reason; what replaced them is among the delivered."""

    @property
    def short(self) -> int:
        """Rows asked for and not delivered."""
        return max(0, self.asked - self.delivered)


@dataclass(frozen=True)
class Totals:
    """The sums over all shards."""

    subgroups: tuple[Tally, ...]
    """In the order of the quotas."""
    reasons: dict[str, int]
    """Rejected rows by reason, the most frequent first."""
    rejecting: tuple[str, ...]
    """The first few shards that have rejects, by name."""
    rows: int
    """Rows of all data files."""
    bytes: int
    """Bytes of all data files."""
    seconds: dict[str, float]
    """Worker seconds by stage, of the shards that the last run made; they differ from run to run."""
    rows_timed: int
    """Rows of the shards that the last run made."""

    @property
    def whole(self) -> Tally:
        """All subgroups together."""
        return _sum(("all",), self.subgroups)

    def by_axis(self, place: int) -> list[Tally]:
        """The rows of each value of one axis, in the order of the quotas.

        Args:
            place: the axis's place among the axes.
        """
        parts: dict[str, list[Tally]] = {}
        for subgroup in self.subgroups:
            parts.setdefault(subgroup.values[place], []).append(subgroup)
        return [_sum((value,), members) for value, members in parts.items()]


def add_up(corpus: Corpus) -> Totals:
    """Add up a corpus's manifest.

    Raises:
        CorpusError: the manifest names a subgroup that ``corpus.json`` does not.
        StorageError: it cannot be read.
    """
    axes = list(corpus.axes)
    delivered: Counter[tuple[str, ...]] = Counter()
    rejected: Counter[tuple[str, ...]] = Counter()
    seconds = dict.fromkeys(manifest.STAGES, 0.0)
    rejecting: list[str] = []
    size = timed = 0
    place = storage.join(corpus.uri, manifest.NAME)
    with storage.open_input(place) as file:
        wanted = ["shard", "rows", "bytes", "counts", "rejects", "seconds"]
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_RECORDS_AT_ONCE, columns=wanted):
            size += pc.sum(batch["bytes"]).as_py()
            delivered.update(_grouped(batch["counts"].flatten(), len(axes), None))
            rejected.update(_grouped(batch["rejects"].flatten(), len(axes), "reason"))
            if len(rejecting) < _REJECTING_SHARDS:
                found = batch.filter(pc.greater(pc.list_value_length(batch["rejects"]), 0))["shard"]
                rejecting += found.to_pylist()[: _REJECTING_SHARDS - len(rejecting)]
            spent = [pc.fill_null(batch["seconds"].field(stage), 0.0) for stage in manifest.STAGES]
            for stage, column in zip(manifest.STAGES, spent, strict=True):
                seconds[stage] += pc.sum(column).as_py()
            # A shard that was there already when the run was resumed has no times.
            timed += pc.sum(pc.if_else(pc.greater(pc.max_element_wise(*spent), 0.0), batch["rows"], 0)).as_py()
    by_reason: Counter[str] = Counter()
    by_subgroup: Counter[tuple[str, ...]] = Counter()
    for key, rows in rejected.items():
        by_reason[key[-1]] += rows
        by_subgroup[key[:-1]] += rows
    subgroups = []
    for quota in corpus.header["quotas"]:
        values = tuple(str(quota["subgroup"][axis]) for axis in axes)
        rows = delivered.pop(values, 0)
        subgroups.append(Tally(values, quota["asked"], quota["planned"], rows, by_subgroup[values]))
    if delivered:
        stray = " / ".join(next(iter(delivered)))
        raise CorpusError(f"{place}: counts the subgroup {stray}, which corpus.json does not have; run jobs/verify.py")
    return Totals(tuple(subgroups), dict(by_reason.most_common()), tuple(rejecting), len(corpus), size, seconds, timed)


def _grouped(records: pa.StructArray, axes: int, extra: str | None) -> dict[tuple[str, ...], int]:
    if not len(records):
        return {}
    values = records.field("subgroup").flatten()
    columns: dict[str, Any] = {
        str(axis): values.take(pa.array(np.arange(axis, len(values), axes))) for axis in range(axes)
    }
    if extra is not None:
        columns[extra] = records.field(extra)
    keys = list(columns)
    sums = pa.table({**columns, "rows": records.field("rows")}).group_by(keys).aggregate([("rows", "sum")])
    names = zip(*(sums[key].to_pylist() for key in keys), strict=True)
    return dict(zip(names, sums["rows_sum"].to_pylist(), strict=True))


def _sum(values: tuple[str, ...], parts: Iterable[Tally]) -> Tally:
    members = list(parts)
    return Tally(
        values,
        sum(part.asked for part in members),
        sum(part.planned for part in members),
        sum(part.delivered for part in members),
        sum(part.rejected for part in members),
    )
