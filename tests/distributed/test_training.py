from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayActorError

from medsynth.distributed import runs, training
from medsynth.distributed.board import Progress
from medsynth.distributed.training import processors, shares, train
from medsynth.errors import TrainingError, UserError
from tests import cluster
from tests.distributed import toys
from tests.distributed.toys import Line, ToyJob, learn


@pytest.fixture
def _session() -> Iterator[None]:
    with cluster.joined_with(toys):
        yield


def plain_loop(job: ToyJob) -> list[float]:
    """The losses of the same training over whole batches, without Ray."""
    line = Line(lambda gradients: None)
    return [float(line.step(job.feed.batch(step, 0, 1))["loss"]) for step in range(job.pace.steps)]


@pytest.mark.slow
@pytest.mark.usefixtures("_session")
def test_dying_failing_and_going_on_leaves_the_curve_of_a_plain_loop(tmp_path: Path) -> None:
    job = ToyJob(str(tmp_path), dies_after=17)
    seen: list[Progress] = []
    with pytest.raises(UserError, match="tile 7: gone; put it back"):
        train(replace(job, bad_step=43), workers=2, progress=seen.append)
    assert (tmp_path / "died").exists()
    assert 15 < seen[-1].step <= 40, "Ray started the dead worker's group again, which went on"
    found = runs.load_checkpoint(job.out)
    assert found is not None
    stopped = found[0]
    assert 15 < stopped <= 40
    learn(job, [])  # what two workers left, one without Ray goes on with
    rows = runs.load_rows(job.out, job.pace.steps)
    assert [int(row["step"]) for row in rows] == list(range(5, 61, 5))
    expected = np.array(plain_loop(job)).reshape(12, 5).mean(axis=1)
    np.testing.assert_allclose([float(row["loss"]) for row in rows], expected, rtol=1e-4)
    assert (tmp_path / "seen" / "all.txt").read_bytes() == b"all"
    assert {int(row["step"]): row["held_out"] for row in rows if "held_out" in row} == {20: "18", 40: "18", 60: "18"}


@pytest.mark.usefixtures("_session")
def test_a_dead_controller_ends_the_run_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # It got further than before, and yet the run is not tried again: what it held is not given back before the end.
    monkeypatch.setattr(training, "_attempt", lambda *_: (5, RayActorError()))
    with pytest.raises(TrainingError, match=r"controller died.*give the same command again"):
        train(ToyJob(str(tmp_path)))


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    with pytest.raises(TrainingError, match="batch 12: 5 workers cannot share it equally; take a multiple of 5"):
        processors("cpu", 5, 12)
    with pytest.raises(TrainingError, match=r"--device gpu: 3 GPU\(s\) are asked for and the session has 2"):
        processors("gpu", 3, 12)
    assert processors("gpu", None, 12) == (True, 2)
    assert processors("auto", None, 12) == (True, 2)
    assert processors("auto", 3, 12) == (False, 3)
    assert processors("cpu", None, 12) == (False, 1)


@given(st.integers(1, 64), st.booleans(), st.lists(st.integers(1, 128).map(float), min_size=1, max_size=8))
def test_samples_always_have_cpus_and_nobody_has_more_than_there_are(
    workers: int, gpu: bool, nodes: list[float]
) -> None:
    given_ = shares(workers, gpu, nodes)
    assert given_.tasks >= 1
    assert given_.task > 0
    assert given_.trainer > 0
    assert given_.threads >= 1
    assert workers * (given_.trainer + given_.tasks * given_.task) <= sum(nodes) + 1e-9
    assert workers > 1 or given_.trainer <= max(nodes)
