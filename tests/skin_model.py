"""A tiny skin model of random weights, and orders for it."""

from pathlib import Path
from typing import Any

import torch

from medsynth.skin import generator
from medsynth.skin.generator import GeneratorSettings
from medsynth.skin.model import SkinModel
from medsynth.skin.semantic_map import Geometry
from medsynth.spec import Spec, parse

NAMES = ("BCC", "NEV")
OFF = dict.fromkeys(("ita_deg", "spread", "saturated", "change", "pattern", "field", "likeness"))
"""Random weights draw nothing that any rule would let pass."""


def save(folder: Path, seed: int = 0) -> str:
    """Write a model; the same bytes on every call with a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = generator.build(GeneratorSettings(size=32, width=4, widest=8, latent=4, embedding=8), len(NAMES))
    geometry = Geometry(dict.fromkeys(NAMES, ((0.5, 0.5, 0.3, 0.25), (0.4, 0.6, 0.5, 0.5))))
    about = {"attribution": "Photos of nobody, CC0", "cautions": ["Dark skin was made from light skin."]}
    uri = str(folder / "skin.safetensors")
    SkinModel(network, NAMES, geometry, about).save(uri)
    return uri


def order(weights: str, section: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A small order for the recipe skin: 24 rows in 4 shards."""
    axes = {"condition": list(NAMES), "fitzpatrick": ["I", "III", "VI"], "device": ["phone-flagship", "phone-lowlight"]}
    return {
        "name": "small-skin",
        "recipe": "skin",
        "seed": 7,
        "balance": {"axes": axes, "per_subgroup": 2},
        "output": {"rows_per_shard": 7},
        "skin": {"weights": weights, "reject": OFF, **(section or {})},
        **changes,
    }


def spec(weights: str, section: dict[str, Any] | None = None, **changes: Any) -> Spec:
    """The same, parsed."""
    return parse(Spec, order(weights, section, **changes), "test")
