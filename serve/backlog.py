"""How much a model has to do, and what it can no longer answer in time."""

import contextlib
import math
from collections.abc import Iterator

from serve.wire import Full

_NEWEST = 0.3


class Backlog:
    """Work that waits or is being done, in seconds by the model's own pace.

    A number of requests would not tell: one may hold a small image or sixty-four pictures, and a GPU does in a moment
    what takes a CPU seconds. Work goes through stages that run side by side, files read or written and the network:
    all of it comes as fast as the slowest lets it.

    Args:
        seconds: of work beyond which nothing is taken. Whoever asks when there is less than that gets an answer soon,
            and after a flood the queue is empty so much later.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._amount = 0
        self._paces: dict[str, float] = {}

    def full(self, amount: int) -> Full | None:
        """Why so much more is not taken; None where it is. What is idle takes anything.

        Args:
            amount: pictures, or pixels.
        """
        pace = max(self._paces.values(), default=0.0)
        if self._amount == 0 or (self._amount + amount) * pace <= self._seconds:
            return None
        return Full(max(1, math.ceil(self._amount * pace)))

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """So much is to do until it is done."""
        self._amount += amount
        try:
            yield
        finally:
            self._amount -= amount

    def paced(self, stage: str, amount: int, seconds: float, at_once: int = 1) -> None:
        """Be told how long so much took.

        Args:
            stage: of the work.
            amount: as above.
            seconds: that it took.
            at_once: as much as this goes through the stage in that time.
        """
        newest = seconds / amount / at_once
        self._paces[stage] = (1 - _NEWEST) * self._paces.get(stage, newest) + _NEWEST * newest
