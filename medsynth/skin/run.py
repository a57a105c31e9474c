"""One training run of the skin generator: what was asked for, what is held out, and what it leaves behind.

Photos are parted by patient. No Ray here.
"""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from medsynth import __version__, storage
from medsynth.errors import NotFoundError, TrainingError
from medsynth.learning import RUN_FORMAT
from medsynth.skin import begun, card, foreign, pairs, specks, validation
from medsynth.skin.generator import PlusNetwork
from medsynth.skin.model import SkinModel
from medsynth.skin.pairs import Pairs
from medsynth.skin.presets import TrainSettings
from medsynth.skin.samples import HELD_OUT_BATCH, Facts, Feed, require_apart
from medsynth.skin.semantic_map import Geometry, colour_of
from medsynth.skin.training import Trainer
from medsynth.skin.validation import FIGURES, Judge

WEIGHTS = "skin.safetensors"
CARD = "README.md"
ATTRIBUTION = "ATTRIBUTION.txt"
"""Stands beside a table of photos and says whose they are, and under which terms."""


@dataclass(frozen=True)
class Order:
    """What was asked for, before any photo is read."""

    out: str
    """URI of the output folder."""
    settings: TrainSettings
    seed: int
    pairs: str
    """URI of the table of photos."""
    attribution: str = ""
    """Whose photos they are, and under which terms."""

    def header(self) -> dict[str, Any]:
        """The part of ``training.json`` that is known before anything is read."""
        return {
            "format": RUN_FORMAT,
            "job": "train_gan",
            "seed": self.seed,
            "settings": self.settings.deciding(),
            "versions": {
                "medsynth": __version__,
                "pillow": metadata.version("pillow"),
                "torch": torch.__version__.partition("+")[0],
            },
        }


@dataclass(frozen=True)
class Material:
    """Photos to learn from and photos held out, no patient in both."""

    training: Pairs
    validation: Pairs
    conditions: tuple[str, ...]
    left_out: Pairs | None = None
    """Those to learn from that are not, since they show much beside skin; known once they were looked at."""

    @property
    def learnt(self) -> Pairs:
        """The others."""
        left = set(self.left_out.photos) if self.left_out else set()
        return replace(self.training, photos=tuple(one for one in self.training.photos if one not in left))

    @property
    def whole(self) -> Pairs:
        """Both together."""
        return replace(self.training, photos=self.training.photos + self.validation.photos)


def attribution(table: str) -> str:
    """What stands beside a table of photos about whose they are; nothing where nothing does."""
    folder = table.rpartition("/")[0]
    try:
        return " ".join(storage.read(storage.join(folder, ATTRIBUTION)).decode(errors="replace").split())
    except NotFoundError:
        return ""


def part(order: Order) -> Material:
    """Read the table of an order, and part its photos by patient.

    Raises:
        CatalogError: there is no such table, or a column is missing.
        PairsError: a row is wrong or lacks its mask, a patient is on both sides, or nothing is left to learn from.
        MapError: a condition is asked for that the table does not have.
        TrainingError: there are too few photos to learn from.
    """
    own = order.settings
    whole = pairs.read(order.pairs)
    for name in own.conditions:
        colour_of(name, whole.conditions)  # refuses an unknown one
    conditions = own.conditions or whole.conditions
    if own.samples.region == "mask":
        pairs.require_masks(whole, conditions)
    chosen = replace(whole, photos=tuple(photo for photo in whole.photos if photo.condition in conditions))
    training, held = pairs.split(chosen, own.hold_out, own.split_seed)
    for name in conditions:
        if name not in training.conditions:
            raise TrainingError(
                f"{order.pairs}: condition {name!r} has no photo left to learn from; leave it out by the setting "
                "conditions, or choose another hold_out or split_seed"
            )
    if len(training.photos) < own.batch:
        raise TrainingError(
            f"{order.pairs}: {len(training.photos)} photo(s) to learn from are fewer than a batch of {own.batch}; "
            "lower --batch, or add photos"
        )
    return Material(training, held, conditions)


@dataclass(frozen=True)
class SkinRun:
    """All that a worker must know of a run; small, and picklable."""

    order: Order
    material: Material
    geometry: Geometry
    photos_sha256: str
    """Of the photos' files and of the masks that are used, in the table's order."""
    judge: Judge | None = None
    """Tells further figures of held-out photos and of pictures drawn from their maps."""
    begun_sha256: str | None = None
    """Of the weights that are begun with, if any are."""

    @property
    def out(self) -> str:
        """URI of the output folder."""
        return self.order.out

    @property
    def settings(self) -> TrainSettings:
        """Of the order."""
        return self.order.settings

    @property
    def pace(self) -> TrainSettings:
        """How long the run is, and when it looks up."""
        return self.settings

    @property
    def feed(self) -> Feed:
        """What it learns from."""
        own, there = self.settings, self.material
        return Feed(there.learnt, there.validation, there.conditions, own.samples, self.order.seed, own.batch)

    @property
    def held_out_batches(self) -> int:
        """How many batches there are to validate on."""
        count = min(self.settings.validation_photos, len(self.material.validation.photos))
        return -(-count // HELD_OUT_BATCH)

    def learner(self, device: torch.device, average: Callable[[Sequence[Tensor]], None], rank: int) -> "Learner":
        """What learns, at its start; each worker draws other noise."""
        return Learner(self, self.trainer(device, average, rank))

    def trainer(
        self, device: torch.device, average: Callable[[Sequence[Tensor]], None] = lambda _: None, rank: int = 0
    ) -> Trainer:
        """The networks at their start."""
        return Trainer(
            self.settings, len(self.material.conditions), device, self.order.seed, average, rank, self._begun()
        )

    def _begun(self) -> Mapping[str, Tensor] | None:
        if self.begun_sha256 is None:
            return None
        weights = begun.read(self.settings, self.material.conditions)
        if weights.sha256 != self.begun_sha256:
            raise TrainingError(f"{weights.where}: changed while it was learnt on from; put back what it was")
        return weights.state

    def model(self, trainer: Trainer, figures: Mapping[str, str]) -> SkinModel:
        """What the trainer's averaged weights draw with.

        Args:
            trainer: of this run.
            figures: what was reached, for what the model tells of itself.
        """
        about = {**self.header(), "steps": trainer.steps, "figures": dict(figures), "photos": self.counts()}
        about["attribution"] = self.order.attribution
        region = self.settings.samples.region
        # A copy: training goes on without floors, or with those that it began with.
        network = copy.deepcopy(trainer.averaged)
        first, learnt = self._begun(), self.settings.learnt
        if first is not None and learnt < 1:
            last = network.state_dict()
            network.load_state_dict({name: first[name].to(last[name]).lerp(last[name], learnt) for name in last})
        model = SkinModel(network, self.material.conditions, self.geometry, about, region=region)
        if first is None:
            model.soften()
        if self.settings.silenced < 1 and isinstance(network, PlusNetwork):
            silent = specks.strewn(model, self.settings.silenced)
            specks.silence(network, silent)
            model.about["silenced"] = [list(channel) for channel in silent]
        return model

    def header(self) -> dict[str, Any]:
        """All that decides the result, for ``training.json``."""
        return {
            **self.order.header(),
            # Not where they lie: the photos may be moved. No patient is named: the weights are handed on.
            "pairs": {"table": self.material.training.digest, "held_out": self.material.validation.digest},
            "photos_sha256": self.photos_sha256,
            **({} if self.begun_sha256 is None else {"begun_sha256": self.begun_sha256}),
        }

    def counts(self) -> dict[str, Any]:
        """How many photos, patients, conditions and types there are, for the card."""
        found: dict[str, Any] = {}
        there = self.material
        parts = {"training": there.learnt, "held_out": there.validation, "left_out": there.left_out}
        for name, part in parts.items():
            if part is None:
                continue
            found[name] = {
                "photos": len(part.photos),
                "patients": len(part.patients),
                "conditions": dict(sorted(Counter(photo.condition for photo in part.photos).items())),
                "types": {
                    str(k): n for k, n in sorted(Counter(photo.fitzpatrick or 0 for photo in part.photos).items())
                },
            }
        return found


def set_up(order: Order, material: Material, facts: Sequence[Facts], judge: Judge | None = None) -> SkinRun:
    """A run, once its photos were looked at.

    Args:
        order: what was asked for.
        material: of the order.
        facts: of each photo of ``material.whole``, in order.
        judge: further figures.

    Raises:
        TrainingError: a file stands on both sides under two names, or the weights to begin with do not fit.
        ModelError: there are no such weights.
    """
    require_apart(material.training, material.validation, facts)
    seen = facts[: len(material.training.photos)]
    photos = (replace(photo, box=one.box) for photo, one in zip(material.training.photos, seen, strict=True))
    boxed = replace(material.training, photos=tuple(photos))
    geometry = boxed.geometry([(one.width, one.height) for one in seen])
    limit = order.settings.samples.foreign
    left_out = foreign.left_out(material.training, [one.foreign for one in seen], limit)
    material = replace(material, left_out=left_out if left_out.photos else None)
    files = [digest for one in facts for digest in (one.sha256, one.mask_sha256) if digest]
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    start = begun.read(order.settings, material.conditions).sha256 if order.settings.begin else None
    return SkinRun(order, material, geometry, digest, judge, start)


def finish(run: SkinRun, state: Mapping[str, Tensor], curve: Sequence[Mapping[str, str]], command: str) -> str:
    """Write what a finished training is for: the averaged weights, and a card before them.

    Args:
        run: the run.
        state: its last checkpoint's.
        curve: its curve, line by line.
        command: that made it, for the card.

    Returns:
        URI of the weights.
    """
    trainer = run.trainer(torch.device("cpu"))
    trainer.load(state)
    last = next((line for line in reversed(curve) if "ita_found" in line), {})
    model = run.model(trainer, {name: value for name, value in last.items() if name.startswith(FIGURES)})
    storage.put(storage.join(run.out, CARD), card.text(model.about, grid_path(trainer.steps), curve, command).encode())
    weights = storage.join(run.out, WEIGHTS)
    model.save(weights)
    storage.remove_staging(run.out)
    return weights


def grid_path(step: int) -> str:
    """Where the sample grid of a step lies in the run's folder."""
    return f"samples/step-{step:06d}.png"


class Learner:
    """A :class:`Trainer` as a loop over named arrays drives it."""

    def __init__(self, run: SkinRun, trainer: Trainer) -> None:
        self._run, self._trainer = run, trainer
        self._rates: dict[str, float] = {}
        self.state, self.load = trainer.state, trainer.load

    def step(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Learn from a batch."""
        self._rates = self._trainer.rates()
        return self._trainer.step(batch)

    def rates(self) -> dict[str, float]:
        """The learning rates of the last step, and how often judged pictures are disturbed by now."""
        return {**self._rates, "disturbed": float(self._trainer.disturbed)}

    def validate(self, batches: Sequence[Mapping[str, NDArray[Any]]]) -> tuple[dict[str, float], dict[str, bytes]]:
        """Figures of the averaged weights, and a sample grid."""
        model = self._run.model(self._trainer, {})
        swept = validation.sweep(model)
        told = validation.held_out(model, batches, self._run.settings.losses.pool, self._run.judge)
        return {**swept.figures(), **told}, {grid_path(self._trainer.steps): swept.sheet()}
