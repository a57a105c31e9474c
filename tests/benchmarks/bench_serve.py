"""The service under load, against the bare models in the same run; figures go to bench-out/serve.json.

For the scorer and for the generator: saturation, latency at half of it, four times what it can take, and a killed
replica; then 2,000 malformed requests with the memory of all of the service's processes. Clients are threads of one
process on the same machine, and take part of its time.

Run: PYTHONPATH=. python tests/benchmarks/bench_serve.py [seconds of each part, 10; of the overload six times that]
With RAY_SERVE_ENABLE_HA_PROXY=1 and MEDSYNTH_API_TOKENS in the environment, HAProxy stands in for Serve's own proxy.
"""

import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HOME"] = tempfile.mkdtemp(prefix="medsynth-home-")  # Ray writes a token there
os.environ["OMP_NUM_THREADS"] = "1"

from serve.environment import FAST

os.environ |= FAST  # as `make serve` starts it

import numpy as np
import psutil
import torch
from ray import serve

from medsynth import images
from medsynth.distributed.session import session
from medsynth.focus.model import FocusModel
from medsynth.recipes import photo, processor
from medsynth.skin.model import SkinModel
from serve.app import app
from serve.client import Client, ServiceError
from serve.generator import Artist
from serve.wire import Asked
from tests.benchmarks import harness
from tests.benchmarks.service_load import (
    Ask,
    Load,
    at_random,
    counted,
    flood,
    latencies,
    of_one_server,
    recovery,
    request_of,
    steady,
    told,
)
from tests.serve.local import encoded
from tests.servers import free_port
from tests.slides import stained

TILES_A_REQUEST = 16
SIDE = 512
PICTURES_A_REQUEST = 8


@dataclass(frozen=True)
class Work:
    """What is asked of a model, through the service and without it."""

    deployment: str
    many: Ask
    """A request of a batch's worth."""
    images: int
    """In it."""
    one: Ask
    """A request of one image."""
    bare: Callable[[], object]
    """The model alone, over a batch."""
    bare_many: Callable[[], object]
    """All that the service does for :attr:`many`, but in a loop."""
    bare_one: Callable[[], object]
    """All that the service does for :attr:`one`."""
    clients: int
    """That keep the service busy with :attr:`many`."""
    clients_of_one: int


def scorer() -> Work:
    """The focus network, which judges one image after another."""
    model = FocusModel.load()
    tiles = [encoded(stained(SIDE, SIDE, n), "JPEG", quality=85) for n in range(TILES_A_REQUEST)]
    pixels = [images.decode(tile) for tile in tiles]

    def asked(tiles: list[bytes]) -> Ask:
        return lambda client: tuple(one.radius_px for one in client.scores(tiles, 0.25))

    return Work(
        "FocusScorer",
        asked(tiles),
        len(tiles),
        asked(tiles[:1]),
        lambda: [model.score(one, 0.25) for one in pixels],
        lambda: [model.score(images.decode(one), 0.25) for one in tiles],
        lambda: model.score(images.decode(tiles[0]), 0.25),
        4,
        16,
    )


def generator() -> Work:
    """The skin generator, which draws eight pictures at once, or one at the cost of eight."""
    model = SkinModel.load()
    artist, condition = Artist(model), model.conditions[0]
    plan = [photo.request(model, condition, 3, None, seed) for seed in range(PICTURES_A_REQUEST)]
    wanted = Asked(condition, fitzpatrick=3)

    def drawn(count: int) -> Ask:
        return lambda client: tuple(
            one.data for one in client.skin_images(condition, count, fitzpatrick="III", seed=0, format="jpeg")
        )

    def bare() -> object:
        with processor.settled():
            return model.draw(plan, list(range(PICTURES_A_REQUEST)))

    def whole(count: int) -> object:
        ones = [(one, seed) for seed, one in enumerate(artist.requests(wanted, range(count)))]
        return [artist.finish(wanted, one, made) for one, made in zip(ones, artist.draw(ones), strict=True)]

    return Work(
        "SkinGenerator",
        drawn(PICTURES_A_REQUEST),
        PICTURES_A_REQUEST,
        drawn(1),
        bare,
        lambda: whole(PICTURES_A_REQUEST),
        lambda: whole(1),
        3,
        16,
    )


def loop(act: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call, over and over."""
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        act()
        took.append(time.monotonic() - started)
    return took


def memory() -> float:
    """MiB that the service's processes hold for themselves: the replicas, Serve's proxy and its controller."""
    ours = [one for one in psutil.Process().children(recursive=True) if _SERVICE.search(" ".join(one.cmdline()))]
    return sum(one.memory_full_info().uss for one in ours) / 2**20


_SERVICE = re.compile("ray::(Serve|Proxy|HAProxy)|haproxy -")


def pid_of(deployment: str) -> int:
    title = f"ServeReplica:medsynth:{deployment}"
    return next(one.pid for one in psutil.Process().children(recursive=True) if title in " ".join(one.cmdline()))


def saturation(address: str, work: Work, seconds: float) -> dict[str, Any]:
    """The service and the bare model in turns, as the machine's speed changes."""
    rates = []
    for _ in range(3):
        model = work.images / float(np.median(loop(work.bare, seconds / 3)))
        whole = work.images / float(np.median(loop(work.bare_many, seconds / 3)))
        load = Load(address, work.many, work.clients).run(seconds)
        rates.append((model, whole, work.images * load.rate))
    model, whole, served = (float(np.median(one)) for one in zip(*rates, strict=True))
    return {
        "images_a_request": work.images,
        "bare_images_per_second": model,
        "bare_with_files": whole,
        "served_images_per_second": served,
        "served_over_bare": float(np.median([one[2] / one[0] for one in rates])),
        "served_over_bare_with_files": float(np.median([one[2] / one[1] for one in rates])),
    }


def half_load(address: str, ask: Ask, clients: int, bare: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Latencies where half as many requests come as can be answered: evenly, and at random."""
    one = float(np.median(loop(bare, seconds / 3)))
    rate = Load(address, ask, clients).run(seconds).rate / 2
    found: dict[str, Any] = {"requests_per_second": rate, "bare_ms": 1e3 * one}
    for name, times in (("evenly", steady(rate, 2 * seconds)), ("at_random", at_random(rate, 2 * seconds))):
        took, refused = latencies(address, ask, times)
        found[name] = {**told(took, one), "refused": dict(refused)}
        if name == "at_random":
            found[name]["p99_over_bare_of_an_ideal_server"] = told(of_one_server(times, one), one)["p99_over_bare"]
    return found


def overload(address: str, ask: Ask, count: int, clients: int, seconds: float) -> dict[str, Any]:
    """Requests come at four times the rate of saturation, answered or not; then, again, as at saturation.

    Args:
        address: of the service.
        ask: what is asked.
        count: images in it.
        clients: that saturate the service.
        seconds: how long.

    Returns:
        Where less is offered than wanted, it was held back: by the clients where they took a core of their own, else
        by a service that kept all of their connections waiting. Answers after it are told with those that the flood
        still got, and without: what a new request meets.
    """
    rate = Load(address, ask, clients).run(seconds / 6).rate
    request, before, samples = request_of(address, ask), memory(), []
    (right,) = flood(address, request, 1, 1, time.monotonic())
    start, spent = time.monotonic() + 0.1, time.process_time()
    end = start + seconds
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood, address, request, 4 * rate, seconds, start)
        for when in np.linspace(start, end, 11)[1:]:
            time.sleep(max(0.0, when - seconds / 20 - time.monotonic()))
            samples.append(memory())
        time.sleep(max(0.0, end - time.monotonic()))
        spent = time.process_time() - spent
        later = Load(address, ask, clients).run(seconds / 2)
    sent = flooding.result()
    given = [one.ended - end for one in sent if one.status == 200]
    new = [when - end for when in later.answered_at]
    wrong = sum(one.data != right.data for one in sent if one.status == 200)
    return {
        "seconds": seconds,
        "images_per_second": {
            "saturated": count * rate,
            "wanted": 4 * count * rate,
            "offered": count * len(sent) / seconds,
            "answered": count * sum(when < 0 for when in given) / seconds,
        },
        "client_cores": spent / seconds,
        **counted(sent),
        "different_answers": wrong + max(0, len(later.answers) - 1),
        "memory_mib": {"before": before, "while": samples, "after": memory()},
        "after": {
            "all_answers": recovery(given + new, rate, clients, int(seconds / 2)),
            "answers_to_new_requests": recovery(new, rate, clients, int(seconds / 2)),
            "errors": dict(Counter(later.errors)),
        },
    }


def killed(address: str, work: Work, seconds: float) -> dict[str, Any]:
    """A model's replica dies under load."""
    load = Load(address, work.many, work.clients)
    load.start()
    time.sleep(seconds / 4)
    pid = pid_of(work.deployment)
    at, in_flight = time.monotonic(), len(load.in_flight)
    os.kill(pid, signal.SIGKILL)
    time.sleep(seconds)
    load.end()
    later = [when - at for when in load.answered_at if when > at]
    gaps = np.diff(sorted([0.0, *later]))
    return {
        "in_flight_when_killed": in_flight,
        "errors": len(load.errors),
        "errors_by_status": dict(Counter(load.errors)),
        "different_answers": max(0, len(load.answers) - 1),
        "longest_gap_s": float(gaps.max()) if len(gaps) else None,
        "answers_after": len(later),
    }


def malformed(address: str, tile: bytes, count: int) -> dict[str, Any]:
    """Images with bytes changed or missing, and requests that are none."""
    drawn, answers = random.Random(0), Counter[int]()
    client = Client(address, attempts=1)
    before, samples = memory(), []
    for place in range(count):
        if place and place % (count // 10) == 0:
            samples.append(memory())
        data = bytearray(tile)
        for _ in range(drawn.randint(1, 8)):
            data[drawn.randrange(min(len(data), 80 if place % 2 else len(data)))] = drawn.randrange(256)
        if place % 3 == 0:
            del data[drawn.randrange(len(data)) :]
        try:
            if place % 5 == 0:
                client.start_slide(str(bytes(data[:40])), 0.25)
            elif place % 7 == 0:
                client.heat_map(bytes(data), 0.25)
            elif place % 11 == 0:
                client.skin_images_from_map(bytes(data))
            else:
                client.score(bytes(data), 0.25)
            answers[200] += 1
        except ServiceError as error:
            answers[error.status] += 1
    after = memory()
    return {
        "requests": count,
        "answers": dict(answers),
        "memory_mib": {"before": before, "while": samples, "after": after, "growth": after - before},
    }


def main(seconds: float) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {}

    def tell(part: str, name: str, found: dict[str, Any]) -> None:
        print(part, name, found, flush=True)
        results.setdefault(part, {})[name] = found

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with session(os.cpu_count()):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({}), name="medsynth", route_prefix="/")
        for name, work in (("scorer", scorer()), ("generator", generator())):
            for act in (work.bare, work.bare_many, work.bare_one):
                act()  # compiles
            Load(address, work.many, 2).run(2)
            tell(name, "saturation", saturation(address, work, seconds))
            several = half_load(address, work.many, work.clients, work.bare_many, seconds)
            tell(name, "half_load", several)
            tell(name, "half_load_of_one", half_load(address, work.one, work.clients_of_one, work.bare_one, seconds))
            tell(name, "overload", overload(address, work.many, work.images, work.clients, 6 * seconds))
            tell(name, "overload_of_one", overload(address, work.one, 1, work.clients_of_one, 6 * seconds))
            tell(name, "killed", killed(address, work, max(15.0, seconds)))
        tell("rubbish", "malformed", malformed(address, encoded(stained(160, 160)), 2000))
        serve.shutdown()
    harness.write("serve", results, Path("bench-out"))
    failed = results["rubbish"]["malformed"]["answers"].get(500, 0)
    if failed:
        sys.exit(f"malformed: {failed} requests were answered with 500")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
