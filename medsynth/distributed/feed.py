"""What a training learns from, batch by batch. Apart from the loop: processes that make batches need no torch."""

from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Feed(Protocol):
    """Every batch of a run by its number; pure functions, so that Ray may call them again anywhere."""

    def batch(self, step: int, rank: int, workers: int) -> Arrays:
        """One worker's share of one step."""

    def held_out(self, number: int) -> Arrays:
        """One batch to validate on."""
