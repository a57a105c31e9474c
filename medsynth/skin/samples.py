"""Training pairs: a photo cut out, turned and given another tone, and its map, as a function of its number.

Sample i of a run depends on (photos, settings, run seed, i) alone. No torch here, which would take every
process that makes samples seconds to load, and no Ray.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from medsynth import draws, images, seeds, storage
from medsynth.errors import Rejected, TrainingError
from medsynth.skin import foreign, regions, semantic_map, tone, warp
from medsynth.skin.pairs import Pairs, Photo
from medsynth.skin.regions import RegionKind
from medsynth.skin.semantic_map import Box, MapError
from medsynth.spec import Range, Settings

HELD_OUT_BATCH = 16


class SampleSettings(Settings):
    """How training pairs are made."""

    size: int = Field(default=128, ge=16, le=1024)
    """Pixels on a side."""
    zoom: Range = Range(low=0.5, high=1.0)
    """Side of what is cut out, as a share of the photo's shorter side; more where the lesion needs it."""
    retoned: float = Field(default=0.8, ge=0, le=1)
    """Share of samples that are given another tone, their angle drawn evenly from ``angle``."""
    angle: Range = Range(low=-58, high=66)
    """Degrees of individual typology angle."""
    gloss_kept: bool = False
    """Whether skin that is made lighter keeps its gloss as it was (:func:`medsynth.skin.tone.retone`)."""
    warp: float = Field(default=0.0, ge=0, le=0.15)
    """How far places of a photo are moved at the most, as a share of the lesion's longer side
    (:mod:`medsynth.skin.warp`): other outlines than the photos show."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """0: conditions as often as the photos show them; 1: all equally often; between: between."""
    foreign: float = Field(default=1.0, ge=0, le=1)
    """Photos are not learnt from where more than this share is neither skin nor lesion (:mod:`medsynth.skin.foreign`),
    but the three of each condition with the least; 1 leaves none out."""
    region: RegionKind = "box"
    """What is the lesion's place in a map: its box, or its mask, which the table must then name for each photo."""

    def plain(self) -> "SampleSettings":
        """The same without what only training needs: the middle of each photo, in its own tone."""
        return self.model_copy(update={"retoned": 0.0, "zoom": Range(low=1, high=1), "warp": 0.0, "balance": 0.0})


@dataclass(frozen=True)
class Facts:
    """What a run must know of a photo before it starts."""

    width: int
    """In pixels."""
    height: int
    sha256: str
    """Of its file."""
    box: Box
    """The lesion's: as the table tells it, or about the mask."""
    mask_sha256: str | None
    """Of the mask's file; None where it is not used."""
    foreign: float
    """Share of it that is neither skin nor lesion (:func:`medsynth.skin.foreign.share`)."""


@dataclass(frozen=True)
class Loaded:
    """A photo's pixels and its skin's colour."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), reduced to about twice the size of a sample."""
    box: Box
    middle: tuple[float, float]
    """x and y of what is to be seen at least of a lesion that is longer than what is cut out."""
    mask: NDArray[np.float32] | None
    """(H, W): how much of each pixel the lesion covers, 0 to 1; None where its place is its box."""
    skin: tuple[float, float, float]
    """CIELAB."""
    facts: Facts


def load(photo: Photo, size: int, region: RegionKind = "box") -> Loaded:
    """Read a photo.

    Args:
        photo: which; with its mask, where that is the lesion's place.
        size: of the samples to be made of it.
        region: what is the lesion's place.

    Raises:
        TrainingError: it or its mask cannot be read, its box lies outside it, its mask is of another size, marks
            nothing or everything, or it shows no skin.
    """
    mask: NDArray[np.bool_] | None = None
    try:
        data = storage.read(photo.uri)
        pixels = images.decode(data)
        height, width = pixels.shape[:2]
        photo.box.check(width, height, photo.uri)
        sha256, mask_sha256, place = hashlib.sha256(data).hexdigest(), None, photo.box
        if region == "mask":
            if photo.mask is None:
                raise MapError("no mask; name one in the column 'mask', or set samples.region to box")
            mask, data = regions.read_mask(photo.mask, width, height)
            mask_sha256, place = hashlib.sha256(data).hexdigest(), regions.bounds(mask)
        colour = semantic_map.skin_colour(pixels, photo.box if mask is None else mask)
    except (Rejected, MapError) as error:
        raise TrainingError(f"{photo.uri}: {error}; mend the photo, or leave it out of the table") from error
    other = foreign.share(pixels, place, colour.tolist())
    shrink = min(1.0, 2 * size / min(width, height))
    reduced = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    if shrink < 1:
        pixels = np.asarray(Image.fromarray(pixels).resize(reduced, Image.Resampling.BOX))
    across, down = pixels.shape[1] / width, pixels.shape[0] / height
    corners = (place.x0 * across, place.y0 * down, place.x1 * across, place.y1 * down)
    x0, y0, x1, y1 = (round(corner) for corner in corners)
    box = Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))
    middle, covered = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2), None
    if mask is not None:
        covered = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(reduced, Image.Resampling.BOX))
        middle = (_half(mask.sum(axis=0)) * across, _half(mask.sum(axis=1)) * down)
    skin = (float(colour[0]), float(colour[1]), float(colour[2]))
    return Loaded(pixels, box, middle, covered, skin, Facts(width, height, sha256, place, mask_sha256, other))


def _half(counts: NDArray[np.int64]) -> float:
    # Where half of them lie on either side; unlike the middle of the box, that is in the mask.
    through = np.cumsum(counts)
    return float(np.searchsorted(2 * through, through[-1])) + 0.5


@functools.lru_cache(maxsize=4096)
def _loaded(photo: Photo, size: int, region: RegionKind) -> Loaded:
    return load(photo, size, region)


def facts(photo: Photo, size: int, region: RegionKind = "box") -> Facts:
    """What :func:`load` tells of a photo; its pixels are kept for the samples that are to be made of it."""
    return _loaded(photo, size, region).facts


def require_apart(training: Pairs, held: Pairs, known: Sequence[Facts]) -> None:
    """Make sure that no file is both learnt from and held out.

    Args:
        training: photos to learn from.
        held: photos of the same table that are held out.
        known: of each training photo and then of each held-out one, in order.

    Raises:
        TrainingError: a file stands on both sides under two names.
    """
    count = len(training.photos)
    learnt = {one.sha256: photo for one, photo in zip(known[:count], training.photos, strict=True)}
    for one, photo in zip(known[count:], held.photos, strict=True):
        if one.sha256 in learnt:
            raise TrainingError(
                f"{training.uri}: {photo.uri} is held out and {learnt[one.sha256].uri} to learn from, but both are the "
                "same file; keep one of the two rows, or give both the same patient_id"
            )


@dataclass(frozen=True)
class Feed:
    """Every batch of a run by its number; small, and picklable."""

    training: Pairs
    validation: Pairs
    conditions: tuple[str, ...]
    settings: SampleSettings
    seed: int
    size: int
    """Samples of a step, over all workers."""

    def batch(self, step: int, rank: int, workers: int) -> dict[str, NDArray[Any]]:
        """One worker's share of one step.

        Args:
            step: its number, from 0; its samples are those from ``step * size`` on.
            rank: the worker.
            workers: how many share the step equally.

        Returns:
            ``photos`` and ``maps``, uint8 (N, S, S, 3); ``masks`` uint8 (N, S, S), 1 in the lesion's place, its box
            or its mask; where it is the mask, ``depths`` float32 (N, S, S), as :func:`medsynth.skin.regions.depth`
            tells them; ``skins`` uint8 (N, 3), sRGB;
            ``conditions`` int64 (N,), their places in the list; ``types`` int64 (N,), 1 to 6 or 0 for unknown.

        Raises:
            TrainingError: a photo cannot be used.
        """
        share = self.size // workers
        first = step * self.size + rank * share
        return _stacked([self._drawn(index) for index in range(first, first + share)])

    def held_out(self, number: int) -> dict[str, NDArray[Any]]:
        """One batch to validate on: held-out photos as they are.

        Args:
            number: of the batch, from 0.

        Returns:
            As :meth:`batch`.
        """
        photos = self.validation.photos[number * HELD_OUT_BATCH : (number + 1) * HELD_OUT_BATCH]
        plain, seed = self.settings.plain(), seeds.digest64(self.seed, "held out") >> 1
        return _stacked([make_sample(photo, plain, self.conditions, seed) for photo in photos])

    def _drawn(self, index: int) -> dict[str, NDArray[Any]]:
        own = seeds.sample_seed(self.seed, index)
        u = float(draws.uniforms(own, "photo", 1)[0])
        through = _chances(self.training, self.settings.balance)
        photo = self.training.photos[int(np.searchsorted(through, u * through[-1], side="right"))]
        return make_sample(photo, self.settings, self.conditions, own)


@functools.lru_cache(maxsize=8)
def _chances(pairs: Pairs, balance: float) -> NDArray[np.float64]:
    names = [photo.condition for photo in pairs.photos]
    weights = np.array([1 - balance + balance * len(names) / len(set(names)) / names.count(name) for name in names])
    # Rounded, so that every machine draws the same photo.
    return np.cumsum(np.rint(weights * 1e6))


def _stacked(samples: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def make_sample(
    photo: Photo, settings: SampleSettings, conditions: tuple[str, ...], own: int
) -> dict[str, NDArray[Any]]:
    """Make one pair; see :meth:`Feed.batch`.

    Args:
        photo: of what.
        settings: how.
        conditions: all that are known, in order.
        own: the sample's seed.
    """
    loaded = _loaded(photo, settings.size, settings.region)
    u = draws.uniforms(own, "skin sample", 10).tolist()
    height, width = loaded.pixels.shape[:2]
    box, size = loaded.box, settings.size
    side = settings.zoom.at(u[0]) * min(width, height)
    side = min(min(width, height), max(side, 1.05 * max(box.x1 - box.x0, box.y1 - box.y0)))
    left = _start(side, width, (box.x0, loaded.middle[0], box.x1), u[1])
    top = _start(side, height, (box.y0, loaded.middle[1], box.y1), u[2])
    window = (left, top, left + side, top + side)
    image = np.asarray(Image.fromarray(loaded.pixels).resize((size, size), Image.Resampling.BICUBIC, box=window))
    mask = _of_box(box, left, top, side, size) if loaded.mask is None else _of_mask(loaded.mask, window, size)
    if settings.warp > 0:
        image, mask = warp.warped(image, mask, loaded.mask is None, settings.warp, own)
    kind, skin = photo.fitzpatrick or 0, np.array(loaded.skin)
    if u[3] < settings.retoned:
        wanted = tone.skin_of(settings.angle.at(u[4]), redness=6 * (u[5] - 0.5), yellowness=0.4 * (u[6] - 0.5))
        image, skin = tone.retone(image, skin.tolist(), wanted.tolist(), settings.gloss_kept), wanted
        kind = int(tone.fitzpatrick(tone.ita(wanted)))
    code = semantic_map.colour_of(photo.condition, conditions)
    drawn = semantic_map.draw((size, size), tone.to_rgb(skin).tolist(), mask > 0, code)
    way = int(u[7] * 8)
    mask = _turned(mask, way)
    depths = {} if loaded.mask is None else {"depths": regions.depth(mask > 0)}
    return {
        "photos": _turned(image, way),
        "maps": _turned(drawn, way),
        "masks": mask,
        **depths,
        "skins": tone.to_rgb(skin),
        "conditions": np.array(conditions.index(photo.condition), dtype=np.int64),
        "types": np.array(kind, dtype=np.int64),
    }


def _of_box(box: Box, left: float, top: float, side: float, size: int) -> NDArray[np.uint8]:
    corners = ((box.x0, left), (box.y0, top), (box.x1, left), (box.y1, top))
    x0, y0, x1, y1 = (min(max(round((corner - start) / side * size), 0), size) for corner, start in corners)
    x0, y0 = min(x0, size - 1), min(y0, size - 1)
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 1
    return mask


def _of_mask(covered: NDArray[np.float32], window: tuple[float, float, float, float], size: int) -> NDArray[np.uint8]:
    found = np.asarray(Image.fromarray(covered).resize((size, size), Image.Resampling.BILINEAR, box=window))
    # Of a lesion that fills half of no pixel, where there is the most of it.
    mask: NDArray[np.bool_] = (found > 0) & (found >= min(0.5, float(found.max())))
    return mask.astype(np.uint8)


def _start(side: float, length: int, lesion: tuple[float, float, float], u: float) -> float:
    # Where a window may begin so that it holds the lesion, or as much about its middle as it can.
    low, middle, high = lesion
    first, last = max(0.0, min(high - side, length - side)), min(float(low), length - side)
    if first > last:
        first = last = min(max(middle - side / 2, 0.0), length - side)
    return first + u * (last - first)


def _turned(image: NDArray[np.uint8], way: int) -> NDArray[np.uint8]:
    image = np.rot90(image, way % 4)
    return np.ascontiguousarray(image[:, ::-1] if way >= 4 else image)
