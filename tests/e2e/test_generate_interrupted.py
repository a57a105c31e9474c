"""The whole job, stopped in the middle and started again."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import corpora
from tests.faults.disturbances import committed, data_digests
from tests.jobs import run_job, start_job, write_spec

pytestmark = pytest.mark.slow


def test_ctrl_c_and_a_kill_leave_what_the_same_command_ends_with_the_same_bytes(tmp_path: Path) -> None:
    balance = {"axes": {"focus_class": {"from": 0, "to": 29}}, "per_subgroup": 20, "max_reuse": 1000}
    spec, out = write_spec(tmp_path / "spec.yaml", balance=balance), tmp_path / "out"
    args = ("generate", "--spec", spec, "--out", out)
    running = start_job(*args, output=subprocess.PIPE)
    while running.poll() is None and not committed(out):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "interrupted; what is finished is kept" in err
    assert "Traceback" not in err
    kept = committed(out)
    assert 0 < kept < 38
    running = start_job(*args)
    while running.poll() is None and committed(out) < kept + 3:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (out / "manifest.parquet").exists()
    kept = committed(out)
    done = run_job(*args)
    assert done.returncode == 0, done.stderr
    made = re.search(r"600 rows, 38 shards, .*; ([\d,]+) rows made now", done.stdout)
    assert made is not None
    assert 0 < int(made[1]) <= 600 - 16 * (kept - 1)  # the last shard may have fewer rows
    assert not list(out.rglob(".staging"))
    corpora.make_ordered(spec, tmp_path / "plain")
    assert data_digests(out) == data_digests(tmp_path / "plain")
