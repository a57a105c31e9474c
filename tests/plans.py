"""Plans of every kind, for property tests."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from medsynth.errors import ShortfallError
from medsynth.plan import Plan, make_plan
from medsynth.spec import Balance, parse


def balance(**settings: Any) -> Balance:
    return parse(Balance, settings, "test")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    tissues = draw(st.integers(1, 4))
    classes = draw(st.integers(1, 30))
    tissue_weights = draw(st.lists(st.floats(0.01, 10), min_size=tissues, max_size=tissues))
    counts = {(f"t{i}",): draw(st.integers(0, 40)) for i in range(tissues)}
    asked = {
        "axes": {
            "focus_class": {"from": 0, "to": classes - 1},
            "tissue": {f"t{i}": weight for i, weight in enumerate(tissue_weights)},
        },
        "total": draw(st.integers(1, 2000)),
        "max_reuse": draw(st.integers(1, 64)),
        "on_shortfall": "report",
    }
    counts[("t0",)] = max(1, counts[("t0",)])
    try:
        return make_plan(
            balance(**asked),
            ["focus_class"],
            counts,
            rows_per_shard=draw(st.integers(1, 300)),
            seed=draw(st.integers(0, 2**63 - 1)),
        )
    except ShortfallError:
        # All of a tiny total may fall to groups without tiles; a plan of nothing is refused.
        return make_plan(
            balance(axes={"focus_class": ["0"]}, total=1), ["focus_class"], {(): 1}, rows_per_shard=1, seed=0
        )


def all_of(plan: Plan) -> tuple[np.ndarray, np.ndarray, list[tuple[str, ...]]]:
    parts = [plan.assignment(shard) for shard in range(plan.shards)]
    return (
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.tiles for part in parts]),
        [subgroup for part in parts for subgroup in part.subgroups],
    )
