"""The whole job, as a user runs it: to the end, going on, and refused."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
from tensorboardX.proto import event_pb2

from medsynth.distributed import loop, runs
from medsynth.distributed.board import Progress
from medsynth.focus import run as focus
from medsynth.focus.model import FocusModel
from tests.jobs import run_job

IHC = Path(skimage.__file__).parent / "data" / "ihc.png"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images; that they overlap does not matter here."""
    folder = tmp_path_factory.mktemp("images")
    picture = cv2.imread(str(IHC))
    for number, (y, x) in enumerate(((0, 0), (0, 192), (192, 0), (192, 192))):
        cv2.imwrite(str(folder / f"{number}.png"), picture[y : y + 320, x : x + 320])
    return folder


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    done = run_job("train_focus", "--source", images, "--out", out, "--preset", "smoke", "--tensorboard")
    assert done.returncode == 0, done.stderr
    assert "training on 3 tiles of 3 slides, validated on 1 tiles of 1 others, by 1 CPU worker(s)" in done.stdout
    assert "step 40 of 40" in done.stdout
    return out


def scalars(file: Path) -> list[tuple[str, int, float]]:
    """Name, step and value of every scalar in a TensorBoard file: records of length, checksum, event, checksum."""
    data, found, at = file.read_bytes(), [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        at += 16 + length
    return found


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))


@pytest.mark.slow
def test_a_run_leaves_weights_curve_and_card(trained: Path) -> None:
    curve = rows(trained)
    assert [int(row["step"]) for row in curve] == list(range(2, 41, 2))
    assert {int(row["step"]) for row in curve if row["class_error"]} == {20, 40}
    model = FocusModel.load(str(trained / "focus.safetensors"))
    picture = cv2.cvtColor(cv2.imread(str(IHC)), cv2.COLOR_BGR2RGB)
    assert 0 <= model.score(np.ascontiguousarray(picture)).radius_px <= model.radii_px[-1]
    card = (trained / "README.md").read_text()
    assert f"| mean error in classes | {float(curve[-1]['class_error']):.4f} |" in card
    assert "jobs/train_focus.py" in card
    assert not list(trained.rglob(".staging"))
    (events,) = (trained / "tensorboard").iterdir()
    assert [(step, float(f"{value:.6g}")) for name, step, value in scalars(events) if name == "training/loss"] == [
        (int(row["step"]), float(f"{float(row['loss']):.6g}")) for row in curve
    ]


@pytest.mark.slow
def test_stopped_in_the_middle_and_gone_on_with_without_ray_it_ends_with_the_same_bytes(
    images: Path, trained: Path, tmp_path: Path
) -> None:
    # The same job is killed for good in tests/e2e/test_train_gan.py and its workers in tests/distributed.
    order = focus.Order(str(tmp_path), focus.settings("smoke", None, {}), 0, str(images))
    job = focus.set_up(order, str(trained / "catalog"))

    def learn(stop: int | None) -> tuple[int, dict[str, torch.Tensor], list[runs.Row]]:
        def tell(progress: Progress) -> None:
            if progress.step == stop:
                raise InterruptedError

        learner = job.learner(torch.device("cpu"), lambda _: None, 0)
        done, curve = runs.resume(job.out, learner.load)
        made = (job.feed.batch(step, 0, 1) for step in range(done, order.settings.steps))
        loop.learn(job, learner, made, done, curve, tell=tell)
        return done, learner.state(), curve

    with pytest.raises(InterruptedError):
        learn(22)
    done, state, curve = learn(None)
    assert done == 20
    focus.finish(job, state, curve, "")
    for name in ("metrics.csv", "focus.safetensors", "checkpoints/last.safetensors"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes(), name


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_another_is_refused(images: Path, trained: Path) -> None:
    args = ("train_focus", "--source", images, "--out", trained, "--preset", "smoke")
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    done = run_job(*args)
    assert done.returncode == 0, done.stderr
    assert "finished before" in done.stdout
    done = run_job(*args, "--steps", "41", "--seed", "1")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {trained}: holds another training run (seed: 0 there, 1 now; settings.steps: 40 there, 41 now); "
        "choose another --out, or remove it\n"
    )
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch", "0"), "batch"),
        (("--learning-rate", "2"), "learning_rate"),
        (("--settings", "/no/such.yaml"), "/no/such.yaml: no such file"),
        (("--loss", "mse"), "mse"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = run_job("train_focus", "--source", tmp_path, "--out", tmp_path / "out", *flags)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
