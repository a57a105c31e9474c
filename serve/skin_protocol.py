"""The skin generator as the Open Inference Protocol sees it: tensors of what is asked, pictures as files or pixels."""

import asyncio
import base64
import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medsynth import images
from medsynth.skin import tone
from serve.http import Limits, busy, field_problem
from serve.wire import SKIN, SKIN_NOTE, About, Asked, Misfit, Picture, Skin, SkinAbout

_AT_ONCE = 4
"""Calls of the model for one request: a part of what its deployment takes at a time."""

INPUTS: dict[str, tuple[str, list[int]]] = {
    "condition": ("BYTES", [-1]),
    "fitzpatrick": ("BYTES", [-1]),
    "skin_rgb": ("INT64", [-1, 3]),
    "lesion_box": ("INT64", [-1, 4]),
    "device": ("BYTES", [-1]),
    "seed": ("INT64", [-1]),
}
"""Only the condition is needed."""

OUTPUTS = ("images", "pixels", "seed", "skin_rgb", "lesion_box")


@dataclass(frozen=True)
class Inferred:
    """What a model answers."""

    outputs: list[dict[str, Any]]
    about: About | SkinAbout
    parameters: dict[str, str | bool]
    """Of the answer; the protocol has no lists there."""
    headers: dict[str, str]


def described(about: SkinAbout) -> dict[str, Any]:
    """The model's metadata."""
    side = about.size
    return {
        "name": SKIN,
        "versions": [about.version],
        "platform": "pytorch",
        "inputs": [
            {"name": name, "datatype": kind, "shape": shape, "parameters": {"optional": name != "condition"}}
            for name, (kind, shape) in INPUTS.items()
        ],
        "outputs": [
            {"name": "images", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, side, side, 3]},
            {"name": "seed", "datatype": "INT64", "shape": [-1]},
            {"name": "skin_rgb", "datatype": "INT64", "shape": [-1, 3]},
            {"name": "lesion_box", "datatype": "INT64", "shape": [-1, 4]},
        ],
    }


async def infer(
    skin: Skin, tensors: Mapping[str, tuple[int, str, list[int], list[Any]]], wanted: set[str], limits: Limits
) -> Inferred:
    """Draw what tensors ask for.

    Args:
        skin: the model.
        tensors: place in the request, datatype, shape and data of each, by name.
        wanted: of the outputs; all but the pixels where it is empty.
        limits: of a request.

    Raises:
        Problem: 422, naming the tensor.
    """
    count = _count(tensors, limits)
    columns = {name: _column(name, count, *tensors[name]) for name in tensors}
    seeds = columns.get("seed") or [secrets.randbits(53) for _ in range(count)]
    asked = [_asked(columns, place, tensors) for place in range(count)]
    pictures, about = await _drawn(skin, asked, seeds, {name: place for name, (place, *_) in tensors.items()})
    drawn = ", ".join(str(one.seed) for one in pictures)
    return Inferred(
        _outputs(pictures, wanted),
        about,
        {"note": SKIN_NOTE, "synthetic": True, "seeds": drawn},
        {"Medsynth-Seed": drawn, "Medsynth-Synthetic": "true"},
    )


async def _drawn(
    skin: Skin, asked: list[Asked], seeds: list[int], places: Mapping[str, int]
) -> tuple[list[Picture], SkinAbout]:
    """Pictures in the order asked; what is asked alike goes in one call, and one call that fails ends the others."""
    alike: dict[Asked, list[int]] = defaultdict(list)
    for at, one in enumerate(asked):
        alike[one].append(at)
    free = asyncio.Semaphore(_AT_ONCE)

    async def draw(one: Asked, ats: list[int]) -> tuple[dict[int, Picture], SkinAbout]:
        async with free:
            made, about = await skin.draw(one, [seeds[at] for at in ats])
            if isinstance(made, Misfit):
                raise field_problem(f"inputs.{places.get(made.field, 0)}.data", f"{made.field}: {made.detail}")
            return dict(zip(ats, made, strict=True)), about

    try:
        async with asyncio.TaskGroup() as calls:
            tasks = [calls.create_task(draw(*item)) for item in alike.items()]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    answers = [task.result() for task in tasks]
    about = answers[0][1]
    if any(other.weights_sha256 != about.weights_sha256 for _, other in answers):
        raise busy("the model was replaced while it drew; ask again")
    pictures = {at: picture for made, _ in answers for at, picture in made.items()}
    return [pictures[at] for at in range(len(asked))], about


def _count(tensors: Mapping[str, tuple[int, str, list[int], list[Any]]], limits: Limits) -> int:
    for name, (place, kind, shape, _) in tensors.items():
        if name not in INPUTS:
            raise field_problem(f"inputs.{place}.name", f"no input {name[:50]!r}; known: {', '.join(INPUTS)}")
        wanted, known = INPUTS[name]
        if kind != wanted or len(shape) != len(known) or shape[1:] != known[1:]:
            raise field_problem(f"inputs.{place}", f"{name} is {wanted} of shape {known}")
    if "condition" not in tensors:
        raise field_problem("inputs", "the input condition is needed")
    count = tensors["condition"][2][0]
    if not 1 <= count <= limits.pictures:
        raise field_problem(f"inputs.{tensors['condition'][0]}.shape", f"1 to {limits.pictures} pictures in a request")
    return count


def _column(name: str, count: int, place: int, kind: str, shape: list[int], data: list[Any]) -> list[Any]:
    wide = shape[1] if len(shape) == 2 else 1
    flat = [value for one in data for value in one] if data and all(isinstance(one, list) for one in data) else data
    right = str if kind == "BYTES" else int
    if shape[0] != count or len(flat) != count * wide:
        raise field_problem(f"inputs.{place}.data", f"{name}: {len(flat)} values for {count} pictures")
    if not all(isinstance(value, right) and not isinstance(value, bool) for value in flat):
        raise field_problem(f"inputs.{place}.data", f"{name}: {'text' if right is str else 'whole numbers'} wanted")
    if right is int and not all(0 <= value < 1 << 63 for value in flat):
        raise field_problem(f"inputs.{place}.data", f"{name}: a number is out of range")
    return flat if wide == 1 else [flat[at : at + wide] for at in range(0, len(flat), wide)]


def _asked(columns: Mapping[str, list[Any]], at: int, tensors: Mapping[str, tuple[int, Any, Any, Any]]) -> Asked:
    kind = None
    if "fitzpatrick" in columns:
        kind = tone.parse_type(columns["fitzpatrick"][at])
        if kind is None:
            raise field_problem(f"inputs.{tensors['fitzpatrick'][0]}.data", "fitzpatrick: I to VI, or 1 to 6")
    colour = columns["skin_rgb"][at] if "skin_rgb" in columns else None
    if colour is not None and max(colour) > 255:
        raise field_problem(f"inputs.{tensors['skin_rgb'][0]}.data", "skin_rgb: 0 to 255")
    box = columns["lesion_box"][at] if "lesion_box" in columns else None
    return Asked(
        condition=columns["condition"][at],
        fitzpatrick=kind,
        skin=None if colour is None else (colour[0], colour[1], colour[2]),
        box=None if box is None else (box[0], box[1], box[2], box[3]),
        device=columns["device"][at] if "device" in columns else None,
    )


def _outputs(pictures: list[Picture], wanted: set[str]) -> list[dict[str, Any]]:
    count = len(pictures)
    made: dict[str, dict[str, Any]] = {
        "images": {"datatype": "BYTES", "shape": [count]},
        "seed": {"datatype": "INT64", "shape": [count], "data": [one.seed for one in pictures]},
        "skin_rgb": {"datatype": "INT64", "shape": [count, 3], "data": [v for one in pictures for v in one.skin_rgb]},
        "lesion_box": {
            "datatype": "INT64",
            "shape": [count, 4],
            "data": [v for one in pictures for v in one.lesion_box],
        },
    }
    made["images"]["data"] = [base64.b64encode(one.data).decode() for one in pictures]
    if "pixels" in wanted:
        pixels = np.stack([images.decode(one.data) for one in pictures])
        made["pixels"] = {"datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    return [{"name": name, **one} for name, one in made.items() if not wanted or name in wanted]
