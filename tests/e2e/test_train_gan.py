"""The whole job, as a user runs it: killed and going on, and refused."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medsynth.distributed import loop, runs
from medsynth.skin import presets, samples
from medsynth.skin import run as skin
from medsynth.skin.model import Request, SkinModel
from medsynth.skin.run import SkinRun
from tests.jobs import REPO, assert_one_line, run_job
from tests.skin.photos import change_row, write_photos

FLAGS = ("--preset", "smoke", "--seed", "3", "--attribution", "Someone, CC BY 4.0")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_photos(tmp_path_factory.mktemp("photos"), ("NEV", "MEL") * 6)


def set_up(table: str, out: str) -> SkinRun:
    """The job's own run, for a training without Ray."""
    order = skin.Order(out, presets.settings("smoke", "cpu", None, {}), 3, table)
    material = skin.part(order)
    return skin.set_up(order, material, [samples.load(photo, 32).facts for photo in material.whole.photos])


def begin(table: str, out: str) -> None:
    """Train as the job's worker does, in a process of its own that is going to be killed."""
    torch.set_num_threads(1)
    job = set_up(table, out)
    batches = (job.feed.batch(step, 0, 1) for step in range(job.settings.steps))
    loop.learn(job, job.learner(torch.device("cpu"), lambda _: None, 0), batches, 0, [])


def undisturbed(table: str, out: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The same training without Ray: its losses, and its state at the end."""
    job = set_up(table, str(out))
    trainer = job.trainer(torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the job's worker on two cores has: sums in another order end in other bits
    told = [trainer.step(job.feed.batch(step, 0, 1)) for step in range(job.settings.steps)]
    torch.set_num_threads(threads)
    return [{name: float(loss) for name, loss in one.items()} for one in told], trainer.state()


@pytest.mark.slow
def test_what_was_killed_in_the_middle_the_job_ends_as_an_undisturbed_training(table: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("train_gan", "--pairs", table, "--out", out, *FLAGS)
    script = "import sys; from tests.e2e.test_train_gan import begin; begin(*sys.argv[1:])"
    running = subprocess.Popen([sys.executable, "-c", script, table, out], cwd=REPO)
    while running.poll() is None and not (out / "checkpoints" / "last.safetensors").exists():
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert running.returncode == -signal.SIGKILL
    done = run_job(*args)
    assert done.returncode == 0, done.stderr
    assert "training on 9 photos of 9 patients, validated on 3 of 3 others, at 32 px, by 1 CPU worker" in done.stdout
    assert "step 2 of 24" not in done.stdout
    losses, state = undisturbed(table, out)
    found = runs.load_checkpoint(str(out))
    assert found is not None
    assert found[1].keys() == state.keys()
    assert all(torch.equal(found[1][name], tensor) for name, tensor in state.items())
    curve = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in curve] == list(range(2, 25, 2))
    for row, first, second in zip(curve, losses[::2], losses[1::2], strict=True):
        assert [float(row[name]) for name in first] == pytest.approx([(first[n] + second[n]) / 2 for n in first])
    assert [int(row["step"]) for row in curve if row["ita_error"]] == [8, 16, 24]
    assert sorted(path.name for path in (out / "samples").iterdir()) == [
        f"step-0000{n}.png" for n in ("08", "16", "24")
    ]
    model = SkinModel.load(str(out / "skin.safetensors"))
    assert model.about["figures"]["ita_error"] == curve[-1]["ita_error"]
    assert model.draw([Request("MEL", 6)], [1])[0].image.shape == (32, 32, 3)
    assert "Someone, CC BY 4.0" in (out / "README.md").read_text()
    assert json.loads((out / "training.json").read_text())["seed"] == 3
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    other = run_job(*args, "--seed", "4", "--steps", "30")
    assert_one_line(other, "holds another training run (seed: 3 there, 4 now; settings.steps: 24 there, 30 now)")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_mistakes_are_one_line_and_exit_2(table: str, tmp_path: Path) -> None:
    done = run_job("train_gan", "--pairs", table, "--out", tmp_path / "out", *FLAGS, "--batch", "60")
    assert_one_line(done, "9 photo(s) to learn from are fewer than a batch of 60; lower --batch, or add photos")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_weights_are_learnt_on_from_and_those_that_do_not_fit_are_refused(table: str, tmp_path: Path) -> None:
    job = set_up(table, str(tmp_path / "none"))
    job.model(job.trainer(torch.device("cpu")), {}).save(str(tmp_path / "first.safetensors"))
    first = SkinModel.load(str(tmp_path / "first.safetensors"))
    own = tmp_path / "own.yaml"
    own.write_text("{judging_first: 4, losses: {l1: 0, lesion_l1: 0, look: 0}}")
    args = ("train_gan", "--pairs", table, *FLAGS, "--settings", own, "--steps", "8")
    done = run_job(*args, "--begin", tmp_path / "first.safetensors", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = SkinModel.load(str(tmp_path / "out" / "skin.safetensors"))
    assert found.about["begun_sha256"] == first.sha256
    assert not torch.equal(found.network.last.weight, first.network.last.weight)
    assert torch.equal(found.network.floors, first.network.floors)
    other = run_job(*args, "--begin", "shipped", "--out", tmp_path / "other")
    assert_one_line(other, "generator.size is 256 there and 32 in the settings; give the same")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_photos_that_cannot_be_used_are_named_before_anything_is_written(tmp_path: Path) -> None:
    table = write_photos(tmp_path / "photos", ("NEV", "MEL") * 6)
    (tmp_path / "photos" / "2.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "7.png").unlink()
    change_row(table, 4, x1="141")
    done = run_job("train_gan", "--pairs", table, "--out", tmp_path / "out", *FLAGS)
    assert_one_line(done, "(2 more cannot be used either)")
    assert "mend the photo, or leave it out of the table" in done.stderr
    assert not (tmp_path / "out").exists()
