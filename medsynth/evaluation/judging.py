"""All measures of one set of synthetic photos, put together for a report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsynth import seeds
from medsynth.evaluation import conditioning, fidelity, gallery, memorization, outlines, pictures, plots
from medsynth.evaluation.encoder import Encoder, accuracy
from medsynth.evaluation.pictures import Pictures
from medsynth.skin import tone
from medsynth.skin.model import SkinModel

SHOWN = 100
_VARIED, _MOVED = 8, 4
_TONED, _TONED_SEEDS, _GROWN_SEEDS = 2, 4, 2


@dataclass(frozen=True)
class Sheet:
    """Pictures to look at."""

    title: str
    words: str
    """What is to be seen, and how it is arranged."""
    jpeg: bytes


@dataclass
class Judged:
    """Figures, for JSON, and sheets."""

    figures: dict[str, Any] = field(default_factory=dict)
    sheets: list[Sheet] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)
    """``<svg>`` elements by name: ``tone``, ``nearest``, ``tone_sweep`` and ``growing``."""


@dataclass(frozen=True)
class Material:
    """What synthetic pictures are held against."""

    training: Pictures
    """Real photos that the generator has seen."""
    held: Pictures
    """Real photos of other patients."""


def judge(
    synthetic: Pictures,
    compared: Pictures,
    material: Material,
    encoder: Encoder,
    model: SkinModel | None,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Judged:
    """Measure synthetic pictures.

    Args:
        synthetic: pictures of a corpus, or drawn from held-out maps.
        compared: those of them whose likeness to real photos is told; their mix should be that of the real ones.
        material: real photos.
        encoder: for features.
        model: what drew them, to draw sweeps with; None leaves those out.
        seed: of all chance.
        say: is told what is being done.
    """
    found = Judged()
    say("features")
    features = {
        "held": encoder.features(material.held.images),
        "synthetic": encoder.features(compared.images),
        "training": encoder.features(material.training.images),
    }
    found.figures["encoder"] = {"sha256": encoder.sha256, **encoder.about, "held_out": accuracy(encoder, material.held)}
    found.figures["fidelity"] = _fidelity(compared, material, features, seed)
    say("copies")
    found.figures["memorization"] = _copies(synthetic, material, found)
    say("skin, lesions")
    real = pictures.joined(material.held, material.training)
    measured = pictures.measured(synthetic)
    found.figures["tone"] = conditioning.tones(synthetic.asked, measured, synthetic.types)
    found.plots["tone"] = plots.tones(synthetic.asked, measured)
    found.figures["contrast"] = {
        name: _spread(conditioning.contrasts(side))
        for name, side in (("synthetic", synthetic), ("real", material.held))
    }
    found.figures["outlines"] = outlines.compared(synthetic, real)
    recognised, _ = encoder.told(synthetic.images)
    right = [encoder.conditions[a] == b for a, b in zip(recognised, synthetic.conditions, strict=True)]
    found.figures["recognised"] = {"share": float(np.mean(right)), "chance": 1 / len(encoder.conditions)}
    _side_by_side(synthetic, real, seed, found.sheets)
    if model is not None:
        say("sweeps")
        _sweeps(model, material, features["held"], encoder, seed, found)
    return found


def _fidelity(
    synthetic: Pictures, material: Material, features: dict[str, NDArray[np.float64]], seed: int
) -> dict[str, Any]:
    held = material.held

    def compared(real: NDArray[np.bool_], other: NDArray[np.bool_]) -> dict[str, Any]:
        groups = [_names(side, chosen) for side, chosen in ((held, real), (synthetic, other))]
        return fidelity.compare(features["held"][real], features["synthetic"][other], *groups, seed=seed)

    told: dict[str, Any] = {"whole": compared(np.ones(len(held), bool), np.ones(len(synthetic), bool))}
    told["training"] = fidelity.compare(
        features["held"], features["training"], held.groups, material.training.groups, seed=seed
    )
    enough = len(set(held.groups)) >= 4
    told["floor"] = vars(fidelity.kid_floor(features["held"], held.groups, seed=seed)) if enough else None
    names = (np.array(held.conditions), np.array(synthetic.conditions))
    told["conditions"] = {name: compared(names[0] == name, names[1] == name) for name in sorted({*names[0], *names[1]})}
    told["types"] = {
        name: compared(held.types == kind, synthetic.types == kind) for kind, name in enumerate(tone.TYPES, start=1)
    }
    return told


def _names(side: Pictures, chosen: NDArray[np.bool_]) -> list[str]:
    return [group for group, one in zip(side.groups, chosen, strict=True) if one]


def _copies(synthetic: Pictures, material: Material, found: Judged) -> dict[str, Any]:
    known = memorization.known(material.training)
    near = memorization.nearest(synthetic, known)
    null = memorization.nearest(material.held, known)
    told = memorization.audit(near, null)
    found.plots["nearest"] = plots.distances(near.distance, null.distance, told["threshold"])
    pairs = [
        image
        for place in told["nearest"]
        for image in (synthetic.images[place], material.training.images[near.place[place]])
    ]
    words = "Each synthetic picture, and right of it its nearest training photo; the nearest pairs of all come first."
    found.sheets.append(Sheet("Nearest to a training photo", words, gallery.sheet(pairs, 8, 120)))
    return told


def _spread(values: NDArray[np.float64]) -> dict[str, Any]:
    seen = values[np.isfinite(values)]
    low, middle, high = np.quantile(seen, [0.05, 0.5, 0.95]).tolist() if len(seen) else (None, None, None)
    beyond = float((seen >= 2).mean()) if len(seen) else None
    return {"pictures": len(values), "measured": len(seen), "p05": low, "median": middle, "p95": high, "seen": beyond}


def _side_by_side(synthetic: Pictures, real: Pictures, seed: int, sheets: list[Sheet]) -> None:
    for name, images in (("synthetic", synthetic.images), ("real", real.images)):
        order = seeds.permute(np.arange(len(images)), len(images), seeds.digest64(seed, "shown", name))[:SHOWN]
        words = f"{len(order)} {name} pictures, picked by the seed alone, at the size at which they are drawn."
        sheets.append(Sheet(f"{len(order)} {name} pictures", words, gallery.sheet(list(images[order]), 10, 128)))


def _sweeps(
    model: SkinModel, material: Material, held: NDArray[np.float64], encoder: Encoder, seed: int, found: Judged
) -> None:
    swept = conditioning.tone_sweep(model, _TONED, _TONED_SEEDS, seed)
    measured = pictures.measured(swept)
    found.figures["tone_sweep"] = conditioning.swept_tones(swept, measured)
    found.plots["tone_sweep"] = plots.tones(swept.asked, measured)
    found.figures["moved"] = conditioning.moved(model, _MOVED, seed)
    rows, told = conditioning.growing(model, _GROWN_SEEDS, seed)
    found.figures["growing"] = told
    found.plots["growing"] = plots.sizes(told["asked"], told["changed"])
    same = conditioning.of_one_map(model, _VARIED, seed)
    by_map = encoder.features(same.images).reshape(len(model.conditions), _VARIED, -1)
    found.figures["variety"] = conditioning.variety(by_map, held, material.held.conditions)
    names = ", ".join(model.conditions)
    _add(found, "One lesion over six skin types", f"Types I to VI from left to right; rows: {names}. "
         "In a row nothing differs but the skin asked for.", conditioning.six_types(model, seed))  # fmt: skip
    _add(found, "One map over growing lesions", "The lesion's box takes 1 to 40 % of the picture, on skin of "
         f"type III; rows: {names}. In a row nothing differs but the size asked for.", rows)  # fmt: skip
    _add(found, "Pictures of one map", f"Each row: one map, eight seeds; rows: {names}.",
         [list(same.images[first : first + _VARIED]) for first in range(0, len(same), _VARIED)])  # fmt: skip


def _add(found: Judged, title: str, words: str, rows: Sequence[Sequence[NDArray[np.uint8]]]) -> None:
    flat = [image for row in rows for image in row]
    found.sheets.append(Sheet(title, words, gallery.sheet(flat, len(rows[0]), 128)))
