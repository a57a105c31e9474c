"""What a person sees of a job: a progress line, and short tables."""

import sys
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_EVERY_SECONDS = {True: 0.2, False: 10.0}

_MOST_ROWS, _ENDS = 40, 15

console = Console(soft_wrap=True)


class ProgressLine:
    """One line that is rewritten on a terminal, and repeated now and then in a log.

    Args:
        unit: what is counted, in the plural.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def show(self, done: int, total: int, *, fresh: int, note: str = "") -> None:
        """Tell how far the job is.

        Args:
            done: finished units, those of earlier runs included.
            total: all units.
            fresh: units finished by this run, from which the rate comes.
            note: more to say.
        """
        now = time.monotonic()
        if now - self._shown < _EVERY_SECONDS[self._terminal] and done < total:
            return
        self._shown = now
        rate = fresh / max(1e-9, now - self._started)
        left = clock((total - done) / rate) if rate and done < total else "0:00"
        share = 100 * done / max(1, total)
        text = f"{done:,} of {total:,} {self._unit} ({share:.0f} %), {rate:,.0f} {self._unit}/s, {left} left{note}"
        print(
            f"\r\x1b[2K{text}" if self._terminal else text,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        """Leave the line, so that what follows starts on its own."""
        if self._terminal and self._shown > self._started:
            print(file=sys.stderr)


def say(text: str, colour: str = "") -> None:
    """Print a line as it stands: what looks like markup in a name or a value is no markup."""
    console.print(escape(text), style=colour, highlight=False)


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:,.0f} h"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are set right, and of many rows the middle ones are left out."""
    drawn = Table(title=escape(title), title_justify="left", title_style="bold")
    texts = [[f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row] for row in rows]
    for place, column in enumerate(columns):
        numeric = all(row[place].replace(",", "").replace(".", "").lstrip("-").isdecimal() for row in texts)
        drawn.add_column(escape(column), justify="right" if numeric and texts else "left")
    if len(texts) > _MOST_ROWS:
        left_out = ["...", *[""] * (len(columns) - 2), f"{len(texts) - 2 * _ENDS:,} more"]
        texts = [*texts[:_ENDS], left_out, *texts[-_ENDS:]]
    for row in texts:
        drawn.add_row(*row)
    console.print(drawn)


def clock(seconds: float) -> str:
    """A length of time as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
