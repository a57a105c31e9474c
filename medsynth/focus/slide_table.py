"""The table of a scored folder: one row a slide, whatever became of it."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.errors import NotFoundError, ScoringError
from medsynth.focus.heatmap import GRADES

NAME = "slides.parquet"
NOTE = "from a network trained on synthetically defocused tiles; for research, not for diagnosis"
_FIGURES = ("radius_um_mean", "radius_um_median", "radius_um_p95", "certainty")
_WORST = ("x", "y", "width", "height", "radius_um", "area_mm2")
_SHARES = {grade: f"share_{grade.replace(' ', '_')}" for grade in GRADES}
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("slide", "uri", "status", "reason", "detail")),
        *(pa.field(name, pa.int64()) for name in ("width", "height")),
        *(pa.field(name, pa.float64()) for name in ("mpp", "tissue_mm2", *_SHARES.values(), *_FIGURES)),
        *(pa.field(f"worst_{name}", pa.int64()) for name in _WORST[:4]),
        *(pa.field(f"worst_{name}", pa.float64()) for name in _WORST[4:]),
        pa.field("classes", pa.list_(pa.float64())),
        pa.field("expected_error", pa.float64()),
        pa.field("weights_sha256", pa.string()),
        pa.field("note", pa.string()),
    ]
)


def row(identity: Mapping[str, Any], focus: Mapping[str, Any], expected_error: float | None) -> dict[str, Any]:
    """A slide's row.

    Args:
        identity: slide, uri, status, reason, detail and weights_sha256.
        focus: its summary's figures; empty where it was not scored.
        expected_error: of the downstream classifier, where its table is known.
    """
    found = {**identity, "note": NOTE, "expected_error": expected_error}
    found |= {name: focus.get(name) for name in ("width", "height", "mpp", "tissue_mm2", "classes", *_FIGURES)}
    found |= {column: focus.get("shares", {}).get(grade) for grade, column in _SHARES.items()}
    return found | {f"worst_{name}": (focus.get("worst") or {}).get(name) for name in _WORST}


def write(out: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write the table; slides that are in it already and not among the rows stay.

    Args:
        out: URI of the scored folder.
        rows: of :func:`row`.

    Returns:
        The table's URI.

    Raises:
        ScoringError: what is there is no such table.
        StorageError: it cannot be written.
    """
    uri = storage.join(out, NAME)
    new = {one["uri"]: dict(one) for one in rows}
    old = {one["uri"]: one for one in _read(uri)}
    found = sorted((old | new).values(), key=lambda one: (str(one["slide"]), str(one["uri"])))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(found, schema=SCHEMA), sink, compression="zstd")
    data = sink.getvalue()
    if list(old.values()) != found or storage.head(uri) is None:
        storage.put(uri, data)
    return uri


def _read(uri: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(storage.read(uri))).to_pylist()
    except NotFoundError:
        return []
    except pa.ArrowException as error:
        raise ScoringError(f"{uri}: damaged; remove it and run again") from error
    if any(set(one) != set(SCHEMA.names) for one in rows):
        raise ScoringError(f"{uri}: another version's table; choose another --out")
    return rows
