"""Batches for a training worker, made ahead of it by Ray Data."""

import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
import ray

from medsynth.distributed import pipeline
from medsynth.distributed.feed import Arrays
from medsynth.distributed.pipeline import Share, batches
from tests import cluster


class Megabytes:
    """Batches of one megabyte, each full of its own number."""

    def batch(self, step: int, rank: int, workers: int) -> Arrays:
        # Who makes a batch does not wait for torch to load.
        return {"x": np.full((64, 4096), step, np.float32), "torch": np.array(["torch" in sys.modules])}

    def held_out(self, number: int) -> Arrays:
        raise NotImplementedError


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    with cluster.joined_with(sys.modules[__name__]):
        yield


@pytest.mark.slow
def test_batches_come_in_order_and_cost_nothing_while_nobody_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_AHEAD_BYTES", 16 << 20)
    made = batches(ray.put(Megabytes()), Share(0, 1, 64), 1, 401, 1, 0.5)
    first = next(made)
    assert not first["torch"].any()
    seen = [first["x"][0, 0]]
    time.sleep(2)  # now as much lies ready as may
    before = time.process_time()
    time.sleep(3)
    assert time.process_time() - before < 1, "Ray Data's executor would spin in this process"
    seen += [next(made)["x"][63, 4095] for _ in range(40)]
    made.close()
    assert seen == list(range(1, 42))
