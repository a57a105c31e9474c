"""The service's figures for Prometheus: counted in each replica, summed over all of them.

A scrape reaches one ingress replica, whichever the proxy picks. So each replica tells its figures once a second to
one gatherer, and any ingress replica can show their sum.
"""

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_BATCHES = (1, 2, 4, 8, 16, 32)
_SILENT = 10.0
"""Seconds after which a replica is taken for gone: its gauges no longer count, its counters stay."""
_REMEMBERED = 128
"""Replicas gone that are known one by one, so that each may come back; the counts of those before are one sum."""

_telling: set[asyncio.Task[None]] = set()

Sample = tuple[str, tuple[tuple[str, str], ...], float]
"""Name, labels and value."""


@dataclass(frozen=True)
class Family:
    """One metric of a replica."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


Snapshot = tuple[Family, ...]


class Figures:
    """What one replica counts."""

    def __init__(self) -> None:
        self._registry = here = CollectorRegistry()
        self.requests = Counter("medsynth_requests", "Requests answered", ["route", "method", "status"], registry=here)
        self.seconds = Histogram(
            "medsynth_request_seconds", "Time to an answer", ["route"], buckets=_SECONDS, registry=here
        )
        self.in_flight = Gauge("medsynth_requests_in_flight", "Requests with a body being answered", registry=here)
        self.images = Counter("medsynth_images", "Images judged or drawn", ["model"], registry=here)
        self.made = Counter("medsynth_made", "Images made by subgroup", ["condition", "fitzpatrick"], registry=here)
        self.batch = Histogram("medsynth_batch_images", "Images in a batch", ["model"], buckets=_BATCHES, registry=here)
        self.batch_seconds = Histogram(
            "medsynth_batch_seconds", "Time of a model for a batch", ["model"], buckets=_SECONDS, registry=here
        )
        self.queue = Gauge("medsynth_queue_images", "Images that wait for the model", ["model"], registry=here)

    def snapshot(self) -> Snapshot:
        """All figures as they are now."""
        return tuple(
            Family(
                metric.name,
                metric.type,
                metric.documentation,
                tuple(
                    (one.name, tuple(sorted(one.labels.items())), one.value)
                    for one in metric.samples
                    if not one.name.endswith("_created")
                ),
            )
            for metric in self._registry.collect()
        )


def tell_each_second(figures: Figures, gatherer: Any) -> None:
    """Send a replica's figures to the gatherer for as long as its event loop, which this is called in, goes on.

    Args:
        figures: the replica's.
        gatherer: a handle whose ``tell`` takes a name and a snapshot.
    """
    source = secrets.token_hex(8)

    async def tell() -> None:
        while True:
            await asyncio.sleep(1)
            try:
                await gatherer.tell.remote(source, figures.snapshot())
            except Exception as error:  # figures are worth less than answers: it comes back, or it does not
                logging.getLogger("medsynth.serve").warning("figures not told", extra={"fields": {"error": str(error)}})

    task = asyncio.get_running_loop().create_task(tell())
    _telling.add(task)  # the loop itself keeps no task alive


@dataclass
class Gathered:
    """The last figures of each replica, and what those that are gone had counted.

    A replica that is silent for a while and speaks again counts once: what it had counted is kept under its name until
    then. Only the last to go are kept so. Those that went before them, hours ago unless replicas come and go by the
    minute, are one sum, and memory stays the same for months.
    """

    latest: dict[str, tuple[float, Snapshot]] = field(default_factory=dict)
    gone: dict[str, Snapshot] = field(default_factory=dict)
    """In the order in which they went."""
    long_gone: Snapshot = ()

    def tell(self, source: str, snapshot: Snapshot, now: float | None = None) -> None:
        """Take a replica's figures.

        Args:
            source: the replica.
            snapshot: all that it counted since its start.
            now: seconds of a clock that only moves forward.
        """
        at = time.monotonic() if now is None else now
        self.latest[source] = (at, snapshot)
        self.gone.pop(source, None)
        for name, (seen, last) in list(self.latest.items()):
            if at - seen > _SILENT:
                del self.latest[name]
                self.gone[name] = tuple(family for family in last if family.kind != "gauge")
        while len(self.gone) > _REMEMBERED:
            self.long_gone = _sum([self.long_gone, self.gone.pop(next(iter(self.gone)))])

    def text(self) -> bytes:
        """The sum in Prometheus's text format."""
        registry = CollectorRegistry()
        registry.register(
            _Fixed(_sum([self.long_gone, *self.gone.values(), *(last for _, last in self.latest.values())]))
        )
        return generate_latest(registry)


class _Fixed(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        for family in self._snapshot:
            metric = Metric(family.name, family.help, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric


def _sum(snapshots: Iterable[Snapshot]) -> Snapshot:
    families: dict[str, Family] = {}
    values: Mapping[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = defaultdict(dict)
    for snapshot in snapshots:
        for family in snapshot:
            families.setdefault(family.name, family)
            sums = values[family.name]
            for name, labels, value in family.samples:
                sums[name, labels] = sums.get((name, labels), 0.0) + value
    return tuple(
        Family(
            name,
            family.kind,
            family.help,
            tuple((sample, labels, value) for (sample, labels), value in values[name].items()),
        )
        for name, family in families.items()
    )
