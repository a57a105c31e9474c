from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medsynth.distributed import runs
from medsynth.distributed.board import Progress
from medsynth.distributed.loop import means
from medsynth.errors import TrainingError
from tests.distributed.toys import ToyJob, ToyPace, learn


def test_a_run_that_goes_on_leaves_what_one_leaves_that_was_never_stopped(tmp_path: Path) -> None:
    whole, parted = ToyJob(str(tmp_path / "whole")), ToyJob(str(tmp_path / "parted"))
    told: list[Progress] = []
    learn(whole, told)
    assert [one.step for one in told] == list(range(5, 61, 5))
    assert [one.step for one in told if one.figures] == [20, 40, 60]
    learn(replace(parted, pace=ToyPace(steps=25)), [])
    learn(parted, [])
    assert runs.load_rows(parted.out, 60)[-1] == runs.load_rows(whole.out, 60)[-1]
    (_, one), (_, other) = (runs.load_checkpoint(job.out) or pytest.fail("no checkpoint") for job in (whole, parted))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "whole" / "seen" / "all.txt").read_bytes() == b"all"


def test_only_the_first_worker_writes(tmp_path: Path) -> None:
    learn(ToyJob(str(tmp_path)), None)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    sums = {"loss": torch.tensor(6.0), "other": torch.tensor(3.0)}
    assert means(sums, 20, 3, lambda _: None) == {"loss": 2.0, "other": 1.0}
    for bad in (float("nan"), float("inf")):
        with pytest.raises(TrainingError, match="step 20: the loss is no number any more; lower the learning rate"):
            means({**sums, "other": torch.tensor(bad)}, 20, 3, lambda _: None)
