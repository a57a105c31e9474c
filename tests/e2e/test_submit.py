"""``ray job submit`` on a real cluster gives the corpus that the plain command gives."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.jobs import REPO, digests, run_job, write_spec
from tests.servers import free_port

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head started by ``ray start``, on free ports, stopped by its process ids."""
    port, dashboard = free_port(), free_port()
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "RAY_ENABLE_AUTO_CONNECT": "0"}
    before = {process.pid for process in psutil.process_iter()}
    subprocess.run(
        [BIN / "ray", "start", "--head", f"--port={port}", "--num-cpus=2", "--dashboard-host=127.0.0.1",
         f"--dashboard-port={dashboard}", f"--temp-dir=/tmp/ray-{port}", "--disable-usage-stats"],
        env=env, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    yield {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    mine = [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in before
        and any(f"ray-{port}" in part or f":{port}" in part for part in process.info["cmdline"] or [])
    ]
    for process in mine:
        process.kill()
    psutil.wait_procs(mine, timeout=20)


def test_submitted_job_makes_the_same_corpus(cluster: dict[str, str], tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml")
    done = subprocess.run(
        [BIN / "ray", "job", "submit", "--working-dir", ".", "--", "python", "jobs/generate.py",
         "--spec", str(spec), "--out", str(tmp_path / "submitted")],
        cwd=REPO, env=cluster, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "120 rows, 8 shards" in done.stdout
    assert run_job("generate", "--spec", spec, "--out", tmp_path / "plain").returncode == 0
    assert digests(tmp_path / "submitted") == digests(tmp_path / "plain")


def test_a_relative_output_inside_the_jobs_folder_is_refused(cluster: dict[str, str], tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml")
    done = subprocess.run(
        [BIN / "ray", "job", "submit", "--working-dir", ".", "--", "python", "jobs/generate.py",
         "--spec", str(spec), "--out", "corpora/lost"],
        cwd=REPO, env=cluster, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "temporary folder of the submitted job" in done.stdout + done.stderr
