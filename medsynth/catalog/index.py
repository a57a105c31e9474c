"""From a folder or bucket of images to the rows of a catalog, without Ray.

:func:`plan_index` lists the source and decides what an earlier catalog already knows, units.py measures
the rest on workers, and :func:`assemble` joins all of it with the metadata of today.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from medsynth import storage
from medsynth.catalog import metadata, parquet, table
from medsynth.catalog.metadata import Facts
from medsynth.catalog.sharpness import DEFAULT_THRESHOLD, sharpness
from medsynth.catalog.units import Measured, Score, Unit, lacking, measured_schema, reject
from medsynth.errors import CatalogError, NotFoundError, Reason, Rejected
from medsynth.spec import Index

_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"})
_PARQUET = ".parquet"
_VERSION = 1
"""Of the measuring: raised when decoding, cutting or the sharpness figure change."""
_TRANSIENT = (str(Reason.MISSING), str(Reason.NO_METADATA))
"""Reasons for which a whole file was not read, and may be next time."""


@dataclass(frozen=True)
class Previous:
    """An earlier catalog, or a finished part of one."""

    measured: Measured
    about: Mapping[str, Any]


@dataclass(frozen=True)
class IndexPlan:
    """What an index run has to do."""

    source: str
    settings: Index
    measure: dict[str, Any]
    """All that decides what is measured; rows measured under another one are not kept."""
    units: list[Unit]
    """To be read, sorted by URI; the row groups of one file stand together."""
    kept: Measured
    """Known from before, and unchanged."""
    rejects: list[dict[str, Any]]
    """Refused without being read: files without metadata, Parquet files that cannot be opened."""
    facts: dict[str, Facts] | None
    """What the metadata table says of each file; None without one."""
    files: int
    """Files of the source that hold images."""
    ignored: int
    """Other files of the source."""
    unmatched: list[str] = field(default_factory=list)
    """Keys of the metadata table that no file has."""

    @property
    def columns(self) -> list[str]:
        """Subgroup columns that the units carry themselves."""
        found: list[str] = self.measure["columns"]
        return found

    @property
    def about(self) -> dict[str, Any]:
        """The catalog's description of itself."""
        return {"source": self.source, "settings": self.settings.model_dump(mode="json"), "measure": self.measure}


def plan_index(
    source: str, settings: Index, previous: Sequence[Previous] = (), *, score: Score = sharpness, out: str | None = None
) -> IndexPlan:
    """List a source and find out what there is to do.

    Args:
        source: a folder, bucket or single file of images, or of Parquet files with an image column.
        settings: how to index.
        previous: what earlier runs know.
        score: the sharpness figure.
        out: a place whose files are never sources, where it lies inside the source.

    Raises:
        CatalogError: no images, a metadata table that does not fit, or settings that go against each other.
    """
    source = source.rstrip("/")
    files, ignored = _list(source, out)
    in_parquet = _suffix(files[0].uri) == _PARQUET
    _check_settings(settings, in_parquet)
    measure = {
        "version": _VERSION,
        "score": f"{score.__module__}.{score.__qualname__}",
        "tile_size": settings.tile_size,
        "stride": settings.stride or settings.tile_size,
        "margin": settings.margin,
        "columns": list(settings.subgroups) if in_parquet else [],
    }
    wanted = {info.uri: info for info in files}
    rejects: list[dict[str, Any]] = []
    facts: dict[str, Facts] | None = None
    unmatched: list[str] = []
    if settings.metadata is not None and settings.key is not None:
        place = storage.absolute(settings.metadata)
        known = metadata.load(place, settings.key, settings.subgroups)
        facts, unmatched = metadata.match(wanted, source, known, place)
        for info in files:
            if info.uri in facts:
                why = lacking(facts[info.uri], settings.subgroups)
            else:
                why = "no row of the metadata table has its path, name or stem"
            if why is not None:
                rejects.append(reject(info.uri, info.etag, None, Rejected(Reason.NO_METADATA, why)))
                del wanted[info.uri]
    kept, done = _keep(previous, {uri: info.etag for uri, info in wanted.items()}, measure)
    todo = [info for uri, info in wanted.items() if uri not in done]
    units = [Unit(info.uri, info.etag, info.size) for info in todo]
    if in_parquet:
        units, broken = _row_groups(todo, settings)
        rejects += broken
    return IndexPlan(source, settings, measure, units, kept, rejects, facts, len(files), ignored, unmatched)


def assemble(plan: IndexPlan, measured: Iterable[Measured], threshold: float = DEFAULT_THRESHOLD) -> Measured:
    """Make the catalog of what is kept and what was measured, joined with the metadata of today.

    Args:
        plan: the run's plan.
        measured: what its units gave.
        threshold: sharpness from which a tile is in focus, where the settings do not say.

    Returns:
        The catalog's table, with the columns of :func:`medsynth.catalog.table.schema`, and its rejects.
    """
    parts = [plan.kept, *measured]
    found = pa.concat_tables([part.tiles for part in parts])
    settings = plan.settings
    least = threshold if settings.min_sharpness is None else settings.min_sharpness
    columns: dict[str, list[Any]] = {"in_focus": [value >= least for value in found["sharpness"].to_pylist()]}
    mpps = found["own_mpp"].to_pylist()
    if plan.facts is not None:
        facts = [plan.facts[uri] for uri in found["uri"].to_pylist()]
        mpps = [own if fact.mpp is None else fact.mpp for fact, own in zip(facts, mpps, strict=True)]
        columns |= {name: [fact.subgroups[at] for fact in facts] for at, name in enumerate(settings.subgroups)}
    columns["mpp"] = mpps if settings.mpp is None else [settings.mpp] * found.num_rows
    wanted = table.schema(settings.subgroups)
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else found[f.name] for f in wanted]
    refused = [pa.Table.from_pylist(plan.rejects, schema=table.REJECT_COLUMNS), *(part.rejects for part in parts)]
    return Measured(pa.table(arrays, schema=wanted), pa.concat_tables(refused))


def _list(source: str, out: str | None) -> tuple[list[storage.FileInfo], int]:
    """The files that hold images, and how many others there are."""
    try:
        listed = [info for info in storage.list_files(source) if out is None or not info.uri.startswith(out + "/")]
    except NotFoundError as error:
        raise CatalogError(f"{source}: no files there; check the address") from error
    # Parquet files beside images are tables about them.
    for kinds in (_IMAGES, {_PARQUET}):
        files = [info for info in listed if _suffix(info.uri) in kinds]
        if files:
            return files, len(listed) - len(files)
    raise CatalogError(f"{source}: no images and no Parquet files among its {len(listed)} files; check the address")


def _check_settings(settings: Index, in_parquet: bool) -> None:
    table.schema(settings.subgroups)
    if in_parquet and settings.metadata is not None:
        raise CatalogError("metadata: Parquet files carry their own columns; name them in subgroups alone")
    if settings.metadata is not None and settings.key is None:
        raise CatalogError("key: name the metadata table's column that holds the files' paths, names or stems")
    if settings.metadata is None and settings.key is not None:
        raise CatalogError("key: there is no metadata table to look it up in; name one in metadata")
    if settings.subgroups and not in_parquet and settings.metadata is None:
        raise CatalogError(f"subgroups: {settings.subgroups[0]!r} needs a metadata table; name one in metadata")


def _keep(
    previous: Sequence[Previous], wanted: Mapping[str, str], measure: dict[str, Any]
) -> tuple[Measured, set[str]]:
    """What earlier runs know of unchanged files, each file from one run only, and those files."""
    schema = measured_schema(measure["columns"])
    done: set[str] = set()
    tiles, rejects = [schema.empty_table()], [table.REJECT_COLUMNS.empty_table()]
    for earlier in previous:
        if earlier.about.get("measure") != measure:
            continue
        parts = (earlier.measured.tiles, earlier.measured.rejects)
        unread = {row["uri"] for row in parts[1].to_pylist() if row["row"] is None and row["reason"] in _TRANSIENT}
        known = {
            uri
            for part in parts
            for uri, etag in zip(part["uri"].to_pylist(), part["etag"].to_pylist(), strict=True)
            if wanted.get(uri) == etag and uri not in unread and uri not in done
        }
        tiles.append(_of(parts[0].select(schema.names), known).cast(schema))
        rejects.append(_of(parts[1], known).cast(table.REJECT_COLUMNS))
        done |= known
    return Measured(pa.concat_tables(tiles), pa.concat_tables(rejects)), done


def _of(part: pa.Table, uris: set[str]) -> pa.Table:
    return part.filter(pa.array([uri in uris for uri in part["uri"].to_pylist()], pa.bool_()))


def _row_groups(files: Sequence[storage.FileInfo], settings: Index) -> tuple[list[Unit], list[dict[str, Any]]]:
    units: list[Unit] = []
    rejects: list[dict[str, Any]] = []
    with ThreadPoolExecutor(16) as pool:
        for info, footer in zip(files, pool.map(lambda info: parquet.footer(info.uri), files), strict=True):
            if isinstance(footer, Rejected):
                rejects.append(reject(info.uri, info.etag, None, footer))
                continue
            schema, first = footer.schema.to_arrow_schema(), 0
            if any(key.startswith(b"medsynth") for key in schema.metadata or {}):
                raise CatalogError(f"{info.uri}: part of a corpus or catalog of medsynth; name a source of real images")
            metadata.require_columns(info.uri, schema.names, settings.subgroups)
            column = parquet.image_column(schema, info.uri)
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                units.append(Unit(info.uri, info.etag, group.total_byte_size, number, first, column))
                first += group.num_rows
    return units, rejects


def _suffix(uri: str) -> str:
    return PurePosixPath(uri).suffix.lower()
