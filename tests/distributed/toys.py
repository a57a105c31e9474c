"""A training run small enough to be done in a test, with all the parts of a real one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medsynth.distributed import loop, runs
from medsynth.distributed.board import Progress
from medsynth.distributed.feed import Arrays
from medsynth.distributed.loop import Average
from medsynth.errors import SpecError


class Line:
    """A straight line, fitted with momentum; its process dies once, after some steps, unless there is a mark of it."""

    def __init__(self, average: Average, mark: Path | None = None, dies_after: int = 0) -> None:
        self.weights = torch.zeros(3, requires_grad=True)
        # By hand: torch's optimizers load its compiler, which takes each process longer than all of this run.
        self.momentum = torch.zeros(3)
        self.average = average
        self.mark, self.dies_after, self.steps = mark, dies_after, 0

    def step(self, batch: Arrays) -> dict[str, torch.Tensor]:
        self.steps += 1
        if self.mark is not None and self.steps > self.dies_after and not self.mark.exists():
            self.mark.touch()
            os._exit(1)
        inputs, wanted = torch.from_numpy(batch["x"].copy()), torch.from_numpy(batch["y"].copy())
        loss = (inputs @ self.weights - wanted).square().mean()
        (slope,) = torch.autograd.grad(loss, self.weights)
        self.average([slope])
        with torch.no_grad():
            self.momentum.mul_(0.9).add_(slope)
            self.weights.sub_(0.005 * self.momentum)
        return {"loss": loss.detach()}

    def rates(self) -> dict[str, float]:
        return {"first_weight": float(self.weights[0])}

    def validate(self, batches: Sequence[Arrays]) -> tuple[dict[str, float], dict[str, bytes]]:
        return {"held_out": float(sum(batch["x"].sum() for batch in batches))}, {"seen/all.txt": b"all"}

    def state(self) -> dict[str, torch.Tensor]:
        return {"weights": self.weights.detach(), "momentum": self.momentum}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            self.weights.copy_(state["weights"])
            self.momentum.copy_(state["momentum"])


@dataclass(frozen=True)
class ToyPace:
    steps: int = 60
    batch: int = 120
    log_every: int = 5
    validate_every: int = 20
    checkpoint_seconds: float = 0.0


@dataclass(frozen=True)
class ToyFeed:
    """Points on the line. Apart from the job: whoever makes batches loads no torch."""

    whole: int
    bad_step: int

    def batch(self, step: int, rank: int, workers: int) -> Arrays:
        if step == self.bad_step:
            raise SpecError("tile 7: gone; put it back")
        each = self.whole // workers
        inputs = np.random.default_rng(step).normal(size=(self.whole, 3)).astype(np.float32)
        inputs = inputs[rank * each : (rank + 1) * each]
        return {"x": inputs, "y": inputs @ np.array([1, -2, 3], np.float32)}

    def held_out(self, number: int) -> Arrays:
        return {"x": np.full((2, 3), number, np.float32)}


@dataclass(frozen=True)
class ToyJob:
    out: str
    pace: ToyPace = ToyPace()
    held_out_batches: int = 3
    dies_after: int | None = None
    bad_step: int = -1

    @property
    def feed(self) -> ToyFeed:
        return ToyFeed(self.pace.batch, self.bad_step)

    def learner(self, device: torch.device, average: Average, rank: int) -> Line:
        return Line(average) if self.dies_after is None else Line(average, Path(self.out, "died"), self.dies_after)


def learn(job: ToyJob, tell: list[Progress] | None) -> None:
    """Train in this process, without Ray, from the last checkpoint to the end."""
    learner = job.learner(torch.device("cpu"), lambda _: None, 0)
    done, rows = runs.resume(job.out, learner.load)
    made = (job.feed.batch(step, 0, 1) for step in range(done, job.pace.steps))
    loop.learn(job, learner, made, done, rows, tell=None if tell is None else tell.append)
