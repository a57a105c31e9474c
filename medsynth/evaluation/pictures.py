"""Pictures to be judged, real or synthetic, with what is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsynth import seeds
from medsynth.errors import Rejected
from medsynth.skin import semantic_map, tone
from medsynth.skin.model import Request, SkinModel
from medsynth.skin.pairs import Pairs
from medsynth.skin.samples import SampleSettings, make_sample
from medsynth.skin.semantic_map import Box


@dataclass(frozen=True)
class Pictures:
    """N pictures of one size."""

    images: NDArray[np.uint8]
    """(N, S, S, 3) sRGB."""
    conditions: tuple[str, ...]
    types: NDArray[np.int64]
    """(N,): 1 to 6, or 0 where none is known."""
    boxes: tuple[Box, ...]
    """The lesions', in pixels of these pictures."""
    groups: tuple[str, ...]
    """What is not independent has one name: the patient, or that of the map."""
    asked: NDArray[np.float64]
    """(N,): angle of the skin asked for, degrees; of a real photo, the one measured where it was read."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, places: Sequence[int] | NDArray[Any]) -> "Pictures":
        """Some of them, by place or by a mask."""
        chosen = np.arange(len(self))[np.asarray(places)]
        return Pictures(
            self.images[chosen],
            tuple(self.conditions[place] for place in chosen),
            self.types[chosen],
            tuple(self.boxes[place] for place in chosen),
            tuple(self.groups[place] for place in chosen),
            self.asked[chosen],
        )


def joined(one: Pictures, other: Pictures) -> Pictures:
    """Both, one after the other.

    Args:
        one: pictures of a size.
        other: more of that size.
    """
    return Pictures(
        np.concatenate([one.images, other.images]),
        one.conditions + other.conditions,
        np.concatenate([one.types, other.types]),
        one.boxes + other.boxes,
        one.groups + other.groups,
        np.concatenate([one.asked, other.asked]),
    )


def real(photos: Pairs, size: int, conditions: tuple[str, ...], turn: int = 0) -> Pictures:
    """Photos as a generator is shown them to validate on: the middle, in their own tone.

    Args:
        photos: of a table.
        size: pixels on a side.
        conditions: all that are known.
        turn: other numbers turn and mirror them otherwise.

    Raises:
        TrainingError: a photo cannot be used.
    """
    samples = _samples(photos, size, conditions, range(len(photos.photos)), turn)
    return Pictures(
        np.stack([sample["photos"] for sample in samples]),
        tuple(photo.condition for photo in photos.photos),
        np.array([int(sample["types"]) for sample in samples], dtype=np.int64),
        tuple(_box(sample["masks"]) for sample in samples),
        tuple(photo.patient for photo in photos.photos),
        np.array([float(tone.ita(tone.to_lab(sample["skins"]))) for sample in samples]),
    )


def drawn(model: SkinModel, photos: Pairs, count: int, seed: int) -> Pictures:
    """Pictures drawn from the maps of photos, each map turned and mirrored anew when it comes again.

    Args:
        model: what draws.
        photos: whose maps; held-out ones, since a training map reproduces its photo by design.
        count: how many.
        seed: of the noise.
    """
    chosen = [number % len(photos.photos) for number in range(count)]
    samples: list[dict[str, Any]] = []
    for turn in range(-(-count // len(photos.photos))):
        samples += _samples(photos, model.size, model.conditions, chosen[: count - len(samples)], turn)
    requests = [
        Request(
            model.conditions[int(sample["conditions"])],
            int(sample["types"]) or None,
            _rgb(sample["skins"]),
            _box(sample["masks"]),
        )
        for sample in samples[:count]
    ]
    return of_requests(model, requests, seed, tuple(photos.photos[place].patient for place in chosen))


def of_requests(model: SkinModel, requests: Sequence[Request], seed: int, groups: tuple[str, ...] = ()) -> Pictures:
    """Pictures drawn for requests.

    Args:
        model: what draws.
        requests: each with its box.
        seed: of the noise; every picture has its own.
        groups: of the requests; by default each is alone.
    """
    found = model.draw(requests, [seeds.sample_seed(seed, number) for number in range(len(requests))])
    angles = np.array([float(tone.ita(tone.to_lab(one.skin))) for one in found])
    return Pictures(
        np.stack([one.image for one in found]),
        tuple(request.condition for request in requests),
        np.array(
            [r.fitzpatrick or int(tone.fitzpatrick(a)) for r, a in zip(requests, angles, strict=True)], dtype=np.int64
        ),
        tuple(one.region if isinstance(one.region, Box) else _box(one.region) for one in found),
        groups or tuple(str(number) for number in range(len(requests))),
        angles,
    )


def of_images(
    images: Sequence[NDArray[np.uint8]],
    size: int,
    conditions: Sequence[str],
    types: Sequence[int],
    boxes: Sequence[Sequence[int]],
    angles: Sequence[float],
) -> Pictures:
    """Pictures of a corpus, brought to one size.

    Args:
        images: each (H, H, 3) sRGB.
        size: pixels on a side to bring them to.
        conditions: of each.
        types: 1 to 6.
        boxes: x0, y0, x1, y1 in pixels of each image.
        angles: asked for, degrees.
    """
    scaled, placed = [], []
    for image, corners in zip(images, boxes, strict=True):
        by = size / image.shape[0]
        x0, y0, x1, y1 = (min(max(round(corner * by), 0), size) for corner in corners)
        x0, y0 = min(x0, size - 1), min(y0, size - 1)
        placed.append(Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
        scaled.append(resized(image, size))
    groups = tuple(str(number) for number in range(len(scaled)))
    kinds = np.array(types, dtype=np.int64)
    return Pictures(np.stack(scaled), tuple(conditions), kinds, tuple(placed), groups, np.array(angles, np.float64))


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square picture brought to a size: means of pixels downwards, bicubic upwards."""
    if image.shape[:2] == (size, size):
        return image
    way = Image.Resampling.BOX if image.shape[0] > size else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((size, size), way))


def matched(of: Pictures, among: Pictures, each: int) -> Pictures:
    """Pictures with the mix of others: of the same condition, and of the nearest angle asked for.

    A balanced corpus is not meant to have the mix of real photos; held against them as it is, the mix would
    be what is measured.

    Args:
        of: real ones, one after the other.
        among: those to choose from, none twice.
        each: how many for one real one, at the most.
    """
    free = np.ones(len(among), dtype=bool)
    names = np.array(among.conditions)
    chosen: list[int] = []
    for _ in range(each):
        for place in range(len(of)):
            places = np.flatnonzero(free & (names == of.conditions[place]))
            if len(places):
                nearest = int(places[np.abs(among.asked[places] - of.asked[place]).argmin()])
                free[nearest] = False
                chosen.append(nearest)
    return among.take(np.array(sorted(chosen), dtype=np.int64))


def measured(pictures: Pictures) -> NDArray[np.float64]:
    """The angle of the skin about each lesion, (N,) degrees; not a number where nothing can be skin."""
    found = []
    for image, box in zip(pictures.images, pictures.boxes, strict=True):
        try:
            found.append(float(tone.ita(semantic_map.skin_colour(image, box))))
        except Rejected:
            found.append(float("nan"))
    return np.array(found)


def _samples(
    photos: Pairs, size: int, conditions: tuple[str, ...], places: Sequence[int], turn: int
) -> list[dict[str, Any]]:
    settings = SampleSettings(size=size).plain()
    return [
        make_sample(photos.photos[place], settings, conditions, seeds.digest64("picture", place, turn) >> 1)
        for place in list(places)[: len(photos.photos)]
    ]


def _box(mask: NDArray[Any]) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _rgb(skin: NDArray[np.uint8]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in skin)
    return red, green, blue
