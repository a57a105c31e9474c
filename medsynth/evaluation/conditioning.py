"""Whether pictures show what was asked for: the skin's angle, the lesion's place and size, and variety."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from scipy.spatial.distance import pdist

from medsynth import draws, seeds
from medsynth.errors import Rejected
from medsynth.evaluation import pictures
from medsynth.evaluation.pictures import Pictures
from medsynth.skin import quality, semantic_map, tone
from medsynth.skin.model import Request, SkinModel
from medsynth.skin.semantic_map import Box

SIZES = 10
_LOOKED_AT = 64
_SEEN = 5.0  # CIELAB units between two pictures at a place, beyond which it counts as changed
_SHARES = np.geomspace(0.01, 0.4, SIZES)
_SHOWN = "III"  # the type on whose skin growing lesions are looked at


def tones(asked: NDArray[np.float64], measured: NDArray[np.float64], types: NDArray[np.int64]) -> dict[str, Any]:
    """Asked against measured angles.

    Args:
        asked: (N,) degrees.
        measured: (N,) degrees, not a number where there is no skin.
        types: (N,) 1 to 6.

    Returns:
        ``pictures`` and ``measured``, how many; ``spearman``; ``median_error`` and ``error_90``, degrees;
        ``types``: by name, how many, the median angles and errors, and ``as_type``, the share measured in the
        type's own bin or, where another angle was asked for, its bin. What cannot be told is None.
    """
    seen = np.isfinite(measured)
    error = np.abs(measured - asked)
    found: dict[str, Any] = {"pictures": len(asked), **_agreement(asked, measured), "types": {}}
    for kind, name in enumerate(tone.TYPES, start=1):
        chosen = seen & (types == kind)
        if chosen.any():
            found["types"][name] = {
                "pictures": int(chosen.sum()),
                "asked": float(np.median(asked[chosen])),
                "measured": float(np.median(measured[chosen])),
                "median_error": float(np.median(error[chosen])),
                "error_90": float(np.quantile(error[chosen], 0.9)),
                "as_type": float((tone.fitzpatrick(measured[chosen]) == tone.fitzpatrick(asked[chosen])).mean()),
            }
    return found


def tone_sweep(model: SkinModel, each: int, turns: int, seed: int) -> Pictures:
    """Every condition over the six types, several pictures in each such cell, with several seeds.

    Each condition has a part of each type's bin of angles to itself, another part in each type, and each picture an
    angle of its own in it: the cells can be put in order as well as the pictures.

    Args:
        model: what draws.
        each: pictures of each cell with each seed.
        turns: seeds.
        seed: what those follow from: they decide on boxes, angles and noise.

    Returns:
        The pictures, whose groups are the seeds.
    """
    requests, groups = [], []
    for turn in range(turns):
        for place, condition in enumerate(model.conditions):
            for kind in range(1, 7):
                part = (place + kind) % len(model.conditions)
                low, high = tone.angles_of(kind)
                for number in range(each):
                    own = seeds.digest64(seed, "tone sweep", turn, condition, kind, number) >> 1
                    through = (part + float(draws.uniforms(own, "angle", 1)[0])) / len(model.conditions)
                    # A little inside of the bin, so that rounding to 8 bits does not leave it.
                    angle = low + (high - low) * (0.08 + 0.84 * through)
                    red, green, blue = tone.to_rgb(tone.skin_of(angle)).tolist()
                    box = model.geometry.sample(condition, model.size, own)
                    requests.append(Request(condition, kind, (red, green, blue), box))
                    groups.append(str(turn))
    return pictures.of_requests(model, requests, seed, tuple(groups))


def swept_tones(swept: Pictures, measured: NDArray[np.float64]) -> dict[str, Any]:
    """Asked against measured angles of a sweep: of single pictures, of each seed's, and of the cells.

    Args:
        swept: as :func:`tone_sweep` draws them.
        measured: (N,) degrees, not a number where there is no skin.

    Returns:
        What :func:`tones` tells of the single pictures; ``seeds``: their ``count``, and [least, most] over them of
        ``spearman`` and ``median_error`` of one seed's pictures; ``cells``: their ``count``, how many could be
        ``measured``, and ``spearman``, ``median_error`` and ``error_90`` of the cells' median angles.
    """
    names = sorted(set(swept.groups))
    groups = np.array(swept.groups)
    alone = [_agreement(swept.asked[groups == name], measured[groups == name]) for name in names]
    cells = np.array([f"{kind} {name}" for kind, name in zip(swept.types, swept.conditions, strict=True)])
    middles = []
    for cell in np.unique(cells):
        chosen = (cells == cell) & np.isfinite(measured)
        middles.append(np.median([swept.asked[chosen], measured[chosen]], axis=1) if chosen.any() else [np.nan] * 2)
    return {
        **tones(swept.asked, measured, swept.types),
        "seeds": {
            "count": len(names),
            **{name: _ends([one[name] for one in alone]) for name in ("spearman", "median_error")},
        },
        "cells": {"count": len(middles), **_agreement(*np.array(middles).T)},
    }


def contrasts(given: Pictures) -> NDArray[np.float64]:
    """How far each lesion stands out from the skin about its box, CIELAB units; see :class:`quality.Found`.

    Returns:
        (N,), not a number where nothing can be skin.
    """
    found = []
    for image, box in zip(given.images, given.boxes, strict=True):
        try:
            found.append(quality.measure(image, box).change)
        except Rejected:
            found.append(float("nan"))
    return np.array(found)


def moved(model: SkinModel, each: int, seed: int) -> dict[str, Any]:
    """What changes when the box alone is moved: much within the two boxes, little outside of both.

    Args:
        model: what draws.
        each: pairs of pictures of each condition.
        seed: of colours and noise, which both pictures of a pair share.

    Returns:
        ``inside`` and ``outside``: medians over the pairs of the mean change, CIELAB units, on pictures reduced
        to 64×64; ``ratio``: the median of inside over outside; ``share_inside``: the median share of all change
        that lies inside.
    """
    requests, noise = [], []
    for condition in model.conditions:
        for turn in range(each):
            own = seeds.digest64(seed, "moved", condition, turn) >> 1
            angle = 60 - 100 * float(draws.uniforms(own, "angle", 1)[0])
            for x, y in ((0.27, 0.3), (0.73, 0.7)):
                requests.append(_request(model, condition, angle, semantic_map.placed(0.34, x, y, model.size)))
                noise.append(own)
    drawn = [one.image for one in model.draw(requests, noise)]
    found = []
    for first in range(0, len(drawn), 2):
        change = difference(drawn[first], drawn[first + 1])
        union = np.zeros(change.shape, dtype=bool)
        for request in requests[first : first + 2]:
            assert isinstance(request.region, Box)
            union |= _small_mask(request.region, model.size, change.shape[0])
        inside, outside = float(change[union].mean()), float(change[~union].mean())
        found.append([inside, outside, inside / max(outside, 1e-6), change[union].sum() / max(change.sum(), 1e-6)])
    middle = np.median(found, axis=0).tolist()
    names = ("inside", "outside", "ratio", "share_inside")
    return {"pairs": len(found), **dict(zip(names, middle, strict=True))}


def growing(model: SkinModel, turns: int, seed: int) -> tuple[list[list[NDArray[np.uint8]]], dict[str, Any]]:
    """One lesion of each condition at ten sizes, in one place, on the skin of each type, with several seeds.

    Args:
        model: what draws.
        turns: seeds.
        seed: the first of them, the others following it: of the noise, which all sizes and types share.

    Returns:
        The pictures of type III with the first seed, a row a condition; and what :func:`followed` tells of the
        shares of the picture that differ by more than 5 CIELAB units from the one with a lesion of two pixels.
    """
    boxes = [semantic_map.placed(float(np.sqrt(share)), 0.5, 0.5, model.size) for share in _SHARES]
    least = semantic_map.placed(2 / model.size, 0.5, 0.5, model.size)
    asked = [(box.x1 - box.x0) * (box.y1 - box.y0) / model.size**2 for box in boxes]
    rows = []
    changed: dict[str, dict[str, list[list[float]]]] = {}
    for condition in model.conditions:
        changed[condition] = {}
        for name, centre in zip(tone.TYPES, tone.CENTRES, strict=True):
            requests = [_request(model, condition, centre, box) for box in (least, *boxes)]
            shares = changed[condition][name] = []
            for turn in range(turns):
                own = seeds.digest64(seed + turn, "growing", condition) >> 1
                first, *drawn = (one.image for one in model.draw(requests, [own] * len(requests)))
                shares.append([float((difference(first, image) > _SEEN).mean()) for image in drawn])
                if (name, turn) == (_SHOWN, 0):
                    rows.append(drawn)
    return rows, followed(asked, changed)


def followed(asked: Sequence[float], changed: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> dict[str, Any]:
    """How the changed area follows the asked one. A rank says whether it grows; its size is told beside it.

    Args:
        asked: (K,) shares of the picture, above 0, all different.
        changed: for each condition and type, for each seed (K,): shares of the picture.

    Returns:
        Both; ``lesions``, how many were grown; ``spearman`` and ``ratio``, of changed over asked, over all of them;
        ``conditions``: the same two by name, over types and seeds. Each ``spearman`` has its ``median`` and ``least``,
        and the ``type`` of the least; it is 0 where the changed area is always the same. Each ``ratio`` has its
        ``median`` and ``worst``, the one farthest from 1 as a factor, and the ``type`` and ``asked`` share of that.
    """
    ranks: dict[str, list[tuple[float, str]]] = {}
    ratios: dict[str, list[tuple[float, str, float]]] = {}
    for condition, types in changed.items():
        grown = [(name, shares) for name, of_seeds in types.items() for shares in of_seeds]
        ranks[condition] = [(_rank(asked, shares), name) for name, shares in grown]
        ratios[condition] = [
            (share / of, name, of) for name, shares in grown for share, of in zip(shares, asked, strict=True)
        ]
    every = [one for of in ranks.values() for one in of], [one for of in ratios.values() for one in of]
    return {
        "asked": list(asked),
        "changed": changed,
        "lesions": len(every[0]),
        **_growth(*every),
        "conditions": {name: _growth(ranks[name], ratios[name]) for name in changed},
    }


def variety(same: NDArray[np.float64], real: NDArray[np.float64], names: Sequence[str]) -> dict[str, Any]:
    """How far apart pictures of one map are, against real photos of one condition.

    Args:
        same: (M, K, d) features: M maps, K pictures of each.
        real: (N, d) features of real photos.
        names: condition of each real photo.

    Returns:
        ``synthetic`` and ``real``: mean distances of pairs; ``ratio`` of the two; ``nearest``: the least distance
        of two pictures of one map over the mean real one, about 0 where two are alike.
    """
    within = [pdist(map_) for map_ in same]
    conditions = np.array(names)
    pairs = [pdist(real[conditions == name]) for name in sorted(set(names))]
    usual = float(np.concatenate(pairs).mean()) if any(len(p) for p in pairs) else None
    mean = float(np.concatenate(within).mean())
    return {
        "maps": len(same),
        "each": same.shape[1],
        "synthetic": mean,
        "real": usual,
        "ratio": mean / usual if usual else None,
        "nearest": float(np.concatenate(within).min()) / usual if usual else None,
    }


def of_one_map(model: SkinModel, each: int, seed: int) -> Pictures:
    """Pictures of one map of each condition, with other seeds; they follow one another map by map."""
    requests, groups = [], []
    for condition in model.conditions:
        own = seeds.digest64(seed, "one map", condition) >> 1
        box = model.geometry.sample(condition, model.size, own)
        requests += [_request(model, condition, tone.CENTRES[2], box)] * each
        groups += [condition] * each
    return pictures.of_requests(model, requests, seed, tuple(groups))


def six_types(model: SkinModel, seed: int) -> list[list[NDArray[np.uint8]]]:
    """One lesion of each condition over six skin types: nothing but the skin's colour and type differs in a row."""
    rows = []
    for condition in model.conditions:
        own = seeds.digest64(seed, "six types", condition) >> 1
        box = model.geometry.sample(condition, model.size, own)
        requests = [Request(condition, kind, tone.colour_of_type(kind), box) for kind in range(1, 7)]
        rows.append([one.image for one in model.draw(requests, [own] * 6)])
    return rows


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far apart two pictures are, place by place: CIELAB distances at 64×64, which grain alone hardly moves."""
    side = min(_LOOKED_AT, one.shape[0])
    small = [
        tone.to_lab(np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BOX))) for p in (one, other)
    ]
    return np.asarray(np.linalg.norm(small[0] - small[1], axis=-1))


def _request(model: SkinModel, condition: str, angle: float, box: Box) -> Request:
    red, green, blue = tone.to_rgb(tone.skin_of(angle)).tolist()
    return Request(condition, int(tone.fitzpatrick(angle)), (red, green, blue), box)


def _small_mask(box: Box, size: int, side: int) -> NDArray[np.bool_]:
    whole = semantic_map.mask((size, size), box).astype(np.uint8) * 255
    return np.asarray(Image.fromarray(whole).resize((side, side), Image.Resampling.BOX)) > 0


def _agreement(asked: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, Any]:
    seen = np.isfinite(measured)
    error = np.abs(measured - asked)[seen]
    varied = seen.sum() > 2 and np.ptp(asked[seen]) > 0 and np.ptp(measured[seen]) > 0
    return {
        "measured": int(seen.sum()),
        "spearman": float(stats.spearmanr(asked[seen], measured[seen]).statistic) if varied else None,
        "median_error": float(np.median(error)) if seen.any() else None,
        "error_90": float(np.quantile(error, 0.9)) if seen.any() else None,
    }


def _ends(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None


def _rank(asked: Sequence[float], changed: Sequence[float]) -> float:
    return 0.0 if np.ptp(changed) == 0 else float(stats.spearmanr(asked, changed).statistic)


def _growth(ranks: Sequence[tuple[float, str]], ratios: Sequence[tuple[float, str, float]]) -> dict[str, Any]:
    least, on = min(ranks)
    worst, kind, asked = max(ratios, key=lambda one: abs(math.log(one[0])) if one[0] else math.inf)
    return {
        "spearman": {"median": float(np.median([rank for rank, _ in ranks])), "least": least, "type": on},
        "ratio": {
            "median": float(np.median([ratio for ratio, _, _ in ratios])),
            "worst": worst,
            "type": kind,
            "asked": asked,
        },
    }
