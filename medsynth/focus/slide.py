"""Scoring a slide: which of its cells are tissue, and how far out of focus each of them is.

A slide is cut into square pieces by a fixed grid, and a band is one or more rows of pieces. What a piece gives
depends on the piece alone, so the map is the same however the bands are shared out.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsynth.catalog.slides import Slide, overview
from medsynth.errors import Reason, Rejected
from medsynth.focus import tissue
from medsynth.focus.model import FocusModel

PIECE_CELLS = 64
"""Cells of the network along a piece's side: 2 thousand pixels, so that the seams cost a tenth and memory little."""
LEAST_TISSUE = 0.5
"""Share of a cell's window that must be tissue."""
_OVERVIEW_SIDE = 4096
_FINEST_FACTOR = 4
_THUMBNAIL_SIDE = 1600
_STRIPS = 4


@dataclass(frozen=True)
class Geometry:
    """Where a slide's cells lie: cell (i, j) is the window of side ``field`` from (i * spacing, j * spacing)."""

    width: int
    """Of the slide, in pixels."""
    height: int
    mpp: float
    """Micrometres per pixel."""
    stride: int
    """The network's, in pixels."""
    spacing: int
    """From cell to cell of the map, in pixels; a multiple of the stride."""
    field: int

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return (self.height - self.field) // self.spacing + 1

    @property
    def columns(self) -> int:
        """Columns of cells."""
        return (self.width - self.field) // self.spacing + 1

    @property
    def piece(self) -> int:
        """Cells of the map along a piece's side."""
        return max(1, PIECE_CELLS * self.stride // self.spacing)

    @property
    def bands(self) -> int:
        """Rows of pieces."""
        return -(-self.rows // self.piece)

    @property
    def cell_mm2(self) -> float:
        """Area that a cell stands for."""
        return (self.spacing * self.mpp / 1000) ** 2


@dataclass(frozen=True)
class Survey:
    """What is known of a slide before it is scored."""

    geometry: Geometry
    tissue: NDArray[np.bool_]
    """(rows, columns): the cells to be scored."""
    thumbnail: NDArray[np.uint8]
    """The slide, reduced to at most 1600 pixels a side."""

    def bands_with_tissue(self) -> list[int]:
        """The bands in which there is anything to score."""
        each = self.geometry.piece
        return [at for at in range(self.geometry.bands) if self.tissue[at * each : (at + 1) * each].any()]

    def to_bytes(self) -> bytes:
        """As a compressed numpy archive."""
        shape = vars(self.geometry)
        return _packed(
            geometry=np.array([*shape.values()]), tissue=np.packbits(self.tissue), thumbnail=_png(self.thumbnail)
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Survey":
        """Back from the archive."""
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            width, height, mpp, stride, spacing, field = found["geometry"].tolist()
            shape = Geometry(int(width), int(height), mpp, int(stride), int(spacing), int(field))
            cells = np.unpackbits(found["tissue"], count=shape.rows * shape.columns)
            with Image.open(io.BytesIO(found["thumbnail"].tobytes())) as picture:
                thumbnail = np.asarray(picture)
        return cls(shape, cells.astype(bool).reshape(shape.rows, shape.columns), thumbnail)


@dataclass(frozen=True)
class Band:
    """The scores of some rows of a map."""

    radius_px: NDArray[np.float32]
    """(rows of the band, columns); NaN where nothing was scored."""
    certainty: NDArray[np.float32]
    classes: NDArray[np.float64]
    """(K,): the class distributions of the scored cells, summed."""

    def to_bytes(self) -> bytes:
        """As a compressed numpy archive."""
        return _packed(**vars(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Band":
        """Back from the archive."""
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return cls(found["radius_px"], found["certainty"], found["classes"])


def spacing_for(stride: int | None, model: FocusModel) -> int:
    """The wanted distance of cells, rounded to a multiple of the network's own, at least one.

    Args:
        stride: pixels; None for the network's own.
        model: the network.
    """
    if stride is None:
        return model.stride
    return max(1, round(stride / model.stride)) * model.stride


def geometry(slide: Slide, model: FocusModel, spacing: int, mpp: float | None = None) -> Geometry:
    """Where the cells of a slide lie.

    Args:
        slide: an open slide.
        model: the network.
        spacing: pixels from cell to cell, a multiple of the network's stride.
        mpp: µm per pixel instead of what the file says.

    Raises:
        Rejected: the slide is smaller than one cell, or nothing says how large its pixels are.
    """
    width, height = slide.sizes[0]
    if min(width, height) < model.field:
        raise Rejected(Reason.TOO_SMALL, f"{width}x{height} pixels; the focus network needs {model.field} a side")
    scale = slide.mpp if mpp is None else mpp
    if scale is None:
        raise Rejected(Reason.UNKNOWN_MPP, "the file does not say how large its pixels are; give --mpp")
    return Geometry(width, height, scale, model.stride, spacing, model.field)


def survey(slide: Slide, shape: Geometry) -> Survey:
    """Look the slide over and find its tissue.

    Raises:
        Rejected: there is none, it is no brightfield colour slide, or a part is damaged.
    """
    factor = _FINEST_FACTOR
    while max(shape.width, shape.height) > factor * _OVERVIEW_SIDE:
        factor *= 2
    picture = overview(slide, factor)
    shares = tissue.cell_shares(
        tissue.tissue(picture, factor * shape.mpp), factor, shape.spacing, shape.field, shape.rows, shape.columns
    )
    cells = shares >= LEAST_TISSUE
    if not cells.any():
        raise Rejected(Reason.NO_TISSUE, "no tissue found; nothing to score")
    return Survey(shape, cells, _thumbnail(picture))


def score_band(slide: Slide, found: Survey, model: FocusModel, first: int, last: int | None = None) -> Band:
    """Score the tissue of some bands.

    Args:
        slide: the open slide.
        found: its survey.
        model: the network of that survey.
        first: number of the first band.
        last: number after the last band; one band by default.

    Raises:
        Rejected: a region is damaged.
    """
    shape = found.geometry
    each = shape.piece
    top, bottom = first * each, min(shape.rows, (first + 1 if last is None else last) * each)
    radius = np.full((bottom - top, shape.columns), np.nan, np.float32)
    certainty = np.full_like(radius, np.nan)
    classes = np.zeros(len(model.radii_px), np.float64)
    for row in range(top, bottom, each):
        for column in range(0, shape.columns, each):
            cells = found.tissue[row : min(row + each, bottom), column : column + each]
            for inner in _rectangles(cells, shape):
                wanted = cells[inner]
                above, left = row + inner[0].start, column + inner[1].start
                scores = model.score_map(_read(slide, shape, above, left, *wanted.shape))
                step = shape.spacing // shape.stride
                place = (slice(above - top, above - top + len(wanted)), slice(left, left + wanted.shape[1]))
                radius[place] = np.where(wanted, scores.radius_px[::step, ::step], np.nan)
                certainty[place] = np.where(wanted, scores.certainty[::step, ::step], np.nan)
                classes += scores.probabilities[::step, ::step][wanted].astype(np.float64).sum(axis=0)
    return Band(radius, certainty, classes)


def _rectangles(cells: NDArray[np.bool_], shape: Geometry) -> list[tuple[slice, slice]]:
    """What is read of a piece: the rectangle round its tissue, or those of some strips of it if that is less."""
    whole = _bounds(cells, 0)
    each = max(1, shape.piece // _STRIPS)
    strips = [part for row in range(0, len(cells), each) for part in _bounds(cells[row : row + each], row)]

    def pixels(parts: list[tuple[slice, slice]]) -> int:
        sides = [[(side.stop - side.start - 1) * shape.spacing + shape.field for side in part] for part in parts]
        return sum(height * width for height, width in sides)

    return strips if pixels(strips) < pixels(whole) else whole


def _bounds(cells: NDArray[np.bool_], row: int) -> list[tuple[slice, slice]]:
    rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not rows.size:
        return []
    return [(slice(row + int(rows[0]), row + int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))]


def _read(slide: Slide, shape: Geometry, row: int, column: int, rows: int, columns: int) -> NDArray[np.uint8]:
    height, width = ((count - 1) * shape.spacing + shape.field for count in (rows, columns))
    return slide.read(column * shape.spacing, row * shape.spacing, width, height)


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(picture)
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(image)


def _png(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "PNG")
    return np.frombuffer(sink.getvalue(), np.uint8)


def _packed(**arrays: NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)  # type: ignore[arg-type]  # numpy types one keyword as bool
    return sink.getvalue()
