"""The card of a trained generator: what it was made from, how, what it reaches, and how far to trust it."""

from collections.abc import Mapping, Sequence
from typing import Any

from medsynth.learning import how_made
from medsynth.skin import tone

_NAMES = {
    "ita_error": "median distance of measured and asked angle of the skin's colour, degrees",
    "ita_spearman": "Spearman correlation of measured and asked angle",
    "ita_found": "share of pictures with skin to measure",
    "held_out_l1": "distance from held-out photos, drawn from their maps (of 2)",
    "held_out_lesion_l1": "the same inside the lesion's box",
    "held_out_texture": "distance of how strong the detail is, by scale and place",
    "held_out_tone": "distance of the skin's mean colour and its spread of shades",
}


def text(about: Mapping[str, Any], grid: str, curve: Sequence[Mapping[str, str]], command: str) -> str:
    """The card in Markdown.

    Args:
        about: what the weights' own file says of them.
        grid: path of the last sample grid, from the card.
        curve: the lines of the training's curve.
        command: that made them.
    """
    own, photos = about["settings"], about["photos"]
    size, samples = own["generator"]["size"], own["samples"]
    figures = [f"| {_NAMES.get(name, name)} | {float(value):.4f} |" for name, value in about["figures"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    loss = curve[-1].get("judge", "unknown") if curve else "unknown"
    lines = [
        "# Skin generator",
        "",
        f"Draws clinical skin photos of {size}×{size} px from a semantic map: the skin's colour, a condition, and the "
        f"lesion's place and size. Network `{own['generator']['kind']}`, trained for {about['steps']:,} steps of "
        f"{own['batch']} samples; conditions: {', '.join(photos['training']['conditions'])}.",
        "",
        *_begun(about),
        "**Every picture that it draws is synthetic. Such pictures are for training other models, never for "
        "validating or testing them, and no evidence of how any disease looks.**",
        "",
        f"![Sample grid: one condition a row, six skin types, then other seeds of one map]({grid})",
        "",
        "Rows: conditions. Columns: one map and seed in the six skin types, then type III with two other seeds.",
        "",
        "## Data",
        "",
        about["attribution"]
        or "Whose photos these are and under which terms was not stated: find out before the "
        "weights, or pictures made with them, are handed on (`--attribution`).",
        "",
        "| | training | held out |",
        "| --- | ---: | ---: |",
        *_table(photos),
        "",
        *_left_out(photos, samples),
        f"Parted by patient, no patient on both sides: {100 * own['hold_out']:g} % held out by split seed "
        f"{own['split_seed']}, where the table has no column `split` of its own. Digests of the table: training "
        f"`{about['pairs']['table'][:16]}`, held out `{about['pairs']['held_out'][:16]}`; of the photos "
        f"`{about['photos_sha256'][:16]}`.",
        "",
        *_tones(samples, photos["training"]["types"]),
        "",
        *_warped(samples),
        *_silenced(about, own),
        *_hairy(own["generator"]),
        "## Figures",
        "",
        "Of the weights that are kept, at the last step. Asked against measured angle: every condition in six skin "
        "types, each with a colour of its own.",
        "",
        *(["| figure | value |", "| --- | ---: |", *figures] if figures else ["Not validated."]),
        "",
        "## Limits",
        "",
        "- Learnt from few photos of a few conditions: what they do not show, it cannot draw.",
        "- A Fitzpatrick type is a clinical grade; here it stands for a bin of the individual typology angle, by "
        "convention.",
        "- A map that a training photo gave may bring that photo back; ask for new maps, and look for near copies.",
        "- Lesion sizes and places that the training photos did not have are guesses.",
        f"- {_place(own)}",
        "",
        *how_made(command, f"Seed {about['seed']}, {versions}, last loss of the judge {loss}.", own),
    ]
    return "\n".join(lines)


def _begun(about: Mapping[str, Any]) -> list[str]:
    if "begun_sha256" not in about:
        return []
    return [
        f"It did not begin from nothing, but from the weights with the digest `{about['begun_sha256'][:16]}`: what "
        "their card says of their photos is true of these weights as well.",
        "",
    ]


def _left_out(photos: Mapping[str, Any], samples: Mapping[str, Any]) -> list[str]:
    if "left_out" not in photos:
        return []
    part = photos["left_out"]
    kinds = ", ".join(f"{name} {count}" for name, count in part["conditions"].items())
    return [
        f"Neither learnt from nor held out: {part['photos']} photo(s) ({kinds}), of which more than "
        f"{100 * samples['foreign']:g} % is ink, hair, cloth or something else than skin and lesion "
        "(`medsynth/skin/foreign.py`). Where lesions lie was taken from them, too.",
        "",
    ]


def _table(photos: Mapping[str, Any]) -> list[str]:
    both = (photos["training"], photos["held_out"])
    rows = [(name, [part[name] for part in both]) for name in ("photos", "patients")]
    rows += [(f"condition {name}", [part["conditions"].get(name, 0) for part in both]) for name in _keys(both)]
    names = {str(kind): f"type {name}" for kind, name in enumerate(tone.TYPES, start=1)} | {"0": "type unknown"}
    rows += [(name, [part["types"].get(kind, 0) for part in both]) for kind, name in names.items()]
    return [f"| {name} | {counts[0]} | {counts[1]} |" for name, counts in rows]


def _keys(both: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for part in both for name in part["conditions"]})


def _warped(samples: Mapping[str, Any]) -> list[str]:
    if not samples["warp"]:
        return []
    return [
        f"Photos were bent: places moved by up to {100 * samples['warp']:g} % of the lesion's length "
        "(`medsynth/skin/warp.py`, after Simard et al., ICDAR 2003). So there are more outlines of lesions than "
        "patients, and what an outline tells of a disease can not be learnt from them.",
        "",
    ]


def _silenced(about: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    if not about.get("silenced"):
        return []
    names = ", ".join(f"{place} of layer {layer}" for layer, place in about["silenced"])
    return [
        f"Silenced, since each alone made more than {100 * own['silenced']:g} % of the specks of light on drawn skin: "
        f"channel {names} (`medsynth/skin/specks.py`, after Bau et al., ICLR 2019).",
        "",
    ]


def _hairy(generator: Mapping[str, Any]) -> list[str]:
    if not generator["hair"]:
        return []
    return [
        f"No hair was learnt: on {100 * generator['hair']:g} % of the pictures, lesions too, it grows by rule "
        "(`medsynth/skin/hair.py`), and tells nothing of a disease.",
        "",
    ]


def _place(own: Mapping[str, Any]) -> str:
    learnt, network = own["samples"]["region"], own["generator"]
    if learnt == "box" and network["kind"] == "unet":
        return "Learnt from lesions' boxes: what it makes of a mask that is no rectangle, it was not taught."
    taught = ", though no photo taught it one" if learnt == "box" else ""
    filled = "the ellipse that fills it"
    if network["forms"]:
        filled = "an ellipse bent by rule (`medsynth/skin/form.py`), whose form tells nothing of a disease"
    return (
        f"Learnt from lesions' {'boxes' if learnt == 'box' else 'masks'}: a lesion follows the mask that is asked "
        f"for{taught}, and a box stands for {filled}."
    )


def _tones(samples: Mapping[str, Any], types: Mapping[str, int]) -> list[str]:
    dark = sum(types.get(kind, 0) for kind in ("5", "6"))
    seen = f"Of the photos to learn from, {dark} {'is' if dark == 1 else 'are'} of the types V and VI."
    if not samples["retoned"]:
        return [f"{seen} Photos kept their own tone: do not trust pictures of types that the table above shows few of."]
    gloss = "Lightened skin kept its gloss as it was (Shafer 1985). " if samples["gloss_kept"] else ""
    return [
        f"{seen} {100 * samples['retoned']:g} % of the samples were retoned: photo and map were given another angle of "
        "the skin's colour together, the lesion with its skin, by one filter of melanin for the whole picture "
        f"(`medsynth/skin/tone.py`, after Tsumura et al., SIGGRAPH 2003). {gloss}Dark skin is therefore mostly light "
        "skin filtered: its colour can be trusted, as the figures show, and how a lesion, its redness and its border "
        "look on it can not. Use such pictures to teach a model that tone does not decide, not to teach it how a "
        "disease looks on dark skin."
    ]
