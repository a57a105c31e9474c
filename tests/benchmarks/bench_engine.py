"""The Ray job against a bare multiprocessing pool, and with sources on a slow S3 server.

Contestants make the same corpus with the same function on the same cores, in turn, several rounds:

- pool: multiprocessing.Pool, one shard a call
- ray: generation.generate, from ray.init() to the finished corpus (card and report included)
- ray-s3: the same with every tile an object on an S3 server that adds 30 ms to each GET

The server runs on the same cores; the CPU that it takes is told beside the rates.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil

from medsynth.distributed import generation
from medsynth.distributed.session import session
from medsynth.recipes.preparation import Prepared
from medsynth.recipes.work import Job, make_and_commit
from tests.benchmarks import harness
from tests.benchmarks.workload import cut_tiles, open_corpus, prepared
from tests.servers import delayed_store

POOL_BAR, S3_BAR = 0.9, 0.8
RAY_NICENESS = 15
GET_DELAY_SECONDS = 0.03


def with_pool(run: Prepared, corpus: Path) -> dict[str, float]:
    """Make the corpus's shards with a bare pool."""
    start = time.perf_counter()
    job: Job = open_corpus(run, str(corpus))
    # Ray lowers its workers' priority. The pool's get the same, so that the machine's other work presses on both alike.
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), os.nice, (RAY_NICENESS,)) as pool:
        for _ in pool.imap_unordered(partial(make_and_commit, job), range(run.plan.shards)):
            pass
    return {"whole": time.perf_counter() - start}


def with_ray(run: Prepared, corpus: Path) -> dict[str, float]:
    """Make the corpus with the product's own job."""
    start = time.perf_counter()
    with session(environments=False):
        joined = time.perf_counter()
        generation.generate(run, str(corpus), conditional=True)
        finished = time.perf_counter()
    return {"whole": finished - start, "session_start": joined - start}


def server_cpu() -> float:
    """CPU seconds that the S3 server has taken."""
    own = [process for process in psutil.Process().children() if process.is_running()]
    serving = [process for process in own if "tests.delayed_store" in process.cmdline()]
    return sum(sum(process.cpu_times()[:2]) for process in serving)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--reuse", type=int, default=8, help="outputs a tile; every tile is an object of its own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="8,000 rows, one round: a look, not a measurement")
    args = parser.parse_args()
    rows, rounds = (8_000, 1) if args.quick else (args.rows, args.rounds)
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tiles = folder / "s3" / "tiles"
        tiles.mkdir(parents=True)
        cut_tiles(tiles, rows // args.reuse)
        os.environ |= stack.enter_context(delayed_store(folder / "s3", GET_DELAY_SECONDS)).env
        local, remote = prepared(tiles, str(tiles), rows), prepared(tiles, "s3://tiles", rows)
        for number in range(rounds):
            for name, make, run in (("pool", with_pool, local), ("ray", with_ray, local), ("ray-s3", with_ray, remote)):
                corpus = folder / f"{name}-{number}"
                before = server_cpu()
                seconds[name].append(make(run, corpus) | {"server_cpu": server_cpu() - before})
                shutil.rmtree(corpus)
                print(f"round {number + 1}, {name}: {rows / seconds[name][-1]['whole']:,.0f} tiles/s", flush=True)
    rates = {name: harness.summary([rows / run["whole"] for run in runs]) for name, runs in seconds.items()}
    starts = harness.summary([run["session_start"] for run in seconds["ray"]])
    taken = harness.summary([run["server_cpu"] for run in seconds["ray-s3"]])
    ratios = {
        "ray_over_pool": rates["ray"]["median"] / rates["pool"]["median"],
        "s3_over_local": rates["ray-s3"]["median"] / rates["ray"]["median"],
    }
    print(f"ray / pool: {ratios['ray_over_pool']:.2f} (bar {POOL_BAR}), {starts['median']:.1f} s to start Ray")
    delay = f"{1000 * GET_DELAY_SECONDS:.0f} ms a GET"
    print(f"ray from S3 with {delay} / local: {ratios['s3_over_local']:.2f} (bar {S3_BAR})")
    print(f"the server's own CPU in that run: {taken['median']:.0f} s")
    harness.write(
        "engine",
        {
            "rows": rows,
            "reuse": args.reuse,
            "tiles_a_second": rates,
            "session_start_seconds": starts,
            "server_cpu_seconds": taken,
            "ratios": ratios,
            "bars": {"ray_over_pool": POOL_BAR, "s3_over_local": S3_BAR},
            "runs": dict(seconds),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
