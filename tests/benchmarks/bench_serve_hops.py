"""What Ray Serve itself costs a lone tile: an application that does nothing, behind one hop and behind two.

The service's application takes a request in one process (the ingress, behind Serve's proxy: one hop) and hands it to
the model in another (two hops). What an empty one takes with the same body is the least that a tile can take, whatever
the model; it is told beside the bare model's time for the tile, in the same run and in turns.

Run: PYTHONPATH=. python tests/benchmarks/bench_serve_hops.py [seconds of each part, 6]
With RAY_SERVE_ENABLE_HA_PROXY=1 in the environment, HAProxy stands in for Serve's own proxy.
"""

import http.client
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from ray import serve
from ray.serve.handle import DeploymentHandle

from medsynth.distributed.session import session
from tests.benchmarks import harness
from tests.benchmarks.bench_serve import SIDE, loop, scorer
from tests.benchmarks.service_load import latencies, steady
from tests.serve.local import encoded
from tests.servers import free_port
from tests.slides import stained

RATES = (20, 40)
"""Requests a second, coming evenly."""
ROUNDS = 3


class Behind:
    """Stands where the model stands."""

    async def answer(self, body: bytes) -> dict[str, int]:
        """How long the body is."""
        return {"bytes": len(body)}


api = FastAPI()


@serve.deployment(max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0})
@serve.ingress(api)
class Front:
    """Stands where the ingress stands."""

    def __init__(self, behind: DeploymentHandle[Any]) -> None:
        self._behind = behind

    @api.post("/one")
    async def one(self, request: Request) -> dict[str, int]:
        """Answered here."""
        return {"bytes": len(await request.body())}

    @api.post("/two")
    async def two(self, request: Request) -> dict[str, int]:
        """Answered behind."""
        found: dict[str, int] = await self._behind.answer.remote(await request.body())
        return found


def main(seconds: float) -> None:
    """Measure, print and write."""
    port, tile = free_port(), encoded(stained(SIDE, SIDE, 0), "JPEG", quality=85)
    address, own, bare = f"http://127.0.0.1:{port}", threading.local(), scorer().bare_one
    took: dict[str, list[float]] = {"bare": []}

    def asked(path: str, _: object = None) -> None:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection("127.0.0.1", port)
        own.connection.request("POST", path, tile, {"Content-Type": "image/jpeg"})
        answer = own.connection.getresponse()
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {answer.read()[:200]!r}")
        answer.read()

    with session(os.cpu_count()):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        behind = serve.deployment(max_ongoing_requests=32)(Behind).bind()
        serve.run(Front.bind(behind), name="empty", route_prefix="/")  # type: ignore[attr-defined]
        for _ in range(50):
            bare()
            asked("/one")
            asked("/two")
        for _ in range(ROUNDS):
            took["bare"] += loop(bare, seconds / 2)
            for path in ("/one", "/two"):
                took.setdefault(f"{path[1:]}, one after another", []).extend(loop(partial(asked, path), seconds))
                for rate in RATES:
                    found, _ = latencies(address, partial(asked, path), steady(rate, seconds))
                    took.setdefault(f"{path[1:]}, {rate} a second", []).extend(found)
        serve.shutdown()
    results: dict[str, Any] = {name: told(values) for name, values in took.items()}
    for name, one in results.items():
        one["p99_of_bare"] = one["p99_ms"] / results["bare"]["median_ms"]
        print(
            f"{name:24} median {one['median_ms']:5.1f} ms, p99 {one['p99_ms']:5.1f} ms, {one['p99_of_bare']:.1f}× bare"
        )
    harness.write("serve_hops", results, Path("bench-out"))


def told(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile in ms, of seconds."""
    middle, late = (float(np.percentile(values, share)) * 1e3 for share in (50, 99))
    return {"median_ms": middle, "p99_ms": late, "n": len(values)}


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0)
