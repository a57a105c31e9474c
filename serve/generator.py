"""The skin generator as a service: what it draws of a request.

:class:`Artist` does the work and knows neither HTTP nor Ray. The network draws in micro-batches of one fixed shape, as
in the batch job, so a picture does not depend on what is drawn beside it: one by one on a CPU, and eight on a GPU,
which a batch that comes together fills.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

import medsynth
from medsynth import images
from medsynth.defocus import device
from medsynth.errors import Rejected
from medsynth.images import Pixels
from medsynth.images.labels import labelled
from medsynth.recipes import camera, photo, processor
from medsynth.recipes.camera import CameraSettings
from medsynth.skin import semantic_map, tone
from medsynth.skin.model import Drawn, Request, SkinModel
from medsynth.skin.semantic_map import Box, MapError, Region
from serve.backlog import Backlog
from serve.figures import Figures
from serve.wire import BACKLOG_SECONDS, SKIN, SKIN_NOTE, Asked, Full, Misfit, Picture, SkinAbout

_FINISHERS = 2

One = tuple[Request, int]
"""A picture to draw, and its seed."""


class MisfitError(Exception):
    """What was asked for cannot be drawn.

    Args:
        field: of the request.
        detail: one line.
    """

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field, detail)
        self.misfit = Misfit(field, detail)


class Artist:
    """A skin generator with what the service asks of it.

    Args:
        model: the network, where it shall draw.
        gpu: name of the GPU that it is on; None for the CPU.
    """

    def __init__(self, model: SkinModel, gpu: str | None = None) -> None:
        self._model = model
        self._cameras: dict[str | None, CameraSettings] = {None: CameraSettings()}
        self._cameras |= {name: photo.camera_of(name, f"device {name}") for name in device.known()}
        self._shape = (model.size, model.size)
        self.about = SkinAbout(
            SKIN,
            f"{medsynth.__version__}+{model.sha256[:12]}",
            model.sha256,
            model.size,
            semantic_map.colours(model.conditions),
            {name: (share.low, share.high) for name, share in photo.SIZES.items()},
            device.known(),
            model.region,
            processor.kind(gpu),
            model.about.get("attribution"),
            model.about.get("cautions"),
        )

    def requests(self, asked: Asked, seeds: Sequence[int]) -> list[Request]:
        """A request in full for each seed, as a corpus's row of that seed has it.

        Raises:
            MisfitError: what was asked for cannot be drawn.
        """
        if asked.device not in self._cameras:
            raise MisfitError(
                "device", f"no device {(asked.device or '')[:50]!r}; known: {', '.join(self.about.devices)}"
            )
        if asked.map is not None:
            condition, skin, mask = self._read_map(asked.map)
            return [Request(condition, None, skin, mask)] * len(seeds)
        if asked.condition not in self._model.conditions:
            known = ", ".join(self._model.conditions)
            raise MisfitError("condition", f"no condition {(asked.condition or '')[:50]!r}; known: {known}")
        if asked.skin is not None:
            kind = _type_of(asked.skin, "skin_rgb")
            if asked.fitzpatrick not in (None, kind):
                found = f"this colour stands for type {tone.TYPES[kind - 1]}, fitzpatrick asks for another"
                raise MisfitError("skin_rgb", f"{found}; send one of the two")
        box = self._box(asked)
        share = photo.SIZES[asked.size] if asked.size is not None else None
        wholes = [photo.request(self._model, asked.condition, asked.fitzpatrick, share, seed) for seed in seeds]
        return [
            Request(one.condition, one.fitzpatrick, asked.skin, one.region if box is None else box) for one in wholes
        ]

    def _box(self, asked: Asked) -> Box | None:
        try:
            if asked.box is not None:
                found = Box(*asked.box)
                found.check(self._model.size, self._model.size, "lesion_box")
                return found
            return semantic_map.placed(*asked.place, self._model.size) if asked.place is not None else None
        except MapError as error:
            raise MisfitError("lesion_size" if asked.box is None else "lesion_box", str(error)) from error

    def _read_map(self, data: bytes) -> tuple[str, tuple[int, int, int], Region]:
        """What a map says: a condition, the skin's colour, and where the lesion is."""
        try:
            width, height = images.size(data)
            if (height, width) != self._shape:
                raise MisfitError("map", f"{width}x{height} px; a map has {self._model.size} a side")
            pixels = images.decode(data)
        except Rejected as why:
            raise MisfitError("map", why.detail) from why
        found, places, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
        names = {colour: name for name, colour in self.about.colours.items()}
        conditions = [place for place, colour in enumerate(found.tolist()) if tuple(colour) in names]
        others = [place for place in range(len(found)) if place not in conditions]
        if len(conditions) != 1 or len(others) != 1:
            seen = [_hexadecimal(found[place]) for place in np.argsort(-counts, kind="stable")[:4].tolist()]
            known = ", ".join(f"{name} {_hexadecimal(colour)}" for name, colour in self.about.colours.items())
            text = f"{len(found)} colours ({', '.join(seen)}{', ...' if len(found) > 4 else ''})"
            raise MisfitError("map", f"{text}; a map has two, the skin's and one condition's: {known}")
        red, green, blue = found[others[0]].tolist()
        _type_of((red, green, blue), "map")
        mask = (places.reshape(self._shape) == conditions[0]).astype(bool)
        return names[tuple(found[conditions[0]].tolist())], (red, green, blue), mask

    def draw(self, batch: Sequence[One]) -> list[Drawn]:
        """Draw pictures as the batch job draws them."""
        with processor.settled():
            return self._model.draw([request for request, _ in batch], [seed for _, seed in batch])

    def finish(self, asked: Asked, one: One, drawn: Drawn) -> Picture:
        """Bring a drawn picture through its camera into a file."""
        request, seed = one
        picture, parameters = photo.taken(drawn.image, self._cameras[asked.device], seed)
        side = asked.side or self._model.size
        if side != self._model.size:
            picture = _resized(picture, side)
        file = camera.encode(picture, parameters, asked.format == "png")
        angle = float(tone.ita(tone.to_lab(drawn.skin)))
        kind = tone.TYPES[(request.fitzpatrick or int(tone.fitzpatrick(angle))) - 1]
        text = (
            f"{SKIN_NOTE}. {request.condition}, Fitzpatrick type {kind}, seed {seed}, weights {self._model.sha256[:16]}"
        )
        return Picture(
            labelled(file, _ascii(text), f"medsynth {medsynth.__version__}"),
            side,
            seed,
            request.condition,
            kind,
            drawn.skin,
            _bounds(drawn.region),
            angle,
            asked.device,
        )


def _type_of(colour: tuple[int, int, int], field: str) -> int:
    lab = tone.to_lab(colour)
    if not bool(semantic_map.can_be_skin(lab)):
        raise MisfitError(field, f"{_hexadecimal(colour)} is no colour that skin has; the skin's colour is wanted")
    return int(tone.fitzpatrick(tone.ita(lab)))


def _hexadecimal(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def _resized(picture: Pixels, side: int) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _bounds(region: Region) -> tuple[int, int, int, int]:
    if isinstance(region, Box):
        return region.x0, region.y0, region.x1, region.y1
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class GeneratorService:
    """The artist with its threads: pictures are drawn in one, and brought into files in some.

    Args:
        weights: URI of the network; None for the shipped one.
        batched: draws one picture together with others that wait; by itself by default.

    Raises:
        ModelError: the weights cannot be used; the replica does not become ready.
    """

    def __init__(self, weights: str | None, batched: Callable[[One], Awaitable[Drawn]] | None = None) -> None:
        torch.set_num_threads(1)
        self.figures = Figures()
        model, gpu = SkinModel.load(weights), None
        if torch.cuda.is_available():
            gpu = torch.cuda.get_device_name()
            model.network.to(torch.device("cuda"))
        self._artist = Artist(model, gpu)
        self.together_at_most = model.micro_batch
        """Pictures that cost less together than apart."""
        self._batched = batched or self._alone
        self._drawing = ThreadPoolExecutor(1, "draw")
        self._finishing = ThreadPoolExecutor(_FINISHERS, "finish")
        self._waiting, self._backlog = 0, Backlog(BACKLOG_SECONDS)
        self._warm(model.conditions[0])

    def _warm(self, condition: str) -> None:
        # The first calls compile; a replica is ready when that is done.
        for name in (None, *self._artist.about.devices):
            asked = Asked(condition, device=name)
            one = (self._artist.requests(asked, [0])[0], 0)
            if name is None:
                (drawn,) = self._artist.draw([one])
            self._artist.finish(asked, one, drawn)

    async def about(self) -> SkinAbout:
        """Which model answers."""
        return self._artist.about

    async def draw(self, asked: Asked, seeds: list[int]) -> tuple[list[Picture] | Misfit | Full, SkinAbout]:
        """Draw a picture for each seed."""
        full = self._backlog.full(len(seeds))
        if full is not None:
            return full, self._artist.about
        with self._backlog.taken(len(seeds)):
            return await self._drawn(asked, seeds), self._artist.about

    async def _drawn(self, asked: Asked, seeds: list[int]) -> list[Picture] | Misfit:
        loop = asyncio.get_running_loop()
        try:
            requests = await loop.run_in_executor(self._finishing, self._artist.requests, asked, seeds)
        except MisfitError as error:
            return error.misfit
        ones = list(zip(requests, seeds, strict=True))
        return list(await asyncio.gather(*(self._one(asked, one) for one in ones)))

    async def _one(self, asked: Asked, one: One) -> Picture:
        self._queue(1)
        try:
            drawn = await self._batched(one)
        finally:
            self._queue(-1)
        loop = asyncio.get_running_loop()
        picture, seconds = await loop.run_in_executor(self._finishing, self._finished, asked, one, drawn)
        self._backlog.paced("finishing", 1, seconds, _FINISHERS)
        self.figures.made.labels(picture.condition, picture.fitzpatrick).inc()
        return picture

    def _finished(self, asked: Asked, one: One, drawn: Drawn) -> tuple[Picture, float]:
        started = time.monotonic()  # in the thread: what waits for one is not being finished
        return self._artist.finish(asked, one, drawn), time.monotonic() - started

    async def _alone(self, one: One) -> Drawn:
        return (await self.together([one]))[0]

    async def together(self, batch: list[One]) -> list[Drawn]:
        """Draw a batch.

        Args:
            batch: up to a micro-batch of pictures, each with its seed.
        """
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        drawn = await loop.run_in_executor(self._drawing, self._artist.draw, batch)
        seconds = time.monotonic() - started
        self._backlog.paced("drawing", len(batch), seconds)
        self.figures.batch.labels(SKIN).observe(len(batch))
        self.figures.batch_seconds.labels(SKIN).observe(seconds)
        self.figures.images.labels(SKIN).inc(len(batch))
        return drawn

    def _queue(self, change: int) -> None:
        self._waiting += change
        self.figures.queue.labels(SKIN).set(self._waiting)
