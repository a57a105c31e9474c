"""From a spec and a catalog to a run that can start: sources, plan, fingerprint and header."""

import hashlib
import importlib.metadata
import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medsynth import __version__, images
from medsynth.catalog import metadata
from medsynth.corpus import manifest, sheet, sources
from medsynth.corpus.sources import Source
from medsynth.errors import CatalogError, SpecError
from medsynth.images.sheet import contact_sheet
from medsynth.plan import Integers, Plan, Subgroup, make_plan
from medsynth.recipes.base import Made, Recipe, make_shard
from medsynth.seeds import permute
from medsynth.spec import Spec

# The packages whose version can change a data file's bytes.
_PINNED = ("numpy", "numba", "llvmlite", "pyarrow", "simplejpeg", "pillow", "tifffile", "imagecodecs")

_PREVIEW_COLUMNS = 10
_PREVIEW_RUN = 256
_PREVIEW_LOOK = 16384


@dataclass(frozen=True)
class Prepared:
    """A run that can start."""

    recipe: Recipe
    plan: Plan
    fingerprint: str
    header: dict[str, Any]
    """What corpus.json will say."""
    table: pa.Table | None
    """The sources, in the plan's order."""
    sources: bytes | None
    """The same, as the file that goes into the corpus."""


@dataclass(frozen=True)
class Trial:
    """What a few samples cost, for an estimate."""

    samples: int
    made: Made
    seconds_per_row: float
    """One worker's."""
    bytes_per_row: float


def prepare(spec: Spec, recipe: Recipe, catalog: pa.Table | None, where: str) -> Prepared:
    """Plan a corpus.

    Args:
        spec: the order.
        recipe: how its images are made.
        catalog: the catalog's table, for a recipe that needs sources.
        where: the catalog's URI, for messages and for the header.

    Raises:
        UserError: the catalog does not have what is asked for; see
            :func:`medsynth.corpus.sources.select` and :func:`medsynth.plan.make_plan`.
    """
    axes = spec.balance.axes
    made_axes = recipe.made_axes(axes)
    group_axes = [axis for axis in axes if axis not in made_axes]
    table = data = None
    notes: list[str] = []
    counts: Mapping[Subgroup, int] = {}
    if recipe.needs_sources:
        assert catalog is not None
        catalog = _fitting(catalog, recipe, where, notes)
        selection = sources.select(catalog, axes, group_axes, where)
        table, counts = selection.table, selection.counts
        data = sources.to_bytes(table)
        if selection.soft:
            notes.append(f"{selection.soft} of the asked subgroups' tiles are soft and were not used as sources")
        if selection.other:
            notes.append(f"{selection.other} tiles belong to subgroups that were not asked for")
    elif group_axes:
        raise SpecError(f"balance.axes.{group_axes[0]}: the recipe {recipe.name} does not make this axis; remove it")
    notes += recipe.notes()
    real_counts = _real_counts(spec, recipe, notes)
    plan = make_plan(
        spec.balance,
        made_axes,
        counts,
        rows_per_shard=spec.output.rows_per_shard,
        seed=spec.seed,
        real_counts=real_counts,
        needs_tiles=recipe.needs_sources,
    )
    parts = {
        "sources": hashlib.sha256(data).hexdigest() if data is not None else None,
        "real": sorted([*subgroup, count] for subgroup, count in (real_counts or {}).items()),
    }
    header: dict[str, Any] = {
        "format": manifest.FORMAT,
        "synthetic": True,
        "name": spec.name,
        "recipe": recipe.name,
        "spec": spec.model_dump(mode="json", exclude={"out_of_focus", "skin"}),
        "recipe_settings": recipe.identity(),
        "fingerprint_parts": parts,
        "versions": {"medsynth": __version__} | {name: importlib.metadata.version(name) for name in _PINNED},
        "axes": {axis: list(axes[axis].values) for axis in axes},
        "rows": plan.rows,
        "shards": plan.shards,
        "quotas": [
            {
                "subgroup": dict(zip(plan.axes, quota.subgroup, strict=True)),
                "asked": quota.asked,
                "planned": quota.planned,
            }
            for quota in plan.quotas()
        ],
        "sources": table.num_rows if table is not None else 0,
        "notes": notes,
    }
    header["fingerprint"] = manifest.fingerprint_of(header)
    return Prepared(recipe, plan, header["fingerprint"], header, table, data)


def trial(prepared: Prepared, samples: int) -> Trial:
    """Make a few samples, spread evenly over the plan, without writing anything.

    Args:
        prepared: the run.
        samples: how many; fewer where the plan has fewer.
    """
    plan = prepared.plan
    indices = np.unique(np.linspace(0, plan.rows - 1, min(samples, plan.rows)).astype(np.int64))
    _make(prepared, indices)  # pays what a worker pays once: compilation, imports, connections
    start = time.perf_counter()
    made = _make(prepared, indices)
    seconds = time.perf_counter() - start
    size = sum(len(image["bytes"]) for image in made.table["image"].to_pylist())
    return Trial(len(indices), made, seconds / len(indices), size / max(1, made.table.num_rows))


def preview(prepared: Prepared, samples: int) -> bytes:
    """Draw a contact sheet of samples of the plan: a column a value of its longest axis, or of the skin type.

    A row is one source tile, where the plan makes enough of one; else it is a mixture. Without sources, it is a
    value of another axis: a condition, where there are any.

    Args:
        prepared: the run.
        samples: how many pictures, about; whole rows are drawn.

    Returns:
        PNG bytes.
    """
    plan, axes = prepared.plan, prepared.header["axes"]
    across, down = sheet.sides(plan.axes)
    if prepared.recipe.needs_sources:
        across, down = max(plan.axes, key=lambda axis: len(axes[axis])), None
    position, values = plan.axes.index(across), axes[across]
    columns = [values[place] for place in np.unique(np.linspace(0, len(values) - 1, _PREVIEW_COLUMNS).astype(int))]
    rows = -(-samples // len(columns))
    labels = [""] * rows
    if down is not None:
        labels = [axes[down][row % len(axes[down])] for row in range(rows)]
        chosen = _by_value(plan, position, columns, plan.axes.index(down), labels)
    else:
        chosen = _sheet(plan, position, columns, rows)
    indices = np.unique([index for row in chosen for index in row.values()]).astype(np.int64)
    made = _make(prepared, indices).table
    pictures = dict(zip(made["index"].to_pylist(), made["image"].to_pylist(), strict=True))
    cells = [
        [images.decode(pictures[row[value]]["bytes"]) if row.get(value) in pictures else None for value in columns]
        for row in chosen
    ]
    return contact_sheet(cells, labels, [f"{across} {columns[0]}", *columns[1:]])


def _sheet(plan: Plan, position: int, columns: list[str], rows: int) -> list[dict[str, int]]:
    """For each row of a contact sheet, the sample that stands in each column."""
    # A tile's samples have consecutive numbers: looking at runs of them finds whole rows.
    starts = permute(np.arange(min(plan.rows, 2 * rows), dtype=np.int64), plan.rows, plan.seed)
    near = (starts[:, None] + np.arange(_PREVIEW_RUN)).ravel()
    assignment = plan.at(np.unique(near[near < plan.rows]))
    by_tile: dict[int, dict[str, int]] = {}
    by_column: dict[str, list[int]] = {value: [] for value in columns}
    for index, tile, subgroup in zip(assignment.indices, assignment.tiles, assignment.subgroups, strict=True):
        if subgroup[position] in by_column:
            by_tile.setdefault(int(tile), {}).setdefault(subgroup[position], int(index))
            by_column[subgroup[position]].append(int(index))
    whole = sorted(by_tile.values(), key=len, reverse=True)[:rows]
    if sum(map(len, whole)) >= rows * len(columns) * 0.7:
        return whole
    return [{value: found[row] for value, found in by_column.items() if row < len(found)} for row in range(rows)]


def _by_value(plan: Plan, position: int, columns: list[str], down: int, labels: list[str]) -> list[dict[str, int]]:
    """As :func:`_sheet`, for rows that are values of another axis."""
    looked_at = permute(np.arange(min(plan.rows, _PREVIEW_LOOK), dtype=np.int64), plan.rows, plan.seed)
    assignment = plan.at(np.sort(looked_at))
    found: dict[tuple[str, str], list[int]] = {}
    for index, subgroup in zip(assignment.indices.tolist(), assignment.subgroups, strict=True):
        found.setdefault((subgroup[down], subgroup[position]), []).append(index)
    taken: Counter[str] = Counter()
    rows = []
    for label in labels:
        members = {value: found.get((label, value), [])[taken[label] :] for value in columns}
        rows.append({value: places[0] for value, places in members.items() if places})
        taken[label] += 1
    return rows


def _make(prepared: Prepared, indices: Integers) -> Made:
    plan = prepared.plan
    assignment = plan.at(indices)
    tiles: dict[int, Source] = {}
    if prepared.table is not None:
        places = np.unique(assignment.tiles)
        rows = prepared.table.take(pa.array(places)).to_pylist()
        tiles = {place: Source(**row) for place, row in zip(places.tolist(), rows, strict=True)}
    return make_shard(
        prepared.recipe, assignment, tiles, axes=plan.axes, run_seed=plan.seed, fingerprint=prepared.fingerprint
    )


def _fitting(catalog: pa.Table, recipe: Recipe, where: str, notes: list[str]) -> pa.Table:
    columns = [pc.fill_null(pc.cast(catalog[name], pa.float64()), 0.0) for name in ("width", "height", "mpp")]
    sizes, kinds, counts = np.unique(np.column_stack(columns), axis=0, return_inverse=True, return_counts=True)
    whys = [recipe.refuses(int(width), int(height), mpp or None) for width, height, mpp in sizes.tolist()]
    if all(whys):
        commonest = whys[int(np.argmax(counts))] if whys else "it is empty"
        raise SpecError(f"{where}: none of its {catalog.num_rows} tiles can be a source, {commonest}")
    notes.extend(f"{count} tiles cannot be sources, {why}" for count, why in zip(counts, whys, strict=True) if why)
    return catalog.filter(pa.array(np.array([why is None for why in whys])[kinds.ravel()]))


def _real_counts(spec: Spec, recipe: Recipe, notes: list[str]) -> dict[Subgroup, int] | None:
    if spec.balance.top_up is None:
        return None
    uri, axes = spec.balance.top_up.real, spec.balance.axes
    try:
        table, told = recipe.as_real(uri, metadata.read_table(uri), axes)
        metadata.require_columns(uri, table.column_names, axes)
    except CatalogError as error:
        raise SpecError(f"balance.top_up.real: {error}") from error
    notes += told
    columns = [[metadata.as_text(value) for value in table[axis].to_pylist()] for axis in axes]
    found = Counter(zip(*columns, strict=True))
    asked = itertools.product(*(axis.values for axis in axes.values()))
    counts = {subgroup: found[subgroup] for subgroup in asked if found[subgroup]}
    others = found.total() - sum(counts.values())
    if others:
        notes.append(f"{others} real images belong to subgroups that were not asked for")
    return counts
