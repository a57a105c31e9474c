"""Run a job as a user does: its script, its flags, its output, its exit code."""

import hashlib
import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests import cluster

REPO = Path(__file__).resolve().parent.parent

SPEC: dict[str, Any] = {
    "name": "small",
    "recipe": "out_of_focus",
    "seed": 7,
    "source": "package://skimage/data/ihc.png",
    "index": {"tile_size": 256, "stride": 128},
    "balance": {"axes": {"focus_class": {"from": 0, "to": 29}}, "per_subgroup": 4},
    "output": {"rows_per_shard": 16},
}


def command(name: str, *args: object) -> list[str]:
    """The command line of a job."""
    return [sys.executable, str(REPO / "jobs" / f"{name}.py"), *map(str, args)]


def own_env() -> dict[str, str]:
    """This process's environment, without what a Ray session in it has left there (it turns tokens on).

    And without the one setting of storage that tests/conftest.py makes: a job hands these on to the cluster that it
    joins, whose workers then start at half the pace.
    """
    away = ("RAY_", "AWS_EC2_METADATA_DISABLED")
    return {name: value for name, value in os.environ.items() if not name.startswith(away)}


def run_job(name: str, *args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a job to its end: its script, its flags, its output, its exit code.

    In this process, since to load all that it needs is half of what a small job costs; but in a process of its own, as
    by :func:`start_job`, where it is told its number of workers, and so starts a cluster, or has variables of its own.
    """
    if env or "--workers" in args:
        own = {"cwd": REPO, "env": _env(args, env), "capture_output": True, "text": True, "timeout": 280}
        return subprocess.run(command(name, *args), **own, check=False)
    line = [str(REPO / "jobs" / f"{name}.py"), *map(str, args)]
    out, err, code = io.StringIO(), io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(REPO)
        patch.syspath_prepend(REPO / "jobs")
        patch.setattr(sys, "argv", line)
        wanted = _env(args, None)
        for variable in os.environ.keys() - wanted.keys():
            patch.delenv(variable)
        for variable, value in wanted.items():
            patch.setenv(variable, value)
        try:
            runpy.run_path(line[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int), "a job ends with an exit code"
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


def start_job(
    name: str, *args: object, env: dict[str, str] | None = None, output: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    """Start a job that something is to happen to."""
    return subprocess.Popen(
        command(name, *args), cwd=REPO, env=_env(args, env), stdout=output, stderr=output, text=True
    )


def _env(args: tuple[object, ...], more: dict[str, str] | None) -> dict[str, str]:
    # On the cluster of the tests; a job that is told its number of workers starts its own.
    where = {} if "--workers" in args else {"RAY_ADDRESS": cluster.address()}
    return {**own_env(), **where, **(more or {})}


def write_spec(path: Path, **changes: Any) -> Path:
    """The small spec, with top-level keys replaced, as a file."""
    path.write_text(yaml.safe_dump({**SPEC, **changes}, sort_keys=False))
    return path


def digests(corpus: Path) -> dict[str, str]:
    """SHA-256 of every file of a corpus but the two that hold seconds."""
    return {
        path.relative_to(corpus).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and path.name not in ("manifest.parquet", "report.html") and "catalog" not in path.parts
    }


def assert_one_line(done: subprocess.CompletedProcess[str], message: str) -> None:
    """The user's mistake: exit 2, and one line of error, the last."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert [line for line in lines if "/s, " not in line] == lines[-1:]  # the others tell how far the job is
    assert message in lines[-1]


def rows_of(corpus: Path) -> list[dict[str, object]]:
    """All rows of a corpus, in the files' order."""
    return [row for path in sorted((corpus / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
