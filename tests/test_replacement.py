"""Whatever is lost is made from the good tiles of its group, as far as the reuse cap leaves room."""

import collections
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medsynth.plan import Plan, make_plan
from medsynth.replacement import Lost, replace
from tests.plans import all_of, balance, plans


@settings(deadline=None)
@given(plans(), st.randoms(use_true_random=False))
def test_replacement_delivers_all_that_the_good_tiles_have_room_for(plan: Plan, random: Any) -> None:
    indices, tiles, _ = all_of(plan)
    sources = sum(group.tiles for group in plan.groups)
    bad = np.array(sorted(random.sample(range(sources), random.randint(0, sources))), dtype=np.int64)
    uses = collections.Counter(tiles[~np.isin(tiles, bad)].tolist())
    lost = Lost(indices[np.isin(tiles, bad)], bad)
    previous = None
    while True:
        previous = replace(plan, lost, previous)
        if not previous.rows:
            break
        made = [previous.assignment(shard) for shard in range(previous.shards)]
        made_indices = np.concatenate([part.indices for part in made])
        made_tiles = np.concatenate([part.tiles for part in made])
        assert sorted([*made_indices, *previous.unfilled]) == lost.indices.tolist()
        assert not np.isin(made_tiles, lost.bad_tiles).any()
        for index, tile in zip(made_indices.tolist(), made_tiles.tolist(), strict=True):
            group = plan.groups[plan.group_of(np.array([index]))[0]]
            assert group.first_tile <= tile < group.first_tile + group.tiles
        newly_bad = np.unique(random.sample(made_tiles.tolist(), random.randint(0, 1)))
        failed = np.isin(made_tiles, newly_bad)
        uses.update(made_tiles[~failed].tolist())
        assert max(uses.values(), default=0) <= plan.max_reuse
        lost = Lost(
            np.sort(np.concatenate([made_indices[failed], previous.unfilled])).astype(np.int64),
            np.union1d(lost.bad_tiles, newly_bad).astype(np.int64),
        )
    for index in lost.indices.tolist():  # only where no good tile of the group has room is anything left
        group = plan.groups[plan.group_of(np.array([index]))[0]]
        good = set(range(group.first_tile, group.first_tile + group.tiles)) - set(lost.bad_tiles.tolist())
        number = plan.groups.index(group)
        assert all(previous.uses.get(number, plan.uses(number))[t - group.first_tile] >= plan.max_reuse for t in good)


def test_a_plan_without_tiles_leaves_nothing_to_replace() -> None:
    # Its recipe has drawn again itself; what it gave up is undelivered.
    order = balance(axes={"kind": ["a", "b"]}, total=40)
    plan = make_plan(order, ["kind"], {}, rows_per_shard=7, seed=1, needs_tiles=False)
    lost = np.array([3, 4, 30], dtype=np.int64)
    found = replace(plan, Lost(lost, np.zeros(0, dtype=np.int64)))
    assert (found.rows, found.shards, found.unfilled.tolist()) == (0, 0, [3, 4, 30])
