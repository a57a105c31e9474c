"""A real cluster: ``ray job submit`` gives the corpus that the plain command gives, ``serve deploy`` the service."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from serve import config
from serve.client import Client
from tests.jobs import REPO, digests, own_env, write_spec
from tests.serve.local import encoded
from tests.servers import free_port
from tests.slides import network, stained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head started by ``ray start``, on free ports, stopped by its process ids."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    env = {**own_env(), "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path_factory.mktemp("home"))}
    before = {process.pid for process in psutil.process_iter()}
    started = subprocess.run(
        [BIN / "ray", "start", "--head", f"--port={port}", "--num-cpus=1", "--dashboard-host=127.0.0.1",
         f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",  # else one for the whole machine
         f"--temp-dir=/tmp/ray-{port}", "--disable-usage-stats"],
        env=env, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert started.returncode == 0, started.stdout + started.stderr
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


def submit(cluster: dict[str, str], *args: object) -> subprocess.CompletedProcess[str]:
    """Submit the job as the README says, and wait for its end.

    A head that has only just started may have no agent yet, or take a job and never start it; the job
    is one that can be submitted again.
    """
    line = [BIN / "ray", "job", "submit", "--working-dir", ".", "--", "python", "jobs/generate.py", *args]
    for _ in range(30):
        try:
            done = subprocess.run(
                list(map(str, line)), cwd=REPO, env=cluster, capture_output=True, text=True, timeout=120, check=False
            )
        except subprocess.TimeoutExpired:
            continue
        if "No available agent" not in done.stderr:
            return done
        time.sleep(1)
    pytest.fail("the cluster took no job")


def test_submitted_job_makes_the_same_corpus(cluster: dict[str, str], corpus: Path, tmp_path: Path) -> None:
    done = submit(cluster, "--spec", corpus.parent / "spec.yaml", "--out", tmp_path / "submitted")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "120 rows, 8 shards" in done.stdout
    assert digests(tmp_path / "submitted") == digests(corpus)


def test_a_relative_output_inside_the_jobs_folder_is_refused(cluster: dict[str, str], tmp_path: Path) -> None:
    done = submit(cluster, "--spec", write_spec(tmp_path / "spec.yaml"), "--out", "corpora/lost")
    assert done.returncode != 0
    assert "temporary folder of the submitted job" in done.stdout + done.stderr


def test_serve_deploy_starts_the_service(cluster: dict[str, str], tmp_path: Path) -> None:
    model = network()
    model.save(str(tmp_path / "focus.safetensors"))
    order = yaml.safe_load(config.DEFAULT.read_text())
    order["http_options"]["port"] = port = free_port()
    (application,) = order["applications"]
    application["args"] = {"focus_weights": str(tmp_path / "focus.safetensors")}
    application["runtime_env"] = {"env_vars": {"PYTHONPATH": str(REPO)}}
    for deployment in application["deployments"]:
        deployment["ray_actor_options"]["num_cpus"] = 0.2  # all of them on one
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(order))
    where = ("--address", cluster["RAY_API_SERVER_ADDRESS"])
    deploy = [BIN / "serve", "deploy", tmp_path / "config.yaml", *where]
    done = subprocess.run(deploy, env=cluster, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _ready(f"http://127.0.0.1:{port}/readyz")
    picture = stained(256, 256)
    score = Client(f"http://127.0.0.1:{port}").score(encoded(picture), 0.25)
    assert score.radius_px == pytest.approx(model.score(picture, 0.25).radius_px, rel=1e-5)
    subprocess.run(
        [BIN / "serve", "shutdown", "--yes", *where], env=cluster, capture_output=True, timeout=120, check=True
    )


def _ready(url: str) -> bool:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False
