"""One worker's training loop: steps, the curve, validation, checkpoints. No Ray here.

Ray Train runs it in each of its workers (:mod:`medsynth.distributed.training`); on a machine without Ray it runs by
itself, over batches from wherever (``tests/benchmarks/bench_gan_quality.py``), to the same checkpoints.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from medsynth import storage
from medsynth.distributed import runs
from medsynth.distributed.board import Progress
from medsynth.distributed.feed import Arrays, Feed
from medsynth.errors import TrainingError

Average = Callable[[Sequence[torch.Tensor]], None]
"""Replaces each tensor by its mean over all workers, in place."""


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


@dataclass
class _Clock:
    """Where the time since the last line of the curve went."""

    started: float = field(default_factory=time.monotonic)
    waited: float = 0.0


def learn(
    job: Job,
    learner: Learner,
    made: Iterator[Arrays],
    done: int,
    rows: list[runs.Row],
    average: Average = lambda _: None,
    tell: Callable[[Progress], None] | None = lambda _: None,
) -> None:
    """Train one worker to the end; what is kept at the run's output is the first worker's to write.

    Args:
        job: the run.
        learner: as the last checkpoint left it.
        made: this worker's share of each step that is left, in order.
        done: steps up to the checkpoint.
        rows: the curve up to there; lines are added.
        average: over all workers.
        tell: called by the first worker at each line of the curve; None for all others.

    Raises:
        TrainingError: the loss is no number any more.
        StorageError: the output cannot be written.
    """
    pace = job.pace
    held_out: list[Arrays] = []
    clock, saved = _Clock(), time.monotonic()
    sums: dict[str, torch.Tensor] = {}
    since = 0
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
        if tell:
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
            tell(Progress(step, pace.steps, losses, rates, figures, rate, waiting))
            if step == pace.steps or time.monotonic() - saved >= pace.checkpoint_seconds:
                runs.save_checkpoint(job.out, step, learner.state(), rows)
                saved = time.monotonic()
        clock, sums, since = _Clock(), {}, 0


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
