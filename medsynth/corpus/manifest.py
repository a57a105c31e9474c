"""The two files that make shards a corpus: ``corpus.json`` first, ``manifest.parquet`` last.

A corpus is complete when its manifest exists. Of all files only the manifest and the report hold
something that differs from run to run: the seconds.
"""

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.corpus.shard import DATA, Record
from medsynth.errors import CorpusConflictError, CorpusError, NotFoundError
from medsynth.plan import fingerprint

FORMAT = "medsynth-corpus-1"
HEADER = "corpus.json"
NAME = "manifest.parquet"
REPORT = "report.html"
"""The corpus's report; named here so that asking whether it exists does not load what draws it."""

KEYS = (
    *("name", "recipe", "spec", "recipe_settings", "fingerprint", "fingerprint_parts"),
    *("versions", "axes", "rows", "shards", "quotas", "sources", "notes"),
)
"""What every ``corpus.json`` of this format says."""
STAGES = ("read", "render", "commit")
SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("path", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("counts", pa.list_(pa.struct([("subgroup", pa.list_(pa.string())), ("rows", pa.int64())]))),
        pa.field(
            "rejects",
            pa.list_(pa.struct([("subgroup", pa.list_(pa.string())), ("reason", pa.string()), ("rows", pa.int64())])),
        ),
        pa.field("seconds", pa.struct([(stage, pa.float64()) for stage in STAGES])),
    ]
)


def fingerprint_of(header: Mapping[str, Any]) -> str:
    """The digest of all that decides a corpus's bytes, from what ``corpus.json`` says.

    Args:
        header: its content; what does not decide bytes may be missing.
    """
    return fingerprint(
        {"spec": header["spec"], "recipe": header["recipe_settings"], "parts": header["fingerprint_parts"]}
    )


def write_header(corpus: str, header: Mapping[str, Any], *, conditional: bool) -> None:
    """Claim a place for a corpus, or find that it is this corpus's already.

    Raises:
        CorpusConflictError: another corpus, or the same with other versions, is there; the message
            names what differs.
    """
    # In the order given: the order of the axes is the order in which counts name a subgroup.
    text = json.dumps(header, indent=1, ensure_ascii=False) + "\n"
    if storage.put_new(storage.join(corpus, HEADER), text.encode(), conditional=conditional):
        return
    refuse_differences(corpus, read_header(corpus), json.loads(text))


def refuse_differences(corpus: str, there: Any, here: Any, path: str = "") -> None:
    """Refuse a place whose corpus is not the one to be made.

    Raises:
        CorpusConflictError: names what differs.
    """
    differing = list(_differences(there, here, path))
    if differing:
        shown = "; ".join(differing[:4]) + (f"; and {len(differing) - 4} more" if len(differing) > 4 else "")
        raise CorpusConflictError(f"{corpus}: holds another corpus ({shown}); choose another --out, or remove it")


def read_header(corpus: str) -> dict[str, Any]:
    """The corpus's ``corpus.json``.

    Raises:
        CorpusError: there is none, or it is not one of medsynth's.
    """
    uri = storage.join(corpus, HEADER)
    try:
        header = json.loads(storage.read(uri))
    except NotFoundError as error:
        raise CorpusError(f"{corpus}: no {HEADER}, so no corpus of medsynth; check the address") from error
    except ValueError as error:
        raise CorpusError(f"{uri}: damaged; remove the corpus and make it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CorpusError(f"{uri}: not of the format {FORMAT}; read it with the version that made it")
    lacking = [key for key in KEYS if key not in header]
    if lacking:
        raise CorpusError(f"{uri}: damaged, it has no {lacking[0]!r}; remove the corpus and make it again")
    return header


class Writer:
    """Collects records as compressed Parquet, so that 100,000 of them stay a few megabytes."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._parquet = pq.ParquetWriter(self._sink, SCHEMA, compression="zstd")

    def write(self, records: Iterable[Record]) -> None:
        """Add records, in the order in which the manifest is to have them."""
        rows = [
            {
                "shard": record.shard,
                "path": record.path,
                "rows": record.rows,
                "bytes": record.bytes,
                "sha256": record.sha256,
                "counts": [{"subgroup": subgroup, "rows": rows} for subgroup, rows in record.counts.items()],
                "rejects": [
                    {"subgroup": subgroup, "reason": reason, "rows": rows}
                    for (subgroup, reason), rows in record.rejects.items()
                ],
                "seconds": {stage: record.seconds.get(stage, 0.0) for stage in STAGES},
            }
            for record in records
        ]
        self._parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))

    def finish(self) -> bytes:
        """The manifest's bytes; nothing can be added afterwards."""
        self._parquet.close()
        return self._sink.getvalue()


def write_manifest(corpus: str, data: bytes) -> None:
    """Declare a corpus complete."""
    storage.put(storage.join(corpus, NAME), data)


def read_manifest(corpus: str) -> list[Record] | None:
    """The records of a complete corpus; None where it is not complete."""
    try:
        data = storage.read(storage.join(corpus, NAME))
    except NotFoundError:
        return None
    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
    except pa.ArrowException as error:
        raise CorpusError(f"{storage.join(corpus, NAME)}: damaged; remove it and run the job again") from error
    return [
        Record(
            shard=row["shard"],
            rows=row["rows"],
            bytes=row["bytes"],
            sha256=row["sha256"],
            counts={tuple(item["subgroup"]): item["rows"] for item in row["counts"]},
            rejects={(tuple(item["subgroup"]), item["reason"]): item["rows"] for item in row["rejects"]},
            seconds=row["seconds"],
        )
        for row in rows
    ]


def missing(corpus: str, records: Iterable[Record]) -> list[str]:
    """The shards of a complete corpus whose files are gone or of another size, by one listing.

    Args:
        corpus: the corpus's URI.
        records: the manifest's.
    """
    try:
        there = {info.uri: info.size for info in storage.list_files(storage.join(corpus, DATA))}
    except NotFoundError:
        there = {}
    return [record.path for record in records if there.get(storage.join(corpus, record.path)) != record.bytes]


def _differences(there: Any, here: Any, path: str = "") -> Iterable[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        # The digests differ whenever something else does, which says more: they come last.
        for key in sorted({*there, *here}, key=lambda key: (key == "fingerprint", key == "fingerprint_parts", key)):
            if (path, key) == ("fingerprint_parts", "sources") and there.get(key) != here.get(key):
                yield "its source tiles are others, since images were added, removed or changed"
                continue
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif there != here:
        yield f"{path}: {_short(there)} there, {_short(here)} now"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
