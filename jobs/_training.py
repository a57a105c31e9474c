"""What a person sees of a training run: a live table on a terminal, a line now and then in a log."""

import contextlib
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from _console import clock, console, say, table
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from torch import Tensor

from medsynth import storage
from medsynth.distributed import runs, training
from medsynth.distributed.board import Progress
from medsynth.distributed.loop import Job

_KEPT, _KEPT_TURNED = 12, 5
_ABREAST = 7
_LOG_SECONDS = 10.0
_SEND_SECONDS = 60.0


def finished(weights: str) -> bool:
    """Whether an earlier run of the same command was done; says so."""
    if storage.head(weights) is None:
        return False
    say(f"finished before: {weights}")
    return True


def command_line() -> str:
    """This job's own command, for a card."""
    return shlex.join(["python", f"jobs/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def trained(job: Job, workers: int, gpu: bool, tensorboard: bool) -> tuple[Mapping[str, Tensor], list[runs.Row]]:
    """Train to the end, and show how it goes.

    Returns:
        The last checkpoint's state, and the curve.
    """
    with TrainingView("training") as view, curve_for_tensorboard(job.out if tensorboard else None) as add:

        def tell(progress: Progress) -> None:
            view.show(progress)
            add(progress)

        training.train(job, workers=workers, gpu=gpu, progress=tell)
    step, state = runs.load_checkpoint(job.out) or (0, {})
    return state, runs.load_rows(job.out, step)


def show_figures(rows: Sequence[runs.Row], names: Sequence[str]) -> None:
    """The figures of the last validation, as a table; nothing where there was none."""
    validated = [row for row in rows if any(name in row for name in names)]
    if validated:
        last = validated[-1]
        shown = [[name.replace("_", " "), f"{float(last[name]):.4f}"] for name in names if name in last]
        table("of the last validation", ["figure", "value"], shown)


class TrainingView:
    """The last lines of the curve, how fast it goes, and the time left.

    Args:
        title: stands above the table.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines: list[Progress] = []
        self._figures: dict[str, float] = {}
        self._first: tuple[int, float] | None = None
        self._told = 0.0
        self._live = Live(console=console, auto_refresh=False) if sys.stdout.isatty() else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Take a line of the curve."""
        now = time.monotonic()
        self._first = self._first or (progress.step, now)
        self._figures = progress.figures or self._figures
        self._lines = [*self._lines, progress][-_KEPT:]
        if self._live:
            self._live.update(self._drawn(), refresh=True)
        elif progress.figures or progress.step == progress.steps or now - self._told >= _LOG_SECONDS:
            self._told = now
            say(self._line(progress))

    def _left(self) -> str:
        assert self._first is not None
        last = self._lines[-1]
        done, seconds = last.step - self._first[0], time.monotonic() - self._first[1]
        return clock((last.steps - last.step) * seconds / done) if done else "?"

    def _line(self, progress: Progress) -> str:
        parts = [f"step {progress.step:,} of {progress.steps:,}"]
        parts += [f"{name} {value:.4g}" for name, value in (*progress.losses.items(), *progress.rates.items())]
        parts += [f"{progress.samples_per_second:,.0f} samples/s, {100 * progress.waiting:.0f} % waiting"]
        parts += [f"{name} {value:.4g}" for name, value in progress.figures.items()]
        return f"{', '.join(parts)}, {self._left()} left"

    def _drawn(self) -> Group:
        last = self._lines[-1]
        curve = _curve(self._title, self._lines)
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in self._figures.items())
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=last.steps, completed=last.step, width=40),
            Text(f"{last.step:,} of {last.steps:,} steps, {self._left()} left"),
        )
        return Group(curve, Text(f"validated: {figures or 'not validated yet'}"), bar)


def _curve(title: str, lines: Sequence[Progress]) -> Table:
    """Lines of the curve as a table; with so many losses that a terminal cannot hold them side by side, turned."""
    names = ["step", *lines[-1].losses, *lines[-1].rates, "samples/s", "waiting"]
    wide = len(names) <= _ABREAST
    shown = lines if wide else lines[-_KEPT_TURNED:]
    rows = [
        [
            f"{line.step:,}",
            *(f"{value:.4g}" for value in (*line.losses.values(), *line.rates.values())),
            f"{line.samples_per_second:,.0f}",
            f"{100 * line.waiting:.0f} %",
        ]
        for line in shown
    ]
    names = [name.replace("_", " ") for name in names]
    curve = Table(title=title, title_justify="left", title_style="bold")
    heading, body = (names, rows) if wide else _turned(names, rows)
    for place, name in enumerate(heading):
        curve.add_column(name, justify="right" if wide or place else "left")
    for row in body:
        curve.add_row(*row)
    return curve


def _turned(names: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    columns = [names, *rows]
    first, *others = ([column[place] for column in columns] for place in range(len(names)))
    return first, others


@contextlib.contextmanager
def curve_for_tensorboard(out: str | None) -> Iterator[Callable[[Progress], None]]:
    """Write the curve for TensorBoard, into ``OUT/tensorboard``; nothing happens where ``out`` is None.

    Args:
        out: URI of the run's folder. Where it is remote, the file goes there now and then, and at the end.

    Yields:
        What takes a line of the curve.
    """
    if out is None:
        yield lambda _: None
        return
    from tensorboardX import SummaryWriter  # here, since few ask for it

    remote = None if storage.is_local(out) else storage.join(out, "tensorboard")
    with contextlib.ExitStack() as cleaner:
        folder = cleaner.enter_context(tempfile.TemporaryDirectory()) if remote else storage.join(out, "tensorboard")
        writers: list[Any] = []
        sent = time.monotonic()

        def send() -> None:
            writers[0].flush()
            for path in Path(folder).iterdir() if remote else ():
                storage.put(storage.join(str(remote), path.name), path.read_bytes())

        def add(progress: Progress) -> None:
            nonlocal sent
            if not writers:  # what a killed run wrote beyond its checkpoint is hidden from this step on
                writers.append(SummaryWriter(folder, purge_step=progress.step))
            values = {**progress.losses, **progress.rates, "samples_per_second": progress.samples_per_second}
            for name, value in values.items():
                writers[0].add_scalar(f"training/{name}", value, progress.step)
            for name, value in progress.figures.items():
                writers[0].add_scalar(f"held out/{name}", value, progress.step)
            if time.monotonic() - sent > _SEND_SECONDS:
                sent = time.monotonic()
                send()

        try:
            yield add
        finally:
            if writers:
                send()
                writers[0].close()
