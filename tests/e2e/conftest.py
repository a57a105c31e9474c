"""One Ray session for the jobs of a file, and the corpus that the tests of the whole job look at, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests import cluster
from tests.jobs import run_job, write_spec


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    """What :func:`tests.jobs.run_job` runs here joins no cluster anew: a job's workers serve the next one."""
    with cluster.joined():
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Made by the first of all pytest processes that wants it; nobody changes it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "corpus"
    with FileLock(f"{folder}.lock"):
        if not (folder / "out" / "report.html").exists():
            folder.mkdir(exist_ok=True)
            done = run_job("generate", "--spec", write_spec(folder / "spec.yaml"), "--out", folder / "out")
            assert done.returncode == 0, done.stderr
            assert "120 rows, 8 shards" in done.stdout
            assert "report.html" in done.stdout
    return folder / "out"
