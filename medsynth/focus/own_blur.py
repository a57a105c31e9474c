"""How soft source tiles are of themselves, told by a network that was trained without knowing it.

A network trained on added radii learns what tiles look like on average: what it sees in a tile beyond the
disc that was added is how much softer that tile is than the others. Blurs add as variances, so the excess is
the predicted radius squared less the added one squared; it is measured where both are clear, at 2.5 to 5 px.
Three quarters of the tiles count as in focus; the excess over the softest of these, which is less than nothing for
the others, is what a tile has of its own; trained again on √(r² + excess), the network is not told that a soft tile
is a sharp one.

    python -m medsynth.focus.own_blur CATALOG WEIGHTS OUT

writes the catalog once more with the column ``own_blur2``, without the tiles softer than the limit.
"""

import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medsynth.catalog import table
from medsynth.focus import samples
from medsynth.focus.model import FocusModel
from medsynth.focus.samples import SampleSettings, Source
from medsynth.spec import Range

LIMIT = 2.0
"""px²: beyond it a tile is no in-focus source."""

_IN_FOCUS = 0.75
"""Assumed: the share of a catalog's tiles that are in focus, and so at least as sharp as a tile that just is."""

_RADII_PX = (2.5, 5.0)
_KINDLY = {"photons": Range(low=20000, high=20000), "jpeg_quality": Range(low=90, high=90), "devices": 0.0}


def excess(
    predict: Callable[[NDArray[np.uint8]], float], source: Source, *, count: int = 16, size: int = 160
) -> list[float]:
    """Estimate each tile's own blur against that of tiles in focus.

    Args:
        predict: gives the radius in px of an image, uint8 (size, size, 3).
        source: the tiles.
        count: samples of each tile.
        size: of a sample in pixels.

    Returns:
        For each tile the square of its own blur in px² against that of a tile in focus, less than 0 for a sharper
        one. Half of what tells tiles of a slide apart is taken for chance.
    """
    settings = SampleSettings(size=size, radii_px=_RADII_PX).plain().model_copy(update=_KINDLY)
    found = []
    for tile in range(len(source)):
        alone = source.subset([tile]).with_own_blur2([0.0])
        images, added = samples.make_batch(alone, settings, 0, range(count))
        seen = np.array([predict(image) for image in images])
        found.append(float(np.median(seen**2 - added.astype(np.float64) ** 2)))
    own = np.array(found)
    for slide in set(source.slides):
        tiles = [i for i, name in enumerate(source.slides) if name == slide]
        own[tiles] = (own[tiles] + np.median(own[tiles])) / 2
    return [round(float(value), 3) for value in own - np.quantile(own, _IN_FOCUS)]


def rewrite(catalog: str, model: FocusModel, out: str) -> list[float]:
    """Write a catalog's in-focus tiles with their own blur.

    Args:
        catalog: its folder.
        model: trained on its tiles, or on others like them.
        out: the new catalog's folder.

    Returns:
        The own blur of every tile, px², those left out included.
    """
    found = table.read(catalog)
    found = found.filter(found["in_focus"])
    own = excess(lambda image: model.score(image).radius_px, samples.open_catalog(catalog))
    found = found.append_column(
        pa.field(samples.OWN_BLUR2, pa.string(), nullable=False), pa.array([str(value) for value in own])
    )
    about = {**table.about(catalog), "own_blur": {"weights": model.sha256, "limit_px2": LIMIT}}
    kept = found.filter(pa.array([value <= LIMIT for value in own]))
    table.write(out, kept, table.read_rejects(catalog), about)
    return own


if __name__ == "__main__":
    for value in rewrite(sys.argv[1], FocusModel.load(sys.argv[2]), sys.argv[3]):
        print(value)
