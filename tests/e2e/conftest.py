"""The corpus that the tests of the whole job look at, made once."""

from pathlib import Path

import pytest

from tests.jobs import run_job, write_spec


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    spec = write_spec(folder / "spec.yaml")
    done = run_job("generate", "--spec", spec, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    assert "120 rows, 8 shards" in done.stdout
    assert "report.html" in done.stdout
    return folder / "out"
