"""What a downstream classifier makes of a corpus: its error by focus class, from its answers or by asking it."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medsynth import storage
from medsynth.corpus import reader
from medsynth.corpus.reader import Corpus
from medsynth.errors import ScoringError
from medsynth.focus import downstream
from medsynth.focus.downstream import ErrorTable

Classifier = Callable[[NDArray[np.uint8]], Any]
"""Takes uint8 images (N, H, W, 3) and gives a label an image, or scores (N, C) with the labels sorted."""

_BATCH = 64
_ID, _ANSWERS = "sample_id", ("error", "prediction")


def load(name: str) -> Classifier:
    """Import a classifier.

    Args:
        name: ``module:function``; the module may lie in the working directory.

    Raises:
        ScoringError: there is no such thing.
    """
    module, separator, function = name.partition(":")
    if not separator:
        raise ScoringError(f"--classifier {name}: write module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Classifier = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ScoringError(f"--classifier {name}: cannot be imported ({error}); check the name") from error
    return found


def by_classifier(
    uri: str, label: str, classifier: Classifier, progress: Callable[[int, int], None] = lambda done, total: None
) -> ErrorTable:
    """Ask a classifier about every image of a corpus.

    Args:
        uri: the corpus.
        label: the column with what should be answered.
        classifier: see :data:`Classifier`.
        progress: called with the images done and all there are.

    Raises:
        ScoringError: the corpus has no such column or no blur, or the answers do not fit.
        CorpusError: it is no corpus, or it is incomplete.
    """
    corpus, columns = _open(uri, label)
    labels: list[Any] = []
    for table in _tables(corpus, [label]):
        labels += table[label].unique().to_pylist()
    names = sorted(set(labels))
    found, wrong, done = [], [], 0
    for table in _tables(corpus, [*columns, "image"]):
        found.append(table.select(columns))
        pictures = (reader.decode(cell["bytes"]) for cell in table["image"].to_pylist())
        truth = table[label].to_pylist()
        for batch in _batches(pictures):
            part = truth[: len(batch)]
            wrong.append(downstream.mistakes(np.asarray(classifier(batch)), part, names))
            truth = truth[len(batch) :]
            done += len(batch)
            progress(done, len(corpus))
    return _learned(pa.concat_tables(found), np.concatenate(wrong))


def by_scores(uri: str, scores: str, label: str | None) -> ErrorTable:
    """Take a table of a classifier's answers on a corpus.

    Args:
        uri: the corpus.
        scores: Parquet or CSV with ``sample_id`` and either ``error`` (0 or 1) or ``prediction``.
        label: the corpus's column that a prediction is held against.

    Raises:
        ScoringError: a column is missing, or no row of the two fits.
        CorpusError: it is no corpus, or it is incomplete.
    """
    answers = downstream.read_table(scores)
    kind = next((name for name in _ANSWERS if name in answers.column_names), None)
    if _ID not in answers.column_names or kind is None:
        names = ", ".join(answers.column_names)
        raise ScoringError(f"{scores}: wants the columns sample_id and error or prediction; it has {names}")
    if kind == "prediction" and label is None:
        raise ScoringError(f"{scores}: predictions need the corpus's column of true labels; name it with --label")
    corpus, columns = _open(uri, label if kind == "prediction" else None)
    given = dict(zip(map(str, answers[_ID].to_pylist()), answers[kind].to_pylist(), strict=True))
    rows = pa.concat_tables(list(_tables(corpus, columns)))
    known = rows.filter(pa.array([name in given for name in rows[_ID].to_pylist()], pa.bool_()))
    said = [given[name] for name in known[_ID].to_pylist()]
    if kind == "prediction":
        wrong = [str(one) != str(true) for one, true in zip(said, known[label].to_pylist(), strict=True)]
    else:
        if any(one not in (0, 1) for one in said):
            raise ScoringError(f"{scores}: column 'error' holds more than 0 and 1 (or true and false)")
        wrong = [bool(one) for one in said]
    return _learned(known, np.array(wrong, dtype=bool))


def _open(uri: str, label: str | None) -> tuple[Corpus, list[str]]:
    corpus = reader.open_corpus(uri)
    there = reader.schema_names(corpus)
    for column in (downstream.CLASS, *([label] if label else [])):
        if column not in there:
            raise ScoringError(f"{uri}: no column {column!r}; the columns are {', '.join(there)}")
    wanted = [_ID, downstream.CLASS, *([downstream.RADIUS] if downstream.RADIUS in there else [])]
    return corpus, [*wanted, *([label] if label and label not in wanted else [])]


def _tables(corpus: Corpus, columns: list[str]) -> Iterator[pa.Table]:
    for path, rows in zip(corpus.paths, corpus.rows, strict=True):
        if rows:
            with storage.open_input(storage.join(corpus.uri, path)) as file:
                yield pq.ParquetFile(file).read(columns=columns)


def _batches(pictures: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Stacks of images of one size, in order."""
    batch: list[NDArray[np.uint8]] = []
    for picture in pictures:
        if batch and (len(batch) == _BATCH or batch[0].shape != picture.shape):
            yield np.stack(batch)
            batch = []
        batch.append(picture)
    if batch:
        yield np.stack(batch)


def _learned(rows: pa.Table, wrong: NDArray[np.bool_]) -> ErrorTable:
    classes = rows[downstream.CLASS].to_numpy().astype(np.int64)
    radii = None
    if downstream.RADIUS in rows.column_names and rows[downstream.RADIUS].null_count == 0:
        radii = rows[downstream.RADIUS].to_numpy().astype(np.float64)
    return downstream.learn(classes, radii, wrong)
