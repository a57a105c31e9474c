"""A training run on Ray: its workers, their batches, and what comes back to the driver.

Ray Train runs one worker a GPU (or a share of the CPUs); inside each, a Ray Data pipeline of its own makes
the worker's share of every step on CPUs, ahead of the step and in order. One row is one step's share,
a pure function of its number, so nothing depends on timing, and a run that goes on starts its pipeline at the
step where it stopped. Every worker gets the same number of rows: unequal numbers would hang the others.

What is retry-safe and why: a sample task reads and returns arrays, so Ray may run it again anywhere. A worker
that dies takes the group down; Ray starts it again, and each worker goes on from the last checkpoint.
"""

import functools
import logging
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import ray
import ray.train
import torch
import torch.distributed
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from medsynth.distributed import runs
from medsynth.distributed.pipeline import Arrays, Feed, Share, batches
from medsynth.errors import TrainingError, UserError

Average = Callable[[Sequence[torch.Tensor]], None]
"""Replaces each tensor by its mean over all workers, in place."""

_RESTARTS = 3
_POLL_SECONDS = 0.2


class Pace(Protocol):
    """How long a run is and when it looks up; all but the last decide the curve."""

    @property
    def steps(self) -> int:
        """Steps in all."""

    @property
    def batch(self) -> int:
        """Samples of one step, over all workers."""

    @property
    def log_every(self) -> int:
        """Steps between two lines of the curve."""

    @property
    def validate_every(self) -> int:
        """Steps between two validations, a multiple of ``log_every``."""

    @property
    def checkpoint_seconds(self) -> float:
        """Seconds between two checkpoints, which are made at lines of the curve."""


class Learner(Protocol):
    """What learns inside one worker, and holds all state of the training."""

    def step(self, batch: Arrays) -> dict[str, torch.Tensor]:
        """Learn from this worker's share of one step; the losses by name, as scalars on any device."""

    def rates(self) -> dict[str, float]:
        """Figures of the last step that need no averaging, such as the learning rate."""

    def validate(self, batches: Sequence[Arrays]) -> dict[str, float]:
        """Figures on held-out samples."""

    def state(self) -> dict[str, torch.Tensor]:
        """All that is needed to go on exactly."""

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a state."""


class Job(Protocol):
    """One training run, as every worker must know it: small, and picklable."""

    @property
    def out(self) -> str:
        """URI of the output folder."""

    @property
    def pace(self) -> Pace:
        """How long the run is."""

    @property
    def feed(self) -> Feed:
        """What it learns from; sample tasks are given this and nothing else."""

    @property
    def held_out_batches(self) -> int:
        """How many batches there are to validate on; 0 for no validation."""

    def learner(self, device: torch.device, average: Average) -> Learner:
        """What learns, at its start; the same on every worker."""


@dataclass(frozen=True)
class Progress:
    """How far a run is; handed to the caller at every line of the curve."""

    step: int
    steps: int
    losses: dict[str, float]
    """Means over the steps since the last line, over all workers."""
    rates: dict[str, float]
    figures: dict[str, float]
    """Of the validation at this step; empty where there was none."""
    samples_per_second: float
    """Since the last line, validation left out."""
    waiting: float
    """Share of that time in which the first worker waited for its batches."""


@dataclass(frozen=True)
class _Shares:
    """CPUs of one worker and of its sample tasks."""

    threads: int
    """Of the worker's own reckoning."""
    trainer: float
    """CPUs reserved for it."""
    tasks: int
    """Sample tasks at the same time."""
    task: float
    """CPUs reserved for each of them."""


class _Board:
    """Where the first worker leaves its progress, and the driver finds it."""

    def __init__(self) -> None:
        self._items: list[Progress | str] = []

    def add(self, item: Progress | str) -> None:
        self._items.append(item)

    def take(self) -> list[Progress | str]:
        items, self._items = self._items, []
        return items


def train(
    job: Job, *, workers: int = 1, gpu: bool = False, progress: Callable[[Progress], None] = lambda _: None
) -> None:
    """Train to the end, from the last checkpoint where there is one. Call it inside a session.

    Args:
        job: the run.
        workers: how many train side by side; the batch must be a multiple of it.
        gpu: whether each of them gets a GPU.
        progress: called at every line of the curve.

    Raises:
        TrainingError: the batch cannot be shared out, or the loss is no number any more.
        UserError: whatever the job's own functions raise of that kind.
    """
    if job.pace.batch % workers:
        raise TrainingError(
            f"batch {job.pace.batch}: {workers} workers cannot share it equally; take a multiple of {workers}"
        )
    shares = _shares(workers, gpu)
    board = ray.remote(num_cpus=0)(_Board).remote()
    # Ray Train wants a place for what its own checkpoints leave; there are none (see runs.py).
    scratch = tempfile.mkdtemp(prefix="medsynth-train-")
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "feed": [ray.put(job.feed)], "board": board, "shares": shares},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": shares.trainer, **({"GPU": 1} if gpu else {})},
            placement_strategy="PACK" if gpu else "SPREAD",
        ),
        run_config=RunConfig(name="run", storage_path=scratch, failure_config=FailureConfig(max_failures=_RESTARTS)),
    )
    outcome: list[BaseException] = []
    # In a thread of its own, since fit() says nothing until it is done, and would take Ctrl-C for itself.
    fitting = threading.Thread(target=_fit, args=(trainer, outcome), daemon=True)
    fitting.start()
    try:
        while fitting.is_alive():
            fitting.join(_POLL_SECONDS)
            _tell(board, progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _tell(board, progress)
    if outcome:
        raise outcome[0]


def _fit(trainer: TorchTrainer, outcome: list[BaseException]) -> None:
    try:
        trainer.fit()
    except BaseException as error:
        outcome.append(error)


def _tell(board: Any, progress: Callable[[Progress], None]) -> None:
    for item in ray.get(board.take.remote()):
        if isinstance(item, str):
            raise UserError(item)
        progress(item)


def processors(device: Literal["auto", "cpu", "gpu"], workers: int | None) -> tuple[bool, int]:
    """What to train on in this session.

    Args:
        device: auto for GPUs where there are any.
        workers: how many; by default one a GPU, or one on CPUs.

    Returns:
        Whether to use GPUs, and the number of workers.

    Raises:
        TrainingError: there are too few GPUs.
    """
    there = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if device == "gpu" and there < (workers or 1):
        raise TrainingError(
            f"--device gpu: {workers or 1} GPU(s) are asked for and the session has {there}; take --device cpu, or "
            "fewer --workers"
        )
    gpu = device == "gpu" or (device == "auto" and there >= (workers or 1))
    return gpu, workers or (there if gpu else 1)


def _shares(workers: int, gpu: bool) -> _Shares:
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    each = sum(nodes) / workers
    threads = 1 if gpu else max(1, int(min(each, max(nodes)) / 3))
    # Never all CPUs for the workers: they would wait for samples that nothing is left to make. On a small machine
    # there is one task more than fits, which uses what a waiting worker leaves idle.
    trainer = float(threads) if each >= 4 else each / 4
    tasks = max(1, math.ceil(each - trainer))
    return _Shares(threads, _floor(trainer), tasks, min(1.0, _floor((each - trainer) / tasks)))


def _floor(cpus: float) -> float:
    # Ray counts in ten-thousandths.
    return math.floor(cpus * 10_000) / 10_000


def _work(config: dict[str, Any]) -> None:
    board = config["board"]
    try:
        _train(config["job"], config["feed"][0], board, config["shares"])
    except UserError as error:
        ray.get(board.add.remote(str(error)))
        raise


@dataclass
class _Clock:
    """Where the time since the last line of the curve went."""

    started: float = field(default_factory=time.monotonic)
    waited: float = 0.0


def _train(job: Job, feed: Any, board: Any, shares: _Shares) -> None:
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(shares.threads)
    pace = job.pace
    learner = job.learner(get_device(), functools.partial(_average, workers))
    done, rows = _resume(job, learner)
    held_out: list[Arrays] = []
    clock, saved = _Clock(), time.monotonic()
    sums: dict[str, torch.Tensor] = {}
    since = 0
    own = Share(rank, workers)
    made = batches(feed, own, done, pace.steps, pace.batch // workers, shares.tasks, shares.task)
    for step in range(done + 1, pace.steps + 1):
        asked = time.monotonic()
        batch = next(made)
        clock.waited += time.monotonic() - asked
        for name, loss in learner.step(batch).items():
            sums[name] = sums[name] + loss if name in sums else loss
        since += 1
        if step % pace.log_every and step < pace.steps:
            continue
        losses = _means(sums, since)
        seconds = time.monotonic() - clock.started
        if not all(np.isfinite(loss) for loss in losses.values()):
            raise TrainingError(f"step {step}: the loss is no number any more; lower the learning rate")
        if rank == 0:
            figures: dict[str, float] = {}
            if job.held_out_batches and (step % pace.validate_every == 0 or step == pace.steps):
                held_out = held_out or _held_out(job, feed, shares)
                figures = learner.validate(held_out)
            rates = learner.rates()
            rows.append(runs.row(step, {**losses, **rates, **figures}))
            rate, waiting = since * pace.batch / seconds, clock.waited / seconds
            told = board.add.remote(Progress(step, pace.steps, losses, rates, figures, rate, waiting))
            if step == pace.steps or time.monotonic() - saved >= pace.checkpoint_seconds:
                runs.save_checkpoint(job.out, step, learner.state(), rows)
                saved = time.monotonic()
            if step == pace.steps:
                ray.get(told)
        clock, sums, since = _Clock(), {}, 0


def _resume(job: Job, learner: Learner) -> tuple[int, list[runs.Row]]:
    found = runs.load_checkpoint(job.out)
    done = found[0] if found else 0
    if found:
        learner.load(found[1])
    # A run that is being killed may still put its last checkpoint while this one starts.
    steps = torch.tensor([done, -done], device=get_device())
    torch.distributed.all_reduce(steps, op=torch.distributed.ReduceOp.MAX)
    if int(steps[0]) != -int(steps[1]):
        raise RuntimeError("the workers found different checkpoints; another run was still writing here")
    return done, runs.load_rows(job.out, done) if found else []


def _average(workers: int, tensors: Sequence[torch.Tensor]) -> None:
    # One flat sum in one fixed order, not DDP's buckets: DDP lays them out anew after the first step of every
    # start, and with three workers or more the order of the additions, and so the last bit, would tell where
    # a run was interrupted.
    if workers == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    flat /= workers
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _means(sums: Mapping[str, torch.Tensor], steps: int) -> dict[str, float]:
    flat = torch.stack([total.detach().float().reshape(()) for total in sums.values()]) / steps
    _average(torch.distributed.get_world_size(), [flat])
    return dict(zip(sums, flat.tolist(), strict=True))


def _held_out(job: Job, feed: Any, shares: _Shares) -> list[Arrays]:
    # Copied out of the object store, which would otherwise be smaller by them for the rest of the run.
    share = Share(0, 1, held_out=True)
    made = batches(feed, share, 0, job.held_out_batches, job.pace.batch, shares.tasks, shares.task)
    return [{name: array.copy() for name, array in batch.items()} for batch in made]
