"""Score how far out of focus slides are, and draw it."""

import time
from collections import Counter
from typing import Annotated

import typer
from _cli import place, run
from _console import ProgressLine, say, table

from medsynth import spec, storage
from medsynth.catalog import slides
from medsynth.corpus import downstream as learning
from medsynth.distributed import scoring
from medsynth.distributed.scoring import REJECTED
from medsynth.errors import ScoringError
from medsynth.focus import downstream, slide_table, stages
from medsynth.focus.downstream import ErrorTable
from medsynth.focus.heatmap import GRADES, Grades
from medsynth.focus.model import FocusModel
from medsynth.focus.slide import spacing_for

_ERRORS = "errors.parquet"
_MOST_NAMED = 20


def score_slides(
    slide: Annotated[list[str], typer.Argument(help="Slides, folders, buckets, or .txt lists of them.")],
    out: Annotated[str, typer.Option(help="Where the scores go: a folder's path or URI.")],
    weights: Annotated[str | None, typer.Option(help="Another focus network [the shipped one].")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per pixel of all slides [what each file says].")] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Pixels from cell to cell [the network's own].")] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw each slide with its map: overlay.png.")] = False,
    geojson: Annotated[
        bool, typer.Option("--geojson", help="Out-of-focus regions for QuPath: regions.geojson.")
    ] = False,
    ome_tiff: Annotated[bool, typer.Option("--ome-tiff", help="The map as a pyramidal OME-TIFF: map.ome.tif.")] = False,
    grades: Annotated[
        str, typer.Option(help="Blur radii in µm from which it is slight, moderate and severe.")
    ] = "0.5,1,2",
    errors: Annotated[
        str | None, typer.Option(help="Table of a downstream error by focus_class or blur_radius_um.")
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(help="Learn that table by asking module:function, uint8 images (N,H,W,3) to labels or scores."),
    ] = None,
    scores: Annotated[
        str | None, typer.Option(help="Learn that table from answers: sample_id with error (0, 1) or prediction.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="The corpus that --classifier or --scores is about.")] = None,
    label: Annotated[str | None, typer.Option(help="The corpus's column of true labels.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Bands in the making at a time [all CPUs].")] = None,
) -> None:
    """Score slides: where they are out of focus, by how many µm, and what that costs. The same command goes on."""
    limits = _grades(grades)
    if mpp is not None and not 0.01 <= mpp <= 20:
        raise ScoringError(f"--mpp {mpp:g}: µm per pixel lie between 0.01 and 20; check the unit")
    out = place(out, "--out")
    model = FocusModel.load(storage.absolute(weights) if weights else None)
    sources = slides.find(slide, out)
    settings = stages.Settings(
        out=out,
        spacing=spacing_for(stride, model),
        mpp=mpp,
        grades=limits,
        exports=tuple(
            name for name, wanted in zip(stages.EXPORTS, (overlay, geojson, ome_tiff), strict=True) if wanted
        ),
        conditional=storage.honours_put_new(out),
    )
    known = _errors(errors, classifier, scores, corpus, label)
    view = _View()
    summary = scoring.score(sources, model, settings, workers=workers, progress=view.show)
    view.end()
    if known is not None and errors is None:
        _save(known, storage.join(out, _ERRORS))
    rows = [_row(outcome, model, known) for outcome in summary.outcomes]
    where = slide_table.write(out, rows)
    _tell(rows, summary, where)
    counts = Counter(outcome.status for outcome in summary.outcomes)
    if not counts[stages.SCORED]:
        raise ScoringError(f"{out}: none of the {len(rows):,} slides could be scored; {where} says why")


class _View:
    """A progress line for each stage."""

    def __init__(self) -> None:
        self._stage, self._line, self._started = "", ProgressLine(""), 0.0

    def show(self, progress: scoring.Progress) -> None:
        if progress.stage != self._stage:
            self.end()
            self._stage, self._line = progress.stage, ProgressLine(progress.stage)
            self._started = time.monotonic()
        pixels = progress.tissue_px / 1e6
        rate = pixels / max(1e-9, time.monotonic() - self._started)
        note = f", {pixels:,.0f} Mpx of tissue, {rate:,.1f} Mpx/s" if progress.stage == "bands" else ""
        self._line.show(progress.done, progress.total, fresh=progress.fresh, note=note)

    def end(self) -> None:
        self._line.end()


def _grades(text: str) -> Grades:
    parts = text.split(",")
    if len(parts) != 3:
        raise ScoringError(f"--grades {text}: write three radii in µm, such as 0.5,1,2")
    return spec.parse(Grades, dict(zip(Grades.model_fields, parts, strict=True)), "--grades")


def _errors(
    errors: str | None, classifier: str | None, scores: str | None, corpus: str | None, label: str | None
) -> ErrorTable | None:
    named = [
        flag
        for flag, value in zip(("--errors", "--classifier", "--scores"), (errors, classifier, scores), strict=True)
        if value
    ]
    if len(named) > 1:
        raise ScoringError(f"{' and '.join(named)}: give one of them")
    if errors is not None:
        return downstream.read(errors)
    if classifier is None and scores is None:
        return None
    if corpus is None:
        raise ScoringError(f"{named[0]}: name the corpus that it is about with --corpus")
    if scores is not None:
        return learning.by_scores(corpus, scores, label)
    if classifier is None or label is None:
        raise ScoringError("--classifier: name the corpus's column of true labels with --label")
    line = ProgressLine("images")
    found = learning.by_classifier(
        corpus, label, learning.load(classifier), lambda done, total: line.show(done, total, fresh=done)
    )
    line.end()
    return found


def _save(known: ErrorTable, uri: str) -> None:
    storage.put(uri, downstream.to_parquet(known))
    rows = known.to_table().to_pylist()
    table("error by focus class", list(rows[0]), [[_short(value) for value in row.values()] for row in rows])
    if known.smooth is None:
        say("the counts contradict an error that grows with blur: applied as counted, not smoothed", "yellow")
    say(f"errors: {uri}")


def _row(outcome: scoring.Outcome, model: FocusModel, known: ErrorTable | None) -> dict[str, object]:
    focus, error = outcome.summary, None
    if known is not None and focus:
        error = downstream.expected_error(focus["classes"], model.radii_px, focus["mpp"], known)
    identity = {
        "slide": outcome.name,
        "uri": outcome.source.uri,
        "status": outcome.status,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "weights_sha256": model.sha256,
    }
    return slide_table.row(identity, focus, error)


def _tell(rows: list[dict[str, object]], summary: scoring.Summary, where: str) -> None:
    shares = [f"share_{grade.replace(' ', '_')}" for grade in GRADES]
    scored = [row for row in rows if row["status"] == stages.SCORED]
    with_error = any(row["expected_error"] is not None for row in scored)
    if scored:
        table(
            "focus",
            ["slide", "mm²", *GRADES, "µm", *(["error"] if with_error else [])],
            [
                [
                    row["slide"],
                    _short(row["tissue_mm2"]),
                    *(f"{100 * float(str(row[name])):.0f} %" for name in shares),
                    _short(row["radius_um_median"]),
                    *([_short(row["expected_error"])] if with_error else []),
                ]
                for row in scored
            ],
        )
    others = [row for row in rows if row["status"] != stages.SCORED]
    for row in others[:_MOST_NAMED]:
        say(f"{row['uri']}: {row['reason']}: {row['detail']}", "yellow")
    if len(others) > _MOST_NAMED:
        say(f"... and {len(others) - _MOST_NAMED:,} more that were not scored; the table names each", "yellow")
    fresh = sum(outcome.fresh and outcome.status == stages.SCORED for outcome in summary.outcomes)
    rejected = sum(row["status"] == REJECTED for row in rows)
    say(
        f"{len(scored):,} slides scored, {fresh:,} of them now ({summary.tissue_px / 1e6:,.1f} Mpx of tissue), "
        f"{len(others) - rejected:,} with nothing to score, {rejected:,} rejected; {summary.seconds:.1f} s"
    )
    say(f"table: {where}")


def _short(value: object) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run(score_slides)
