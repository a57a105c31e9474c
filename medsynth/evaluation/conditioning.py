"""Whether pictures show what was asked for: the skin's angle, the lesion's place and size, and variety."""

from collections.abc import Sequence
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
    found: dict[str, Any] = {"pictures": len(asked), "measured": int(seen.sum()), "types": {}}
    varied = seen.sum() > 2 and np.ptp(asked[seen]) > 0 and np.ptp(measured[seen]) > 0
    found["spearman"] = float(stats.spearmanr(asked[seen], measured[seen]).statistic) if varied else None
    found["median_error"] = float(np.median(error[seen])) if seen.any() else None
    found["error_90"] = float(np.quantile(error[seen], 0.9)) if seen.any() else None
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


def tone_sweep(model: SkinModel, each: int, seed: int) -> Pictures:
    """Every condition over the six types, each picture with an angle of its own within its type's bin.

    Args:
        model: what draws.
        each: pictures of each pair.
        seed: of boxes, angles and noise.
    """
    requests = []
    for condition in model.conditions:
        for kind in range(1, 7):
            for turn in range(each):
                own = seeds.digest64(seed, "tone sweep", condition, kind, turn) >> 1
                low, high = tone.angles_of(kind)
                through = 0.08 + 0.84 * float(draws.uniforms(own, "angle", 1)[0])
                red, green, blue = tone.to_rgb(tone.skin_of(low + (high - low) * through)).tolist()
                box = model.geometry.sample(condition, model.size, own)
                requests.append(Request(condition, kind, (red, green, blue), box))
    return pictures.of_requests(model, requests, seed)


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


def growing(model: SkinModel, seed: int) -> tuple[list[list[NDArray[np.uint8]]], dict[str, Any]]:
    """One lesion of each condition at ten sizes, in one place, on one skin, with one seed.

    Args:
        model: what draws.
        seed: of the noise.

    Returns:
        The pictures, a row a condition; and figures: ``asked`` shares of the picture; ``changed`` shares by
        condition, of what differs by more than 5 CIELAB units from the picture with a lesion of two pixels;
        ``spearman`` by condition, their ``median`` and ``least``.
    """
    boxes = [semantic_map.placed(float(np.sqrt(share)), 0.5, 0.5, model.size) for share in _SHARES]
    least = semantic_map.placed(2 / model.size, 0.5, 0.5, model.size)
    rows, changed, ranks = [], {}, {}
    asked = [(box.x1 - box.x0) * (box.y1 - box.y0) / model.size**2 for box in boxes]
    for condition in model.conditions:
        requests = [_request(model, condition, tone.CENTRES[2], box) for box in (least, *boxes)]
        own = seeds.digest64(seed, "growing", condition) >> 1
        first, *drawn = (one.image for one in model.draw(requests, [own] * len(requests)))
        rows.append(drawn)
        changed[condition] = [float((difference(first, image) > _SEEN).mean()) for image in drawn]
        constant = np.ptp(changed[condition]) == 0
        ranks[condition] = 0.0 if constant else float(stats.spearmanr(asked, changed[condition]).statistic)
    values = list(ranks.values())
    told = {"asked": asked, "changed": changed, "spearman": ranks}
    return rows, {**told, "median": float(np.median(values)), "least": min(values)}


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
