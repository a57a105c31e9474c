"""One training run of the focus network: what it learns from, what is held out, and what it leaves behind.

Real tiles are parted by slide, and degraded differently for every sample; a corpus is already degraded and
is training data as a whole, so there the held-out tiles come from elsewhere. No Ray here.
"""

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from medsynth import seeds, spec, storage
from medsynth.catalog import table
from medsynth.corpus import manifest, reader, sources
from medsynth.defocus import chain, device
from medsynth.defocus.settings import ChainSettings
from medsynth.errors import CatalogError, CorpusError, Rejected, TrainingError
from medsynth.focus import card, network, samples
from medsynth.focus.model import FocusModel
from medsynth.focus.samples import SampleSettings, Source, Tile
from medsynth.focus.training import FIGURES, LearningSettings, Trainer
from medsynth.spec import Index

WEIGHTS = "focus.safetensors"
CARD = "README.md"
HELD_OUT_BATCH = 64
_WINDOW_SHARDS = 8
_FORMAT = "medsynth-training-1"
_DIGESTED = ["uri", "row", "x", "y", "width", "height", "sha256", "in_focus"]


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
    validate_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    checkpoint_seconds: float = Field(default=30.0, ge=0)
    """Seconds between two checkpoints: what a killed run loses at the most."""

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
        if self.validate_every % self.log_every:
            raise ValueError(f"validate_every must be a multiple of log_every ({self.log_every})")
        return self

    def deciding(self) -> dict[str, Any]:
        """All settings that decide the curve."""
        return self.model_dump(mode="json", exclude={"checkpoint_seconds"})


PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "paper": {"network": {"kind": "paper"}, "steps": 20000, "learning_rate": 5e-4},
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
    own = spec.load_yaml(uri) if uri else {}
    if not isinstance(own, dict):
        own = {"settings": own}
    return spec.parse(TrainSettings, _merged(_merged(PRESETS[preset], own), flags), uri or f"preset {preset}")


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    nested = {name: _merged(base[name], over[name]) for name in over if _both_tables(base.get(name), over[name])}
    return {**base, **over, **nested}


def _both_tables(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(other, Mapping)


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
            "format": _FORMAT,
            "job": "train_focus",
            "seed": self.seed,
            "source": self.source,
            "validate_on": self.validate_on,
            "settings": self.settings.deciding(),
            "torch": torch.__version__.partition("+")[0],
        }


@dataclass(frozen=True)
class Tiles:
    """Tiles by rule, so that a worker opens them itself; the tiles' pixels never travel."""

    uri: str
    """Of a catalog or a corpus."""
    digest: str
    """Of what it held when the run was set up."""
    corpus: bool = False
    slide_column: str | None = None
    smallest: int = 1
    """Pixels on a side below which a tile gives no sample."""
    slides: tuple[str, ...] = ()
    """The slides held out."""
    inside: bool = False
    """Whether these are the tiles of those slides, or of all the others."""

    def opened(self) -> Source:
        """The tiles of a catalog.

        Raises:
            CatalogError: it is not the catalog that it was.
        """
        return _opened(self)


@dataclass(frozen=True)
class FocusRun:
    """All that a worker must know of a run; small, and picklable."""

    order: Order
    training: Tiles
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
    def seed(self) -> int:
        """Of the order."""
        return self.order.seed

    @property
    def pace(self) -> TrainSettings:
        """How long the run is, and when it looks up."""
        return self.settings

    @property
    def held_out_batches(self) -> int:
        """How many batches there are to validate on."""
        return -(-self.settings.validation_samples // HELD_OUT_BATCH) if self.validation else 0

    def learner(self, device: torch.device, average: Callable[[Sequence[Tensor]], None]) -> "Learner":
        """What learns, at its start."""
        return Learner(self.trainer(device, average))

    def trainer(self, device: torch.device, average: Callable[[Sequence[Tensor]], None] = lambda _: None) -> Trainer:
        """The network at its start."""
        return Trainer(self.settings, self.settings.samples.radii_px, device, self.seed, average)

    def batch(self, step: int, rank: int, workers: int) -> dict[str, NDArray[Any]]:
        """One worker's share of one step, a pure function of its arguments.

        Raises:
            TrainingError: a tile cannot be read.
        """
        share = self.settings.batch // workers
        first = step * self.settings.batch + rank * share
        source = _window(self.training, self.seed, step, self.settings.batch) if self.training.corpus else None
        return self._made(source or self.training.opened(), self.settings.samples, self.seed, first, share)

    def held_out(self, number: int) -> dict[str, NDArray[Any]]:
        """One batch to validate on: tiles of held-out slides through the chain, without what only training needs.

        Raises:
            TrainingError: a tile cannot be read.
        """
        assert self.validation is not None
        seed = seeds.digest64(self.seed, "held out") >> 1
        first = number * HELD_OUT_BATCH
        count = min(HELD_OUT_BATCH, self.settings.validation_samples - first)
        return self._made(self.validation.opened(), self.settings.samples.plain(), seed, first, count)

    def _made(
        self, source: Source, settings: SampleSettings, seed: int, first: int, count: int
    ) -> dict[str, NDArray[Any]]:
        try:
            images, radii = samples.make_batch(source, settings, seed, range(first, first + count))
        except Rejected as error:
            raise TrainingError(f"{self.training.uri}: {error}; mend the image, or index the source again") from error
        return {"images": images, "radii": radii}

    def header(self) -> dict[str, Any]:
        """All that decides the result, for ``training.json``."""
        return {
            **self.order.header(),
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

    def validate(self, batches: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, float]:
        """Figures on held-out samples."""
        return self._trainer.validate((batch["images"], batch["radii"]) for batch in batches)


def set_up(order: Order, source: str, validate_on: str | None = None) -> FocusRun:
    """Decide what a run learns from and what is held out.

    Args:
        order: what was asked for.
        source: the catalog or corpus that the order's source is, or the catalog that was made of it.
        validate_on: the same of what the order validates on.

    Raises:
        SyntheticSplitError: a corpus is to be validated on.
        CatalogError: there is no catalog, or no tile in it can be used.
        CorpusError: the corpus is incomplete.
        TrainingError: the slides cannot be parted.
    """
    settings = order.settings
    smallest = _smallest(settings.samples)
    if is_corpus(source):
        training, slides = _corpus_tiles(source, settings.samples.size)
    else:
        training = _catalog_tiles(source, settings.slide_column, smallest)
        slides = set(training.opened().slides)
    if validate_on is not None:
        if is_corpus(validate_on):  # which the reader refuses, saying why
            reader.open_corpus(validate_on, split="validation")
        other = _catalog_tiles(validate_on, settings.slide_column, smallest)
        both = tuple(sorted(set(other.opened().slides) & slides))
        validation = replace(other, slides=both)
        if not len(validation.opened()):
            raise TrainingError(f"{validate_on}: all of its slides are trained on; validate on others")
        return FocusRun(order, training, validation)
    if training.corpus or not (settings.hold_out or settings.held_out_slides):
        return FocusRun(order, training, None)
    held = _held_out(sorted(slides), settings, source)
    return FocusRun(order, replace(training, slides=held), replace(training, slides=held, inside=True))


def is_corpus(uri: str) -> bool:
    """Whether a corpus (whole or not) stands at a URI."""
    return storage.head(storage.join(uri, manifest.HEADER)) is not None


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


def _described(tiles: Tiles) -> dict[str, Any]:
    return {"uri": tiles.uri, "digest": tiles.digest, "slides": list(tiles.slides), "inside": tiles.inside}


def _smallest(settings: SampleSettings) -> int:
    """Side of a tile from which every sample can be made."""
    base = ChainSettings(radii_px=(settings.radii_px[-1],))
    chains = [base, *(chain.with_device(base, device.load(name)) for name in device.known())]
    margins = [chain.crop_margin(one.model_copy(update={"mpp": 1.0}), 1.0) for one in chains]
    return settings.size + 2 * max(margins)


def _catalog_tiles(uri: str, slide_column: str | None, smallest: int) -> Tiles:
    tiles = Tiles(uri, _catalog_digest(uri), slide_column=slide_column, smallest=smallest)
    if not len(tiles.opened()):
        raise CatalogError(
            f"{uri}: every tile in focus is smaller than {smallest} px; index it with --tile-size {smallest}"
        )
    return tiles


def _catalog_digest(uri: str) -> str:
    return _digest(table.read(uri, _DIGESTED))


def _digest(found: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema.remove_metadata()) as writer:
        writer.write_table(found.combine_chunks().replace_schema_metadata(None))
    return hashlib.sha256(sink.getvalue()).hexdigest()


@functools.lru_cache(maxsize=4)
def _opened(tiles: Tiles) -> Source:
    base, slides, sides = _catalog(tiles.uri, tiles.digest, tiles.slide_column)
    named = set(tiles.slides)
    chosen = [
        i
        for i, (slide, side) in enumerate(zip(slides, sides, strict=True))
        if side >= tiles.smallest and (slide in named) == tiles.inside
    ]
    whole = Source(slides, base.__getitem__, base.own_blur2, 0)
    return whole.subset(chosen)


@functools.lru_cache(maxsize=2)
def _catalog(uri: str, digest: str, slide_column: str | None) -> tuple[Source, list[str], list[int]]:
    if _catalog_digest(uri) != digest:
        raise CatalogError(f"{uri}: has changed since the training began; train in another place")
    source = samples.open_catalog(uri)
    found = table.read(uri)
    found = found.filter(found["in_focus"])
    if slide_column is not None and slide_column not in found.column_names:
        others = [name for name in found.column_names if name not in table.COLUMNS.names]
        known = f"its own are {', '.join(others)}" if others else "index it with --metadata, --key and --subgroups"
        raise CatalogError(f"{uri}: no column {slide_column!r}; {known}")
    slides = [str(slide) for slide in found[slide_column].to_pylist()] if slide_column else list(source.slides)
    sides = np.minimum(found["width"].to_numpy(), found["height"].to_numpy()).tolist()
    return source, slides, sides


def _corpus_tiles(uri: str, size: int) -> tuple[Tiles, set[str]]:
    corpus = reader.open_corpus(uri, split="train")
    if corpus.header["recipe"] != "out_of_focus":
        raise TrainingError(f"{uri}: a corpus of recipe {corpus.header['recipe']!r}; train on one of out_of_focus")
    if not len(corpus):
        raise TrainingError(f"{uri}: the corpus has no rows; make one with jobs/generate.py")
    side = corpus.header["recipe_settings"]["settings"]["size"]
    if side < size:
        raise TrainingError(f"{uri}: its images have {side} px a side, less than samples.size, {size}; make it larger")
    with storage.open_input(storage.join(uri, sources.NAME)) as file:
        slides = pq.ParquetFile(file).read(columns=["uri"])["uri"].unique().to_pylist()
    return Tiles(uri, corpus.header["fingerprint"], corpus=True), set(slides)


def _window(tiles: Tiles, seed: int, step: int, batch: int) -> Source:
    # Rows of a corpus are read by the shard. A step draws from a few shards, which serve for as many steps as they
    # have batches; each turn through the corpus takes the shards in another order.
    corpus = _corpus(tiles)
    count = -(-len(corpus.paths) // _WINDOW_SHARDS)
    each = max(1, len(corpus) // (count * batch))
    turn, place = divmod(step // each, count)
    window = int(seeds.permute(np.array([place]), count, seeds.digest64(seed, "shards", turn))[0])
    return _shards(corpus, window)


@functools.lru_cache(maxsize=2)
def _corpus(tiles: Tiles) -> reader.Corpus:
    corpus = reader.open_corpus(tiles.uri)
    if corpus.header["fingerprint"] != tiles.digest:
        raise CorpusError(f"{tiles.uri}: has changed since the training began; train in another place")
    return replace(corpus, paths=tuple(p for p, rows in zip(corpus.paths, corpus.rows, strict=True) if rows))


# A worker's sample tasks come to the same window one after the other, or to the next.
_shards_read: OrderedDict[tuple[str, int], Source] = OrderedDict()


def _shards(corpus: reader.Corpus, window: int) -> Source:
    key = (corpus.header["fingerprint"], window)
    if key not in _shards_read:
        paths = corpus.paths[window * _WINDOW_SHARDS : (window + 1) * _WINDOW_SHARDS]
        rows: list[dict[str, Any]] = []
        for path in paths:
            with storage.open_input(storage.join(corpus.uri, path)) as file:
                rows += pq.ParquetFile(file).read(columns=["image", "blur_radius_px", "source_uri"]).to_pylist()
        _shards_read[key] = Source(
            [row["source_uri"] for row in rows],
            lambda i: Tile(reader.decode(rows[i]["image"]["bytes"]), rows[i]["blur_radius_px"]),
            limit_bytes=0,
        )
        if len(_shards_read) > 2:
            _shards_read.popitem(last=False)
    return _shards_read[key]
