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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
import ray.train
import torch
import torch.distributed
from ray.exceptions import RayActorError
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from medsynth.distributed import loop, runs
from medsynth.distributed.board import Board, Progress
from medsynth.distributed.loop import Job, Learner
from medsynth.distributed.pipeline import Share, batches
from medsynth.errors import TrainingError, UserError

_POLL_SECONDS = 0.5
_CONTROLLER_DIED = (
    "Ray Train's controller died: it was killed, or its machine ran out of memory; give the same command again, which "
    "goes on from the last checkpoint"
)


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
        TrainingError: the loss is no number any more, or what leads the workers died.
        UserError: whatever the job's own functions raise of that kind.
    """
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    # Its machine may go: another is started in its place, and a line of the curve that was not told yet is missing.
    board: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Board).remote()
    config = {"job": job, "feed": [ray.put(job.feed)], "shares": shares(workers, gpu, nodes), "board": board}
    furthest = 0
    while True:
        reached, error = _attempt(config, workers, gpu, progress)
        if error is None:
            return
        if isinstance(error, RayActorError):  # what it holds of the cluster is given back when this driver ends
            raise TrainingError(_CONTROLLER_DIED) from error
        # A machine that died is no reason to stop, a fault that comes at the same step again is.
        if reached <= furthest or isinstance(error, UserError):
            raise error
        furthest = reached


def _attempt(
    config: dict[str, Any], workers: int, gpu: bool, progress: Callable[[Progress], None]
) -> tuple[int, BaseException | None]:
    """Train until all is done or a worker fails; the last step told, and what failed."""
    # Ray Train wants a place for what its own checkpoints leave; there are none (see runs.py).
    scratch = tempfile.mkdtemp(prefix="medsynth-train-")
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    trainer = _Trainer(
        _work,
        train_loop_config=config,
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
            for item in ray.get(config["board"].take.remote()):
                if isinstance(item, str):
                    mistake = UserError(item)
                else:
                    reached = item.step
                    progress(item)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return reached, mistake or (outcome[0] if outcome else None)


class _Trainer(TorchTrainer):
    """Ray Train's, without two processes that this training has no use for.

    One of them gives out datasets, of which there are none here; the other gives back what a run holds whose
    controller died, and here the driver ends with it. Nothing public leaves them out; Ray is pinned.
    """

    def _create_default_callbacks(self) -> list[Any]:
        left_out = (DatasetsCallback, PlacementGroupCleanerCallback)
        found = super()._create_default_callbacks()  # type: ignore[misc]  # of a class that Ray chooses at run time
        return [one for one in found if not isinstance(one, left_out)]


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


def _train(job: Job, feed: Any, board: Any, shares: Shares) -> None:
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(shares.threads)
    average = functools.partial(_average, workers)
    learner = job.learner(get_device(), average, rank)
    done, rows = _resume(job, learner)
    own = Share(rank, workers, job.pace.batch // workers)
    made = batches(feed, own, done, job.pace.steps, shares.tasks, shares.task)
    told: list[Any] = []

    def tell(progress: Progress) -> None:
        told[:] = [board.add.remote(progress)]

    loop.learn(job, learner, made, done, rows, average, tell if rank == 0 else None)
    ray.get(told)


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
