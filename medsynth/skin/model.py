"""A trained skin generator: loading and saving it, and drawing with it."""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from medsynth import draws, seeds, spec
from medsynth.cuda_graph import Parts, Repeated, side_by_side
from medsynth.model_file import Filed, Kind, ModelError
from medsynth.skin import generator, hair, places, semantic_map, tone
from medsynth.skin.generator import Asked, Chance, Generator, GeneratorSettings, PlusNetwork
from medsynth.skin.places import Place
from medsynth.skin.regions import RegionKind
from medsynth.skin.semantic_map import Geometry, MapError, Region

DEFAULT_URI = "package://medsynth/weights/skin.safetensors"

_ON_GPU = 8


class _Plan(NamedTuple):
    """A request, with what chance has decided of it."""

    map: NDArray[np.uint8]
    skin: tuple[int, int, int]
    region: Region
    place: Place


def micro_batch(device: torch.device) -> int:
    """Pictures drawn at a time, always: fewer are filled up, since a GPU repeats them from a recording.

    On a CPU each is drawn alone, which takes no longer, and nobody waits for others' pictures.
    """
    return 1 if device.type == "cpu" else _ON_GPU


_KIND = Kind("medsynth.skin/4", "skin", "jobs/train_gan.py")


@dataclass(frozen=True)
class Request:
    """One picture that is asked for."""

    condition: str
    fitzpatrick: int | None = None
    """Type, 1 to 6. With no ``skin``, the colour is drawn from the type's bin of angles; with neither, from all."""
    skin: tuple[int, int, int] | None = None
    """The skin's colour, sRGB."""
    region: Region | None = None
    """The lesion's box or mask; without one, a box like those of the training set.

    A mask's form is followed; by weights that learnt from boxes, as the shipped ones did, though no photo taught them
    one, and but for a mask that is a whole rectangle: to them that is a box. (A U-Net that learnt from boxes is shown
    the mask, and has seen none.) A box is filled by a lesion of a form of its own, as far from an ellipse as
    :attr:`medsynth.skin.generator.GeneratorSettings.forms` tells."""


@dataclass(frozen=True)
class Drawn:
    """One picture, and what it was drawn from."""

    image: NDArray[np.uint8]
    """(S, S, 3) sRGB."""
    hairs: int
    """Grown on it by rule (:mod:`medsynth.skin.hair`)."""
    map: NDArray[np.uint8]
    """(S, S, 3) sRGB."""
    skin: tuple[int, int, int]
    """The colour asked for, sRGB."""
    region: Region


class SkinModel(Filed):
    """A generator with what it needs to be used.

    Args:
        network: the generator, trained.
        conditions: the names of its conditions, in its order.
        geometry: where the lesions of each lie.
        about: what else is known of it, kept as JSON beside the weights: data, settings, figures.
        sha256: of the file that it came from, if it came from one.
        region: what was the lesions' place in the maps that it learnt from.
    """

    def __init__(
        self,
        network: Generator,
        conditions: Sequence[str],
        geometry: Geometry,
        about: Mapping[str, Any],
        sha256: str | None = None,
        region: RegionKind = "box",
    ) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.conditions = tuple(conditions)
        self.geometry = geometry
        self.about = dict(about)
        self.region = region
        self._sha256 = sha256
        self._drawing: dict[tuple[torch.device, bool], Repeated[torch.Tensor]] = {}

    @classmethod
    def load(cls, uri: str | None = None) -> "SkinModel":
        """Read a model.

        Args:
            uri: a safetensors file; the shipped one by default.

        Raises:
            ModelError: there is none, or it is not a skin model.
            StorageError: it cannot be read.
        """
        where = uri or DEFAULT_URI
        return cls.from_bytes(_KIND.read(where), where)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "SkinModel":
        """Read a model from the bytes of its file.

        Args:
            data: the safetensors file.
            where: its name, for messages.

        Raises:
            ModelError: it is not a skin model, its weights fit no network of its settings, or what stands beside them
                cannot be drawn with.
        """
        weights, described = _KIND.unpack(data, where)
        conditions = _conditions(described, where)
        geometry = _geometry(described, conditions, where)
        about = described.get("about")
        if not isinstance(about, dict):
            raise _wrong(where, "about is not keys and values")
        with _KIND.fitting(where):
            settings = spec.parse(GeneratorSettings, described.get("generator"), f"{where}: generator")
            network = generator.build(settings, len(conditions))
            network.load_state_dict({name: value.float() for name, value in weights.items()})
            if isinstance(network, PlusNetwork) and (network.floors < 0).any():
                raise ValueError("a floor is below 0")
            region: RegionKind = described.get("region", "box")  # older files do not tell it
            if region not in get_args(RegionKind):
                raise ValueError(f"region {region}")
            return cls(network, conditions, geometry, about, hashlib.sha256(data).hexdigest(), region)

    def to_bytes(self) -> bytes:
        """The model as a safetensors file with weights of 16 bits, the same bytes for the same model."""
        described = {
            "generator": self.network.settings.model_dump(mode="json"),
            "conditions": self.conditions,
            "geometry": self.geometry.boxes,
            "region": self.region,
            "about": self.about,
        }
        return _KIND.pack({name: value.half() for name, value in self.network.state_dict().items()}, described)

    @property
    def size(self) -> int:
        """Side of its pictures in pixels."""
        size: int = self.network.settings.size
        return size

    @property
    def micro_batch(self) -> int:
        """Pictures that it draws at a time."""
        return micro_batch(next(self.network.parameters()).device)

    def draw(self, requests: Sequence[Request], seeds_of: Sequence[int], bf16: bool = False) -> list[Drawn]:
        """Draw pictures.

        Args:
            requests: what is asked for.
            seeds_of: a seed for each (:func:`medsynth.seeds.sample_seed`); a picture follows from its request
                and its seed alone, whatever is drawn beside it.
            bf16: reckon the network's products in bf16 instead of float32.

        Returns:
            A picture for each request, in order.

        Raises:
            MapError: an unknown condition or type, or a box or mask that does not fit the picture.
        """
        planned = [self._planned(request, seed) for request, seed in zip(requests, seeds_of, strict=True)]
        pictures: list[NDArray[np.uint8]] = []
        size = self.micro_batch
        for first in range(0, len(planned), size):
            rows = list(range(first, min(first + size, len(planned))))
            filled = rows + [rows[-1]] * (size - len(rows))
            drawn = self._micro_batch(
                [planned[row] for row in filled],
                [requests[row] for row in filled],
                [seeds_of[row] for row in filled],
                bf16,
            )
            pictures += list(drawn[: len(rows)])
        share = self.network.settings.hair
        return [
            Drawn(*hair.grown(image, plan.skin, seed, share), plan.map, plan.skin, plan.region)
            for image, plan, seed in zip(pictures, planned, seeds_of, strict=True)
        ]

    def soften(self) -> None:
        """Give the network the floors that the softness of its settings asks for; a U-Net has none.

        What is usual is the median over the pictures of :meth:`usual`.
        """
        if not isinstance(self.network, PlusNetwork):
            return
        self.network.floors.zero_()
        with torch.no_grad():
            found = [self.network.strengths(*given) for given in self.usual()]
        self.network.soften(torch.cat(found, dim=1).median(dim=1).values)

    def usual(self, each: int = 1) -> Iterator[tuple[Asked, Chance]]:
        """What pictures of every condition in every skin type are drawn from, one by one; always the same ones.

        Args:
            each: how many of each.
        """
        requests = [Request(condition, kind) for condition in self.conditions for kind in range(1, 7)] * each
        device = next(self.network.parameters()).device
        for number, request in enumerate(requests):
            seed = seeds.digest64("usual strength", number) >> 1
            asked = self._asked([request], [self._planned(request, seed)])
            look, grain = chance(self.network.settings, [seed])
            given = Asked(*(field.to(device) for field in asked if field is not None))
            yield given, Chance(look.to(device), tuple(field.to(device) for field in grain))

    def _planned(self, request: Request, seed: int) -> _Plan:
        colour = semantic_map.colour_of(request.condition, self.conditions)
        if request.fitzpatrick is not None and request.fitzpatrick not in range(1, 7):
            raise MapError(f"fitzpatrick is {request.fitzpatrick}; ask for a type from 1 to 6")
        region = request.region
        if region is None:
            region = self.geometry.sample(request.condition, self.size, seed)
        skin = _skin(request.fitzpatrick, seed) if request.skin is None else request.skin
        semantic_map.check_colour(skin)
        there = places.of(region, self.region, self.size, seed, self.network.settings.forms)
        return _Plan(semantic_map.draw(there.shown.shape, skin, there.shown, colour), skin, region, there)

    def _micro_batch(
        self,
        planned: Sequence[_Plan],
        requests: Sequence[Request],
        seeds_of: Sequence[int],
        bf16: bool,
    ) -> NDArray[np.uint8]:
        given = [field for field in self._asked(requests, planned) if field is not None]
        way = (next(self.network.parameters()).device, bf16)
        if way not in self._drawing:
            self._drawing[way] = drawing(self.network, *way)
        with torch.inference_mode():
            look, grain = chance(self.network.settings, seeds_of)
            codes = self._drawing[way](*given, look, *grain)
        found: NDArray[np.uint8] = codes.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return found

    def _asked(self, requests: Sequence[Request], planned: Sequence[_Plan]) -> Asked:
        types = [_type(request, plan.skin) for request, plan in zip(requests, planned, strict=True)]
        return Asked(
            torch.from_numpy(np.stack([plan.map for plan in planned])).permute(0, 3, 1, 2).float() / 127.5 - 1,
            torch.from_numpy(np.stack([plan.place.mask for plan in planned]))[:, None].float(),
            torch.tensor([plan.skin for plan in planned]).float() / 127.5 - 1,
            torch.tensor([self.conditions.index(request.condition) for request in requests]),
            torch.tensor(types),
            torch.from_numpy(np.stack([plan.place.depth for plan in planned]))[:, None],
        )


def drawing(network: Generator, device: torch.device, bf16: bool) -> Repeated[torch.Tensor]:
    """A network as it draws: of all of :class:`Asked` and :class:`Chance`, pictures (N, 3, S, S) uint8.

    Each picture is a batch of its own: on a GPU, even with all shapes the same, some in another place of a batch would
    come out a grey level off, since convolutions add up in parts that a batch's tiles decide.

    Args:
        network: with weights that stay as they are, on ``device``.
        device: where it draws.
        bf16: reckon its products in bf16 instead of float32.
    """
    fields = len(Asked._fields)

    def alone(given: Sequence[torch.Tensor], place: int) -> torch.Tensor:
        own = [field[place : place + 1] for field in given]
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            drawn: torch.Tensor = network(Asked(*own[:fields]), Chance(own[fields], tuple(own[fields + 1 :])))
        return ((drawn.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def draw(*given: torch.Tensor) -> Parts[torch.Tensor]:
        yield from ()  # in one part
        return torch.cat(side_by_side([functools.partial(alone, given, place) for place in range(len(given[0]))]))

    return Repeated(draw, device)


def chance(settings: GeneratorSettings, seeds_of: Sequence[int]) -> Chance:
    """The noise of pictures, each from its own seed alone.

    Args:
        settings: of the generator.
        seeds_of: a seed for each picture.
    """

    def normal(purpose: str, spread: float, *shape: int) -> torch.Tensor:
        rows = [
            np.random.Generator(np.random.Philox(key=seeds.digest64(seed, purpose))).standard_normal(shape, np.float32)
            for seed in seeds_of
        ]
        return torch.from_numpy(np.stack(rows) * np.float32(spread))

    grain = tuple(
        normal(f"grain {side}", settings.grain_spread, 1, side, side) for side in generator.sides(settings.size)
    )
    return Chance(normal("look", settings.look_spread, settings.latent), grain)


def _conditions(described: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = described.get("conditions")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise _wrong(where, "conditions is not a list of names")
    return tuple(names)


def _geometry(described: Mapping[str, Any], conditions: Sequence[str], where: str) -> Geometry:
    boxes = described.get("geometry")
    if not isinstance(boxes, dict):
        raise _wrong(where, "geometry is not keys and values")
    for name in dict.fromkeys((*conditions, *boxes)):
        known = boxes.get(name)
        if not (isinstance(known, list) and known and all(_is_box(box) for box in known)):
            raise _wrong(where, f"geometry has no boxes of four numbers from 0 to 1 for the condition {name!r}")
    return Geometry({name: tuple((x, y, w, h) for x, y, w, h in known) for name, known in boxes.items()})


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and 0 <= v <= 1 for v in box)


def _wrong(where: str, what: str) -> ModelError:
    return ModelError(f"{where}: {what}; name weights that {_KIND.job} made")


def _skin(kind: int | None, seed: int) -> tuple[int, int, int]:
    low, high = tone.angles_of(kind) if kind else tone.RANGE
    u = draws.uniforms(seed, "skin colour", 3).tolist()
    # A little inside of the bin, so that rounding to 8 bits does not leave it.
    angle = low + (high - low) * (0.08 + 0.84 * u[0])
    lab = tone.skin_of(angle, redness=4 * (u[1] - 0.5), yellowness=0.2 * (u[2] - 0.5))
    red, green, blue = tone.to_rgb(lab).tolist()
    return red, green, blue


def _type(request: Request, skin: tuple[int, int, int]) -> int:
    if request.fitzpatrick is not None:
        return request.fitzpatrick
    return int(tone.fitzpatrick(tone.ita(tone.to_lab(skin))))
