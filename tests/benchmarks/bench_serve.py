"""The service under load, against the bare model in the same run; figures go to bench-out/serve.json.

Saturation, latency at half of it, four times what it can take, a killed replica, and 2,000 malformed requests with the
memory of all of its processes. Clients are threads of one process on the same machine, and take part of its time.

Run: PYTHONPATH=. python tests/benchmarks/bench_serve.py [seconds of each part, 10; of the overload six times that]
"""

import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["HOME"] = tempfile.mkdtemp(prefix="medsynth-home-")  # Ray writes a token there
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import torch
from ray import serve

from medsynth import images
from medsynth.distributed.session import session
from medsynth.focus.model import FocusModel
from serve.app import app
from serve.client import Client, ServiceError
from tests.benchmarks import harness
from tests.serve.local import encoded
from tests.slides import network, stained

TILES_A_REQUEST = 16
SIDE = 512


class Load:
    """Threads that ask, each at its own pace, until they are stopped."""

    def __init__(self, address: str, tiles: list[bytes], threads: int, pause: float = 0.0) -> None:
        self.seconds: list[float] = []
        self.radii: set[tuple[float, ...]] = set()
        self.refused: Counter[int] = Counter()
        self.without_retry_after = 0
        self.failed_at: list[float] = []
        self.answered_at: list[float] = []
        self._address, self._tiles, self._pause = address, tiles, pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(threads)]

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
        self.lasted = time.monotonic() - self.started
        for one in self._threads:
            one.join()
        return self

    def _ask(self, place: int) -> None:
        client, drawn = Client(self._address, attempts=1), random.Random(place)
        while not self._stop.is_set():
            if self._pause:
                self._stop.wait(drawn.expovariate(1 / self._pause))
            started = time.monotonic()
            try:
                found = client.scores(self._tiles, 0.25)
                self.seconds.append(time.monotonic() - started)
                self.answered_at.append(time.monotonic())
                self.radii.add(tuple(one.radius_px for one in found))
            except ServiceError as error:
                self.refused[error.status] += 1
                self.failed_at.append(time.monotonic())
                self.without_retry_after += error.status in (429, 503) and "retry_after" not in error.problem
                self._stop.wait(0.05)


def bare(model: FocusModel, tiles: list[bytes], seconds: float, *, decoding: bool) -> tuple[float, list[float]]:
    """Tiles a second of the model in a loop, and the latency of each request's worth of tiles."""
    pixels = [images.decode(tile) for tile in tiles]
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        for one in [images.decode(tile) for tile in tiles] if decoding else pixels:
            model.score(one, 0.25)
        took.append(time.monotonic() - started)
    return len(tiles) * len(took) / sum(took), took


def memory() -> float:
    """MiB that the service's processes hold for themselves."""
    ours = psutil.Process().children(recursive=True)
    return sum(one.memory_full_info().uss for one in ours if "ServeReplica" in " ".join(one.cmdline())) / 2**20


def pid_of(deployment: str) -> int:
    title = f"ServeReplica:medsynth:{deployment}"
    return next(one.pid for one in psutil.Process().children(recursive=True) if title in " ".join(one.cmdline()))


def half_load(address: str, tiles: list[bytes], rate: float, latency: float, seconds: float) -> dict[str, Any]:
    """Latencies where requests come at random, half as many as can be answered."""
    threads = 8
    found = Load(address, tiles, threads, pause=max(0.0, threads / (rate / 2) - latency)).run(seconds)
    p50, p99 = np.percentile(found.seconds, [50, 99])
    return {
        "requests_per_second": len(found.seconds) / found.lasted,
        "p50_ms": 1e3 * p50,
        "p99_ms": 1e3 * p99,
        "bare_ms": 1e3 * latency,
        "p99_over_bare": p99 / latency,
        "refused": dict(found.refused),
    }


def overload(address: str, tiles: list[bytes], threads: int, seconds: float) -> dict[str, Any]:
    """Four times as many clients as saturate it."""
    before, samples = memory(), []
    load = Load(address, tiles, threads)
    load.start()
    while time.monotonic() - load.started < seconds:
        time.sleep(seconds / 10)
        samples.append(memory())
    load.end()
    ended = time.monotonic()
    after = Load(address, tiles, 4).run(3)
    return {
        "clients": threads,
        "seconds": load.lasted,
        "tiles_per_second": len(tiles) * len(load.seconds) / load.lasted,
        "refused": dict(load.refused),
        "without_retry_after": load.without_retry_after,
        "different_answers": len(load.radii),
        "memory_mib": {"before": before, "while": samples},
        "after": {
            "first_answer_s": min(after.answered_at) - ended,
            "tiles_per_second": len(tiles) * len(after.seconds) / after.lasted,
            "refused": dict(after.refused),
        },
    }


def killed(address: str, tiles: list[bytes], seconds: float) -> dict[str, Any]:
    """A scorer's replica dies under load."""
    load = Load(address, tiles, 4)
    load.start()
    time.sleep(seconds / 4)
    at = time.monotonic()
    os.kill(pid_of("FocusScorer"), signal.SIGKILL)
    time.sleep(seconds)
    load.end()
    later = [when - at for when in load.answered_at if when > at]
    gaps = np.diff(sorted([0.0, *later]))
    return {
        "refused": dict(load.refused),
        "different_answers": len(load.radii),
        "longest_gap_s": float(gaps.max()) if len(gaps) else None,
        "answers_after": len(later),
    }


def malformed(address: str, tile: bytes, count: int) -> dict[str, Any]:
    """Images with bytes changed or missing, and requests that are none."""
    drawn, answers = random.Random(0), Counter[int]()
    client = Client(address, attempts=1)
    before = memory()
    for place in range(count):
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
            else:
                client.score(bytes(data), 0.25)
            answers[200] += 1
        except ServiceError as error:
            answers[error.status] += 1
    return {"requests": count, "answers": dict(answers), "memory_mib": {"before": before, "after": memory()}}


def main(seconds: float) -> None:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="medsynth-bench-"))
    model = network(None)  # of the shipped one's size; what it says does not matter here
    model.save(str(folder / "w.safetensors"))
    tiles = [encoded(stained(SIDE, SIDE, n), "JPEG", quality=85) for n in range(TILES_A_REQUEST)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, results = f"http://127.0.0.1:{port}", {}
    bare(model, tiles, 1, decoding=True)
    with session(os.cpu_count()):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"focus_weights": str(folder / "w.safetensors")}), name="medsynth", route_prefix="/")
        Load(address, tiles, 2).run(2)
        rates = []
        for _ in range(3):  # in turns, as the machine's speed changes
            loop, _ = bare(model, tiles, seconds / 3, decoding=False)
            whole, took = bare(model, tiles, seconds / 3, decoding=True)
            load = Load(address, tiles, 4).run(seconds / 3)
            rates.append((loop, whole, len(tiles) * len(load.seconds) / load.lasted, float(np.median(took))))
        loop, whole, served, latency = (float(np.median(one)) for one in zip(*rates, strict=True))
        results["saturation"] = {
            "tile": f"{SIDE}x{SIDE} JPEG, {TILES_A_REQUEST} a request",
            "bare_tiles_per_second": loop,
            "bare_with_decoding": whole,
            "served_tiles_per_second": served,
            "served_over_bare": served / loop,
            "served_over_bare_with_decoding": served / whole,
        }
        print(results["saturation"])
        results["half_load"] = half_load(address, tiles, served / len(tiles), latency, seconds)
        print(results["half_load"])
        _, one = bare(model, tiles[:1], seconds / 3, decoding=True)
        single = Load(address, tiles[:1], 4).run(seconds / 3)
        rate = len(single.seconds) / single.lasted
        results["single_tiles"] = {
            "served_tiles_per_second": rate,
            "half_load": half_load(address, tiles[:1], rate, float(np.median(one)), seconds / 2),
        }
        print(results["single_tiles"])
        results["overload"] = overload(address, tiles, 16, 6 * seconds)
        print(results["overload"])
        results["overload_single_tiles"] = overload(address, tiles[:1], 128, seconds)
        print(results["overload_single_tiles"])
        results["malformed"] = malformed(address, encoded(stained(160, 160)), 2000)
        print(results["malformed"])
        results["killed"] = killed(address, tiles, max(15.0, seconds))
        print(results["killed"])
        serve.shutdown()
    harness.write("serve", results, Path("bench-out"))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
