"""What a training run of the focus network learns from, batch by batch: real tiles of some slides, or a corpus.

Real tiles are degraded differently for every sample. A corpus is degraded already, and is read by the shard.
No torch here, which would take every process that makes samples seconds to load, and no Ray.
"""

import functools
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medsynth import seeds, storage
from medsynth.catalog import table
from medsynth.corpus import manifest, reader, sources
from medsynth.defocus import chain, device
from medsynth.defocus.settings import ChainSettings
from medsynth.errors import CatalogError, CorpusError, Rejected, TrainingError
from medsynth.focus import samples
from medsynth.focus.samples import SampleSettings, Source, Tile

HELD_OUT_BATCH = 64
_WINDOW_SHARDS = 8


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
class Feed:
    """Every batch of a run by its number; small, and picklable."""

    training: Tiles
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
        source = _window(self.training, self.seed, step, self.size) if self.training.corpus else self.training.opened()
        return _made(self.training, source, self.settings, self.seed, step * self.size + rank * share, share)

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
        return _made(self.validation, self.validation.opened(), self.settings.plain(), seed, first, count)


def _made(
    tiles: Tiles, source: Source, settings: SampleSettings, seed: int, first: int, count: int
) -> dict[str, NDArray[Any]]:
    try:
        images, radii = samples.make_batch(source, settings, seed, range(first, first + count))
    except Rejected as error:
        raise TrainingError(f"{tiles.uri}: {error}; mend the image, or index the source again") from error
    return {"images": images, "radii": radii}


def is_corpus(uri: str) -> bool:
    """Whether a corpus (whole or not) stands at a URI."""
    return storage.head(storage.join(uri, manifest.HEADER)) is not None


def smallest_tile(settings: SampleSettings) -> int:
    """Pixels on a side that a tile must have for every sample, whatever its blur and its device."""
    base = ChainSettings(radii_px=(settings.radii_px[-1],))
    chains = [base, *(chain.with_device(base, device.load(name)) for name in device.known())]
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


def corpus_tiles(uri: str, size: int) -> tuple[Tiles, set[str]]:
    """A corpus as training data.

    Args:
        uri: the corpus's folder.
        size: of a sample in pixels.

    Returns:
        Its tiles, and the image files that they were made from.

    Raises:
        CorpusError: it is incomplete.
        TrainingError: it is of another recipe, empty, or of smaller images.
    """
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
