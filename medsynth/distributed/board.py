"""How a training tells its driver how far it is. Apart from the training, since the board's process needs no torch."""

from dataclasses import dataclass


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


class Board:
    """Where the first worker leaves its progress, and the driver finds it: an actor."""

    def __init__(self) -> None:
        self._items: list[Progress | str] = []

    def add(self, item: Progress | str) -> None:
        """Leave a line of the curve, or the text of the user's mistake that ended the run."""
        self._items.append(item)

    def take(self) -> list[Progress | str]:
        """All that was left since the last call, in order."""
        items, self._items = self._items, []
        return items
