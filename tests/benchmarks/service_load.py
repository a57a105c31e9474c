"""Clients of the service for its benchmark: so many that it is never idle, or requests that come at set times."""

import http.client
import random
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np

from serve.client import Client, ServiceError

Ask = Callable[[Client], Hashable]
"""One request, always the same one; what it was answered."""

T = TypeVar("T")


class Load:
    """Threads that ask, each again as soon as it has its answer, until they are stopped.

    Args:
        address: of the service.
        ask: what they ask.
        threads: how many.
    """

    def __init__(self, address: str, ask: Ask, threads: int) -> None:
        self.answers: set[Hashable] = set()
        self.answered_at: list[float] = []
        self.errors: list[int] = []
        """Their status; 0 where no answer came."""
        self.in_flight: set[int] = set()
        """Threads that wait for an answer."""
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
        return len(self.answered_at) / self.lasted

    def _work(self) -> None:
        client = Client(self._address, attempts=1)
        while not self._stop.is_set():
            self.in_flight.add(threading.get_ident())
            try:
                self.answers.add(self._ask(client))
                self.answered_at.append(time.monotonic())
            except ServiceError as error:
                self.errors.append(error.status)
                self._stop.wait(0.05)
            finally:
                self.in_flight.discard(threading.get_ident())


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
    refused = Counter[int]()

    def client() -> Callable[[float], float]:
        known = Client(address, attempts=1)

        def asked(due: float) -> float:
            try:
                ask(known)
            except ServiceError as error:
                refused[error.status] += 1
            return time.monotonic() - due

        return asked

    return _at(times, time.monotonic() + 0.1, most, client), refused


def _at(times: Sequence[float], start: float, most: int, client: Callable[[], Callable[[float], T]]) -> list[T]:
    """Call at set times; each of the threads calls a client of its own, and tells it when the call was due."""
    due, found = iter(enumerate(times)), dict[int, T]()
    lock = threading.Lock()

    def work() -> None:
        act = client()
        while True:
            with lock:
                place, when = next(due, (-1, 0.0))
            if place < 0:
                return
            time.sleep(max(0.0, start + when - time.monotonic()))
            found[place] = act(start + when)

    threads = [threading.Thread(target=work) for _ in range(min(most, len(times)))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return [found[place] for place in range(len(times))]


@dataclass(frozen=True)
class Request:
    """What goes over the wire."""

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What a request was answered; times are those of :func:`time.monotonic`."""

    due: float
    sent: float
    ended: float
    status: int
    """0 where no answer came."""
    retry_after: bool
    data: bytes


def request_of(address: str, ask: Ask) -> Request:
    """What a client would send for a request, so that it need not be made again each time."""
    with patch.object(http.client.HTTPConnection, "request") as sent, suppress(ServiceError):
        ask(Client(address, attempts=1))
    return Request(*sent.call_args.args)


def flood(address: str, request: Request, rate: float, seconds: float, start: float, most: int = 256) -> list[Answer]:
    """Send a request over and over, evenly, however many wait for their answers.

    Args:
        address: of the service.
        request: ready-made, since making it and reading its answer would take the service's time.
        rate: requests a second.
        seconds: how long.
        start: as :func:`time.monotonic` tells it.
        most: connections; a request that finds none free waits, and is not sent at all once the time is over.
    """
    place = urllib.parse.urlsplit(address).netloc

    def client() -> Callable[[float], Answer | None]:
        connection = http.client.HTTPConnection(place, timeout=60)
        return lambda due: _sent(connection, request, due) if time.monotonic() < start + seconds else None

    return [one for one in _at(steady(rate, seconds), start, most, client) if one is not None]


def _sent(connection: http.client.HTTPConnection, request: Request, due: float) -> Answer:
    sent = time.monotonic()
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: it says why
            connection.request(request.method, request.path, request.body, request.headers)
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return Answer(due, sent, time.monotonic(), 0, False, b"")
    return Answer(due, sent, time.monotonic(), answer.status, "Retry-After" in answer.headers, data)


def counted(answers: Sequence[Answer]) -> dict[str, Any]:
    """What a flood came to, and for how long its requests waited for a connection."""
    p99, most = np.percentile([one.sent - one.due for one in answers], [99, 100]).tolist()
    statuses = Counter(one.status for one in answers)
    unsaid = Counter(one.status for one in answers if one.status in (429, 503) and not one.retry_after)
    return {
        "held_back_ms": {"p99": 1e3 * p99, "most": 1e3 * most},
        "answers": dict(statuses),
        "5xx_other_than_503": sum(n for status, n in statuses.items() if status >= 500 and status != 503),
        "without_retry_after": dict(unsaid),
    }


def recovery(answered: Sequence[float], rate: float, clients: int, seconds: int) -> dict[str, Any]:
    """When a service is its old self again.

    Args:
        answered: when it answered, in seconds from when the flood ended.
        rate: answers a second that it gave before.
        clients: that ask now.
        seconds: how long it was looked at.

    Returns:
        Its first answer; the share of the rate in each second; the second from which on it kept to nine tenths of the
        rate, never behind by more than an answer for each client, or None where there is none but in the last five.
    """
    each, _ = np.histogram(answered, seconds, (0, seconds))
    first = min((when for when in answered if when >= 0), default=None)
    due = 0.9 * rate * np.arange(1, seconds + 1)
    behind = [(due[: seconds - at] - each[at:].cumsum()).max() for at in range(seconds - 4)]
    full = (at for at, most in enumerate(behind) if at >= int(first or 0) and most <= clients)
    return {
        "first_answer_s": first,
        "share_each_second": [round(float(one / rate), 2) for one in each],
        "full_service_s": next(full, None),
    }


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
