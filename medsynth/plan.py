"""The plan: spec and catalog counts in, shards of samples out; arithmetic, never a materialised list.

A *group* is one value on every axis that the catalog knows (a tissue, a stain); its tiles are the
sources. A *cell* is one value on every axis that the recipe makes (a focus class, a device). A
subgroup of the corpus is a group and a cell. The samples of a group are numbered source by source,
so a shard reads each source once and in order; a keyed permutation spreads the cells over them.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsynth.errors import ShortfallError
from medsynth.seeds import digest64, permute
from medsynth.spec import Balance

Subgroup = tuple[str, ...]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """The samples made from the tiles of one group."""

    values: Subgroup
    """One value on every catalog axis."""
    tiles: int
    """How many source tiles there are."""
    first_tile: int
    """Place of the group's first tile among all sources."""
    first_index: int
    """Number of the group's first sample."""
    asked: tuple[int, ...]
    """Samples asked for, a cell each."""
    planned: tuple[int, ...]
    """Samples planned, a cell each: what was asked for, or what the reuse cap leaves of it."""

    @cached_property
    def samples(self) -> int:
        """Samples planned in all cells."""
        return sum(self.planned)


@dataclass(frozen=True)
class Quota:
    """What one subgroup was asked for, and what is planned."""

    subgroup: Subgroup
    """One value on every axis, in the spec's order of axes."""
    asked: int
    """Samples the spec asks for."""
    planned: int
    """Samples the catalog can give under the reuse cap."""


@dataclass(frozen=True)
class Assignment:
    """The samples of one shard, in order."""

    indices: Integers
    """Number of each sample in the plan."""
    tiles: Integers
    """Place of each sample's source among all sources; -1 for a recipe without sources."""
    subgroups: list[Subgroup]
    """Each sample's value on every axis, in the spec's order of axes."""


@dataclass(frozen=True)
class Plan:
    """Which sample goes to which subgroup, source tile and shard."""

    axes: tuple[str, ...]
    """All axes, in the spec's order."""
    group_axes: tuple[str, ...]
    """The axes that the catalog knows."""
    cells: tuple[Subgroup, ...]
    """Every cell, one value on each of the other axes."""
    groups: tuple[Group, ...]
    rows_per_shard: int
    seed: int
    max_reuse: int
    stem: str = field(default="train")
    """What the names of its shards begin with."""

    @cached_property
    def rows(self) -> int:
        """Samples planned in all."""
        return sum(group.samples for group in self.groups)

    @property
    def shards(self) -> int:
        """Shards planned in all."""
        return -(-self.rows // self.rows_per_shard)

    def quotas(self) -> list[Quota]:
        """What each subgroup was asked for and what is planned, in the plan's order."""
        return [
            Quota(self._subgroup(group, cell), group.asked[cell], group.planned[cell])
            for group in self.groups
            for cell in range(len(self.cells))
        ]

    def assignment(self, shard: int) -> Assignment:
        """The samples of a shard.

        Args:
            shard: in [0, shards).
        """
        start = shard * self.rows_per_shard
        return self.at(np.arange(start, min(start + self.rows_per_shard, self.rows), dtype=np.int64))

    def at(self, indices: Integers) -> Assignment:
        """The samples of given numbers.

        Args:
            indices: int64 array of shape (n,), ascending, each in [0, rows).
        """
        tiles = np.full(indices.shape, -1, dtype=np.int64)
        subgroups: list[Subgroup] = []
        for number, part in self._by_group(indices):
            group = self.groups[number]
            offsets = indices[part] - group.first_index
            if group.tiles:
                # The largest rank i with floor(i * samples / tiles) <= offset.
                tiles[part] = group.first_tile + _shared(offsets + 1, group.tiles, group.samples, less=1)
            subgroups.extend(self._subgroup(group, cell) for cell in self._cells(number, offsets))
        return Assignment(indices, tiles, subgroups)

    def uses(self, number: int) -> Integers:
        """Outputs planned of each tile of a group, int64 of shape (tiles,)."""
        group = self.groups[number]
        ranks = np.arange(group.tiles + 1, dtype=np.int64)
        return np.diff(_shared(ranks, group.samples, max(1, group.tiles)))

    def group_of(self, indices: Integers) -> Integers:
        """Number of the group of each sample."""
        return np.searchsorted(self._starts, indices, side="right").astype(np.int64) - 1

    @cached_property
    def _starts(self) -> Integers:
        # A group without samples shares its start with the next one: searchsorted finds the last.
        return np.array([group.first_index for group in self.groups], dtype=np.int64)

    def _by_group(self, indices: Integers) -> Iterable[tuple[int, slice]]:
        numbers = self.group_of(indices)
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in itertools.pairwise(edges):
            if stop > start:
                yield int(numbers[start]), slice(start, stop)

    def _cells(self, number: int, offsets: Integers) -> list[int]:
        group = self.groups[number]
        places = permute(offsets, group.samples, digest64(self.seed, "cells", *group.values))
        found: list[int] = np.searchsorted(np.cumsum(group.planned), places, side="right").tolist()
        return found

    def _subgroup(self, group: Group, cell: int) -> Subgroup:
        values = dict(zip(self.group_axes, group.values, strict=True))
        values.update(zip(self._cell_axes, self.cells[cell], strict=True))
        return tuple(values[axis] for axis in self.axes)

    @cached_property
    def _cell_axes(self) -> tuple[str, ...]:
        return tuple(axis for axis in self.axes if axis not in self.group_axes)


def make_plan(
    balance: Balance,
    made_axes: Sequence[str],
    tile_counts: Mapping[Subgroup, int],
    *,
    rows_per_shard: int,
    seed: int,
    real_counts: Mapping[Subgroup, int] | None = None,
    needs_tiles: bool = True,
) -> Plan:
    """Plan a corpus.

    Args:
        balance: the spec's ``balance``.
        made_axes: those of its axes that the recipe makes; the others are the catalog's.
        tile_counts: usable tiles of each group (values of the catalog axes in the spec's order).
        rows_per_shard: samples a shard.
        seed: the run's seed.
        real_counts: real images of each subgroup, where the spec says ``top_up``.
        needs_tiles: False for a recipe that draws its images from nothing.

    Returns:
        The plan; where ``max_reuse`` leaves less than was asked, the cells of the group share the
        shortfall in proportion.

    Raises:
        ShortfallError: not everything asked for can be planned and the spec says
            ``on_shortfall: error``, or nothing at all can be.
    """
    axes = tuple(balance.axes)
    group_axes = tuple(axis for axis in axes if axis not in made_axes)
    group_values = list(itertools.product(*(balance.axes[axis].values for axis in group_axes)))
    cell_axes = [axis for axis in axes if axis in made_axes]
    cells = tuple(itertools.product(*(balance.axes[axis].values for axis in cell_axes)))
    asked = _asked(balance, axes, group_axes, cell_axes, group_values, cells, real_counts or {})
    groups: list[Group] = []
    first_tile = first_index = 0
    for values, wanted in zip(group_values, asked, strict=True):
        tiles = tile_counts.get(values, 0) if needs_tiles else 0
        room = tiles * balance.max_reuse if needs_tiles else sum(wanted)
        planned = wanted if sum(wanted) <= room else tuple(apportion(room, wanted))
        groups.append(Group(values, tiles, first_tile, first_index, wanted, planned))
        first_tile += tiles
        first_index += sum(planned)
    plan = Plan(axes, group_axes, cells, tuple(groups), rows_per_shard, seed, balance.max_reuse)
    _check_shortfall(plan, balance)
    return plan


def apportion(total: int, weights: Sequence[float | Fraction]) -> list[int]:
    """Share out a whole number by weights, exactly and repeatably.

    Args:
        total: at least 0.
        weights: each at least 0, not all 0 unless total is 0.

    Returns:
        Whole numbers that add up to total; a weight of 0 gets 0.

    Source:
        Largest remainder (Hamilton's method), in rational arithmetic; equal remainders are served
        in order.
    """
    exact = [Fraction(weight) for weight in weights]
    everything = sum(exact)
    if not everything:
        return [0] * len(exact)
    shares = [total * weight / everything for weight in exact]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda place: counts[place] - shares[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Digest of everything that decides a corpus's bytes.

    Args:
        parts: JSON-able; see :func:`medsynth.corpus.manifest.fingerprint_of`.

    Returns:
        64 hexadecimal digits.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _asked(
    balance: Balance,
    axes: tuple[str, ...],
    group_axes: tuple[str, ...],
    cell_axes: list[str],
    group_values: list[Subgroup],
    cells: tuple[Subgroup, ...],
    real_counts: Mapping[Subgroup, int],
) -> list[tuple[int, ...]]:
    names: list[dict[str, str]] = [
        {**dict(zip(group_axes, values, strict=True)), **dict(zip(cell_axes, cell, strict=True))}
        for values in group_values
        for cell in cells
    ]
    if balance.total is not None:
        weights = [_product(balance.axes[axis].weights[name[axis]] for axis in axes) for name in names]
        flat = apportion(balance.total, weights)
    elif balance.per_subgroup is not None:
        flat = [balance.per_subgroup] * len(names)
    else:
        assert balance.top_up is not None
        flat = [max(0, balance.top_up.to - real_counts.get(tuple(n[axis] for axis in axes), 0)) for n in names]
    width = len(cells)
    return [tuple(flat[start : start + width]) for start in range(0, len(flat), width)]


def _check_shortfall(plan: Plan, balance: Balance) -> None:
    short = [(g, sum(g.asked) - g.samples) for g in plan.groups if g.samples < sum(g.asked)]
    if plan.rows == 0:
        raise ShortfallError("nothing to make: " + (_named(plan, short) if short else "every quota is 0; raise it"))
    if short and balance.on_shortfall == "error":
        raise ShortfallError(
            f"quotas cannot be met: {_named(plan, short)}; add tiles, raise balance.max_reuse "
            f"(now {plan.max_reuse}), ask for less, or set balance.on_shortfall: report"
        )


def _named(plan: Plan, short: list[tuple[Group, int]]) -> str:
    shown = [
        f"{', '.join(f'{a}={v}' for a, v in zip(plan.group_axes, g.values, strict=True)) or 'the source'} "
        f"lacks {gap} of {sum(g.asked)} ({g.tiles} in-focus tiles)"
        for g, gap in short[:5]
    ]
    return "; ".join(shown) + (f"; and {len(short) - 5} more groups" if len(short) > 5 else "")


def _shared(values: Integers, factor: int, divisor: int, *, less: int = 0) -> Integers:
    """Each ``(value * factor - less) // divisor``, for values that ascend; exact where a product needs over 64 bits."""
    fits = not values.size or int(values[-1]) * factor < 2**63
    return ((values.astype(np.int64 if fits else object) * factor - less) // divisor).astype(np.int64)


def _product(factors: Iterable[float]) -> Fraction:
    product = Fraction(1)
    for factor in factors:
        product *= Fraction(factor)
    return product
