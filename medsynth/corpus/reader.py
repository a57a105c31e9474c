"""Reading a corpus: as training data, and as nothing else.

What there is to read, and in which order, comes from the manifest, never from a listing: a corpus
without one is incomplete and is refused.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medsynth import images, storage
from medsynth.corpus import manifest
from medsynth.errors import CorpusError, NotFoundError, Rejected, SyntheticSplitError

if TYPE_CHECKING:
    from medsynth.corpus.torch_rows import TorchRows

_HELD_OUT = ("val", "eval", "dev", "test", "hold", "held")
# Ray Data looks at Parquet footers in processes of their own, which it gives ten files at a time: always 32 processes,
# however few files there are.
_FOOTER_READERS, _FILES_EACH, _MOST_READERS = "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", 10, 32


@dataclass(frozen=True)
class Corpus:
    """A complete corpus, as its ``corpus.json`` and its manifest describe it."""

    uri: str
    """The corpus's folder."""
    header: dict[str, Any]
    """``corpus.json``: spec, fingerprint, axes, quotas, versions."""
    paths: tuple[str, ...]
    """The data files below the folder, in the manifest's order."""
    rows: tuple[int, ...]
    """Rows of each data file."""

    @property
    def axes(self) -> dict[str, list[str]]:
        """The values of each axis, in the spec's order, as text."""
        return {name: [str(value) for value in values] for name, values in self.header["axes"].items()}

    @property
    def key_columns(self) -> list[str]:
        """The columns that a training run wants of any corpus; none of them holds a null."""
        return ["image", "sample_id", "index", *self.axes, "seed"]

    def __len__(self) -> int:
        return sum(self.rows)


def open_corpus(uri: str, split: str = "train") -> Corpus:
    """Open a corpus for training.

    Args:
        uri: the corpus's folder.
        split: ``train``, the only one there is.

    Raises:
        SyntheticSplitError: validation or test data were asked for, or a split that does not exist.
        CorpusError: it is no corpus, or it is incomplete.
        StorageError: it cannot be read.
    """
    _check_split(split)
    header = manifest.read_header(uri)
    try:
        with storage.open_input(storage.join(uri, manifest.NAME)) as file:
            table = pq.ParquetFile(file).read(columns=["path", "rows"])
    except NotFoundError as error:
        raise CorpusError(
            f"{uri}: the corpus is incomplete (no {manifest.NAME}); run the job that makes it again, it will go on"
        ) from error
    return Corpus(uri, header, tuple(table["path"].to_pylist()), tuple(table["rows"].to_pylist()))


def train_files(uri: str) -> list[str]:
    """The URIs of a corpus's data files, in the manifest's order.

    Raises:
        CorpusError: it is no corpus, or it is incomplete.
        StorageError: it cannot be read.

    Example:
        ``datasets.load_dataset("parquet", data_files={"train": train_files(uri)})``
    """
    corpus = open_corpus(uri)
    return [storage.join(uri, path) for path in corpus.paths]


def torch_dataset(
    uri: str,
    split: str = "train",
    columns: Sequence[str] | None = None,
    transform: Callable[[dict[str, Any]], Any] | None = None,
    shuffle_seed: int | None = None,
) -> "TorchRows":
    """A corpus as a torch ``IterableDataset`` of dicts.

    The rows are shared out over torch.distributed's ranks and each DataLoader's workers: each row comes
    exactly once, and no consumer gets more than one row more than another.

    Args:
        uri: the corpus's folder.
        split: ``train``, the only one there is.
        columns: what each dict holds; by default ``image`` (uint8 tensor of shape (3, H, W), RGB), ``sample_id``,
            ``index``, the axes and ``seed``. Other columns may hold None, which the default collate refuses.
        transform: called with each dict; what it returns comes instead.
        shuffle_seed: shuffle the shards, and the rows within each, by this seed and the number given to the
            dataset's ``set_epoch``; None for the manifest's order.

    Raises:
        SyntheticSplitError: validation or test data were asked for.
        CorpusError: it is no corpus, it is incomplete, or it has no such column.
        StorageError: it cannot be read.
    """
    from medsynth.corpus.torch_rows import TorchRows  # here, since torch takes seconds to import

    corpus = open_corpus(uri, split)
    return TorchRows(corpus, _known(corpus, columns), transform, shuffle_seed)


def ray_dataset(uri: str, ray_data: Any, split: str = "train", columns: Sequence[str] | None = None) -> Any:
    """A corpus as a Ray Data dataset.

    Args:
        uri: the corpus's folder.
        ray_data: the module ``ray.data``; Ray is imported nowhere below ``medsynth.distributed``.
        split: ``train``, the only one there is.
        columns: as for :func:`torch_dataset`; ``image`` is a uint8 array of shape (H, W, 3), RGB.

    Returns:
        A ``ray.data.Dataset``.

    Raises:
        SyntheticSplitError: validation or test data were asked for.
        CorpusError: it is no corpus, it is incomplete, or it has no such column.
        StorageError: it cannot be read.

    Example:
        ``reader.ray_dataset("s3://bucket/corpus", ray.data)``
    """
    corpus = open_corpus(uri, split)
    names = _known(corpus, columns)
    place = storage.absolute(uri)
    paths = [storage.join(place, path) for path, rows in zip(corpus.paths, corpus.rows, strict=True) if rows]
    # Remote bytes come through medsynth.storage on the workers too, so that credentials, endpoint and
    # retries are the same as everywhere else; Ray's own S3 client knows no profiles.
    filesystem = None if storage.is_local(uri) else StorageFileSystem(scheme=uri.partition("://")[0])
    with _footer_readers(len(paths)):
        dataset = ray_data.read_parquet(paths, filesystem=filesystem).select_columns(names)
    return dataset.map(_with_pixels) if "image" in names else dataset


@contextmanager
def _footer_readers(files: int) -> Iterator[None]:
    """As many processes as so many files keep busy; where the user's environment has no number of its own."""
    if _FOOTER_READERS in os.environ:
        yield
        return
    os.environ[_FOOTER_READERS] = str(min(_MOST_READERS, max(1, math.ceil(files / _FILES_EACH))))
    try:
        yield
    finally:
        del os.environ[_FOOTER_READERS]


def decode(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a corpus's image.

    Args:
        data: its JPEG or PNG bytes.

    Returns:
        uint8 array of shape (H, W, 3), RGB.

    Raises:
        CorpusError: the bytes are no image.
    """
    try:
        return images.decode(data)
    except Rejected as error:
        raise CorpusError(f"a damaged image in the corpus ({error}); check it with jobs/verify.py") from error


class StorageFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A read-only fsspec view of :mod:`medsynth.storage`, which libraries that read remote files take.

    Args:
        scheme: ``s3``, ``gs`` or ``az``; paths come without it.
    """

    protocol = ("s3", "gs", "az")

    def __init__(self, scheme: str, **options: Any) -> None:
        super().__init__(scheme=scheme, **options)
        self.scheme = scheme

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What fsspec wants to know of a file."""
        found = storage.head(self._uri(path))
        if found is None:
            raise FileNotFoundError(path)
        return {"name": self._strip_protocol(path), "size": found.size, "type": "file"}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """One file's entry; folders are not listed, since the manifest names every file."""
        found = self.info(path)
        return [found if detail else found["name"]]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        if mode != "rb":
            raise NotImplementedError("this view of a corpus is for reading")
        return storage.open_input(self._uri(path))

    def _uri(self, path: str) -> str:
        return f"{self.scheme}://{self._strip_protocol(path)}"


def _with_pixels(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "image": decode(row["image"]["bytes"])}


def _check_split(split: str) -> None:
    if split == "train":
        return
    if split.lower().startswith(_HELD_OUT):
        raise SyntheticSplitError(
            f"split={split!r}: every image here is synthetic, made to train on; a score on synthetic images says "
            "nothing of real ones, so validate and test on real images, and open this corpus with split='train'"
        )
    raise SyntheticSplitError(f"split={split!r}: a synthetic corpus has one split, 'train'; ask for that")


def _known(corpus: Corpus, columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return corpus.key_columns
    names = schema_names(corpus)
    for column in columns:
        if names and column not in names:
            raise CorpusError(f"{corpus.uri}: no column {column!r}; the columns are {', '.join(names)}")
    return list(columns)


def schema_names(corpus: Corpus) -> list[str]:
    """The columns of a corpus, from its first data file; none where it has no data files."""
    if not corpus.paths:
        return []
    with storage.open_input(storage.join(corpus.uri, corpus.paths[0])) as file:
        return list(pq.read_schema(file).names)


def spread(count: int, most: int) -> list[int]:
    """Evenly spread places among ``count``, first and last included, ``most`` of them at the most."""
    if count <= most:
        return list(range(count))
    return [math.floor(place * (count - 1) / (most - 1) + 0.5) for place in range(most)]


def sample_files(corpus: Corpus, most: int) -> list[tuple[str, int]]:
    """URIs and rows of at most ``most`` data files that hold rows, evenly spread over the corpus."""
    filled = [place for place, rows in enumerate(corpus.rows) if rows]
    chosen: Iterator[int] = (filled[place] for place in spread(len(filled), most))
    return [(storage.join(corpus.uri, corpus.paths[place]), corpus.rows[place]) for place in chosen]
