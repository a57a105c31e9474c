"""The focus network as a service: what it says of images.

:class:`Scorer` does the work and knows neither HTTP nor Ray. An image is judged by itself, in pieces of one fixed
shape that the network cuts it into: nothing is padded, and an answer does not depend on what else is in its batch.
What a batch spares is the way into the model's thread and back.
"""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import medsynth
from medsynth import images
from medsynth.errors import Reason, Rejected
from medsynth.focus import export, heatmap
from medsynth.focus import slide as scoring
from medsynth.focus.heatmap import GRADES, Grades, HeatMap
from medsynth.focus.model import FocusModel, Score
from serve.backlog import Backlog
from serve.figures import Figures
from serve.wire import BACKLOG_SECONDS, FOCUS, FOCUS_NOTE, About, Form, Full, Item, Judged, Refused

_DECODERS = 2
_ROOM = 64_000_000
"""Pixels that are decoded, or wait for the network, at once: 192 MB, and many times what a batch of tiles has."""
_LEGEND_STEPS = 24


Decoded = tuple[NDArray[np.uint8], float | None]
"""An image's pixels, and µm a pixel."""


class Scorer:
    """A focus network with what it says in the service's words.

    Args:
        model: the network.
        max_pixels: of one image.
    """

    def __init__(self, model: FocusModel, max_pixels: int) -> None:
        self._model, self._max_pixels = model, max_pixels
        self._grades = Grades()
        self.about = About(
            FOCUS,
            f"{medsynth.__version__}+{model.sha256[:12]}",
            model.sha256,
            model.field,
            model.stride,
            model.radii_px,
            self._grades.limits,
        )

    def pixels(self, data: bytes | NDArray[np.uint8], given: float | None) -> Decoded:
        """Decode an image.

        Args:
            data: a file, or (H, W, 3) uint8 RGB.
            given: µm a pixel, None for what the file says.

        Returns:
            Its pixels, and µm a pixel: as asked for, else as the file says, else None.

        Raises:
            Rejected: it cannot be decoded, or is too small to be judged.
        """
        if isinstance(data, np.ndarray):
            found, mpp = data, None
        else:
            found, mpp = images.decode(data, max_pixels=self._max_pixels), images.mpp(data)
        if min(found.shape[:2]) < self._model.field:
            text = f"{found.shape[1]}x{found.shape[0]} px; the focus network needs {self._model.field} a side"
            raise Rejected(Reason.TOO_SMALL, text)
        return found, mpp if given is None else given

    def judge(self, pixels: NDArray[np.uint8], mpp: float | None) -> Judged:
        """Judge one image.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            mpp: µm a pixel, None where unknown.
        """
        score: Score = self._model.score(pixels, mpp)
        grade = None
        if score.radius_um is not None:
            grade = GRADES[int(heatmap.graded(np.array([score.radius_um], np.float32), self._grades)[0])]
        return Judged(
            pixels.shape[1],
            pixels.shape[0],
            mpp,
            [_rounded(share) for share in score.probabilities],
            score.focus_class,
            _rounded(score.radius_px),
            None if score.radius_um is None else _rounded(score.radius_um),
            _rounded(score.certainty),
            grade,
        )

    def heat_map(self, data: bytes | NDArray[np.uint8], mpp: float | None, form: Form) -> bytes:
        """Draw an image's focus map, as the batch job draws a slide's: the same tissue, cells and numbers.

        Raises:
            Rejected: the image is unusable, has no tissue, or nothing says how large its pixels are.
        """
        pixels, scale = self.pixels(data, mpp)
        if scale is None:
            raise Rejected(Reason.UNKNOWN_MPP, "mpp: the file does not say how large its pixels are; send it, in µm")
        picture = _Picture(pixels, scale)
        shape = scoring.geometry(picture, self._model, self._model.stride)
        survey = scoring.survey(picture, shape)
        bands = [(at, scoring.score_band(picture, survey, self._model, at)) for at in survey.bands_with_tissue()]
        heat = heatmap.assemble(survey, bands)
        if form == "overlay":
            return export.overlay(heat, survey.thumbnail, "focus map", self._grades)
        if form == "geojson":
            return export.geojson(heat, self._grades)
        return json.dumps(self._grid(heat), separators=(",", ":")).encode()

    def _grid(self, heat: HeatMap) -> dict[str, Any]:
        shape = heat.geometry
        radii = np.linspace(0, 1.5 * self._grades.severe, _LEGEND_STEPS + 1, dtype=np.float32)
        paints = export.colours(radii, self._grades).tolist()
        return {
            "model": {"name": FOCUS, "version": self.about.version, "weights_sha256": self.about.weights_sha256},
            "note": FOCUS_NOTE,
            "geometry": {**vars(shape), "rows": shape.rows, "columns": shape.columns, "origin_px": heat.origin_px},
            "radius_um": _cells(heat.radius_um),
            "certainty": _cells(heat.certainty),
            "summary": heatmap.summary(heat, self._grades).as_dict(),
            "grades_um": dict(zip(GRADES[1:], self._grades.limits, strict=True)),
            "legend": [
                {"radius_um": _rounded(radius), "rgb": paint} for radius, paint in zip(radii, paints, strict=True)
            ],
        }


class _Picture:
    """Decoded pixels as a slide."""

    def __init__(self, pixels: NDArray[np.uint8], mpp: float) -> None:
        self._pixels = pixels
        self.sizes: tuple[tuple[int, int], ...] = ((pixels.shape[1], pixels.shape[0]),)
        self.mpp: float | None = mpp

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> NDArray[np.uint8]:
        del level  # there is one
        return self._pixels[y : y + height, x : x + width]

    def close(self) -> None:
        pass


def _rounded(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _cells(values: NDArray[np.float32]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else float(f"{value:.4g}") for value in row] for row in values.tolist()]


class Room:
    """Bounds what is held at once; who comes first is served first, so that none waits for ever.

    Args:
        size: of it, in pixels. What is larger takes all of it.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def taken(self, pixels: int) -> AsyncIterator[None]:
        """So much of it, once there is so much."""
        needed = min(pixels, self._size)
        async with self._turn:
            while self._free < needed:
                self._freed.clear()
                await self._freed.wait()
            self._free -= needed
        try:
            yield
        finally:
            self._free += needed
            self._freed.set()


class FocusService:
    """The scorer with its threads: images are decoded in some, judged in one, and mapped in one.

    Args:
        weights: URI of the network; None for the shipped one.
        max_pixels: of one image.
        batched: judges one image together with others that wait; by itself by default.

    Raises:
        ModelError: the weights cannot be used; the replica does not become ready.
    """

    def __init__(
        self, weights: str | None, max_pixels: int, batched: Callable[[Decoded], Awaitable[Judged]] | None = None
    ) -> None:
        torch.set_num_threads(1)
        self.figures = Figures()
        self._scorer = Scorer(FocusModel.load(weights), max_pixels)
        # The first call compiles; a replica is ready when that is done.
        self._scorer.judge(np.full((256, 256, 3), 200, np.uint8), None)
        self._decoding = ThreadPoolExecutor(_DECODERS, "decode")
        self._judging = ThreadPoolExecutor(1, "judge")
        self._mapping = ThreadPoolExecutor(1, "map")
        self._waiting, self._room, self._backlog = 0, Room(_ROOM), Backlog(BACKLOG_SECONDS)
        self._maps = Backlog(BACKLOG_SECONDS)  # their own thread's
        self._batched = batched or self._alone

    async def about(self) -> About:
        """Which model answers."""
        return self._scorer.about

    async def score(self, items: list[Item]) -> tuple[list[Judged | Refused] | Full, About]:
        """Judge images, each by itself."""
        pixels = sum(item.pixels for item in items)
        full = self._backlog.full(pixels)
        if full is not None:
            return full, self._scorer.about
        with self._backlog.taken(pixels):
            return list(await asyncio.gather(*map(self._one, items))), self._scorer.about

    async def _one(self, item: Item) -> Judged | Refused:
        loop = asyncio.get_running_loop()
        async with self._room.taken(item.pixels):
            try:
                one, seconds = await loop.run_in_executor(self._decoding, self._decoded, item)
            except Rejected as why:
                return Refused.of(why)
            self._backlog.paced("decoding", item.pixels, seconds, _DECODERS)
            self._queue(1)
            try:
                return await self._batched(one)
            finally:
                self._queue(-1)

    def _decoded(self, item: Item) -> tuple[Decoded, float]:
        started = time.monotonic()  # in the thread: what waits for one is not being decoded
        return self._scorer.pixels(item.data, item.mpp), time.monotonic() - started

    async def _alone(self, one: Decoded) -> Judged:
        return (await self.together([one]))[0]

    async def together(self, found: list[Decoded]) -> list[Judged]:
        """Judge a batch, one image after another.

        Args:
            found: pixels, and µm a pixel, of each image.
        """
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        judged = await loop.run_in_executor(self._judging, lambda: [self._scorer.judge(*one) for one in found])
        seconds = time.monotonic() - started
        self._backlog.paced("judging", sum(pixels[..., 0].size for pixels, _ in found), seconds)
        self.figures.batch.labels(FOCUS).observe(len(found))
        self.figures.batch_seconds.labels(FOCUS).observe(seconds)
        self.figures.images.labels(FOCUS).inc(len(found))
        return judged

    def _queue(self, change: int) -> None:
        self._waiting += change
        self.figures.queue.labels(FOCUS).set(self._waiting)

    async def heat_map(self, item: Item, form: Form) -> tuple[bytes | Refused | Full, About]:
        """Draw an image's focus map."""
        full = self._maps.full(item.pixels)
        if full is not None:
            return full, self._scorer.about
        loop = asyncio.get_running_loop()
        with self._maps.taken(item.pixels):
            try:
                drawn, seconds = await loop.run_in_executor(self._mapping, self._mapped, item, form)
            except Rejected as why:
                return Refused.of(why), self._scorer.about
        self._maps.paced("mapping", item.pixels, seconds)
        self.figures.images.labels(FOCUS).inc()
        return drawn, self._scorer.about

    def _mapped(self, item: Item, form: Form) -> tuple[bytes, float]:
        started = time.monotonic()  # in the thread, as above
        return self._scorer.heat_map(item.data, item.mpp, form), time.monotonic() - started
