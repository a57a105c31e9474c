"""What a training run of the focus network learns from, batch by batch.

No torch here, which would take every process that makes samples seconds to load, and no Ray.
"""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medsynth import __version__, seeds
from medsynth.catalog import table
from medsynth.defocus import chain, device
from medsynth.defocus.settings import ChainSettings
from medsynth.errors import CatalogError, Rejected, TrainingError
from medsynth.focus import samples
from medsynth.focus.kept import Kept
from medsynth.focus.samples import SampleSettings, Source

HELD_OUT_BATCH = 64


class Material(Protocol):
    """Tiles to learn from, by rule, so that a worker opens them itself: the tiles' pixels never travel."""

    @property
    def uri(self) -> str:
        """Of what holds them."""

    @property
    def digest(self) -> str:
        """Of what it held when the run was set up."""

    @property
    def slides(self) -> tuple[str, ...]:
        """The slides held out."""

    @property
    def inside(self) -> bool:
        """Whether these are the tiles of those slides, or of all the others."""

    def at(self, step: int, batch: int, seed: int) -> Source:
        """The tiles that a step draws from."""


@dataclass(frozen=True)
class Tiles:
    """In-focus tiles of a catalog, put out of focus differently for every sample."""

    uri: str
    """Of the catalog."""
    digest: str
    """Of what it held when the run was set up."""
    slide_column: str | None = None
    smallest: int = 1
    """Pixels on a side below which a tile gives no sample."""
    slides: tuple[str, ...] = ()
    """The slides held out."""
    inside: bool = False
    """Whether these are the tiles of those slides, or of all the others."""

    def opened(self) -> Source:
        """The tiles themselves.

        Raises:
            CatalogError: it is not the catalog that it was.
        """
        return _opened(self)

    def at(self, step: int, batch: int, seed: int) -> Source:
        """The tiles that a step draws from: all of them."""
        return self.opened()


@dataclass(frozen=True)
class Feed:
    """Every batch of a run by its number; small, and picklable."""

    training: Material
    validation: Tiles | None
    settings: SampleSettings
    """How samples are made."""
    seed: int
    """Of the run."""
    size: int
    """Samples of a step, over all workers."""
    held_out_samples: int
    """Samples to validate on."""

    def batch(self, step: int, rank: int, workers: int) -> dict[str, NDArray[Any]]:
        """One worker's share of one step.

        Args:
            step: its number, from 0; its samples are those from ``step * size`` on.
            rank: the worker.
            workers: how many share the step equally.

        Returns:
            ``images`` uint8 (N, size, size, 3) and ``radii`` float32 (N,), px; a pure function of the arguments.

        Raises:
            TrainingError: a tile cannot be read.
        """
        share = self.size // workers
        source = self.training.at(step, self.size, self.seed)
        first, kept = step * self.size + rank * share, _kept(self)
        return _made(self.training, source, self.settings, self.seed, first, share, kept)

    def held_out(self, number: int) -> dict[str, NDArray[Any]]:
        """One batch to validate on: tiles of held-out slides through the chain, without what only training needs.

        Args:
            number: of the batch, from 0.

        Returns:
            As :meth:`batch`.

        Raises:
            TrainingError: a tile cannot be read.
        """
        assert self.validation is not None
        seed = seeds.digest64(self.seed, "held out") >> 1
        first = number * HELD_OUT_BATCH
        count = min(HELD_OUT_BATCH, self.held_out_samples - first)
        return _made(self.validation, self.validation.opened(), self.settings.plain(), seed, first, count, None)

    @property
    def kept_name(self) -> str | None:
        """What its samples are kept under where they are met again; None where none are."""
        # The tiles of a corpus change from step to step.
        if self.settings.distinct is None or not isinstance(self.training, Tiles):
            return None
        return hashlib.sha256(repr((__version__, self.training, self.settings, self.seed)).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _kept(feed: Feed) -> Kept | None:
    name, count = feed.kept_name, feed.settings.distinct
    return Kept(name, count, feed.settings.size) if name and count else None


def _made(
    tiles: Material, source: Source, settings: SampleSettings, seed: int, first: int, count: int, kept: Kept | None
) -> dict[str, NDArray[Any]]:
    try:
        images, radii = samples.make_batch(source, settings, seed, range(first, first + count), kept)
    except Rejected as error:
        raise TrainingError(f"{tiles.uri}: {error}; mend the image, or index the source again") from error
    return {"images": images, "radii": radii}


def smallest_tile(settings: SampleSettings) -> int:
    """Pixels on a side that a tile must have for every sample, whatever its blur and its device."""
    base = ChainSettings(radii_px=(settings.radii_px[-1],))
    chains = [base, *(chain.with_device(base, device.load(name)) for name in device.scanners())]
    margins = [chain.crop_margin(one.model_copy(update={"mpp": 1.0}), 1.0) for one in chains]
    return settings.size + 2 * max(margins)


def catalog_tiles(uri: str, slide_column: str | None, smallest: int) -> Tiles:
    """All tiles of a catalog that samples can be made of.

    Args:
        uri: the catalog's folder.
        slide_column: its column that tells slides apart; by default each image file is a slide.
        smallest: pixels on a side that a tile must have.

    Raises:
        CatalogError: there is no catalog, no such column, or no such tile in focus.
    """
    tiles = Tiles(uri, _catalog_digest(uri), slide_column=slide_column, smallest=smallest)
    if not len(tiles.opened()):
        raise CatalogError(
            f"{uri}: every tile in focus is smaller than {smallest} px; index it with --tile-size {smallest}"
        )
    return tiles


def _catalog_digest(uri: str) -> str:
    return _digest(table.read(uri))


def _digest(found: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema.remove_metadata()) as writer:
        writer.write_table(found.combine_chunks().replace_schema_metadata(None))
    return hashlib.sha256(sink.getvalue()).hexdigest()


@functools.lru_cache(maxsize=4)
def _opened(tiles: Tiles) -> Source:
    base, slides, sides, _ = _catalog(tiles.uri, tiles.digest, tiles.slide_column)
    named = set(tiles.slides)
    chosen = [
        i
        for i, (slide, side) in enumerate(zip(slides, sides, strict=True))
        if side >= tiles.smallest and (slide in named) == tiles.inside
    ]
    whole = Source(slides, base.__getitem__, base.own_blur2, 0)
    return whole.subset(chosen)


@functools.lru_cache(maxsize=2)
def _catalog(uri: str, digest: str, slide_column: str | None) -> tuple[Source, list[str], list[int], list[str]]:
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
    return source, slides, sides, found["uri"].to_pylist()


def origins(tiles: Tiles) -> set[tuple[str, str]]:
    """The slide and the image file of every tile of a catalog, too small ones included."""
    _, slides, _, uris = _catalog(tiles.uri, tiles.digest, tiles.slide_column)
    return set(zip(slides, uris, strict=True))
