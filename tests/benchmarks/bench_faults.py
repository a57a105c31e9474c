"""Kill it anywhere, run the same command again: the corpus ends the same, to the byte.

A 200-shard run, and the digests of an undisturbed one with another number of workers to hold each
against:

- driver: the job's process gets SIGKILL at 20 random moments, each time the same command follows
- workers: a worker process gets SIGKILL every few seconds
- server: sources and output on an S3 server that fails 10 % of its requests and delays 10 %
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import harness
import psutil

from tests.jobs import REPO, command, digests, run_job, write_spec
from tests.servers import FaultProxy, Faults, moto_server

SHARDS, ROWS_PER_SHARD = 200, 60
FAULTS = Faults(fail_share=0.1, delay_share=0.1, delay_seconds=0.5, seed=1)


def specification(folder: Path, shards: int) -> Path:
    """The order of the run, as a file."""
    return write_spec(
        folder / "spec.yaml",
        balance={"axes": {"focus_class": {"from": 0, "to": 29}}, "total": shards * ROWS_PER_SHARD, "max_reuse": 10_000},
        output={"rows_per_shard": ROWS_PER_SHARD},
    )


def make(spec: Path, out: Path | str, *flags: str, env: dict[str, str] | None = None) -> None:
    """Run the job to its end."""
    done = run_job("generate", "--spec", spec, "--out", out, *flags, env=env)
    if done.returncode:
        raise SystemExit(f"the job failed: {done.stderr}")


def shards_in(out: Path) -> int:
    """Shards committed so far."""
    return len(list((out / "data").glob("*.parquet"))) if (out / "data").is_dir() else 0


def killed_driver(spec: Path, out: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    """SIGKILL the job at random moments: some while it starts, most spread over its shards."""
    at = []
    for number in range(kills):
        running = start(spec, out)
        if number % 4 == 0:
            time.sleep(draw.uniform(0.5, 8))
        else:
            goal = shards_in(out) + draw.randint(1, 2 * SHARDS // kills)
            while running.poll() is None and shards_in(out) < goal:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.1))
        at.append(shards_in(out))
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
        running.wait()
    make(spec, out)
    return {"kills": kills, "shards_at_kill": at}


def killed_workers(spec: Path, out: Path, every: float, draw: random.Random) -> dict[str, Any]:
    """SIGKILL a random worker process every few seconds until the job ends."""
    running, kills = start(spec, out), 0
    while running.poll() is None:
        time.sleep(draw.uniform(0.5, 1.5) * every)
        try:
            workers = [p for p in psutil.Process(running.pid).children(recursive=True) if p.name().startswith("ray::")]
            busy = [p for p in workers if "IDLE" not in p.name()]
            if busy:
                draw.choice(busy).kill()
                kills += 1
        except psutil.Error:
            continue
    if running.returncode:
        raise SystemExit(f"the job failed under worker kills: {running.returncode}")
    return {"kills": kills}


def faulty_server(spec: Path, out: Path, folder: Path) -> dict[str, Any]:
    """Write to, and read the spec from, an S3 server that fails and delays; then fetch the corpus."""
    with moto_server(folder) as server, FaultProxy(server, FAULTS) as proxy:
        bucket = server.bucket()
        server.client().upload_file(str(spec), bucket.removeprefix("s3://"), "spec.yaml")
        make(f"{bucket}/spec.yaml", f"{bucket}/corpus", env=proxy.env)  # type: ignore[arg-type]
        counts = proxy.counts()
        client = server.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket.removeprefix("s3://"), Prefix="corpus/")
        for item in (item for page in pages for item in page["Contents"]):
            target = out / item["Key"].removeprefix("corpus/")
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket.removeprefix("s3://"), item["Key"], str(target))
    return {"requests": counts}


def start(spec: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start the job and do not wait."""
    return subprocess.Popen(
        command("generate", "--spec", spec, "--out", out),
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    """Disturb, compare, print and write; exit 1 if any byte differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--quick", action="store_true", help="40 shards and 4 kills")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shards, kills = (40, 4) if args.quick else (SHARDS, 20)
    draw, results = random.Random(args.seed), {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["HOME"] = str(folder)
        spec = specification(folder, shards)
        make(spec, folder / "undisturbed", "--workers", "1")
        expected = digests(folder / "undisturbed")
        for name, disturb in {
            "driver": lambda out: killed_driver(spec, out, kills, draw),
            "workers": lambda out: killed_workers(spec, out, 3, draw),
            "server": lambda out: faulty_server(spec, out, folder),
        }.items():
            begun = time.perf_counter()
            told = disturb(folder / name)
            same = {
                k: v for k, v in digests(folder / name).items() if k.startswith(("data/", "rejects/", "sources"))
            } == {k: v for k, v in expected.items() if k.startswith(("data/", "rejects/", "sources"))}
            results[name] = {**told, "identical": same, "seconds": time.perf_counter() - begun}
            print(f"{name}: {'identical' if same else 'DIFFERENT'}, {told}", flush=True)
            shutil.rmtree(folder / name)
    harness.write("faults", {"shards": shards, "seed": args.seed, "runs": results}, args.out)
    sys.exit(0 if all(run["identical"] for run in results.values()) else 1)


if __name__ == "__main__":
    main()
