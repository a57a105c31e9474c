"""One evaluation: read what is there, measure it, and leave a report."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from medsynth import storage
from medsynth.corpus import skin_rows
from medsynth.errors import StorageError, UserError
from medsynth.evaluation import encoder as encoders
from medsynth.evaluation import judging, pictures, report, turing
from medsynth.evaluation.encoder import Encoder
from medsynth.evaluation.judging import Material
from medsynth.evaluation.pictures import Pictures
from medsynth.model_file import ModelError
from medsynth.skin import pairs, samples
from medsynth.skin.model import DEFAULT_URI, SkinModel
from medsynth.skin.pairs import Pairs

REPORT, FIGURES, ENCODER, TURING = "report.html", "evaluation.json", "encoder.safetensors", "turing.html"

_FORMAT = "medsynth.evaluation/2"
_HOLD_OUT = 0.25
_EACH = 5


@dataclass(frozen=True)
class Order:
    """What is to be measured."""

    real: str
    """URI of the table of real photos."""
    out: str
    """URI of the output folder."""
    corpus: str | None
    """URI of a corpus; without one, pictures are drawn from the maps of held-out photos."""
    weights: str | None
    """URI of a generator."""
    encoder: str | None
    """URI of an encoder made earlier."""
    count: int
    """Synthetic pictures."""
    turing: int | None
    """Pictures of the blinded page."""
    encoder_steps: int
    seed: int


def evaluate(order: Order, say: Callable[[str], None], progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Measure, and write ``report.html``, ``evaluation.json``, ``encoder.safetensors`` and perhaps ``turing.html``.

    Args:
        order: what.
        say: is told what is being done.
        progress: is told how far the encoder's training is.

    Returns:
        What stands in ``evaluation.json``.

    Raises:
        UserError: something that was named cannot be used.
    """
    whole = pairs.read(order.real)
    rows = skin_rows.read(order.corpus, order.count, None, order.seed) if order.corpus else None
    notes: list[str] = []
    model = _model(order, rows, notes)
    training, held = _parted(whole, model, notes)
    conditions = model.conditions if model else whole.conditions
    training, held = (_known(side, conditions) for side in (training, held))
    if len(held.photos) < 2:
        raise UserError(
            f"{order.real}: {len(held.photos)} photo(s) of held-out patients; hold out more to compare with"
        )
    if order.turing:
        count = len(rows.pictures) if rows else order.count
        turing.check(order.turing, len(held.photos) + len(training.photos), count)
    encoder = _given(order, conditions)
    size = rows.pictures.images.shape[1] if rows else model.size if model else 0
    samples.require_apart(training, held, [samples.facts(one, size) for one in (*training.photos, *held.photos)])
    material = Material(*(pictures.real(side, size, conditions) for side in (training, held)))
    if encoder is None:
        say(f"learning an encoder from {len(training.photos)} training photos")
        steps, seed = order.encoder_steps, order.seed
        encoder = encoders.train(training, held, conditions, steps=steps, seed=seed, progress=progress)
    encoder.save(storage.join(order.out, ENCODER))
    synthetic, subject = _synthetic(order, rows, model, held)
    compared = synthetic
    if rows:
        compared = pictures.matched(material.held, synthetic, _EACH)
        notes.append(
            f"A balanced corpus has another mix than real photos; likeness is told of the {len(compared)} rows that "
            "have the condition and the nearest tone of each held-out photo."
        )
    judged = judging.judge(synthetic, compared, material, encoder, model, order.seed, say)
    told = {
        "format": _FORMAT,
        "subject": subject,
        "notes": notes,
        "seed": order.seed,
        "weights_sha256": model.sha256 if model else rows.weights_sha256 if rows else None,
        "real": {"training": training.digest, "held_out": held.digest},
        "attribution": str(model.about.get("attribution", "")) if model else "",
        **dict.fromkeys(("tone_sweep", "moved", "growing", "variety")),
        **judged.figures,
    }
    storage.put(storage.join(order.out, FIGURES), (json.dumps(told, indent=1, allow_nan=False) + "\n").encode())
    storage.put(storage.join(order.out, REPORT), report.page(told, judged.sheets, judged.plots).encode())
    if order.turing:
        # Training photos too: there are few others, and whether one was seen does not make it look less real.
        photos = np.concatenate([material.held.images, material.training.images])
        page = turing.page(photos, synthetic.images, order.turing, order.seed, "Real or synthetic?")
        storage.put(storage.join(order.out, TURING), page.encode())
    storage.remove_staging(order.out)
    return told


def _model(order: Order, rows: skin_rows.Rows | None, notes: list[str]) -> SkinModel | None:
    if rows is None or order.weights:
        model = SkinModel.load(order.weights or DEFAULT_URI)
        if rows and model.sha256 != rows.weights_sha256:
            raise UserError(
                f"{order.weights}: not the weights that drew {order.corpus} ({rows.weights_sha256[:12]}); name those, "
                "or none"
            )
        return model
    with contextlib.suppress(ModelError, StorageError):
        model = SkinModel.load(rows.weights)
        if model.sha256 == rows.weights_sha256:
            return model
    notes.append(
        f"The weights that drew the corpus ({rows.weights_sha256[:12]}) are not at {rows.weights} any more: the "
        "sweeps are left out; name them by --weights."
    )
    return None


def _parted(whole: Pairs, model: SkinModel | None, notes: list[str]) -> tuple[Pairs, Pairs]:
    about = model.about if model else {}
    settings = about.get("settings", {})
    if model:
        chosen = tuple(photo for photo in whole.photos if photo.condition in model.conditions)
        whole = replace(whole, photos=chosen)
    share, seed = float(settings.get("hold_out") or _HOLD_OUT), int(settings.get("split_seed", 0))
    training, held = pairs.split(whole, share, seed)
    seen = about.get("pairs", {}).get("table")
    if seen != training.digest:
        notes.append(
            "The weights do not tell that they were trained on just these training photos: whether the held-out "
            "patients are new to them is not known."
        )
    return training, held


def _known(side: Pairs, conditions: tuple[str, ...]) -> Pairs:
    return replace(side, photos=tuple(photo for photo in side.photos if photo.condition in conditions))


def _given(order: Order, conditions: tuple[str, ...]) -> Encoder | None:
    if not order.encoder:
        return None
    found = Encoder.load(order.encoder)
    lacking = [name for name in conditions if name not in found.conditions]
    if lacking:
        raise UserError(
            f"{order.encoder}: an encoder that tells {', '.join(found.conditions)} apart, and does not know "
            f"{', '.join(lacking)}; name one that does, or leave --encoder out to learn one"
        )
    return found


def _synthetic(order: Order, rows: skin_rows.Rows | None, model: SkinModel | None, held: Pairs) -> tuple[Pictures, str]:
    if rows:
        told = f"{len(rows.pictures)} of {rows.of:,} rows of {order.corpus}"
        return rows.pictures, f"{told}, drawn by {rows.weights_sha256[:12]}, as their cameras saw them."
    assert model is not None
    drawn = pictures.drawn(model, held, order.count, order.seed)
    told = f"{len(drawn)} pictures of {model.size} px, drawn by {model.sha256[:12]}"
    return drawn, f"{told} from the maps of {len(held.photos)} held-out photos, turned and mirrored."
