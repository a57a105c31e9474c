"""Replacement: what a bad tile leaves undelivered is made from other tiles of its subgroup.

A round follows from the plan and the rejects alone, so that it comes out the same on every run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medsynth.plan import Assignment, Integers, Plan


@dataclass(frozen=True)
class Lost:
    """What a run could not deliver from the tiles that its plan named."""

    indices: Integers
    """Numbers of the undelivered samples, ascending."""
    bad_tiles: Integers
    """Places of all sources with a reject so far, ascending."""


@dataclass(frozen=True)
class Replacement:
    """A round that makes undelivered samples from other tiles of their groups.

    The rule: a group's lost samples, in order, go
    evenly over its good tiles, in order, as far as the reuse cap leaves room; what is still without
    a tile then goes to the first tiles with room. A sample keeps its number, its cell and its seed.
    """

    plan: Plan
    round: int
    indices: Integers
    """Numbers of the samples to make, ascending."""
    tiles: Integers
    """Place of each one's new source."""
    unfilled: Integers
    """Numbers of the samples for which no tile has room."""
    uses: Mapping[int, Integers]
    """Outputs of each tile after this round, by number of the group."""

    @property
    def stem(self) -> str:
        """What the names of its shards begin with."""
        return f"{self.plan.stem}-r{self.round}"

    @property
    def rows(self) -> int:
        """Samples to make."""
        return len(self.indices)

    @property
    def shards(self) -> int:
        """Shards of this round."""
        return -(-self.rows // self.plan.rows_per_shard)

    def assignment(self, shard: int) -> Assignment:
        """The samples of a shard of this round."""
        part = slice(shard * self.plan.rows_per_shard, (shard + 1) * self.plan.rows_per_shard)
        return Assignment(self.indices[part], self.tiles[part], self.plan.at(self.indices[part]).subgroups)


def replace(plan: Plan, lost: Lost, previous: Replacement | None = None) -> Replacement:
    """Plan the next round for what was lost.

    Args:
        plan: the plan.
        lost: what the run so far (plan and earlier rounds) left undelivered, and all bad tiles.
        previous: the round before, whose outputs count against the reuse cap.

    Returns:
        The round; it has no rows where no tile has room left.
    """
    numbers = plan.group_of(lost.indices)
    uses = dict(previous.uses) if previous else {}
    filled, tiles, unfilled = [], [], []
    for number in np.unique(numbers).tolist():
        group = plan.groups[number]
        wanted = lost.indices[numbers == number]
        used = uses.get(number, plan.uses(number))
        room = np.maximum(plan.max_reuse - used, 0)
        ranks = lost.bad_tiles - group.first_tile
        room[ranks[(ranks >= 0) & (ranks < group.tiles)]] = 0
        given = _spread(len(wanted), room)
        count = int(given.sum())
        filled.append(wanted[:count])
        tiles.append(group.first_tile + np.repeat(np.arange(group.tiles, dtype=np.int64), given))
        unfilled.append(wanted[count:])
        uses[number] = used + given
    return Replacement(
        plan=plan,
        round=previous.round + 1 if previous else 1,
        indices=_joined(filled),
        tiles=_joined(tiles),
        unfilled=_joined(unfilled),
        uses=uses,
    )


def _spread(amount: int, room: Integers) -> Integers:
    able = np.flatnonzero(room)
    given = np.zeros_like(room)
    if able.size:
        steps = np.arange(able.size + 1, dtype=np.int64) * amount // able.size
        given[able] = np.minimum(np.diff(steps), room[able])
    spare = room - given
    rest = amount - int(given.sum())
    more: Integers = np.minimum(spare, np.maximum(rest - (np.cumsum(spare) - spare), 0))
    return given + more


def _joined(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
