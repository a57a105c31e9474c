"""A small corpus laid out by hand, with real pictures, whose numbers the tests know."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from scipy import ndimage
from skimage import data

from medsynth import storage
from medsynth.corpus import manifest
from medsynth.corpus.schema import reject_schema, row_schema, sample_id

CLASSES = [str(number) for number in range(6)]
FINGERPRINT = "5f" * 32
PARAMETERS = [
    pa.field("blur_radius_px", pa.float64()),
    pa.field("blur_radius_um", pa.float64()),
    pa.field("photons", pa.float64()),
    pa.field("jpeg_quality", pa.int64()),
    pa.field("mpp", pa.float64()),
]


@dataclass(frozen=True)
class Small:
    """A corpus and what is in it."""

    uri: str
    rows: list[dict]
    """Every row of the data files, in the manifest's order."""
    seconds: float
    """The render seconds of each shard."""


def make_corpus(uri: str, *, seconds: float = 1.5, tissues: tuple[str, ...] = ("brain", "breast")) -> Small:
    """Write a corpus of 2 tissues x 6 focus classes, 4 rows each asked for, in 3 shards of 16.

    The quota of the last subgroup is 6, so it is 2 short; one row of the first was rejected and replaced.
    """
    axes = {"tissue": list(tissues), "focus_class": CLASSES}
    schema = row_schema(list(axes), PARAMETERS)
    rows = list(_rows(tissues))
    shards = [rows[start : start + 16] for start in range(0, len(rows), 16)]
    lost = {
        "index": 48,
        "tissue": tissues[0],
        "focus_class": 0,
        "source_uri": "s3://bucket/<gone> & bad.png",
        "source_row": None,
        "reason": "truncated",
        "detail": "ends <early> | no end marker",
    }
    header = {
        "format": manifest.FORMAT,
        "synthetic": True,
        "name": "small-v1",
        "recipe": "out_of_focus",
        "spec": {
            "name": "small-v1",
            "recipe": "out_of_focus",
            "seed": 7,
            "source": "package://skimage/data/ihc.png",
        },
        "recipe_settings": {
            "settings": {
                "sensor": None,
                "jpeg": {"quality": {"low": 40, "high": 90, "logarithmic": False}, "subsampling": "4:2:0"},
            },
            "chains": {},
            "image_format": "jpeg",
        },
        "fingerprint": FINGERPRINT,
        "fingerprint_parts": {"spec": "ab", "catalog": "cd"},
        "versions": {"numpy": np.__version__},
        "axes": axes,
        "rows": 49,
        "shards": 2,
        "quotas": [
            {
                "subgroup": {"tissue": tissue, "focus_class": number},
                "asked": 6 if (tissue, number) == (tissues[-1], CLASSES[-1]) else 4,
                "planned": 4,
            }
            for tissue in tissues
            for number in CLASSES
        ],
        "sources": 8,
        "notes": ["3 tiles were left out as soft"],
    }
    storage.put(storage.join(uri, "corpus.json"), json.dumps(header).encode())
    records = []
    for name, members in zip(
        ["train-00000-of-00002", "train-00001-of-00002", "train-r1-00000-of-00001"], shards, strict=True
    ):
        data_file = _parquet(members, schema)
        storage.put(storage.join(uri, "data", f"{name}.parquet"), data_file)
        counts = Counter((row["tissue"], str(row["focus_class"])) for row in members)
        records.append(
            {
                "shard": name,
                "path": f"data/{name}.parquet",
                "rows": len(members),
                "bytes": len(data_file),
                "sha256": hashlib.sha256(data_file).hexdigest(),
                "counts": [{"subgroup": list(subgroup), "rows": rows} for subgroup, rows in counts.items()],
                "rejects": [],
                "seconds": {"read": 0.25, "render": seconds, "commit": 0.125},
            }
        )
    records[0]["rejects"] = [{"subgroup": [tissues[0], "0"], "reason": "truncated", "rows": 1}]
    storage.put(
        storage.join(uri, "rejects", "train-00000-of-00002.parquet"), _parquet([lost], reject_schema(list(axes)))
    )
    storage.put(storage.join(uri, "manifest.parquet"), _parquet(records, manifest.SCHEMA))
    return Small(uri, rows, seconds)


def _parquet(rows: list[dict], schema: pa.Schema) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, row_group_size=8)
    return sink.getvalue()


def _rows(tissues: tuple[str, ...]) -> Iterator[dict]:
    picture = data.immunohistochemistry()
    index = 0
    for place, tissue in enumerate(tissues):
        for tile in range(4):
            y, x = 64 * tile, 128 * place
            source = picture[y : y + 64, x : x + 64].astype(float)
            for number in CLASSES:
                radius = 0.5 * int(number)
                blurred = ndimage.gaussian_filter(source, (radius, radius, 0)).round().clip(0, 255).astype(np.uint8)
                quality = 40 + 5 * int(number) + tile
                yield {
                    "sample_id": sample_id(FINGERPRINT, index),
                    "index": index,
                    "image": {"bytes": simplejpeg.encode_jpeg(blurred, quality), "path": f"{index:010d}.jpg"},
                    "tissue": tissue,
                    "focus_class": int(number),
                    "synthetic": True,
                    "recipe": "out_of_focus",
                    "source_uri": "package://skimage/data/ihc.png",
                    "source_row": None,
                    "source_x": x,
                    "source_y": y,
                    "source_width": 64,
                    "source_height": 64,
                    "source_sha256": "ee" * 32,
                    "seed": 2**62 + index,
                    "blur_radius_px": radius,
                    "blur_radius_um": radius * 0.25,
                    "photons": 100.0 * (index + 1),
                    "jpeg_quality": quality,
                    "mpp": 0.25,
                }
                index += 1


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A small, complete corpus on the local disk; not to be changed."""
    return make_corpus(str(tmp_path_factory.mktemp("corpora") / "small"))


@pytest.fixture
def edit_header() -> Callable[[str, Callable[[dict], None]], None]:
    """Change a corpus's ``corpus.json`` in place."""

    def edit(uri: str, change: Callable[[dict], None]) -> None:
        header = manifest.read_header(uri)
        change(header)
        Path(storage.join(uri, manifest.HEADER)).write_text(json.dumps(header))

    return edit
