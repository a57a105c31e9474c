"""The driver does not grow with the corpus: planning and committing many empty shards.

A null recipe makes nothing, so what remains is the engine itself: the plan, Ray Data's cost a block,
one conditional create a shard, the records on their way back, the manifest, card and report. Each
size runs in a process of its own; its resident memory is sampled from outside.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from medsynth.distributed import generation
from medsynth.distributed.session import session
from medsynth.errors import Rejected
from medsynth.recipes import preparation
from medsynth.recipes.base import Output, Refusal, Sample, Stopwatch
from medsynth.spec import Axis, Spec, parse
from tests.benchmarks import harness

MEMORY_LIMIT_MB, CPU_LIMIT_MS = 500, 12


class Nothing:
    """A recipe that makes no rows."""

    name = "nothing"
    suffix = "none"
    needs_sources = False
    gpus = 0.0
    parameters: tuple[pa.Field, ...] = ()

    def made_axes(self, axes: Mapping[str, Axis]) -> list[str]:
        return list(axes)

    def identity(self) -> dict[str, Any]:
        return {}

    def notes(self) -> list[str]:
        return []

    def as_real(self, uri: str, table: pa.Table, axes: Mapping[str, Axis]) -> tuple[pa.Table, list[str]]:
        return table, []

    def refuses(self, width: int, height: int, mpp: float | None) -> Rejected | None:
        return None

    def make(self, samples: Sequence[Sample], clock: Stopwatch) -> Iterator[Output | Refusal]:
        return iter(())

    def remake(self, row: Mapping[str, Any]) -> bytes:
        raise NotImplementedError


def one_run(shards: int) -> None:
    """Make a corpus of empty shards and print what it cost the driver."""
    balance = {"axes": {"kind": ["a", "b"]}, "total": shards}
    order = {"name": "empty", "recipe": "out_of_focus", "seed": 1, "balance": balance, "output": {"rows_per_shard": 1}}
    spec = parse(Spec, order, "benchmark")
    with tempfile.TemporaryDirectory() as folder, session(environments=False):
        start, cpu = time.perf_counter(), time.process_time()
        prepared = preparation.prepare(spec, Nothing(), None, "benchmark")
        generation.generate(prepared, folder, conditional=True)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        files = sum(1 for _ in Path(folder, "data").iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "shards": shards,
                "files": files,
                "seconds": wall,
                "driver_cpu_ms_a_shard": 1000 * cpu / shards,
                "peak_mb": peak,
            }
        )
    )


def measured(shards: int) -> dict[str, Any]:
    """Run one size in a process of its own."""
    running = subprocess.Popen([sys.executable, __file__, "--one", str(shards)], stdout=subprocess.PIPE, text=True)
    watched, trace = psutil.Process(running.pid), []
    while running.poll() is None:
        try:
            trace.append(watched.memory_info().rss / 1e6)
        except psutil.Error:
            break
        time.sleep(1)
    output, _ = running.communicate()
    if running.returncode:
        raise SystemExit(f"the run of {shards} shards failed")
    tenth = max(1, len(trace) // 10)
    return {**json.loads(output.splitlines()[-1]), "rss_mb_by_tenth": [round(mb) for mb in trace[::tenth]]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--quick", action="store_true", help="2,000 and 10,000 shards instead of 20,000 and 100,000")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_run(args.one)
        return
    runs = [measured(shards) for shards in ((2000, 10_000) if args.quick else (20_000, 100_000))]
    for run in runs:
        print(
            f"{run['shards']:,} empty shards: peak {run['peak_mb']:.0f} MB (bar {MEMORY_LIMIT_MB}), "
            f"{run['driver_cpu_ms_a_shard']:.1f} ms of driver CPU a shard (bar {CPU_LIMIT_MS}), {run['seconds']:.0f} s"
        )
    harness.write("driver", {"runs": runs, "bars": {"peak_mb": MEMORY_LIMIT_MB, "cpu_ms": CPU_LIMIT_MS}}, args.out)


if __name__ == "__main__":
    main()
