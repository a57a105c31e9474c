"""A workload for the engine's benchmarks: real tiles, an object each, and a plan over them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg

from medsynth import images, storage
from medsynth.corpus import manifest, sources
from medsynth.recipes import build, preparation
from medsynth.recipes.preparation import Prepared
from medsynth.recipes.work import Job
from medsynth.spec import Spec, parse

_SIDE = 256
_SCHEMA = pa.schema(
    [("uri", pa.string()), ("row", pa.int64()), ("image_column", pa.string()), ("x", pa.int32()), ("y", pa.int32()),
     ("width", pa.int32()), ("height", pa.int32()), ("mpp", pa.float64()), ("sha256", pa.string()),
     ("in_focus", pa.bool_())]
)  # fmt: skip


def cut_tiles(folder: Path, count: int) -> None:
    """Write distinct windows of scikit-image's ihc.png as JPEG files of 256 x 256 px."""
    image = images.decode(storage.read("package://skimage/data/ihc.png"))
    places = np.random.default_rng(1).integers(0, image.shape[0] - _SIDE, size=(count, 2))
    for number, (y, x) in enumerate(places.tolist()):
        window = np.ascontiguousarray(image[y : y + _SIDE, x : x + _SIDE])
        (folder / f"{number:06d}.jpg").write_bytes(simplejpeg.encode_jpeg(window, quality=92, colorsubsampling="420"))


def prepared(tiles: Path, source: str, rows: int, *, rows_per_shard: int = 1024, **section: Any) -> Prepared:
    """Plan a corpus of ``rows`` rows from the tiles of a folder, which the run will read at ``source``."""
    names = sorted(path.name for path in tiles.iterdir())
    table = pa.Table.from_pylist(
        [
            {"uri": storage.join(source, name), "x": 0, "y": 0, "width": _SIDE, "height": _SIDE, "in_focus": True,
             "sha256": hashlib.sha256((tiles / name).read_bytes()).hexdigest()}
            for name in names
        ],
        schema=_SCHEMA,
    )  # fmt: skip
    order = {
        "name": "benchmark",
        "recipe": "out_of_focus",
        "seed": 1,
        "source": source,
        "balance": {"axes": {"focus_class": {"from": 0, "to": 29}}, "total": rows, "max_reuse": -(-rows // len(names))},
        "output": {"rows_per_shard": rows_per_shard},
        "out_of_focus": section,
    }
    spec = parse(Spec, order, "benchmark")
    return preparation.prepare(spec, build(spec), table, source)


def open_corpus(run: Prepared, corpus: str) -> Job:
    """Write what stands before the shards, and give the job that makes them without Ray."""
    manifest.write_header(corpus, run.header, conditional=True)
    assert run.sources is not None
    storage.put_new(storage.join(corpus, sources.NAME), run.sources)
    return Job(corpus, run.fingerprint, run.recipe, run.plan, run.plan.axes, run.plan.seed, conditional=True)
