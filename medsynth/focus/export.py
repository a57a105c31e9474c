"""A focus map in the forms that others read: a picture, QuPath's GeoJSON, and a pyramidal OME-TIFF."""

import hashlib
import io
import json
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medsynth.focus.heatmap import GRADES, Grades, HeatMap, Region, outline, rectangle, regions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE = "for research; not for diagnosis"
_BLUE, _GREEN, _YELLOW, _RED = (38, 84, 196), (52, 168, 83), (250, 204, 21), (200, 30, 30)
_OPACITY = 0.55
_DPI = 100
_LEAST_HEIGHT = 2.2
"""Inches, for the legend's sake."""
_TILE = 256
_LEAST_LEVEL = 256


def colours(radius_um: NDArray[np.float32], grades: Grades) -> NDArray[np.uint8]:
    """The colour of each radius: blue in focus, through green and yellow, to red.

    Args:
        radius_um: any shape; NaN gives white.
        grades: blue holds up to half the first limit, green is the middle of the slight grade, yellow that of the
            moderate one, and red begins at one and a half times the last limit.

    Returns:
        uint8 RGB, of the same shape and three channels.
    """
    stops, paints = _scale(grades)
    flat = np.nan_to_num(radius_um, nan=0.0)
    painted = np.stack([np.interp(flat, stops, [paint[band] for paint in paints]) for band in range(3)], axis=-1)
    painted[np.isnan(radius_um)] = 255
    return (painted + 0.5).astype(np.uint8)


def overlay(heat: HeatMap, thumbnail: NDArray[np.uint8], name: str, grades: Grades) -> bytes:
    """The slide with its focus map over the tissue, a legend in µm and a line on what it says.

    Args:
        heat: the map.
        thumbnail: the slide, reduced.
        name: of the slide.
        grades: where the grades part.

    Returns:
        A PNG.
    """
    # Here: a service that only judges tiles need not wait for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = _blend(heat, thumbnail, grades)
    tall, wide = picture.shape[:2]
    grow = max(1.0, 700 / max(tall, wide))
    width, height = wide * grow / _DPI, tall * grow / _DPI
    left, right, top, bottom = 0.25, 1.15, 0.65, 0.55
    room = max(height, _LEAST_HEIGHT)
    full = (max(width, 5.0) + left + right, room + top + bottom)
    figure = Figure(figsize=full, dpi=_DPI, facecolor="white")
    start = bottom + room - height
    axes = figure.add_axes((left / full[0], start / full[1], width / full[0], height / full[1]))
    axes.imshow(picture, interpolation="nearest" if grow > 1 else "antialiased", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#999999")
    figure.text(left / full[0], 1 - 0.24 / full[1], name, fontsize=13, weight="bold", va="center")
    figure.text(left / full[0], 1 - 0.48 / full[1], _line(heat, grades), fontsize=9, color="#444444", va="center")
    figure.text(left / full[0], 0.2 / full[1], f"medsynth focus map; {NOTE}", fontsize=9, color="#444444", va="center")
    _scale_bar(axes, heat, wide)
    _legend(figure, left + width + 0.25, bottom + max(0.0, room - 4.4), min(room - 0.4, 4.0), full, grades)
    sink = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(sink, metadata={"Software": "medsynth", "Description": NOTE})
    return sink.getvalue()


def geojson(heat: HeatMap, grades: Grades) -> bytes:
    """The out-of-focus regions as annotations in pixels of the slide's largest level.

    Returns:
        A GeoJSON FeatureCollection in the form that QuPath writes and opens.

    Source:
        RFC 7946; QuPath documentation, "Exporting annotations".
    """
    features = [_feature(region, heat, grades) for region in regions(heat, grades)]
    collection = {"type": "FeatureCollection", "features": features}
    return (json.dumps(collection, separators=(",", ":")) + "\n").encode()


def ome_tiff(heat: HeatMap, name: str) -> bytes:
    """The map as a pyramid of blur radii in µm, float32, NaN where there is no tissue.

    Its pixels are the cells; PhysicalSize and Position place them on the slide.
    """
    shape = heat.geometry
    levels = [heat.radius_um]
    while max(levels[-1].shape) > _LEAST_LEVEL:
        levels.append(_halved(levels[-1]))
    size, origin = shape.spacing * shape.mpp, heat.origin_px * shape.mpp
    metadata: dict[str, Any] = {
        "axes": "YX",
        "UUID": str(uuid.UUID(bytes=hashlib.sha256(heat.radius_um.tobytes()).digest()[:16], version=4)),
        "Name": f"{name}: blur radius in µm",
        "Description": f"medsynth focus map; {NOTE}",
        "PhysicalSizeX": size,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": size,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": "blur radius (µm)"},
        "Plane": {"PositionX": origin, "PositionXUnit": "µm", "PositionY": origin, "PositionYUnit": "µm"},
    }
    options: dict[str, Any] = {"tile": (_TILE, _TILE), "compression": "zlib", "photometric": "minisblack"}
    sink = io.BytesIO()
    with tifffile.TiffWriter(sink, ome=True) as writer:
        writer.write(
            levels[0],
            subifds=len(levels) - 1,
            metadata=metadata,
            resolution=(1e4 / size, 1e4 / size),
            resolutionunit="CENTIMETER",
            software="medsynth",
            **options,
        )
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)
    return sink.getvalue()


def _scale(grades: Grades) -> tuple[list[float], list[tuple[int, int, int]]]:
    slight, moderate, severe = grades.limits
    stops = [0.0, slight / 2, (slight + moderate) / 2, (moderate + severe) / 2, severe * 1.5]
    return stops, [_BLUE, _BLUE, _GREEN, _YELLOW, _RED]


def _blend(heat: HeatMap, thumbnail: NDArray[np.uint8], grades: Grades) -> NDArray[np.uint8]:
    """Each pixel of the thumbnail takes the colour of the cell in whose square it lies."""
    shape = heat.geometry

    def cells(count: int, length: int, most: int) -> NDArray[np.int64]:
        middles = (np.arange(count) + 0.5) * length / count
        # The map's outermost cells speak for the half window beyond them, which has none of its own.
        places = np.floor((middles - heat.origin_px) / shape.spacing).astype(np.int64)
        edge = int(np.ceil(heat.origin_px / shape.spacing))
        return np.where((places < -edge) | (places >= most + edge), -1, np.clip(places, 0, most - 1))

    rows = cells(thumbnail.shape[0], shape.height, shape.rows)
    columns = cells(thumbnail.shape[1], shape.width, shape.columns)
    radius = heat.radius_um[rows][:, columns]
    radius[rows < 0], radius[:, columns < 0] = np.nan, np.nan
    paint = colours(radius, grades).astype(np.float32)
    over = np.where(np.isnan(radius)[:, :, None], thumbnail, (1 - _OPACITY) * thumbnail + _OPACITY * paint)
    return (over + 0.5).astype(np.uint8)


def _line(heat: HeatMap, grades: Grades) -> str:
    radius = heat.radius_um[np.isfinite(heat.radius_um)]
    sharp = float((radius <= grades.slight).mean())
    return (
        f"{radius.size * heat.geometry.cell_mm2:.3g} mm² of tissue, {100 * sharp:.0f} % in focus, "
        f"median blur radius {float(np.median(radius)):.2f} µm"
    )


def _legend(figure: "Figure", x: float, y: float, height: float, full: tuple[float, float], grades: Grades) -> None:
    """The colours with their radii, in a place given in inches."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    stops, paints = _scale(grades)
    most = stops[-1]
    mapped = LinearSegmentedColormap.from_list(
        "focus",
        [(stop / most, tuple(value / 255 for value in paint)) for stop, paint in zip(stops, paints, strict=True)],
    )
    axes = figure.add_axes((x / full[0], y / full[1], 0.18 / full[0], height / full[1]))
    axes.imshow(
        np.linspace(0, most, 512)[::-1, None],
        cmap=mapped,
        norm=Normalize(0, most),
        aspect="auto",
        extent=(0, 1, 0, most),
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([0, *grades.limits, most], ["0", *(f"{limit:g}" for limit in grades.limits), f"≥ {most:g}"])
    axes.tick_params(labelsize=9, length=3)
    axes.set_title("blur\nradius, µm", fontsize=9, loc="left")
    for low, high, grade in zip((0, *grades.limits), (*grades.limits, most), GRADES, strict=True):
        if (high - low) / most * height > 0.45:
            axes.text(-0.25, (low + high) / 2, grade, rotation=90, fontsize=7, ha="right", va="center", color="#444444")


def _scale_bar(axes: Any, heat: HeatMap, wide: int) -> None:
    shape = heat.geometry
    whole = shape.width * shape.mpp
    length = max(step * 10**power for power in range(-1, 6) for step in (1, 2, 5) if step * 10**power <= whole / 4)
    pixels = length / whole * wide
    label = f"{length:g} µm" if length < 1000 else f"{length / 1000:g} mm"
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2}
    middle = (0.02 * wide + pixels / 2, 0.03)
    axes.plot(
        [0.02 * wide, 0.02 * wide + pixels],
        [0.02, 0.02],
        color="black",
        linewidth=3,
        solid_capstyle="butt",
        transform=axes.get_xaxis_transform(),
    )
    axes.text(*middle, label, fontsize=8, ha="center", va="bottom", bbox=box, transform=axes.get_xaxis_transform())


def _feature(region: Region, heat: HeatMap, grades: Grades) -> dict[str, Any]:
    shape = heat.geometry

    def corner(x: int, y: int) -> list[int]:
        step, start = shape.spacing, heat.origin_px
        return [
            min(max(0, round(start + (region.column + x) * step)), shape.width),
            min(max(0, round(start + (region.row + y) * step)), shape.height),
        ]

    middle = {
        1: (grades.slight + grades.moderate) / 2,
        2: (grades.moderate + grades.severe) / 2,
        3: 1.5 * grades.severe,
    }
    colour = colours(np.array([middle[region.grade]], np.float32), grades)[0].tolist()
    x, y, _, _ = rectangle(region, heat)
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[corner(*point) for point in ring] for ring in outline(region.cells)],
        },
        "properties": {
            "objectType": "annotation",
            "name": f"{GRADES[region.grade]} blur at {x}, {y}",
            "classification": {"name": f"Out of focus: {GRADES[region.grade]}", "color": colour},
            "isLocked": False,
            "measurements": {
                "Blur radius mean µm": round(region.radius_um, 4),
                "Blur radius max µm": round(region.most_um, 4),
                "Certainty": round(region.certainty, 4),
                "Area mm^2": round(region.area_mm2, 6),
            },
        },
    }


def _halved(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over squares of four of those that are numbers."""
    rows, columns = (-(-side // 2) * 2 for side in level.shape)
    padded = np.full((rows, columns), np.nan, np.float32)
    padded[: level.shape[0], : level.shape[1]] = level
    squares = padded.reshape(rows // 2, 2, columns // 2, 2).transpose(0, 2, 1, 3).reshape(rows // 2, columns // 2, 4)
    counts = np.isfinite(squares).sum(axis=2)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float32] = (np.nansum(squares, axis=2) / counts).astype(np.float32)
    return means
