"""Clients of the service for its benchmark: so many that it is never idle, or requests that come at set times."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from serve.client import Client, ServiceError

Ask = Callable[[Client], Hashable]
"""One request, always the same one; what it was answered."""


class Load:
    """Threads that ask, each again as soon as it has its answer, until they are stopped.

    Args:
        address: of the service.
        ask: what they ask.
        threads: how many.
    """

    def __init__(self, address: str, ask: Ask, threads: int) -> None:
        self.seconds: list[float] = []
        self.answers: set[Hashable] = set()
        self.refused: Counter[int] = Counter()
        self.without_retry_after = 0
        self.answered_at: list[float] = []
        self._address, self._ask = address, ask
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]

    def run(self, seconds: float) -> "Load":
        """For so long."""
        self.start()
        time.sleep(seconds)
        return self.end()

    def start(self) -> None:
        self.started = time.monotonic()
        for one in self._threads:
            one.start()

    def end(self) -> "Load":
        self._stop.set()
        for one in self._threads:
            one.join()
        self.lasted = time.monotonic() - self.started
        return self

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.seconds) / self.lasted

    def _work(self) -> None:
        client = Client(self._address, attempts=1)
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self.answers.add(self._ask(client))
                self.seconds.append(time.monotonic() - started)
                self.answered_at.append(time.monotonic())
            except ServiceError as error:
                self.refused[error.status] += 1
                self.without_retry_after += error.status in (429, 503) and "retry_after" not in error.problem
                self._stop.wait(0.05)


def steady(rate: float, seconds: float) -> list[float]:
    """Times of requests that come evenly, in seconds from the start."""
    return [place / rate for place in range(int(rate * seconds))]


def at_random(rate: float, seconds: float) -> list[float]:
    """Times of requests that come independently of each other, in seconds from the start."""
    drawn, times = random.Random(0), [0.0]
    while times[-1] < seconds:
        times.append(times[-1] + drawn.expovariate(rate))
    return times[:-1]


def latencies(address: str, ask: Ask, times: Sequence[float], most: int = 32) -> tuple[list[float], Counter[int]]:
    """Ask at set times.

    Args:
        address: of the service.
        ask: what is asked.
        times: of the requests, in seconds from the start.
        most: requests under way at once; one that comes on top waits, and its wait counts.

    Returns:
        Seconds from when each request was due to its answer, and the refusals by status.
    """
    due, found, refused = iter(enumerate(times)), [0.0] * len(times), Counter[int]()
    lock, start = threading.Lock(), time.monotonic() + 0.1

    def work() -> None:
        client = Client(address, attempts=1)
        while True:
            with lock:
                place, when = next(due, (-1, 0.0))
            if place < 0:
                return
            time.sleep(max(0.0, start + when - time.monotonic()))
            try:
                ask(client)
            except ServiceError as error:
                refused[error.status] += 1
            found[place] = time.monotonic() - start - when

    threads = [threading.Thread(target=work) for _ in range(min(most, len(times)))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return found, refused


def of_one_server(times: Sequence[float], seconds: float) -> list[float]:
    """What the same requests would take of one server that needs so long for each, one after the other, and no more.

    Source:
        D. V. Lindley, The theory of queues with a single server (1952).
    """
    free, found = 0.0, []
    for when in times:
        free = max(free, when) + seconds
        found.append(free - when)
    return found


def told(found: Sequence[float], bare: float) -> dict[str, Any]:
    """Median and 99th percentile, and how often the bare latency the latter is."""
    p50, p99 = np.percentile(found, [50, 99])
    return {"requests": len(found), "p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "p99_over_bare": p99 / bare}
