"""Batches made ahead of a training worker by Ray Data, in order, from a given step on.

One row is one batch: its number goes in and its arrays come out, whole and in the order of the numbers, however
the tasks that make them were scheduled. No torch here, which would take every such task seconds to load.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.data._internal.execution.execution_callback import ExecutionCallback  # nothing public slows the loop down

from medsynth.distributed.feed import Arrays, Feed
from medsynth.errors import UserError

# A block costs memory in the worker until its dataset is done; a wave gives that back.
_WAVE = 2048
_SAMPLES_PER_TASK = 256
# Ray Data notices the end of a task some 0.2 s late; who has its next task already does not wait for that.
_AT_HAND = 3
# Kept ahead of each worker; all workers of a node share one object store.
_AHEAD_BYTES = 512 << 20
_STEP_SECONDS = 0.02


@dataclass(frozen=True)
class Share:
    """What one worker has of every step."""

    rank: int
    workers: int
    samples: int
    """In its share of a step."""


def batches(feed: Any, share: Share, first: int, last: int, tasks: int, cpus: float) -> Iterator[Arrays]:
    """Make a worker's batches, ahead of it.

    Args:
        feed: reference to a :class:`Feed` in Ray's object store.
        share: the worker's.
        first: number of the first step.
        last: number after the last.
        tasks: processes that make them.
        cpus: reserved for each.

    Yields:
        The arrays of each batch in turn, read-only.

    Raises:
        UserError: whatever the feed raises of that kind.
    """
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=_AHEAD_BYTES)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.custom_execution_callback_classes = [_Unhurried]
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    each = max(1, _SAMPLES_PER_TASK // share.samples)
    expected = first
    for start in range(first, last, _WAVE * each):
        stop = min(start + _WAVE * each, last)
        # Blocks that are there already: tasks that read them would ask for a whole CPU each.
        rows = [pa.table({"number": range(low, min(low + each, stop))}) for low in range(start, stop, each)]
        made = ray.data.from_blocks(rows).map_batches(
            _Maker,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_kwargs={"feed": [feed], "share": share},
            compute=ActorPoolStrategy(size=tasks, max_tasks_in_flight_per_actor=_AT_HAND),
            num_cpus=cpus,
        )
        for block in made.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
            if "error" in block:
                raise UserError(block["error"][0])
            for place, number in enumerate(block.pop("number")):
                if number != expected:
                    raise RuntimeError(f"batch {number} came where batch {expected} was due")
                expected += 1
                yield {str(name): column[place] for name, column in block.items()}


class _Unhurried(ExecutionCallback):
    """Lets Ray Data's executor rest between its steps.

    In Ray 2.60 it never waits while as much lies ready as may: it spins, in the training worker's own process, and
    holds the lock that every operation of torch has to take. Training on a CPU was three times slower for it.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Rest."""
        time.sleep(_STEP_SECONDS)


class _Maker:
    """Makes batches in one process, which keeps the tiles that it has read."""

    def __init__(self, feed: list[Any], share: Share) -> None:
        self._feed: Feed = ray.get(feed[0])
        self._share = share

    def __call__(self, rows: Any) -> Any:
        numbers = rows["number"].to_pylist()
        try:
            made = [self._feed.batch(number, self._share.rank, self._share.workers) for number in numbers]
        except UserError as error:
            # An error of the user's comes back as a value: Ray would wrap it.
            return pa.table({"error": [str(error)]})
        return {
            "number": np.array(numbers, dtype=np.int64),
            **{name: np.stack([batch[name] for batch in made]) for name in made[0]},
        }
