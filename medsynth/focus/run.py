"""One training run of the focus network: what was asked for, what is held out, and what it leaves behind.

Real tiles are parted by slide. A corpus is training data as a whole, so there the held-out tiles come from
elsewhere. No Ray here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from medsynth import seeds, spec, storage
from medsynth.errors import TrainingError
from medsynth.focus import card, kept, network
from medsynth.focus.feed import HELD_OUT_BATCH, Feed, Material, Tiles, catalog_tiles, origins, smallest_tile
from medsynth.focus.model import FocusModel
from medsynth.focus.samples import SampleSettings
from medsynth.focus.training import FIGURES, LearningSettings, Trainer
from medsynth.learning import RUN_FORMAT
from medsynth.spec import Index

WEIGHTS = "focus.safetensors"
CARD = "README.md"


class TrainSettings(LearningSettings):
    """Everything about a run but where it reads and writes, and its seed."""

    samples: SampleSettings = SampleSettings()
    """How training samples are made of tiles."""
    index: Index = Index(tile_size=320, stride=256)
    """How a source that is not yet a catalog is indexed."""
    slide_column: str | None = None
    """Column of the catalog that tells slides (or patients) apart; by default each image file is a slide."""
    hold_out: float = Field(default=0.15, ge=0, lt=1)
    """Share of the slides that is held out to validate on, at least one; 0 for none."""
    held_out_slides: tuple[str, ...] = ()
    """The slides to hold out, by name, instead of a share of them."""
    validation_samples: int = Field(default=512, ge=16, le=10**6)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.network.classes != len(self.samples.radii_px):
            raise ValueError(
                f"network.classes is {self.network.classes} and samples.radii_px has "
                f"{len(self.samples.radii_px)} radii; give as many"
            )
        field = network.build(self.network).field
        if self.samples.size < field:
            raise ValueError(f"samples.size is {self.samples.size} px; the {self.network.kind} network needs {field}")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "paper": {"network": {"kind": "paper"}, "samples": {"size": 139}, "steps": 20000, "learning_rate": 5e-4},
    "smoke": {
        "network": {"width": 8},
        "samples": {"size": 128},
        "steps": 40,
        "batch": 16,
        "learning_rate": 5e-3,
        "validation_samples": 64,
        "validate_every": 20,
        "log_every": 2,
        "checkpoint_seconds": 0,
    },
}
"""Settings by the name of the preset: the default, the paper's kind of patch network, and one for tests."""


def settings(preset: str, uri: str | None, flags: Mapping[str, Any]) -> TrainSettings:
    """The settings of a preset, with those of a file and then of flags in place of its own.

    Args:
        preset: a name in ``PRESETS``.
        uri: of a YAML file, or None.
        flags: settings by name.

    Raises:
        SpecError: a setting is wrong; the message names it.
    """
    return spec.layered(TrainSettings, PRESETS[preset], uri, flags, f"preset {preset}")


@dataclass(frozen=True)
class Order:
    """What was asked for, before anything is read."""

    out: str
    """URI of the output folder."""
    settings: TrainSettings
    seed: int
    source: str
    """A catalog, images or a corpus."""
    validate_on: str | None = None
    """A catalog or images to validate on instead of held-out slides of the source."""

    def header(self) -> dict[str, Any]:
        """The part of ``training.json`` that is known before anything is read."""
        return {
            "format": RUN_FORMAT,
            "job": "train_focus",
            "seed": self.seed,
            "source": self.source,
            "validate_on": self.validate_on,
            "settings": self.settings.deciding(),
            "torch": torch.__version__.partition("+")[0],
        }


@dataclass(frozen=True)
class FocusRun:
    """All that a worker must know of a run; small, and picklable."""

    order: Order
    training: Material
    validation: Tiles | None

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
        own = self.settings
        held_out = own.validation_samples if self.validation else 0
        return Feed(self.training, self.validation, own.samples, self.order.seed, own.batch, held_out)

    @property
    def held_out_batches(self) -> int:
        """How many batches there are to validate on."""
        return -(-self.settings.validation_samples // HELD_OUT_BATCH) if self.validation else 0

    def learner(self, device: torch.device, average: Callable[[Sequence[Tensor]], None], rank: int) -> "Learner":
        """What learns, at its start; the same on every worker, since no noise is drawn."""
        return Learner(self.trainer(device, average))

    def trainer(self, device: torch.device, average: Callable[[Sequence[Tensor]], None] = lambda _: None) -> Trainer:
        """The network at its start."""
        return Trainer(self.settings, self.settings.samples.radii_px, device, self.order.seed, average)

    def header(self) -> dict[str, Any]:
        """All that decides the result, for ``training.json``."""
        return {
            **self.order.header(),
            # Not where they lie: a catalog made on the fly lies in the output, which may be moved.
            "training": _described(self.training),
            "validation": _described(self.validation) if self.validation else None,
        }


def finish(run: FocusRun, state: Mapping[str, Tensor], curve: Sequence[Mapping[str, str]], command: str) -> str:
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
    last = next((line for line in reversed(curve) if "class_error" in line), {})
    about = {**run.header(), "steps": trainer.steps, "figures": {name: last[name] for name in FIGURES if name in last}}
    storage.put(storage.join(run.out, CARD), card.text(about, curve, command).encode())
    weights = storage.join(run.out, WEIGHTS)
    FocusModel(trainer.averaged, run.settings.samples.radii_px, about).save(weights)
    storage.remove_staging(run.out)
    if name := run.feed.kept_name:
        kept.remove(name)
    return weights


class Learner:
    """A :class:`Trainer` as a loop over named arrays drives it."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.state, self.load = trainer.state, trainer.load

    def step(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Learn from a batch."""
        return {"loss": self._trainer.step(batch["images"], batch["radii"])}

    def rates(self) -> dict[str, float]:
        """The learning rate of the last step."""
        return {"learning_rate": self._trainer.learning_rate(self._trainer.steps - 1)}

    def validate(self, batches: Sequence[Mapping[str, NDArray[Any]]]) -> tuple[dict[str, float], dict[str, bytes]]:
        """Figures on held-out samples, where there are any."""
        pairs = [(batch["images"], batch["radii"]) for batch in batches]
        return self._trainer.validate(pairs) if pairs else {}, {}


def set_up(order: Order, source: str | tuple[Material, set[str]], validate_on: str | None = None) -> FocusRun:
    """Decide what a run learns from and what is held out.

    Args:
        order: what was asked for.
        source: the catalog that the order's source is or was made into; or a corpus, as its images and the
            files that they were made from.
        validate_on: the catalog of what the order validates on.

    Raises:
        CatalogError: there is no catalog, or no tile in it can be used.
        TrainingError: the slides cannot be parted.
    """
    settings = order.settings
    smallest = smallest_tile(settings.samples)
    tiles: Tiles | None = None
    if isinstance(source, str):
        tiles = catalog_tiles(source, settings.slide_column, smallest)
        training: Material = tiles
        known = {name for pair in origins(tiles) for name in pair}
    else:
        training, known = source
    if validate_on is not None:
        other = catalog_tiles(validate_on, settings.slide_column, smallest)
        both = tuple(sorted({slide for slide, file in origins(other) if slide in known or file in known}))
        validation = replace(other, slides=both)
        if not len(validation.opened()):
            raise TrainingError(f"{order.validate_on}: all of its slides are trained on; validate on others")
        return FocusRun(order, training, validation)
    if tiles is None or not (settings.hold_out or settings.held_out_slides):
        return FocusRun(order, training, None)
    held = _held_out(sorted(set(tiles.opened().slides)), settings, order.source)
    return FocusRun(order, replace(tiles, slides=held), replace(tiles, slides=held, inside=True))


def _held_out(slides: Sequence[str], settings: TrainSettings, source: str) -> tuple[str, ...]:
    if settings.held_out_slides:
        unknown = sorted(set(settings.held_out_slides) - set(slides))
        if unknown:
            raise TrainingError(f"held_out_slides: {unknown[0]!r} is no slide of {source}; one is {slides[0]!r}")
        held: Sequence[str] = sorted(settings.held_out_slides)
    else:
        # Not by the run's seed: runs of other seeds are to be compared on the same slides.
        ordered = sorted(slides, key=lambda slide: seeds.digest64("held out", slide))
        held = sorted(ordered[: max(1, round(settings.hold_out * len(slides)))])
    if len(held) == len(slides):
        raise TrainingError(
            f"{source}: {len(slides)} slide(s) cannot be parted into some to train on and some to hold out; name "
            "others by --validate-on, tell slides apart by --slide-column, or train without validation by --hold-out 0"
        )
    return tuple(held)


def _described(tiles: Material) -> dict[str, Any]:
    return {"digest": tiles.digest, "slides": list(tiles.slides), "inside": tiles.inside}
