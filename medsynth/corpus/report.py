"""``report.html``: what a corpus is, on one page that opens offline.

The work is bounded however large the corpus: numbers come from the manifest, parameters and pictures
from a few evenly spread data files, and the page says what it has looked at.
"""

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from medsynth import storage
from medsynth.corpus import manifest, plots, sheet, words
from medsynth.corpus.reader import Corpus, open_corpus, sample_files, schema_names
from medsynth.corpus.totals import Tally, Totals, add_up

TEMPLATES = Path(__file__).parent / "templates"

_PARAMETER_FILES = 32
_AT_ONCE = 8
_BARS = 60
_TABLE_OPEN, _TABLE_ROWS = 200, 2000
_REJECTS_SHOWN = 12
_THUMBNAIL = 256
_TONES = ("ita_deg", "ita_measured_deg")
_POINTS = 2000


@dataclass(frozen=True)
class Chart:
    """A plot and the words beside it."""

    title: str
    summary: str
    """The plot in words, for those who do not see it."""
    svg: Markup
    kind: str = "Histogram"


@dataclass(frozen=True)
class Stage:
    """The time that one stage took."""

    name: str
    seconds: float
    share: float
    rate: float | None
    """Tiles a second of one worker, were this all it did."""


def write_report(corpus_uri: str) -> None:
    """Write ``report.html`` into a complete corpus.

    Args:
        corpus_uri: the corpus's folder.

    Raises:
        CorpusError: it is no corpus, or it is incomplete.
        StorageError: it cannot be read or written.
    """
    corpus = open_corpus(corpus_uri)
    totals = add_up(corpus)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    charts, files, rows = _histograms(corpus)
    subgroups = sorted(totals.subgroups, key=lambda tally: -tally.short)[:_TABLE_ROWS]
    page = environment.get_template("report.html.j2").render(
        header=corpus.header,
        totals=totals,
        whole=totals.whole,
        size=words.size(totals.bytes),
        shards=len(corpus.paths),
        axes=list(corpus.axes),
        marginals=[_marginal(axis, totals.by_axis(place)) for place, axis in enumerate(corpus.axes)],
        subgroups=subgroups,
        table_open=len(subgroups) <= _TABLE_OPEN,
        histograms=charts,
        histogram_sample=_sample(files, rows, corpus),
        sheet=sheet.choose(corpus) if len(corpus) else None,
        picture=_picture,
        rejects=_rejects(corpus, totals),
        stages=_stages(totals),
        settings=list(words.setting_lines(words.recipe_settings(corpus.header))),
        spec=list(words.setting_lines(_order(corpus))),
        versions=[(0, name, version) for name, version in corpus.header["versions"].items()],
    )
    storage.put(storage.join(corpus_uri, manifest.REPORT), page.encode())


def _order(corpus: Corpus) -> dict[str, Any]:
    # The balance stands in the tables already, and where nothing is indexed, how says nothing.
    hidden = {"balance"} if corpus.header["sources"] else {"balance", "index"}
    return {key: value for key, value in corpus.header["spec"].items() if key not in hidden}


def _marginal(axis: str, tallies: list[Tally]) -> tuple[str, list[Tally], Chart | None]:
    if len(tallies) > _BARS:
        return axis, tallies, None
    labels = [tally.values[0] for tally in tallies]
    svg = plots.bars(labels, [tally.asked for tally in tallies], [tally.delivered for tally in tallies])
    missing = [f"{tally.values[0]}: {tally.short:,}" for tally in tallies if tally.short]
    shortfall = f"missing rows by value: {', '.join(missing)}" if missing else "no rows are missing"
    summary = f"Bar chart of rows asked for and delivered by {axis}, {len(tallies)} values; {shortfall}."
    return axis, tallies, Chart(axis, summary, Markup(svg))


def _histograms(corpus: Corpus) -> tuple[list[Chart], int, int]:
    names = schema_names(corpus)
    wanted = [parameter for parameter in words.PARAMETERS if parameter.column in names]
    files = sample_files(corpus, _PARAMETER_FILES)
    if not wanted or not files:
        return [], 0, 0
    columns = [parameter.column for parameter in wanted]

    def read(uri: str) -> list[NDArray[np.float64]]:
        with storage.open_input(uri) as file:
            table = pq.ParquetFile(file).read(columns=columns)
        return [table[name].drop_null().to_numpy().astype(np.float64) for name in columns]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        parts = list(pool.map(read, [uri for uri, _ in files]))
    charts = _tones(columns, parts)
    for parameter, pieces in zip(wanted, zip(*parts, strict=True), strict=True):
        values = np.concatenate(pieces)
        values = values[np.isfinite(values)]
        if len(values):
            charts.append(_histogram(parameter, values))
    return charts, len(files), sum(rows for _, rows in files)


def _tones(columns: list[str], parts: list[list[NDArray[np.float64]]]) -> list[Chart]:
    if not set(_TONES) <= set(columns):
        return []
    asked, measured = (np.concatenate([part[columns.index(name)] for part in parts]) for name in _TONES)
    if not len(asked):
        return []
    apart = np.abs(asked - measured)
    middle, most = words.figure(float(np.median(apart))), words.figure(float(apart.max()))
    chosen = np.linspace(0, len(asked) - 1, min(len(asked), _POINTS)).astype(int)
    svg = plots.scatter(asked[chosen], measured[chosen], "ITA (degrees)")
    summary = f"{middle} degrees apart in the median, {most} at the most ({len(asked):,} rows)"
    return [Chart("Skin tone, asked for and measured", summary, Markup(svg), "Scatter plot")]


def _histogram(parameter: words.Parameter, values: NDArray[np.float64]) -> Chart:
    unit = f" {parameter.unit}" if parameter.unit else ""
    low, middle, high = (words.figure(value) for value in np.quantile(values, [0, 0.5, 1]))
    spread = f"always {low}{unit}" if low == high else f"{low} to {high}{unit}, median {middle}"
    label = (
        f"{parameter.column} ({parameter.unit})" if parameter.unit not in ("", parameter.column) else parameter.column
    )
    svg = plots.histogram(values, label, logarithmic=parameter.logarithmic)
    return Chart(parameter.title, f"{spread} ({len(values):,} rows)", Markup(svg))


def _sample(files: int, rows: int, corpus: Corpus) -> str:
    if rows == len(corpus):
        return f"All {rows:,} rows."
    return (
        f"A sample: {rows:,} of {len(corpus):,} rows, from {files} evenly spread data files of {len(corpus.paths):,}."
    )


def _picture(data: bytes) -> str:
    # A corpus's own bytes where they are small enough, since a second JPEG would change what is shown.
    kind = "jpeg" if data[:2] == b"\xff\xd8" else "png"
    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) > _THUMBNAIL:
            image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
            sink = io.BytesIO()
            image.save(sink, "JPEG", quality=92, subsampling=0)
            kind, data = "jpeg", sink.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _rejects(corpus: Corpus, totals: Totals) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    axes = [] if corpus.header["sources"] else list(corpus.axes)  # what tells rejects apart
    for shard in totals.rejecting:
        with storage.open_input(storage.join(corpus.uri, "rejects", f"{shard}.parquet")) as file:
            wanted = [*corpus.axes, "source_uri", "source_row", "reason", "detail"]
            batches: Iterable[Any] = pq.ParquetFile(file).iter_batches(4096, columns=wanted)
            for row in next(iter(batches)).to_pylist():
                key = (str(row["source_uri"]), row["reason"], *(row[axis] for axis in axes))
                if key not in seen and len(found) < _REJECTS_SHOWN:
                    seen.add(key)
                    found.append(row)
    return found


def _stages(totals: Totals) -> list[Stage]:
    whole = sum(totals.seconds.values())
    if not whole:
        return []
    return [
        Stage(stage, seconds, seconds / whole, totals.rows_timed / seconds if seconds else None)
        for stage, seconds in [*((stage, totals.seconds[stage]) for stage in manifest.STAGES), ("all", whole)]
    ]
