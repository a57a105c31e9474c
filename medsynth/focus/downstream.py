"""Degree to error: how often a downstream classifier errs at each degree of blur, and what that makes of a slide.

The table is learned on a corpus, whose degree of blur is known, or given. A slide's expected error is the mean of
the table over the class distribution of its tissue.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medsynth import storage
from medsynth.errors import ScoringError

CLASS, RADIUS, ERROR = "focus_class", "blur_radius_um", "error"
_Z = 1.959964


@dataclass(frozen=True)
class ErrorTable:
    """Error of a downstream classifier by degree of blur."""

    focus_class: NDArray[np.int64] | None
    radius_um: NDArray[np.float64] | None
    """Growing; at least one of the two is there."""
    error: NDArray[np.float64]
    """As counted, or as given."""
    count: NDArray[np.int64] | None = None
    """Images that a figure was counted on."""
    low: NDArray[np.float64] | None = None
    """End of the 95 % interval."""
    high: NDArray[np.float64] | None = None
    smooth: NDArray[np.float64] | None = None
    """The nearest error that never falls as blur grows; None where the counts contradict that."""

    @property
    def applied(self) -> NDArray[np.float64]:
        """The errors that slides are judged by."""
        return self.error if self.smooth is None else self.smooth

    def to_table(self) -> pa.Table:
        """As it is saved."""
        columns = {
            CLASS: self.focus_class,
            RADIUS: self.radius_um,
            ERROR: self.error,
            "count": self.count,
            "low": self.low,
            "high": self.high,
            "error_smooth": self.smooth,
        }
        return pa.table({name: values for name, values in columns.items() if values is not None})


def wilson(errors: int, count: int) -> tuple[float, float]:
    """A 95 % interval for a share.

    Args:
        errors: how many of them.
        count: of how many, at least 1.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    share, over = errors / count, _Z * _Z / count
    middle = (share + over / 2) / (1 + over)
    half = _Z * math.sqrt(share * (1 - share) / count + over / (4 * count)) / (1 + over)
    return max(0.0, middle - half), min(1.0, middle + half)


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest sequence, by weighted squares, that never falls.

    Source:
        Ayer et al., "An empirical distribution function for sampling with incomplete information", 1955: pool
        adjacent violators.
    """
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, mass, length = blocks.pop()
            total = blocks[-1][1] + mass
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + mean * mass) / total, total, blocks[-1][2] + length]
    return [mean for mean, _, length in blocks for _ in range(int(length))]


def learn(
    focus_class: NDArray[np.int64], radius_um: NDArray[np.float64] | None, wrong: NDArray[np.bool_]
) -> ErrorTable:
    """Count errors by focus class.

    The counts are smoothed so that the error never falls as blur grows, unless they contradict that: then
    a smoothed value lies outside its own interval, and the table is applied as counted.

    Args:
        focus_class: (N,) of each image.
        radius_um: (N,) blur radius of each image; None where the corpus does not know it, and the classes are in order.
        wrong: (N,) whether the classifier erred.

    Raises:
        ScoringError: there are no images.
    """
    if not len(focus_class):
        raise ScoringError("no row of the corpus has a score; check the table's sample_id column")
    classes, places = np.unique(focus_class, return_inverse=True)
    counts = np.bincount(places)
    errors = np.bincount(places, wrong)
    radii = None if radius_um is None else np.bincount(places, radius_um) / counts
    ends = [wilson(int(bad), int(count)) for bad, count in zip(errors, counts, strict=True)]
    low, high = np.array(ends).T
    shares = errors / counts
    order = np.argsort(classes if radii is None else radii, kind="stable")
    smooth = np.empty_like(shares)
    smooth[order] = isotonic(shares[order].tolist(), counts[order].tolist())
    fits = bool(((smooth >= low - 1e-12) & (smooth <= high + 1e-12)).all())
    return ErrorTable(classes, radii, shares, counts, low, high, smooth if fits else None)


def read(uri: str) -> ErrorTable:
    """Read a table of errors: Parquet or CSV with ``focus_class`` or ``blur_radius_um``, and ``error`` (0 to 1).

    Raises:
        ScoringError: a column is missing or holds what it must not.
        StorageError: it cannot be read.
    """
    found = read_table(uri)
    if ERROR not in found.column_names or not {CLASS, RADIUS} & set(found.column_names):
        names = ", ".join(found.column_names)
        raise ScoringError(f"{uri}: wants a column 'error' and 'blur_radius_um' or 'focus_class'; it has {names}")
    if not found.num_rows:
        raise ScoringError(f"{uri}: the table has no rows")
    smooth = "error_smooth" if "error_smooth" in found.column_names else ERROR
    errors = _numbers(found, smooth, uri)
    bad = np.flatnonzero((errors < 0) | (errors > 1))
    if bad.size:
        raise ScoringError(f"{uri}: row {bad[0]}: the error {errors[bad[0]]:g} is no share; write 0 to 1")
    by = RADIUS if RADIUS in found.column_names else CLASS
    keys = _numbers(found, by, uri)
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        raise ScoringError(f"{uri}: a {by} stands twice; write one row for each")
    if by == RADIUS:
        return ErrorTable(None, keys[order], errors[order])
    if (keys != np.round(keys)).any() or (keys < 0).any():
        raise ScoringError(f"{uri}: focus_class must be whole numbers from 0; name radii in blur_radius_um")
    return ErrorTable(keys[order].astype(np.int64), None, errors[order])


def to_parquet(table: ErrorTable) -> bytes:
    """The table as a Parquet file, which :func:`read` takes."""
    sink = io.BytesIO()
    pq.write_table(table.to_table(), sink, compression="zstd")
    return sink.getvalue()


def read_table(uri: str) -> pa.Table:
    """Read a Parquet or CSV file.

    Raises:
        ScoringError: it is neither.
        StorageError: it cannot be read.
    """
    data = storage.read(uri)
    try:
        return pq.read_table(io.BytesIO(data)) if data[:4] == b"PAR1" else pa.csv.read_csv(io.BytesIO(data))
    except pa.ArrowException as error:
        text = str(error).splitlines()[0]
        raise ScoringError(f"{uri}: neither Parquet nor CSV ({text}); name a table") from error


def expected_error(classes: Sequence[float], radii_px: Sequence[float], mpp: float, table: ErrorTable) -> float:
    """The error to be expected on a slide.

    Args:
        classes: (K,) mean class distribution of its tissue.
        radii_px: (K,) blur radii of the classes in pixels.
        mpp: µm per pixel of the slide.
        table: error by degree; between its degrees the error is interpolated, beyond them its ends hold.

    Returns:
        The sum over classes of share times error, 0 to 1.
    """
    shares = np.asarray(classes, dtype=np.float64)
    if table.radius_um is not None:
        order = np.argsort(table.radius_um, kind="stable")
        at = np.asarray(radii_px, dtype=np.float64) * mpp
        errors = np.interp(at, table.radius_um[order], table.applied[order])
    else:
        assert table.focus_class is not None
        errors = np.interp(np.arange(len(shares)), table.focus_class, table.applied)
    return float(f"{float(shares @ errors / shares.sum()):.6g}")


def mistakes(answers: NDArray[Any], labels: Sequence[Any], names: Sequence[Any]) -> NDArray[np.bool_]:
    """Where a classifier erred.

    Args:
        answers: (N,) labels, or (N, C) probabilities or scores of the classes in the order of ``names``.
        labels: (N,) true labels.
        names: all labels of the corpus, sorted.

    Raises:
        ScoringError: the answers have another shape.
    """
    if answers.ndim == 2 and answers.shape == (len(labels), len(names)):
        given = [str(names[place]) for place in answers.argmax(axis=1)]
    elif answers.ndim == 1 and len(answers) == len(labels):
        given = [str(answer) for answer in answers.tolist()]
    else:
        raise ScoringError(
            f"--classifier: gave {answers.shape} for {len(labels)} images and {len(names)} labels; "
            "return one label an image, or one score an image and label, labels sorted"
        )
    return np.array([one != str(label) for one, label in zip(given, labels, strict=True)], dtype=bool)


def _numbers(table: pa.Table, name: str, uri: str) -> NDArray[np.float64]:
    try:
        values: NDArray[np.float64] = pc.cast(table[name], pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise ScoringError(f"{uri}: column {name!r} holds what is no number") from error
    if not np.isfinite(values).all():
        raise ScoringError(f"{uri}: row {int(np.flatnonzero(~np.isfinite(values))[0])}: {name} is no number")
    return values
