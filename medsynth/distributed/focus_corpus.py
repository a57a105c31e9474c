"""A corpus as what the focus network learns from: degraded already, labelled, and read by the shard. No Ray here."""

import functools
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medsynth import seeds, storage
from medsynth.corpus import manifest, reader, sources
from medsynth.errors import CorpusError, SyntheticSplitError, TrainingError
from medsynth.focus.samples import Source, Tile

_WINDOW_SHARDS = 8


@dataclass(frozen=True)
class CorpusTiles:
    """The images of a corpus, whose blur is known."""

    uri: str
    """Of the corpus."""
    digest: str
    """Its fingerprint."""
    slides: tuple[str, ...] = ()
    """None is held out: a corpus is training data as a whole."""
    inside: bool = False

    def at(self, step: int, batch: int, seed: int) -> Source:
        """The images that a step draws from: those of a few shards.

        They serve for as many steps as they have batches; each turn through the corpus takes the shards in
        another order.

        Args:
            step: from 0.
            batch: samples of a step.
            seed: of the run.

        Raises:
            CorpusError: it is not the corpus that it was.
        """
        corpus = _corpus(self)
        count = -(-len(corpus.paths) // _WINDOW_SHARDS)
        each = max(1, len(corpus) // (count * batch))
        turn, place = divmod(step // each, count)
        window = int(seeds.permute(np.array([place]), count, seeds.digest64(seed, "shards", turn))[0])
        return _shards(corpus, window)


def is_corpus(uri: str) -> bool:
    """Whether a corpus (whole or not) stands at a URI."""
    return storage.head(storage.join(uri, manifest.HEADER)) is not None


def refuse_validation(uri: str) -> None:
    """Refuse to validate on a corpus.

    Raises:
        SyntheticSplitError: it is one.
    """
    if is_corpus(uri):
        raise SyntheticSplitError(
            f"--validate-on {uri}: a corpus is synthetic, made to train on; name real images, or a catalog"
        )


def corpus_tiles(uri: str, size: int) -> tuple[CorpusTiles, set[str]]:
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
    return CorpusTiles(uri, corpus.header["fingerprint"]), set(slides)


@functools.lru_cache(maxsize=2)
def _corpus(tiles: CorpusTiles) -> reader.Corpus:
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
