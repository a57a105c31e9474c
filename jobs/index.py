"""Make a catalog of source tiles, or bring one up to date."""

from typing import Annotated

import typer
from _cli import place, run
from _console import ProgressLine, say, table

from medsynth import spec, storage
from medsynth.catalog.sharpness import sharpness
from medsynth.catalog.units import Score
from medsynth.distributed import indexing
from medsynth.errors import CatalogError

_MAX_BLUR = 2.0
"""Pixels: half a µm at 0.25 µm per pixel, what the depth of field of a scanner's objective hides."""


def index(
    images: Annotated[str, typer.Option(help="Folder, bucket or file of PNG/JPEG/TIFF images, or of Parquet files.")],
    out: Annotated[str, typer.Option(help="Where the catalog goes: a folder's path or URI.")],
    metadata: Annotated[str | None, typer.Option(help="Table about the images: CSV or Parquet.")] = None,
    key: Annotated[str | None, typer.Option(help="Its column of the images' paths, names or stems.")] = None,
    subgroups: Annotated[str, typer.Option(help="Columns to balance over, with commas between.")] = "",
    mpp: Annotated[float | None, typer.Option(help="µm per pixel [the table's column mpp, or the tags].")] = None,
    tile_size: Annotated[int, typer.Option(help="Side of a tile, in pixels.")] = 256,
    stride: Annotated[int | None, typer.Option(help="Step from tile to tile, in pixels [the tile size].")] = None,
    margin: Annotated[int, typer.Option(help="Context wanted around a tile, in pixels.")] = 0,
    min_sharpness: Annotated[float | None, typer.Option(help="Figure below which a tile is soft.")] = None,
    focus_model: Annotated[
        str | None, typer.Option(help="Judge by this focus network instead: default, or its weights' URI.")
    ] = None,
    max_blur: Annotated[
        float | None, typer.Option(min=0, help="With it: blur radius in pixels from which a tile is soft [2].")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Batches in the making at a time [all CPUs].")] = None,
) -> None:
    """Make a catalog of source tiles. The same command again reads only what is new or changed."""
    score, least = _judge(focus_model, max_blur, min_sharpness)
    settings = spec.parse(
        spec.Index,
        {
            "metadata": storage.absolute(metadata) if metadata else None,
            "key": key,
            "subgroups": tuple(name.strip() for name in subgroups.split(",") if name.strip()),
            "mpp": mpp,
            "tile_size": tile_size,
            "stride": stride,
            "margin": margin,
            "min_sharpness": least,
        },
        "flags",
    )
    out = place(out, "--out")
    line = ProgressLine("files")
    summary = indexing.index(images, settings, out, workers=workers, progress=line.show, score=score)
    line.end()
    _show(summary, settings.subgroups)


def _judge(focus_model: str | None, max_blur: float | None, min_sharpness: float | None) -> tuple[Score, float | None]:
    """What judges the tiles, and the figure from which they are in focus."""
    if focus_model is None:
        if max_blur is not None:
            raise CatalogError("--max-blur: only a focus network tells a blur radius; name one with --focus-model")
        return sharpness, min_sharpness
    if min_sharpness is not None:
        raise CatalogError("--min-sharpness: a focus network is limited by --max-blur; give that instead")
    # Here, since torch takes seconds to load and most catalogs do without.
    from medsynth.focus import screening
    from medsynth.focus.model import FocusModel

    model = FocusModel.load(None if focus_model == "default" else storage.absolute(focus_model))
    return screening.Screen(model), screening.figure(_MAX_BLUR if max_blur is None else max_blur)


def _show(summary: indexing.IndexSummary, names: tuple[str, ...]) -> None:
    if names:
        rows = [[*values, tiles, sharp] for values, (tiles, sharp) in summary.subgroups.items()]
        table("subgroups", [*names, "tiles", "in focus"], rows)
    if summary.rejects:
        table("rejects", ["reason", "images"], list(summary.rejects.items()))
    if summary.unmatched:
        named = ", ".join(summary.unmatched[:5]) + (", ..." if len(summary.unmatched) > 5 else "")
        say(f"{len(summary.unmatched):,} metadata rows have no image: {named}", "yellow")
    say(
        f"{summary.tiles:,} tiles, {summary.soft:,} of them soft, from {summary.files:,} image files "
        f"({summary.ignored:,} other files left out); {summary.measured:,} read now, in {summary.seconds:.1f} s"
    )
    say(f"catalog: {summary.catalog}")


if __name__ == "__main__":
    run(index)
