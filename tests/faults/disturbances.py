"""Ways to disturb a run of the job; each ends with a complete corpus, and tells what was done to it."""

import hashlib
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import skimage
from ray.cluster_utils import Cluster

from tests import corpora
from tests.jobs import digests, run_job, start_job, write_spec
from tests.servers import FaultProxy, Faults, S3Server, moto_server

FAULTS = Faults(fail_share=0.1, delay_share=0.1, delay_seconds=0.5, seed=1)
ROWS_PER_SHARD = 60
_KEPT = ("data/", "rejects/", "sources")


def specification(path: Path, shards: int, **changes: Any) -> Path:
    """The order of a run of so many shards, as a file."""
    balance = {"axes": {"focus_class": {"from": 0, "to": 29}}, "total": shards * ROWS_PER_SHARD, "max_reuse": 10_000}
    return write_spec(path, balance=balance, output={"rows_per_shard": ROWS_PER_SHARD}, **changes)


def make(spec: Path, out: Path, *flags: str) -> None:
    """Run the job to its end."""
    done = run_job("generate", "--spec", spec, "--out", out, *flags)
    if done.returncode:
        raise RuntimeError(f"the job failed: {done.stderr}")


def data_digests(corpus: Path) -> dict[str, str]:
    """SHA-256 of a corpus's sources, shards and rejects."""
    return {name: digest for name, digest in digests(corpus).items() if name.startswith(_KEPT)}


def killed_driver(spec: Path, out: Path, shards: int, kills: int, draw: random.Random) -> dict[str, Any]:
    """SIGKILL the job at random moments: some while it starts, most spread over its shards; then let it end."""
    at = []
    for number in range(kills):
        running = _start(spec, out)
        if number % 4 == 0:
            time.sleep(draw.uniform(0.5, 8))
        else:
            goal = committed(out) + draw.randint(1, max(1, 2 * shards // kills - 1))
            while running.poll() is None and committed(out) < goal:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.1))
        at.append(committed(out))
        running.send_signal(signal.SIGKILL)
        running.wait()
    make(spec, out)
    return {"kills": kills, "shards_at_kill": at}


def killed_workers(spec: Path, out: Path, every_seconds: float, most: int, draw: random.Random) -> dict[str, Any]:
    """SIGKILL a worker process that makes a shard every few seconds, at the most so often, until the job ends."""
    running, kills = _start(spec, out), 0
    while running.poll() is None:
        time.sleep(draw.uniform(0.5, 1.5) * every_seconds)
        try:
            below = psutil.Process(running.pid).children(recursive=True)
            busy = [process for process in below if "MapBatches" in (process.cmdline() or [""])[0]]
            if busy and kills < most:
                draw.choice(busy).kill()
                kills += 1
        except psutil.Error:
            continue
    if running.returncode:
        raise RuntimeError(f"the job failed under worker kills: exit {running.returncode}")
    return {"kills": kills}


def lost_machine(spec: Path, out: Path, shards: int) -> dict[str, Any]:
    """On a cluster of a head without CPUs and two machines, take one of the two away when a quarter is done.

    Where Ray gives the run up, the same command follows, as after any other failure; ``went_on`` tells which it was.
    """
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
        running = _start(spec, out, {"RAY_ADDRESS": cluster.address})
        while running.poll() is None and committed(out) < shards // 4:
            time.sleep(0.01)
        at = committed(out)
        cluster.remove_node(machines[0], allow_graceful=False)
        went_on = running.wait(timeout=300) == 0
    finally:
        cluster.shutdown()
    if not went_on:
        make(spec, out)
    return {"shards_at_loss": at, "went_on": went_on}


def faulty_server(folder: Path, shards: int) -> dict[str, Any]:
    """Read from and write to an S3 server that fails and delays; compare with what is made there undisturbed, without
    Ray."""
    with moto_server(folder) as server, FaultProxy(server, FAULTS) as proxy:
        bucket = server.bucket()
        name = bucket.removeprefix("s3://")
        image = Path(skimage.__file__).parent / "data" / "ihc.png"
        server.client().upload_file(str(image), name, "tiles/ihc.png")
        spec = specification(folder / "s3.yaml", shards, source=f"{bucket}/tiles")
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in server.env.items():
                patch.setenv(variable, value)
            corpora.make_ordered(spec, f"{bucket}/plain")
        server.client().upload_file(str(spec), name, "specs/s3.yaml")
        flags = ["--spec", f"{bucket}/specs/s3.yaml", "--out", f"{bucket}/faulty", "--workers", 1]
        done = run_job("generate", *flags, env=proxy.env)
        if done.returncode:
            raise RuntimeError(f"the job failed: {done.stderr}")
        identical = _objects(server, name, "plain/") == _objects(server, name, "faulty/")
        overwrites = "ignores conditional writes" in done.stdout
        return {"identical": identical, "overwrites": overwrites, "requests": proxy.counts()}


def _objects(server: S3Server, bucket: str, prefix: str) -> dict[str, str]:
    client = server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    return {
        key.removeprefix(prefix): hashlib.sha256(client.get_object(Bucket=bucket, Key=key)["Body"].read()).hexdigest()
        for key in keys
        if key.removeprefix(prefix).startswith(_KEPT)
    }


def committed(out: Path) -> int:
    """Shards that stand."""
    return len(list((out / "data").glob("*.parquet"))) if (out / "data").is_dir() else 0


def _start(spec: Path, out: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    own = () if env else ("--workers", "2")  # a cluster of its own, which may be killed with it
    return start_job("generate", "--spec", spec, "--out", out, *own, env=env)
