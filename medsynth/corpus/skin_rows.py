"""Rows of a skin corpus as pictures to be judged."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medsynth import seeds, storage
from medsynth.corpus import reader
from medsynth.errors import CorpusError
from medsynth.evaluation import pictures
from medsynth.evaluation.pictures import Pictures
from medsynth.skin import tone

_FILES = 32
_COLUMNS = ("image", "condition", "fitzpatrick", "ita_deg", "lesion_box", "weights_sha256")


@dataclass(frozen=True)
class Rows:
    """Some rows of a corpus."""

    pictures: Pictures
    of: int
    """Rows of the whole corpus."""
    weights: str
    """URI of the weights that drew them, as the corpus tells it."""
    weights_sha256: str


def read(uri: str, count: int, size: int | None, seed: int) -> Rows:
    """Read rows of a skin corpus, picked by a seed from at most 32 evenly spread data files.

    Args:
        uri: the corpus's folder.
        count: of rows, at the most.
        size: pixels on a side to bring them to; None for those of the first one.
        seed: of the choice.

    Raises:
        CorpusError: it is no corpus of the recipe skin, it is incomplete, or it has no rows.
        StorageError: it cannot be read.
    """
    corpus = reader.open_corpus(uri)
    recipe = corpus.header.get("spec", {}).get("recipe")
    missing = [name for name in _COLUMNS if name not in reader.schema_names(corpus)]
    if recipe != "skin" or (missing and len(corpus)):
        raise CorpusError(f"{uri}: a corpus of the recipe {recipe!r}; name one of the recipe 'skin'")
    files = reader.sample_files(corpus, _FILES)
    whole = sum(rows for _, rows in files)
    if not whole:
        raise CorpusError(f"{uri}: the corpus has no rows; order some, or take weights that draw what is asked for")
    chosen = np.sort(seeds.permute(np.arange(min(count, whole)), whole, seeds.digest64(seed, "judged rows")))
    found: list[dict[str, Any]] = []
    first = 0
    for place, rows in files:
        own = chosen[(chosen >= first) & (chosen < first + rows)] - first
        first += rows
        if len(own):
            with storage.open_input(place) as file:
                found += pq.ParquetFile(file).read(columns=list(_COLUMNS)).take(own).to_pylist()
    images = [reader.decode(row["image"]["bytes"]) for row in found]
    judged = pictures.of_images(
        images,
        size or images[0].shape[0],
        [row["condition"] for row in found],
        [tone.parse_type(row["fitzpatrick"]) or 0 for row in found],
        [row["lesion_box"] for row in found],
        [row["ita_deg"] for row in found],
    )
    settings = corpus.header["recipe_settings"]
    return Rows(judged, len(corpus), str(settings["settings"]["weights"]), found[0]["weights_sha256"])
