"""A finished corpus's card and report, written by a process of their own.

Not by the driver, whose memory stays as it is; and not by one of the workers, which end with the last shard.
The process starts while the last shards are made, so that nobody waits for it to load what draws.
"""

import gc
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medsynth import storage
from medsynth.errors import UserError


class Describer:
    """Writes card and report. Call it inside a session."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self) -> None:
        """Start the process, unless it is there; without waiting for it."""
        if self._writer is None:
            # On a machine that has work, which the head of a cluster has not; it claims none of its CPUs, since the
            # workers hold them all.
            busy = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]  # type: ignore[no-untyped-call]
            where: Any = NodeAffinitySchedulingStrategy(busy[0]["NodeID"], soft=True) if busy else "DEFAULT"
            actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=where)(_Writer)
            self._writer = actor.remote()

    def describe(self, corpus: str) -> None:
        """Write the card and the report of a corpus whose manifest stands, over earlier ones if need be.

        Args:
            corpus: its URI.

        Raises:
            UserError: they cannot be written.
        """
        self.start()
        error = ray.get(self._writer.write.remote(corpus))
        if error is not None:
            raise UserError(error)
        storage.remove_staging(corpus)


class _Writer:
    def __init__(self) -> None:
        from medsynth.corpus import card, report  # here, so that the driver does not load what draws

        self._card, self._report = card, report
        pa.scalar(0)  # with the first value that it is handed, Arrow loads pandas
        gc.freeze()  # what has been loaded stays, and need not be looked through again and again while it draws

    def write(self, corpus: str) -> str | None:
        try:
            self._card.write_card(corpus)
            self._report.write_report(corpus)
        except UserError as error:  # a value: Ray would wrap it
            return str(error)
        return None
