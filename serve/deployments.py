"""The models as deployments: what waits is brought together in batches.

A model is imported in its own replica, and nowhere else: torch takes seconds, which neither the ingress nor whoever
starts the application has to wait for.
"""

from typing import TYPE_CHECKING, Any

from ray import serve

from serve.figures import tell_each_second
from serve.wire import About, Asked, Form, Full, Item, Judged, Misfit, Picture, Refused, SkinAbout

if TYPE_CHECKING:
    from medsynth.skin.model import Drawn
    from serve.focus import Decoded
    from serve.generator import One

FOCUS_BATCH = 16
SKIN_BATCH = 8
"""What a GPU draws at a time (:func:`medsynth.skin.model.micro_batch`); a CPU draws them one by one."""


class FocusScorer:
    """The focus network.

    Args:
        weights: URI of the network; None for the shipped one.
        max_pixels: of one image.
        gatherer: handle of :class:`serve.ingress.Gatherer`.
    """

    def __init__(self, weights: str | None, max_pixels: int, gatherer: Any) -> None:
        from serve.focus import FocusService

        self._service = FocusService(weights, max_pixels, self._batched)
        tell_each_second(self._service.figures, gatherer)

    async def about(self) -> About:
        """Which model answers."""
        return await self._service.about()

    async def score(self, items: list[Item]) -> tuple[list[Judged | Refused] | Full, About]:
        """Judge images, each by itself."""
        return await self._service.score(items)

    async def heat_map(self, item: Item, form: Form) -> tuple[bytes | Refused | Full, About]:
        """Draw an image's focus map."""
        return await self._service.heat_map(item, form)

    async def _batched(self, one: "Decoded") -> Judged:
        judged: Judged = await self._batch(one)
        return judged

    # Tiles are judged one by one: what waits while others are judged goes together, and nothing waits for company.
    @serve.batch(max_batch_size=FOCUS_BATCH, batch_wait_timeout_s=0.0)
    async def _batch(self, found: "list[Decoded]") -> list[Judged]:
        return await self._service.together(found)


class SkinGenerator:
    """The skin generator.

    Args:
        weights: URI of the network; None for the shipped one.
        gatherer: handle of :class:`serve.ingress.Gatherer`.
    """

    def __init__(self, weights: str | None, gatherer: Any) -> None:
        from serve.generator import GeneratorService

        self._service = GeneratorService(weights, self._batched)
        if self._service.together_at_most < SKIN_BATCH:  # one by one on a CPU: each is told as soon as it is drawn
            self._batch.set_max_batch_size(self._service.together_at_most)  # type: ignore[attr-defined]
            self._batch.set_batch_wait_timeout_s(0.0)  # type: ignore[attr-defined]
        tell_each_second(self._service.figures, gatherer)

    async def about(self) -> SkinAbout:
        """Which model answers."""
        return await self._service.about()

    async def draw(self, asked: Asked, seeds: list[int]) -> tuple[list[Picture] | Misfit | Full, SkinAbout]:
        """Draw a picture for each seed."""
        return await self._service.draw(asked, seeds)

    async def _batched(self, one: "One") -> "Drawn":
        drawn: Drawn = await self._batch(one)
        return drawn

    # On a GPU a batch costs what a full one costs: a little waiting for company pays.
    @serve.batch(max_batch_size=SKIN_BATCH, batch_wait_timeout_s=0.01)
    async def _batch(self, batch: "list[One]") -> "list[Drawn]":
        return await self._service.together(batch)
