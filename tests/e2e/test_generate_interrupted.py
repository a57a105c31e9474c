"""The whole job, stopped in the middle and started again."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.jobs import digests, run_job, start_job, write_spec

pytestmark = pytest.mark.slow


def test_same_bytes_after_a_kill(corpus: Path, tmp_path: Path) -> None:
    args = ("generate", "--spec", corpus.parent / "spec.yaml", "--out", tmp_path / "out")
    running = start_job(*args)
    data = tmp_path / "out" / "data"
    while running.poll() is None and len(list(data.glob("*.parquet")) if data.is_dir() else []) < 3:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    done = run_job(*args)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(corpus)
    assert not list((tmp_path / "out").rglob(".staging"))


def test_ctrl_c_leaves_a_resumable_corpus(tmp_path: Path) -> None:
    balance = {"axes": {"focus_class": {"from": 0, "to": 29}}, "per_subgroup": 20, "max_reuse": 1000}
    spec = write_spec(tmp_path / "spec.yaml", balance=balance)
    args = ("generate", "--spec", spec, "--out", tmp_path / "out")
    running = start_job(*args, output=subprocess.PIPE)
    data = tmp_path / "out" / "data"
    while running.poll() is None and not (data.is_dir() and list(data.glob("*.parquet"))):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "interrupted; what is finished is kept" in err
    assert "Traceback" not in err
    done = run_job(*args)
    assert done.returncode == 0, done.stderr
    assert 0 < int(re.search(r"([\d,]+) rows made now", done.stdout)[1].replace(",", "")) < 600
