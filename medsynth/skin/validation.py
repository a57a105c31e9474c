"""What a generator reaches while it learns: pictures for a person to look at, and figures of the same pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medsynth import seeds
from medsynth.errors import Rejected
from medsynth.images.sheet import contact_sheet
from medsynth.skin import losses, semantic_map, tone
from medsynth.skin.model import Drawn, Request, SkinModel

Judge = Callable[[NDArray[np.uint8], NDArray[np.uint8]], dict[str, float]]
"""Further figures of real pictures and of drawn ones, each uint8 (N, S, S, 3)."""

FIGURES = ("ita_", "held_out_")
"""What the names of all figures begin with."""

_MIDDLE, _CHANCES = 3, 2


@dataclass(frozen=True)
class Sweep:
    """Each condition over the six skin types, and then over other seeds."""

    conditions: tuple[str, ...]
    drawn: tuple[tuple[Drawn, ...], ...]
    """For each condition: one map and seed over the types I to VI, then the map of type III with other seeds."""

    def sheet(self) -> bytes:
        """A contact sheet of the pictures, as PNG."""
        columns = [*(f"type {name}" for name in tone.TYPES), *(f"III, seed {n + 2}" for n in range(_CHANCES))]
        images = [[drawn.image for drawn in row] for row in self.drawn]
        return contact_sheet(images, self.conditions, columns, cell=max(72, len(images[0][0])))

    def figures(self) -> dict[str, float]:
        """How well the skin's colour is what was asked for.

        Returns:
            ``ita_error``, the median distance of measured and asked angle in degrees; ``ita_spearman`` between
            the two, which all differ; ``ita_found``, the share of pictures in which there is skin to measure.
            What cannot be told is left out.
        """
        asked, measured = [], []
        for drawn in (one for row in self.drawn for one in row[: len(tone.TYPES)]):
            try:
                colour = semantic_map.skin_colour(drawn.image, drawn.region)
            except Rejected:
                continue
            asked.append(float(tone.ita(tone.to_lab(drawn.skin))))
            measured.append(float(tone.ita(colour)))
        told = {"ita_found": len(asked) / (len(self.drawn) * len(tone.TYPES))}
        if asked:
            told["ita_error"] = float(np.median(np.abs(np.array(asked) - measured)))
        if len(asked) > 2 and np.ptp(measured) > 0:
            from scipy import stats  # here: it takes longer to load than all else but torch, in each process of a run

            told["ita_spearman"] = float(stats.spearmanr(asked, measured).statistic)
        return told


def sweep(model: SkinModel) -> Sweep:
    """Draw the pictures of a sweep; always the same ones for the same model."""
    requests, own = [], []
    for place, condition in enumerate(model.conditions):
        seed = seeds.digest64("sweep", condition) >> 1
        region = model.geometry.sample(condition, model.size, seed)
        # Another colour of each type's bin for each condition: equal angles could be in no order.
        through = 0.1 + 0.8 * (place + 0.5) / len(model.conditions)
        skins = [_skin(kind, through) for kind in range(1, 7)]
        requests += [Request(condition, kind, skin, region) for kind, skin in enumerate(skins, start=1)]
        requests += [Request(condition, _MIDDLE, skins[_MIDDLE - 1], region)] * _CHANCES
        own += [seed] * len(skins) + [seed + 1 + chance for chance in range(_CHANCES)]
    drawn = model.draw(requests, own)
    each = len(tone.TYPES) + _CHANCES
    rows = tuple(tuple(drawn[first : first + each]) for first in range(0, len(drawn), each))
    return Sweep(model.conditions, rows)


def _skin(kind: int, through: float) -> tuple[int, int, int]:
    low, high = tone.angles_of(kind)
    red, green, blue = tone.to_rgb(tone.skin_of(low + (high - low) * through)).tolist()
    return red, green, blue


def held_out(
    model: SkinModel, batches: Sequence[Mapping[str, NDArray[Any]]], pool: int, judge: Judge | None = None
) -> dict[str, float]:
    """How far pictures drawn from the maps of held-out photos are from those photos.

    Args:
        model: the model.
        batches: as :meth:`medsynth.skin.samples.Feed.held_out` gives them.
        pool: side of the squares whose means are compared.
        judge: further figures.

    Returns:
        Losses without their weights: ``held_out_l1``, ``held_out_lesion_l1``, ``held_out_texture`` and
        ``held_out_tone``; and what the judge tells, named likewise. Nothing, where there is no photo.
    """
    if not batches:
        return {}
    given = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    requests = [
        Request(model.conditions[place], int(kind) or None, (int(skin[0]), int(skin[1]), int(skin[2])), mask > 0)
        for place, kind, skin, mask in zip(
            given["conditions"], given["types"], given["skins"], given["masks"], strict=True
        )
    ]
    own = [seeds.digest64("held out picture", number) >> 1 for number in range(len(requests))]
    images = np.stack([drawn.image for drawn in model.draw(requests, own)])
    drawn, photos = _scaled(images), _scaled(given["photos"])
    masks = torch.from_numpy(given["masks"].copy())[:, None].float()
    told = {
        "held_out_l1": float(losses.l1(drawn, photos, pool)),
        "held_out_lesion_l1": float(losses.lesion_l1(drawn, photos, masks, pool)),
        "held_out_texture": float(losses.texture(drawn, photos)),
        "held_out_tone": float(losses.tone(drawn, photos, masks)),
    }
    return told | {
        f"held_out_{name}": value for name, value in (judge(given["photos"], images) if judge else {}).items()
    }


def _scaled(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
