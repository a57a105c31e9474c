"""A training run on Ray: its workers, their batches, and what comes back to the driver.

Ray Train runs one worker a GPU (or a share of the CPUs); inside each, a Ray Data pipeline of its own makes
the worker's share of every step on CPUs, ahead of the step and in order. One row is one step's share,
a pure function of its number, so nothing depends on timing, and a run that goes on starts its pipeline at the
step where it stopped. Every worker gets the same number of rows: unequal numbers would hang the others.

What is retry-safe and why: a sample task reads and returns arrays, so Ray may run it again anywhere. A worker
that dies takes the others down; all are started again and go on from the last checkpoint, as long as each attempt
gets further than the one before.
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

import ray
import ray.train
import torch
import torch.distributed
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device

from medsynth import storage
from medsynth.distributed import runs
from medsynth.distributed.board import Board, Progress
from medsynth.distributed.pipeline import Arrays, Feed, Share, batches
from medsynth.errors import TrainingError, UserError

Average = Callable[[Sequence[torch.Tensor]], None]
"""Replaces each tensor by its mean over all workers, in place."""

_POLL_SECONDS = 0.5


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

    def validate(self, batches: Sequence[Arrays]) -> tuple[dict[str, float], dict[str, bytes]]:
        """Figures on held-out samples; and files for a person to look at, by their paths in the run's folder."""

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
        """How many batches there are to validate on; 0 for none."""

    def learner(self, device: torch.device, average: Average, rank: int) -> Learner:
        """What learns, at its start; the same on every worker, but for the noise that it may draw."""


@dataclass(frozen=True)
class Shares:
    """CPUs of one worker and of its sample tasks."""

    threads: int
    """Of the worker's own reckoning."""
    trainer: float
    """CPUs reserved for it."""
    tasks: int
    """Sample tasks at the same time."""
    task: float
    """CPUs reserved for each of them."""


def train(
    job: Job, *, workers: int = 1, gpu: bool = False, progress: Callable[[Progress], None] = lambda _: None
) -> None:
    """Train to the end, from the last checkpoint where there is one. Call it inside a session.

    Args:
        job: the run.
        workers: how many train side by side, as :func:`processors` says.
        gpu: whether each of them gets a GPU.
        progress: called at every line of the curve.

    Raises:
        TrainingError: the loss is no number any more.
        UserError: whatever the job's own functions raise of that kind.
    """
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    config = {"job": job, "feed": [ray.put(job.feed)], "shares": shares(workers, gpu, nodes)}
    furthest = 0
    while True:
        reached, error = _attempt(config, workers, gpu, progress)
        if error is None:
            return
        # A machine that died is no reason to stop, a fault that comes at the same step again is.
        if reached <= furthest or isinstance(error, UserError):
            raise error
        furthest = reached


def _attempt(
    config: dict[str, Any], workers: int, gpu: bool, progress: Callable[[Progress], None]
) -> tuple[int, BaseException | None]:
    """Train until all is done or a worker fails; the last step told, and what failed."""
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    # Ray Train wants a place for what its own checkpoints leave; there are none (see runs.py).
    scratch = tempfile.mkdtemp(prefix="medsynth-train-")
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    trainer = TorchTrainer(
        _work,
        train_loop_config={**config, "board": board},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": config["shares"].trainer, **({"GPU": 1} if gpu else {})},
            placement_strategy="PACK" if gpu else "SPREAD",
        ),
        run_config=RunConfig(name="run", storage_path=scratch),
    )
    outcome: list[BaseException] = []
    # In a thread of its own, since fit() says nothing until it is done, and would take Ctrl-C for itself.
    fitting = threading.Thread(target=_fit, args=(trainer, outcome), daemon=True)
    reached, mistake = 0, None
    fitting.start()
    try:
        running = True
        while running:
            fitting.join(_POLL_SECONDS)
            running = fitting.is_alive()
            for item in ray.get(board.take.remote()):
                if isinstance(item, str):
                    mistake = UserError(item)
                else:
                    reached = item.step
                    progress(item)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return reached, mistake or (outcome[0] if outcome else None)


def _fit(trainer: TorchTrainer, outcome: list[BaseException]) -> None:
    try:
        trainer.fit()
    except BaseException as error:
        outcome.append(error)


def processors(device: Literal["auto", "cpu", "gpu"], workers: int | None, batch: int) -> tuple[bool, int]:
    """What to train on in this session.

    Args:
        device: auto for GPUs where there are any.
        workers: how many; by default one a GPU, or one on CPUs.
        batch: samples of a step, which the workers share equally.

    Returns:
        Whether to use GPUs, and the number of workers.

    Raises:
        TrainingError: there are too few GPUs, or the batch cannot be shared out.
    """
    there = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if device == "gpu" and there < (workers or 1):
        raise TrainingError(
            f"--device gpu: {workers or 1} GPU(s) are asked for and the session has {there}; take --device cpu, or "
            "fewer --workers"
        )
    gpu = device == "gpu" or (device == "auto" and there >= (workers or 1))
    workers = workers or (there if gpu else 1)
    if batch % workers:
        raise TrainingError(f"batch {batch}: {workers} workers cannot share it equally; take a multiple of {workers}")
    return gpu, workers


def shares(workers: int, gpu: bool, nodes: Sequence[float]) -> Shares:
    """Part a session's CPUs between training workers and the tasks that make their samples.

    Args:
        workers: how many train side by side.
        gpu: whether on GPUs.
        nodes: CPUs of each machine.

    Returns:
        What each worker has. It is never all CPUs for the workers, which would wait for samples that nothing
        is left to make. Where there are few, there is one task more than fits, for what a waiting worker
        leaves idle.
    """
    each = sum(nodes) / workers
    threads = 1 if gpu else max(1, int(min(each, max(nodes)) / 3))
    trainer = float(threads) if each >= 4 else each / 4
    tasks = max(1, math.ceil(each - trainer))
    return Shares(threads, _floor(trainer), tasks, min(1.0, _floor((each - trainer) / tasks)))


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


def _train(job: Job, feed: Any, board: Any, shares: Shares) -> None:
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(shares.threads)
    pace = job.pace
    average = functools.partial(_average, workers)
    learner = job.learner(get_device(), average, rank)
    done, rows = _resume(job, learner)
    held_out: list[Arrays] = []
    clock, saved = _Clock(), time.monotonic()
    sums: dict[str, torch.Tensor] = {}
    since = 0
    own = Share(rank, workers, pace.batch // workers)
    made = batches(feed, own, done, pace.steps, shares.tasks, shares.task)
    for step in range(done + 1, pace.steps + 1):
        asked = time.monotonic()
        batch = next(made)
        clock.waited += time.monotonic() - asked
        for name, loss in learner.step(batch).items():
            sums[name] = sums[name] + loss if name in sums else loss
        since += 1
        if step % pace.log_every and step < pace.steps:
            continue
        losses = means(sums, step, since, average)
        seconds = time.monotonic() - clock.started
        if rank == 0:
            figures: dict[str, float] = {}
            if step % pace.validate_every == 0 or step == pace.steps:
                # Made here: the CPUs for samples are all taken by those that make the steps'.
                held_out = held_out or [job.feed.held_out(number) for number in range(job.held_out_batches)]
                figures, files = learner.validate(held_out)
                for path, data in files.items():
                    storage.put(storage.join(job.out, path), data)
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
    done, rows = runs.resume(job.out, learner.load)
    # A run that is being killed may still put its last checkpoint while this one starts.
    steps = torch.tensor([done, -done], device=get_device())
    torch.distributed.all_reduce(steps, op=torch.distributed.ReduceOp.MAX)
    if int(steps[0]) != -int(steps[1]):
        raise RuntimeError("the workers found different checkpoints; another run was still writing here")
    return done, rows


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


def means(sums: Mapping[str, torch.Tensor], step: int, count: int, average: Average) -> dict[str, float]:
    """Mean losses of the last steps, over all workers.

    Args:
        sums: over the steps, by name, scalars.
        step: the last of them.
        count: how many.
        average: over the workers.

    Raises:
        TrainingError: one of them is infinite or no number.
    """
    flat = torch.stack([total.detach().float().reshape(()) for total in sums.values()]) / count
    average([flat])
    if not bool(flat.isfinite().all()):
        raise TrainingError(f"step {step}: the loss is no number any more; lower the learning rate")
    return dict(zip(sums, flat.tolist(), strict=True))
