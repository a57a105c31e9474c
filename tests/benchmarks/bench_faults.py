"""Kill it anywhere, run the same command again: the corpus ends the same, to the byte.

A 200-shard run, held against an undisturbed one with another number of workers:

- driver: the job's process gets SIGKILL at 20 random moments, each time the same command follows
- workers: a worker process gets SIGKILL about once a second
- machine: on a cluster of two machines one is lost for good
- server: source and output on an S3 server that fails 10 % of its requests and delays 10 %
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import harness
from tests.faults.disturbances import (
    data_digests,
    faulty_server,
    killed_driver,
    killed_workers,
    lost_machine,
    make,
    specification,
)

SHARDS, KILLS, EVERY_SECONDS = 200, 20, 1.0


def main() -> None:
    """Disturb, compare, print and write; exit 1 if any byte differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--quick", action="store_true", help="40 shards and 4 kills")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shards, kills = (40, 4) if args.quick else (SHARDS, KILLS)
    draw = random.Random(args.seed)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HOME"] = name
        spec = specification(folder / "spec.yaml", shards)
        make(spec, folder / "plain", "--workers", "1")
        expected = data_digests(folder / "plain")
        for disturbance in ("driver", "workers", "machine", "server"):
            begun = time.perf_counter()
            out = folder / disturbance
            if disturbance == "driver":
                told = killed_driver(spec, out, shards, kills, draw)
            elif disturbance == "workers":
                told = killed_workers(spec, out, EVERY_SECONDS, kills, draw)
            elif disturbance == "machine":
                told = lost_machine(spec, out, shards)
            else:
                told = faulty_server(folder, shards)
            told.setdefault("identical", out.exists() and data_digests(out) == expected)
            results[disturbance] = {**told, "seconds": time.perf_counter() - begun}
            print(f"{disturbance}: {'identical' if told['identical'] else 'DIFFERENT'}, {told}", flush=True)
    harness.write("faults", {"shards": shards, "seed": args.seed, "runs": results}, args.out)
    sys.exit(0 if all(run["identical"] for run in results.values()) else 1)


if __name__ == "__main__":
    main()
