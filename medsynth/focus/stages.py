"""What is done for one slide, stage by stage: surveyed, scored band by band, finished. No Ray here.

What is retry-safe and why: a survey, a band and a finished map are functions of the slide, the weights and the
settings, and each is committed by a conditional create under the slide's folder. Any stage may be run again
anywhere, and finds what is there. ``summary.json`` is a slide's last file: with it, and with the exports asked
for, there is nothing left to do.
"""

import functools
import json
from dataclasses import dataclass
from typing import Any

from medsynth import storage
from medsynth.catalog import slides
from medsynth.catalog.slides import Source
from medsynth.errors import NotFoundError, Reason, Rejected, ScoringError
from medsynth.focus import export, heatmap
from medsynth.focus import slide as scoring
from medsynth.focus.heatmap import Grades, HeatMap
from medsynth.focus.model import FocusModel
from medsynth.focus.slide import Band, Survey

SLIDE, SURVEY, MAP, SUMMARY = "slide.json", "survey.npz", "map.npz", "summary.json"
EXPORTS = {"overlay": "overlay.png", "geojson": "regions.geojson", "ome_tiff": "map.ome.tif"}
SCORED, NOTHING = "scored", "nothing to score"
_BANDS = "bands"


@dataclass(frozen=True)
class Settings:
    """What is asked of a run; all but the exports decide the scores."""

    out: str
    """URI of the output folder."""
    spacing: int
    """Pixels from cell to cell of the maps."""
    mpp: float | None
    """µm per pixel instead of what the files say."""
    grades: Grades
    exports: tuple[str, ...]
    """Keys of :data:`EXPORTS`."""
    conditional: bool = True
    """Whether the output's server honours conditional writes."""


def read_json(uri: str) -> dict[str, Any] | None:
    """A JSON file of a slide's folder, or None where there is none.

    Raises:
        ScoringError: it is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(storage.read(uri))
    except NotFoundError:
        return None
    except ValueError as error:
        raise ScoringError(f"{uri}: damaged; remove it and run again") from error
    return found


def survey(settings: Settings, model: FocusModel, source: Source, folder: str) -> dict[str, Any]:
    """Look a slide over, unless that is done.

    Args:
        settings: what is asked for.
        model: the network.
        source: the slide.
        folder: URI of its folder.

    Returns:
        ``bands``, the numbers of those that are to be scored; or the summary of a slide without tissue.

    Raises:
        Rejected: it cannot be read, or tells no pixel size.
        ScoringError: what an earlier run left is damaged.
    """
    uri = storage.join(folder, SURVEY)
    try:
        found = Survey.from_bytes(storage.read(uri))
    except NotFoundError:
        with slides.opened(source.uri) as slide:
            shape = scoring.geometry(slide, model, settings.spacing, settings.mpp)
            about = {"uri": source.uri, "etag": source.etag, "bytes": source.size}
            _put(settings, storage.join(folder, SLIDE), json.dumps(about).encode())
            try:
                found = scoring.survey(slide, shape)
            except Rejected as why:
                if why.reason is not Reason.NO_TISSUE:
                    raise
                return _nothing(settings, folder, why)
        _put(settings, uri, found.to_bytes())
    if storage.head(storage.join(folder, MAP)) is not None:
        return {"bands": []}
    there = _band_files(folder)
    return {"bands": [band for band in found.bands_with_tissue() if band not in there]}


def _nothing(settings: Settings, folder: str, why: Rejected) -> dict[str, Any]:
    summary = {"status": NOTHING, "reason": str(why.reason), "detail": why.detail, "focus": {}}
    _put(settings, storage.join(folder, SUMMARY), json.dumps(summary, indent=1).encode())
    return summary


def score(settings: Settings, model: FocusModel, source: Source, folder: str, bands: tuple[int, ...]) -> dict[str, Any]:
    """Score some bands of a slide that has been surveyed, each committed as it is done.

    Returns:
        ``pixels`` of tissue scored.

    Raises:
        Rejected: the slide cannot be read.
    """
    found = _survey_of(storage.join(folder, SURVEY), source.etag)
    pixels = 0
    with slides.opened(source.uri) as slide:
        for number in bands:
            band = scoring.score_band(slide, found, model, number)
            _put(settings, _band_file(folder, number), band.to_bytes())
            each = found.geometry.piece
            pixels += int(found.tissue[number * each : (number + 1) * each].sum()) * found.geometry.spacing**2
    return {"pixels": pixels}


@functools.lru_cache(maxsize=2)
def _survey_of(uri: str, etag: str) -> Survey:
    del etag  # part of the key only: another slide has another survey
    return Survey.from_bytes(storage.read(uri))


def finish(settings: Settings, source: Source, folder: str, exports: tuple[str, ...]) -> dict[str, Any]:
    """Put a slide's map together, after which its bands go, and export it; the summary comes last.

    Returns:
        The summary.
    """
    found = Survey.from_bytes(storage.read(storage.join(folder, SURVEY)))
    try:
        heat = HeatMap.from_bytes(storage.read(storage.join(folder, MAP)))
    except NotFoundError:
        numbers = found.bands_with_tissue()
        bands = [Band.from_bytes(storage.read(_band_file(folder, number))) for number in numbers]
        heat = heatmap.assemble(found, list(zip(numbers, bands, strict=True)))
        _put(settings, storage.join(folder, MAP), heat.to_bytes())
    for number in _band_files(folder):
        storage.delete(_band_file(folder, number))
    for name in exports:
        _put(settings, storage.join(folder, EXPORTS[name]), _export(name, heat, found, source.stem, settings.grades))
    summary = {
        "status": SCORED,
        "focus": {
            **heatmap.summary(heat, settings.grades).as_dict(),
            "mpp": heat.geometry.mpp,
            "width": heat.geometry.width,
            "height": heat.geometry.height,
        },
    }
    _put(settings, storage.join(folder, SUMMARY), json.dumps(summary, indent=1).encode())
    return summary


def _export(name: str, heat: HeatMap, found: Survey, title: str, grades: Grades) -> bytes:
    if name == "overlay":
        return export.overlay(heat, found.thumbnail, title, grades)
    if name == "geojson":
        return export.geojson(heat, grades)
    return export.ome_tiff(heat, title)


def _band_file(folder: str, number: int) -> str:
    return storage.join(folder, _BANDS, f"{number:05d}.npz")


def _band_files(folder: str) -> set[int]:
    try:
        listed = list(storage.list_files(storage.join(folder, _BANDS)))
    except NotFoundError:
        return set()
    return {int(info.uri.rpartition("/")[2].removesuffix(".npz")) for info in listed}


def _put(settings: Settings, uri: str, data: bytes) -> None:
    storage.put_new(uri, data, conditional=settings.conditional)
