"""A slide's focus map: put together from bands, graded, summed up, and its out-of-focus regions."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from scipy import ndimage

from medsynth.focus.slide import Band, Geometry, Survey
from medsynth.spec import Settings

GRADES = ("in focus", "slight", "moderate", "severe")
_LEAST_REGION_FIELDS = 1.0
"""Smallest region in windows of the network: a smaller patch of another grade is less than one look sees."""


class Grades(Settings):
    """Blur radii in µm at which the grades part.

    At NA 0.75, the usual objective of slide scanners, the depth of field λ/NA² is 0.98 µm: defocus of up to half
    of it either way goes unseen, and spreads a point to a disc of radius 0.49 · tan(asin 0.75) = 0.55 µm. Hence 0.5.
    Twice that (0.9 µm of defocus) takes the texture of chromatin; discs of 4 µm across (1.8 µm of defocus) reach
    the size of nuclei, and their outlines go.
    """

    slight: float = 0.5
    moderate: float = 1.0
    severe: float = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> "Grades":
        if not 0 < self.slight < self.moderate < self.severe:
            raise ValueError("the grades' radii must be above 0 and grow: slight < moderate < severe")
        return self

    @property
    def limits(self) -> tuple[float, float, float]:
        """The three radii, growing."""
        return (self.slight, self.moderate, self.severe)


@dataclass(frozen=True)
class HeatMap:
    """How far out of focus a slide is, cell by cell."""

    geometry: Geometry
    radius_um: NDArray[np.float32]
    """(rows, columns) blur radius; NaN where there is no tissue."""
    certainty: NDArray[np.float32]
    """(rows, columns), 0 to 1; NaN where there is no tissue."""
    classes: NDArray[np.float64]
    """(K,): mean class distribution of the tissue."""

    def to_bytes(self) -> bytes:
        """As a compressed numpy archive."""
        sink = io.BytesIO()
        np.savez_compressed(
            sink,
            radius_um=self.radius_um,
            certainty=self.certainty,
            classes=self.classes,
            geometry=np.array([*vars(self.geometry).values()]),
        )
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "HeatMap":
        """Back from the archive."""
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            width, height, mpp, stride, spacing, field = found["geometry"].tolist()
            shape = Geometry(int(width), int(height), mpp, int(stride), int(spacing), int(field))
            return cls(shape, found["radius_um"], found["certainty"], found["classes"])

    @property
    def origin_px(self) -> float:
        """Where the first cell's own square starts, along both sides: a cell stands for the middle of its window."""
        return (self.geometry.field - self.geometry.spacing) / 2


@dataclass(frozen=True)
class Region:
    """A connected part of the map with one grade."""

    grade: int
    """Place in :data:`GRADES`."""
    cells: NDArray[np.bool_]
    """The region within its own rectangle."""
    row: int
    """The rectangle's first row of cells."""
    column: int
    radius_um: float
    """Mean."""
    most_um: float
    """Largest."""
    certainty: float
    """Mean."""
    area_mm2: float


@dataclass(frozen=True)
class Summary:
    """What one row of the table says of a slide's focus."""

    tissue_mm2: float
    shares: dict[str, float]
    """Share of the tissue by grade."""
    radius_um_mean: float
    radius_um_median: float
    radius_um_p95: float
    certainty: float
    worst: dict[str, float] | None
    """The worst out-of-focus region: x, y, width, height in pixels of the slide, radius_um, area_mm2."""
    classes: list[float]
    """Mean class distribution of the tissue."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def assemble(survey: Survey, bands: Sequence[tuple[int, Band]]) -> HeatMap:
    """Put bands together.

    Args:
        survey: the slide's.
        bands: each with its number; those without tissue may be missing.
    """
    shape = survey.geometry
    radius = np.full((shape.rows, shape.columns), np.nan, np.float32)
    certainty = np.full_like(radius, np.nan)
    sums = []
    for number, band in sorted(bands, key=lambda item: item[0]):
        rows = slice(number * shape.piece, number * shape.piece + len(band.radius_px))
        radius[rows], certainty[rows] = band.radius_px * np.float32(shape.mpp), band.certainty
        sums.append(band.classes)
    return HeatMap(shape, radius, certainty, np.sum(sums, axis=0) / int(np.isfinite(radius).sum()))


def graded(radius_um: NDArray[np.float32], grades: Grades) -> NDArray[np.int8]:
    """The grade of each cell: 0 in focus to 3 severe, -1 where there is no tissue."""
    found = np.searchsorted(np.array(grades.limits), radius_um, side="left").astype(np.int8)
    found[np.isnan(radius_um)] = -1
    return found


def regions(heat: HeatMap, grades: Grades) -> list[Region]:
    """The out-of-focus regions, from top to bottom; specks smaller than one window of the network are left out."""
    shape = heat.geometry
    least = _LEAST_REGION_FIELDS * (shape.field / shape.spacing) ** 2
    found = []
    grade_of = graded(heat.radius_um, grades)
    for grade in range(1, len(GRADES)):
        labels, count = ndimage.label(grade_of == grade)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        for label, place in enumerate(ndimage.find_objects(labels), start=1):
            if sizes[label] < least:
                continue
            cells = labels[place] == label
            radius = heat.radius_um[place][cells].astype(np.float64)
            found.append(
                Region(
                    grade,
                    cells,
                    place[0].start,
                    place[1].start,
                    float(radius.mean()),
                    float(radius.max()),
                    float(heat.certainty[place][cells].astype(np.float64).mean()),
                    int(sizes[label]) * shape.cell_mm2,
                )
            )
    return sorted(found, key=lambda region: (region.row, region.column, region.grade))


def rectangle(region: Region, heat: HeatMap) -> tuple[int, int, int, int]:
    """x, y, width and height of a region in pixels of the slide."""
    step, start = heat.geometry.spacing, heat.origin_px
    x, y = (max(0, round(start + at * step)) for at in (region.column, region.row))
    rows, columns = region.cells.shape
    return x, y, min(columns * step, heat.geometry.width - x), min(rows * step, heat.geometry.height - y)


def summary(heat: HeatMap, grades: Grades) -> Summary:
    """Sum a map up.

    The worst region is the one with the most blur beyond what is in focus: area times mean excess of the radius.
    """
    radius = heat.radius_um[np.isfinite(heat.radius_um)].astype(np.float64)
    counts = np.bincount(graded(radius.astype(np.float32), grades), minlength=len(GRADES))
    worst = None
    found = regions(heat, grades)
    if found:
        most = max(found, key=lambda region: region.area_mm2 * (region.radius_um - grades.slight))
        x, y, width, height = rectangle(most, heat)
        worst = {
            **{"x": x, "y": y, "width": width, "height": height},
            **{"radius_um": _round(most.radius_um), "area_mm2": _round(most.area_mm2)},
        }
    sure = heat.certainty[np.isfinite(heat.certainty)].astype(np.float64)
    middle, high = np.percentile(radius, [50, 95])
    return Summary(
        tissue_mm2=_round(radius.size * heat.geometry.cell_mm2),
        shares={name: _round(count / radius.size) for name, count in zip(GRADES, counts.tolist(), strict=True)},
        radius_um_mean=_round(radius.mean()),
        radius_um_median=_round(middle),
        radius_um_p95=_round(high),
        certainty=_round(sure.mean()),
        worst=worst,
        classes=[_round(share) for share in heat.classes],
    )


def outline(cells: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The rings round a connected region of squares.

    Args:
        cells: (h, w), one 4-connected region; square (i, j) covers x from j to j + 1 and y from i to i + 1.

    Returns:
        Closed rings of (x, y) corners, the outer one first, then the holes. With y upwards the outer ring runs
        counterclockwise and the holes clockwise, as GeoJSON wants. Each is simple: where two squares touch at
        a corner only, the region is taken to hold together there, so a hole may touch the outer ring at
        a point but no ring touches itself.
    """
    padded = np.pad(cells, 1).astype(np.int8)
    down, along = np.diff(padded, axis=0), np.diff(padded, axis=1)
    # Directed edges with the region at the same hand, from corner to corner.
    nexts: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(start: tuple[int, int], end: tuple[int, int]) -> None:
        nexts.setdefault(start, []).append(end)

    for y, x in np.argwhere(down[:, 1:-1]).tolist():
        add(*(((x, y), (x + 1, y)) if down[y, x + 1] > 0 else ((x + 1, y), (x, y))))
    for y, x in np.argwhere(along[1:-1]).tolist():
        add(*(((x, y + 1), (x, y)) if along[y + 1, x] > 0 else ((x, y), (x, y + 1))))
    # The topmost corner of what is left is never one where two squares meet; the outer ring has the first of all.
    return [_ring(nexts, start) for start in sorted(nexts, key=lambda corner: (corner[1], corner[0])) if start in nexts]


def _ring(nexts: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """Follow and use up the edges from a corner until they come back to it."""
    here, heading = start, (0, 0)
    ring: list[tuple[int, int]] = []
    while not ring or here != start:
        ends = nexts[here]
        left = (here[0] + heading[1], here[1] - heading[0])
        end = left if left in ends else ends[0]  # left at a meeting of squares: the way that keeps them together
        ends.remove(end)
        if not ends:
            del nexts[here]
        turn = (end[0] - here[0], end[1] - here[1])
        if turn != heading:
            ring.append(here)
        heading, here = turn, end
    return [*ring, start]


def _round(value: Any) -> float:
    return float(f"{float(value):.6g}")
