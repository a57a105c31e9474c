"""Samples in, rows and rejects out; fetching ahead keeps the order and bounds what is in flight."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from medsynth.errors import Reason, Rejected
from medsynth.plan import make_plan
from medsynth.recipes.base import Output, Refusal, Sample, Stopwatch, make_shard, prefetch
from medsynth.seeds import sample_seed
from medsynth.spec import Axis, Balance, parse


class Numbers:
    """A recipe whose image is its seed, and which refuses every seventh sample."""

    name = "numbers"
    suffix = "txt"
    needs_sources = False
    parameters = (pa.field("half", pa.float64()),)

    def made_axes(self, axes: Mapping[str, Axis]) -> list[str]:
        return list(axes)

    def identity(self) -> dict[str, Any]:
        return {}

    def refuses(self, width: int, height: int, mpp: float | None) -> Rejected | None:
        return None

    def make(self, samples: Sequence[Sample], clock: Stopwatch) -> Iterator[Output | Refusal]:
        for sample in samples:
            if sample.index % 7 == 0:
                yield Refusal(sample, Rejected(Reason.TOO_SMALL, "seventh"))
            else:
                yield Output(sample, str(sample.seed).encode(), {"half": sample.index / 2})

    def remake(self, row: Mapping[str, Any]) -> bytes:
        return str(row["seed"]).encode()


def test_rows_and_rejects_add_up_to_the_assignment() -> None:
    balance = parse(Balance, {"axes": {"kind": ["a", "b"], "focus_class": [0, 1]}, "total": 40}, "test")
    plan = make_plan(balance, ["kind", "focus_class"], {}, rows_per_shard=40, seed=5, needs_tiles=False)
    made = make_shard(Numbers(), plan.assignment(0), {}, axes=plan.axes, run_seed=5, fingerprint="abcdefgh")
    assert [reject.index for reject in made.rejects] == list(range(0, 40, 7))
    assert all(reject.reason == "too_small" and reject.subgroup == ("ab"[i], str(j)) for reject in made.rejects
               for i, j in [("ab".index(reject.subgroup[0]), reject.subgroup[1])])  # fmt: skip
    rows = made.table.to_pylist()
    assert [row["index"] for row in rows] == [i for i in range(40) if i % 7]
    for row in rows:
        assert row["seed"] == sample_seed(5, row["index"])
        assert row["image"] == {"bytes": str(row["seed"]).encode(), "path": f"{row['sample_id']}.txt"}
        assert (row["kind"], str(row["focus_class"])) == plan.assignment(0).subgroups[row["index"]]
        assert row["synthetic"] is True
        assert row["half"] == row["index"] / 2


def test_prefetch_keeps_order_and_bounds_requests_in_flight() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def fetch(key: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 if key % 3 else 0.006)
        with lock:
            running -= 1
        return key * 2

    results = [(key, future.result()) for key, future in prefetch(list(range(200)), fetch)]
    assert results == [(key, key * 2) for key in range(200)]
    assert 8 < most <= 32


def test_prefetch_hands_an_error_to_whoever_asks_for_that_key() -> None:
    def fetch(key: int) -> int:
        if key == 3:
            raise Rejected(Reason.MISSING, "gone")
        return key

    futures = dict(prefetch(range(6), fetch))
    with pytest.raises(Rejected, match="missing: gone"):
        futures[3].result()
    assert [futures[key].result() for key in (0, 1, 2, 4, 5)] == [0, 1, 2, 4, 5]


def test_prefetch_stops_when_its_consumer_does() -> None:
    fetched: list[int] = []

    def fetch(key: int) -> None:
        fetched.append(key)

    for key, future in prefetch(range(10_000), fetch):
        future.result()
        if key == 5:
            break
    assert len(fetched) < 200
