"""The same bytes after worker kills and on a bad server; more of both, and a machine lost, are in make bench."""

import random
from pathlib import Path

import pytest

from tests.faults.disturbances import data_digests, faulty_server, killed_workers

pytestmark = pytest.mark.slow


def test_killed_workers_change_nothing(corpus: Path, tmp_path: Path) -> None:
    # By two workers; one made the corpus that this is held against.
    told = killed_workers(corpus.parent / "spec.yaml", tmp_path / "out", 0.2, 3, random.Random(1))
    assert told["kills"] >= 1
    assert data_digests(tmp_path / "out") == data_digests(corpus)


def test_the_whole_job_from_and_to_a_server_that_fails_and_delays_changes_nothing(tmp_path: Path) -> None:
    told = faulty_server(tmp_path, 8)
    assert told["identical"]
    assert not told["overwrites"], "the server keeps the condition of a put, whatever fails on the way"
    assert sum(told["requests"].get(name, 0) for name in ("error_500", "slow_down_503", "dropped_before")) > 0
