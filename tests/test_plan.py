"""The plan is exact for any weights, any counts and any losses."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsynth.errors import ShortfallError
from medsynth.plan import Plan, apportion, fingerprint, make_plan
from tests.plans import all_of, balance, plans

weights = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=8).filter(any)


@given(weights, st.integers(0, 10**9))
def test_apportion_adds_up_and_is_within_one_of_the_exact_share(shares: list[float], total: int) -> None:
    counts = apportion(total, shares)
    assert sum(counts) == total
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - total * share / sum(shares)) < 1 + 1e-6 * total


@settings(deadline=None)
@given(plans())
def test_every_output_is_planned_once_and_every_class_count_is_exact(plan: Plan) -> None:
    indices, tiles, subgroups = all_of(plan)
    assert indices.tolist() == list(range(plan.rows))
    delivered = collections.Counter(subgroups)
    assert {quota.subgroup: quota.planned for quota in plan.quotas() if quota.planned} == dict(delivered)
    assert max(collections.Counter(tiles.tolist()).values()) <= plan.max_reuse
    assert sorted(tiles.tolist()) == tiles.tolist()  # source-major: each source is read once, in order


@settings(deadline=None)
@given(plans())
def test_quotas_are_met_exactly_or_the_reuse_cap_is_used_up(plan: Plan) -> None:
    for group in plan.groups:
        if group.samples < sum(group.asked):
            assert group.samples == group.tiles * plan.max_reuse
        else:
            assert group.planned == group.asked
        assert all(0 <= planned <= asked for planned, asked in zip(group.planned, group.asked, strict=True))


@settings(deadline=None)
@given(plans())
def test_a_tile_gives_what_the_design_says(plan: Plan) -> None:
    _, tiles, _ = all_of(plan)
    found = collections.Counter(tiles.tolist())
    for number, group in enumerate(plan.groups):
        for rank in range(group.tiles):
            outputs = (rank + 1) * group.samples // group.tiles - rank * group.samples // group.tiles
            assert found[group.first_tile + rank] == outputs == plan.uses(number)[rank]


def test_the_largest_corpus_has_its_tiles_too() -> None:
    # 10**12 samples of 10**7 tiles: their product has no room in 64 bits.
    asked = balance(axes={"tissue": ["a"], "focus_class": ["0"]}, total=10**12, max_reuse=10**6)
    plan = make_plan(asked, ["focus_class"], {("a",): 10**7}, rows_per_shard=1024, seed=1)
    numbers = np.array([0, 99_999, 100_000, 10**12 // 2, 10**12 - 1])
    assert plan.at(numbers).tiles.tolist() == (numbers // 10**5).tolist()


def test_top_up_fills_every_subgroup_to_the_same_number() -> None:
    asked = balance(axes={"tissue": ["a", "b"], "focus_class": ["0", "1"]}, top_up={"real": "x", "to": 10})
    real = {("a", "0"): 3, ("b", "1"): 12}
    plan = make_plan(asked, ["focus_class"], {("a",): 5, ("b",): 5}, rows_per_shard=4, seed=1, real_counts=real)
    assert {quota.subgroup: quota.planned for quota in plan.quotas()} == {
        ("a", "0"): 7, ("a", "1"): 10, ("b", "0"): 10, ("b", "1"): 0,
    }  # fmt: skip


def test_shortfall_is_named_with_the_remedy() -> None:
    asked = balance(axes={"tissue": ["a", "b"], "focus_class": ["0"]}, per_subgroup=10, max_reuse=4)
    with pytest.raises(
        ShortfallError, match=r"tissue=b lacks 2 of 10 \(2 in-focus tiles\); add tiles, raise balance.max_reuse"
    ) as error:
        make_plan(asked, ["focus_class"], {("a",): 5, ("b",): 2}, rows_per_shard=4, seed=1)
    assert "\n" not in str(error.value)


def test_nothing_to_make_is_refused_even_when_shortfall_is_only_reported() -> None:
    asked = balance(axes={"tissue": ["a"]}, per_subgroup=10, on_shortfall="report")
    with pytest.raises(ShortfallError, match="nothing to make"):
        make_plan(asked, [], {}, rows_per_shard=4, seed=1)


def test_a_recipe_without_sources_is_spread_over_the_shards() -> None:
    asked = balance(axes={"condition": ["x", "y"], "fitzpatrick": ["I", "VI"]}, per_subgroup=1000)
    plan = make_plan(asked, ["condition", "fitzpatrick"], {}, rows_per_shard=400, seed=1, needs_tiles=False)
    for shard in range(plan.shards):
        part = plan.assignment(shard)
        assert (part.tiles == -1).all()
        assert min(collections.Counter(part.subgroups).values()) > 60


def test_a_large_plan_costs_no_more_memory_a_shard() -> None:
    asked = balance(axes={"focus_class": {"from": 0, "to": 29}}, total=10**10, max_reuse=1000)
    plan = make_plan(asked, ["focus_class"], {(): 10**8}, rows_per_shard=1024, seed=3)
    part = plan.assignment(plan.shards - 1)
    assert part.indices[-1] == 10**10 - 1
    assert part.tiles[-1] == 10**8 - 1


def test_another_seed_spreads_the_classes_otherwise() -> None:
    asked = balance(axes={"focus_class": {"from": 0, "to": 29}}, total=3000)
    one, two = (
        make_plan(
            asked,
            ["focus_class"],
            {(): 100},
            rows_per_shard=3000,
            seed=s,
        ).assignment(0)
        for s in (1, 2)
    )
    assert one.subgroups != two.subgroups


def test_fingerprint_is_a_function_of_content_not_of_key_order() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
