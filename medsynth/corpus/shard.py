"""A shard: one Parquet file, committed whole or not at all, with its own record inside.

What is retry-safe and why: a shard's bytes are a function of its place in the plan, so any worker
may make it again at any time. Its rejects are written first and the shard last, by
:func:`medsynth.storage.put_new`; whoever comes second finds the same bytes there and reports them.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.corpus.schema import INTEGER_AXES, reject_schema
from medsynth.errors import CorpusConflictError, CorpusError, NotFoundError
from medsynth.plan import Subgroup

DATA, REJECTS = "data", "rejects"
_RECORD = b"medsynth"
_ROW_GROUP = 256


@dataclass(frozen=True)
class Reject:
    """One sample that could not be made."""

    index: int
    """Its number in the plan."""
    tile: int
    """Place of its source; -1 without one."""
    subgroup: Subgroup
    source_uri: str | None
    source_row: int | None
    reason: str
    detail: str


@dataclass(frozen=True)
class Record:
    """What is known of one committed shard; small, and all that travels back to the driver."""

    shard: str
    """Its name without folder and ending."""
    rows: int
    bytes: int
    sha256: str
    """Of the whole file."""
    counts: dict[Subgroup, int]
    """Rows by subgroup."""
    rejects: dict[tuple[Subgroup, str], int]
    """Refusals by subgroup and reason; a sample that was refused and then made all the same counts here too."""
    lost: list[tuple[int, int]] = field(default_factory=list)
    """Undelivered samples as half-open ranges of their numbers."""
    bad_tiles: list[int] = field(default_factory=list)
    """Places of the sources that a sample was refused for."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by stage; empty for a shard that was there already."""

    @property
    def path(self) -> str:
        """Where the file is, counted from the corpus."""
        return data_path(self.shard)

    def to_json(self) -> str:
        """The record as text, for the way back to the driver."""
        return json.dumps(
            {
                **_inner(self),
                "rows": self.rows,
                "bytes": self.bytes,
                "sha256": self.sha256,
                "seconds": self.seconds,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record back from text."""
        return cls(**_from_inner(json.loads(text)))


def shard_name(stem: str, number: int, total: int) -> str:
    """The name of a shard: ``train-00000-of-00042``."""
    return f"{stem}-{number:05d}-of-{total:05d}"


def data_path(shard: str) -> str:
    """Where a shard's rows are, counted from the corpus."""
    return f"{DATA}/{shard}.parquet"


def reject_path(shard: str) -> str:
    """Where a shard's rejects are, counted from the corpus."""
    return f"{REJECTS}/{shard}.parquet"


def commit(
    corpus: str,
    shard: str,
    table: pa.Table,
    axes: Sequence[str],
    rejects: Sequence[Reject],
    *,
    fingerprint: str,
    conditional: bool,
) -> Record:
    """Write a shard and its rejects, or find that they are there already.

    Args:
        corpus: the corpus's URI.
        shard: its name.
        table: its rows, in the corpus's schema.
        axes: the spec's axes.
        rejects: what could not be made.
        fingerprint: the corpus's.
        conditional: whether the server honours conditional writes.

    Raises:
        CorpusError: the file that is there already has other bytes than this machine makes.
        StorageError: it cannot be written.
    """
    counts = Counter(_subgroups(table, axes))
    record = Record(
        shard=shard,
        rows=table.num_rows,
        bytes=0,
        sha256="",
        counts=dict(sorted(counts.items())),
        rejects=dict(sorted(Counter((reject.subgroup, reject.reason) for reject in rejects).items())),
        lost=_ranges(sorted({reject.index for reject in rejects}.difference(table["index"].to_pylist()))),
        bad_tiles=sorted({reject.tile for reject in rejects if reject.tile >= 0}),
    )
    if rejects:
        storage.put(storage.join(corpus, reject_path(shard)), _reject_bytes(rejects, axes))
    inner = {**_inner(record), "fingerprint": fingerprint, "digest": _digest(table)}
    data = _parquet(table, {_RECORD: json.dumps(inner, separators=(",", ":"))})
    if not storage.put_new(storage.join(corpus, data_path(shard)), data, conditional=conditional):
        there = existing(corpus, shard, fingerprint=fingerprint)
        if there is not None and there.sha256 != hashlib.sha256(data).hexdigest():
            raise CorpusError(
                f"{storage.join(corpus, data_path(shard))}: holds other bytes than this machine makes; "
                "were both made with the versions in constraints.txt? Write to an empty place"
            )
    return Record(**{**vars(record), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


def existing(corpus: str, shard: str, *, fingerprint: str) -> Record | None:
    """The record of a committed shard, from its own bytes; None where there is none.

    Raises:
        CorpusConflictError: it belongs to another corpus.
        CorpusError: it is damaged.
    """
    uri = storage.join(corpus, data_path(shard))
    try:
        data = storage.read(uri)
    except NotFoundError:
        return None
    try:
        table = pq.read_table(io.BytesIO(data))
        text = table.schema.metadata[_RECORD].decode()
        inner = json.loads(text)
        # Written again it must come out the same: so no flipped bit, wherever it is, gets into a manifest.
        whole = _parquet(table, {_RECORD: text}) == data
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise CorpusError(f"{uri}: damaged, or not a shard of medsynth; remove it and run again") from error
    if not whole:
        raise CorpusError(
            f"{uri}: damaged, or written by other versions than those in constraints.txt; remove it and run again"
        )
    if inner.pop("fingerprint") != fingerprint:
        raise CorpusConflictError(f"{uri}: belongs to another corpus; write to an empty place")
    inner.pop("digest")
    rows = sum(count for _, count in inner["counts"])
    return Record(
        **_from_inner({**inner, "rows": rows, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    )


def _subgroups(table: pa.Table, axes: Sequence[str]) -> list[Subgroup]:
    columns = [table[axis].to_pylist() for axis in axes]
    return [tuple(str(value) for value in values) for values in zip(*columns, strict=True)]


def _inner(record: Record) -> dict[str, Any]:
    return {
        "shard": record.shard,
        "counts": [[list(subgroup), count] for subgroup, count in record.counts.items()],
        "rejects": [[list(subgroup), reason, count] for (subgroup, reason), count in record.rejects.items()],
        "lost": record.lost,
        "bad_tiles": record.bad_tiles,
    }


def _from_inner(inner: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **inner,
        "counts": {tuple(subgroup): count for subgroup, count in inner["counts"]},
        "rejects": {(tuple(subgroup), reason): count for subgroup, reason, count in inner["rejects"]},
        "lost": [(first, last) for first, last in inner["lost"]],
    }


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return ranges


def _reject_bytes(rejects: Sequence[Reject], axes: Sequence[str]) -> bytes:
    rows = [
        {
            "index": reject.index,
            **{
                axis: int(value) if axis in INTEGER_AXES else value
                for axis, value in zip(axes, reject.subgroup, strict=True)
            },
            "source_uri": reject.source_uri,
            "source_row": reject.source_row,
            "reason": reject.reason,
            "detail": reject.detail,
        }
        for reject in sorted(rejects, key=lambda reject: reject.index)
    ]
    return _parquet(pa.Table.from_pylist(rows, schema=reject_schema(axes)), {})


def _digest(table: pa.Table) -> str:
    # Of the content alone, so that a copy rewritten by other tools can still be recognised.
    digest = hashlib.sha256()
    for name, image in zip(table["sample_id"].to_pylist(), table["image"].to_pylist(), strict=True):
        digest.update(name.encode())
        digest.update(image["bytes"])
    return digest.hexdigest()


def _parquet(table: pa.Table, metadata: Mapping[bytes, str]) -> bytes:
    merged = {**(table.schema.metadata or {}), **metadata}
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(merged).combine_chunks(),
        sink,
        row_group_size=_ROW_GROUP,
        compression={name: "zstd" for name in _leaves(table.schema) if name != "image.bytes"} | {"image.bytes": "none"}
        if "image" in table.column_names
        else "zstd",
        use_dictionary=[name for name in _leaves(table.schema) if not name.startswith("image.")],
    )
    return sink.getvalue()


def _leaves(schema: pa.Schema) -> list[str]:
    names: list[str] = []
    for item in schema:
        names.extend(
            [f"{item.name}.{inner.name}" for inner in item.type] if pa.types.is_struct(item.type) else [item.name]
        )
    return names
