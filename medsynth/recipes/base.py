"""What every recipe does: samples of the plan in, images with their parameters out."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from medsynth.corpus import schema
from medsynth.corpus.shard import Reject
from medsynth.corpus.sources import Source
from medsynth.errors import Rejected
from medsynth.plan import Assignment
from medsynth.seeds import sample_seed
from medsynth.spec import Axis

K = TypeVar("K")
V = TypeVar("V")

_IN_FLIGHT = 32


@dataclass(frozen=True)
class Sample:
    """One sample to make."""

    index: int
    """Its number in the plan."""
    seed: int
    """The number from which all of its randomness comes."""
    values: Mapping[str, str]
    """Its value on every axis."""
    source: Source | None
    """The tile it is made from, for a recipe that has sources."""


@dataclass(frozen=True)
class Output:
    """One sample made."""

    sample: Sample
    image: bytes
    """The encoded image."""
    parameters: Mapping[str, Any]
    """A value for each of the recipe's columns."""


@dataclass(frozen=True)
class Refusal:
    """One sample that could not be made."""

    sample: Sample
    why: Rejected


@dataclass
class Stopwatch:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time until the block ends to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


class Recipe(Protocol):
    """How a corpus's images are made. It is handed to workers, so it must pickle and stay small."""

    name: str
    """As in the spec and in every row."""
    suffix: str
    """Ending of an image's file name: jpg or png."""
    parameters: tuple[pa.Field, ...]
    """Its columns."""
    needs_sources: bool
    """Whether its images are made from tiles. Where not, it replaces what it refuses itself: :meth:`make` yields the
    refusals of a sample before the output that replaces them."""
    gpus: float
    """Share of a GPU that a worker needs; 0 for none."""

    def made_axes(self, axes: Mapping[str, Axis]) -> list[str]:
        """Which of the spec's axes the recipe makes itself; refuses values that it cannot make."""

    def identity(self) -> dict[str, Any]:
        """All of the settings that decide its bytes, JSON-able, for the fingerprint."""

    def notes(self) -> list[str]:
        """What a reader of the corpus should know besides."""

    def as_real(self, uri: str, table: pa.Table, axes: Mapping[str, Axis]) -> tuple[pa.Table, list[str]]:
        """A table of real images, its axes' values named as the recipe names them; and notes, as :meth:`notes`.

        Raises:
            CatalogError: it cannot be counted; the message names the URI.
        """

    def refuses(self, width: int, height: int, mpp: float | None) -> Rejected | None:
        """Why no tile of this size (px) and scale (µm per px) can be a source; None if one can."""

    def make(self, samples: Sequence[Sample], clock: Stopwatch) -> Iterator[Output | Refusal]:
        """Make samples, in order; those of one source stand together."""

    def remake(self, row: Mapping[str, Any]) -> bytes:
        """Make one image again from its own row alone.

        Raises:
            Rejected: the source is gone or changed.
        """


@dataclass(frozen=True)
class Made:
    """A shard, made and not yet committed."""

    table: pa.Table
    rejects: list[Reject]
    seconds: dict[str, float]


def make_shard(
    recipe: Recipe,
    assignment: Assignment,
    sources: Mapping[int, Source],
    *,
    axes: Sequence[str],
    run_seed: int,
    fingerprint: str,
) -> Made:
    """Make the rows of one shard.

    Args:
        recipe: how.
        assignment: which samples.
        sources: the tiles that the assignment names, by place.
        axes: the spec's axes.
        run_seed: the spec's seed.
        fingerprint: the corpus's, from which its samples are named.
    """
    clock = Stopwatch()
    places = dict(zip(assignment.indices.tolist(), assignment.tiles.tolist(), strict=True))
    samples = [
        Sample(index, sample_seed(run_seed, index), dict(zip(axes, subgroup, strict=True)), sources.get(tile))
        for (index, tile), subgroup in zip(places.items(), assignment.subgroups, strict=True)
    ]
    rows, rejects = [], []
    for result in recipe.make(samples, clock):
        if isinstance(result, Output):
            rows.append(_row(recipe, result, fingerprint))
        else:
            rejects.append(_reject(result, places[result.sample.index]))
    table = pa.Table.from_pylist(rows, schema=schema.row_schema(axes, recipe.parameters))
    return Made(table, rejects, clock.seconds)


def prefetch(keys: Sequence[K], fetch: Callable[[K], V]) -> Iterator[tuple[K, Future[V]]]:
    """Fetch ahead, many requests in flight, and hand the results over in order.

    Args:
        keys: what to fetch.
        fetch: thread-safe; called once a key.

    Yields:
        Each key with a future that is done, or will be soon.
    """
    if not keys:
        return
    with ThreadPoolExecutor(max_workers=min(_IN_FLIGHT, len(keys)), thread_name_prefix="fetch") as pool:
        ahead: deque[tuple[K, Future[V]]] = deque()
        try:
            for key in keys:
                ahead.append((key, pool.submit(fetch, key)))
                if len(ahead) > _IN_FLIGHT:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            for _, future in ahead:
                future.cancel()


def _row(recipe: Recipe, output: Output, fingerprint: str) -> dict[str, Any]:
    sample, source = output.sample, output.sample.source
    name = schema.sample_id(fingerprint, sample.index)
    return {
        **output.parameters,
        "sample_id": name,
        "index": sample.index,
        "image": {"bytes": output.image, "path": f"{name}.{recipe.suffix}"},
        **{axis: int(v) if axis in schema.INTEGER_AXES else v for axis, v in sample.values.items()},
        "synthetic": True,
        "recipe": recipe.name,
        "source_uri": source and source.uri,
        "source_row": source and source.row,
        "source_column": source and source.image_column,
        "source_x": source and source.x,
        "source_y": source and source.y,
        "source_width": source and source.width,
        "source_height": source and source.height,
        "source_sha256": source and source.sha256,
        "seed": sample.seed,
    }


def _reject(refusal: Refusal, tile: int) -> Reject:
    sample = refusal.sample
    return Reject(
        index=sample.index,
        tile=tile,
        subgroup=tuple(sample.values.values()),
        source_uri=sample.source.uri if sample.source else None,
        source_row=sample.source.row if sample.source else None,
        reason=refusal.why.reason,
        detail=refusal.why.detail,
    )
