"""The dataset card, its Croissant description, and the list of digests that both lean on.

The three files are functions of the corpus alone: no time, no host and nothing measured goes in, so
they come out the same on every run. The manifest cannot be vouched for by a digest, since it holds
seconds; ``SHA256SUMS`` stands in for it. ``croissant.json`` holds its digest, and it holds those of
the data files, however many they are.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from medsynth import storage
from medsynth.corpus import manifest, words
from medsynth.corpus.reader import Corpus, open_corpus
from medsynth.corpus.totals import Totals, add_up

CARD, CROISSANT, DIGESTS = "README.md", "croissant.json", "SHA256SUMS"

_TEMPLATES = Path(__file__).parent / "templates"
_SUBGROUPS_SHOWN = 64
_RECORDS_AT_ONCE = 4096
_DATA = "data/train-*.parquet"

_TERMS = (
    "No licence of its own: the pictures derive from the source images, whose terms apply. "
    "Name the licence here before the corpus is passed on."
)
_DRAWN_TERMS = (
    "No licence of its own: the pictures come from a network that learnt from real photos, whose terms apply: "
    "{attribution} Say so wherever they are shown or passed on."
)
_SUMMARY = "Synthetic medical images for training only, never for validation or test; not for diagnosis."
_MEANINGS = {
    "sample_id": "Name of the sample, unique over corpora.",
    "index": "Number of the sample in the plan.",
    "image": "The picture, JPEG or PNG.",
    "synthetic": "Always true.",
    "recipe": "The medsynth recipe that made the image.",
    "source_uri": "The image that the sample was made from.",
    "source_row": "Row of the source in its table, where it is one.",
    "source_column": "Column of the source in its table, where it is one.",
    "source_x": "Left edge of the source tile in the source image, px.",
    "source_y": "Upper edge of the source tile in the source image, px.",
    "source_width": "Width of the source tile, px.",
    "source_height": "Height of the source tile, px.",
    "source_sha256": "SHA-256 of the source's bytes.",
    "seed": "The number from which all of the sample's randomness comes.",
    "focus_class": "Focus class: 0 is in focus, the greater the further out.",
    "blur_radius_px": "Radius of the blur, px.",
    "blur_radius_um": "Radius of the blur in the specimen, µm.",
    "blur_kind": "Kind of blur: disc, gaussian or wave (wave optics).",
    "defocus_um": "Distance from the focal plane that gives this blur, µm.",
    "sharpening_amount": "Strength of the device's unsharp mask.",
    "sharpening_radius_px": "Standard deviation of the device's unsharp mask, px.",
    "grid_dx": "Shift of the crop to the right, px, so that the source's JPEG blocks lie elsewhere.",
    "grid_dy": "Shift of the crop down, px.",
    "scale": "Source pixels to an output pixel.",
    "photons": "Photons at full scale; fewer are noisier.",
    "read_noise_e": "Standard deviation of the sensor's read noise, electrons.",
    "jpeg_quality": "JPEG quality of the chain's compression, 1 to 100.",
    "jpeg_subsampling": "Chroma subsampling of the chain's compression.",
    "mpp": "Size of a pixel in the specimen, µm.",
    "device": "Profile of the scanner or camera that was simulated.",
    "condition": "The skin condition asked for, by the name that the network learnt.",
    "fitzpatrick": "Skin type I to VI, here the bin of the skin's angle: a convention, no clinical grade.",
    "size": "Size class of the lesion, by its box's share of the picture.",
    "ita_deg": "Individual typology angle of the skin colour asked for, degrees.",
    "ita_measured_deg": "The same, measured in the picture as drawn, before the camera; degrees.",
    "skin_rgb": "The skin colour asked for, sRGB.",
    "lesion_box": "The lesion's box: x0, y0, x1, y1 in px, the last column and row not part of it.",
    "lesion_share": "The box's share of the picture's area.",
    "lesion_change": "How far the lesion stands out from the skin beside it, CIELAB units.",
    "likeness": "Correlation with the most similar training photo, lesion upon lesion; null where none were compared.",
    "hairs": "Hairs grown by rule once the network had drawn, a few of them out of sight; 0 on most pictures.",
    "weights_sha256": "SHA-256 of the network's file.",
}


def write_card(corpus_uri: str) -> None:
    """Write ``README.md``, ``croissant.json`` and ``SHA256SUMS`` into a complete corpus.

    Args:
        corpus_uri: the corpus's folder.

    Raises:
        CorpusError: it is no corpus, or it is incomplete.
        StorageError: it cannot be read or written.
    """
    corpus = open_corpus(corpus_uri)
    totals = add_up(corpus)
    schema = _schema(corpus)
    digests = _digests(corpus)
    storage.put(storage.join(corpus_uri, DIGESTS), digests)
    storage.put(storage.join(corpus_uri, CARD), _card(corpus, totals, schema).encode())
    described = json.dumps(_croissant(corpus, totals, schema, digests), indent=1, ensure_ascii=False) + "\n"
    storage.put(storage.join(corpus_uri, CROISSANT), described.encode())


def _card(corpus: Corpus, totals: Totals, schema: pa.Schema) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # Markdown; cell() guards what comes from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    body = environment.get_template("card.md.j2").render(
        header=corpus.header,
        totals=totals,
        whole=totals.whole,
        size=words.size(totals.bytes),
        files=len(corpus.paths),
        axes=list(corpus.axes),
        marginals=[(axis, totals.by_axis(place)) for place, axis in enumerate(corpus.axes)],
        all_subgroups=len(totals.subgroups) <= _SUBGROUPS_SHOWN and len(corpus.axes) > 1,
        settings=list(words.setting_lines(words.recipe_settings(corpus.header))),
        columns=[(name, _meaning(name, corpus)) for name in schema.names],
        terms=_terms(corpus),
        attribution=_attribution(corpus),
        digests=DIGESTS,
    )
    front = yaml.safe_dump(
        _front_matter(corpus, totals, schema), sort_keys=False, allow_unicode=True, width=1000, default_flow_style=False
    )
    return f"---\n{front}---\n\n{body}"


def _front_matter(corpus: Corpus, totals: Totals, schema: pa.Schema) -> dict[str, Any]:
    field = {"out_of_focus": ["pathology", "microscopy", "focus-quality"], "skin": ["dermatology"]}
    return {
        "pretty_name": f"{corpus.header['name']} (synthetic)",
        "license": "other",
        "license_name": "terms-of-the-training-photos" if _drawn(corpus) else "terms-of-the-source-images",
        "task_categories": ["image-classification"],
        "annotations_creators": ["machine-generated"],
        "tags": ["synthetic", "medical", *field.get(corpus.header["recipe"], []), "ray", "medsynth"],
        "size_categories": [_size_category(totals.rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": _DATA}]}],
        "dataset_info": {
            "config_name": "default",
            "features": [_hub_feature(item) for item in schema],
            "splits": [{"name": "train", "num_bytes": totals.bytes, "num_examples": totals.rows}],
            "download_size": totals.bytes,
            "dataset_size": totals.bytes,
        },
    }


def _croissant(corpus: Corpus, totals: Totals, schema: pa.Schema, digests: bytes) -> dict[str, Any]:
    header, drawn = corpus.header, _drawn(corpus)
    made_from = "" if drawn else f" from {header['sources']:,} source tiles"
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": header["name"],
        "description": (
            f"{_SUMMARY} {totals.rows:,} images made by the medsynth recipe {header['recipe']}"
            f"{made_from}, balanced over {', '.join(corpus.axes)}. "
            f"Fingerprint {header['fingerprint']}."
        ),
        "version": f"1.0.0+{header['fingerprint'][:16]}",
        "license": _terms(corpus),
        "keywords": ["synthetic", "medical", "training only", header["recipe"]],
        "rai:dataCollection": (
            f"Synthetic: {'drawn by a network' if drawn else 'computed from source images by a program'}; "
            "nothing was recorded."
        ),
        "rai:dataCollectionType": ["Synthetic"],
        "rai:dataUseCases": ["Training of image models."],
        "rai:dataLimitations": [
            "Not for validation or test: a score on synthetic images says nothing of real ones.",
            "Not for diagnosis.",
            "What the simulation leaves out, a model trained on it has not seen.",
            *(["Dark skin was learnt from light skin that was retoned."] if drawn else []),
        ],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "digests",
                "name": DIGESTS,
                "description": "SHA-256 of corpus.json and of every data file, as sha256sum -c takes it.",
                "contentUrl": DIGESTS,
                "contentSize": f"{len(digests)} B",
                "encodingFormat": "text/plain",
                "sha256": hashlib.sha256(digests).hexdigest(),
            },
            {
                "@type": "cr:FileSet",
                "@id": "data-files",
                "name": "data-files",
                "description": f"{len(corpus.paths):,} Parquet files; one row is one image.",
                "encodingFormat": "application/x-parquet",
                "includes": _DATA,
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "train",
                "name": "train",
                "description": f"{totals.rows:,} synthetic images, the only split.",
                "key": {"@id": "train/sample_id"},
                "field": [_field(item, corpus) for item in schema],
            }
        ],
    }


def _field(item: pa.Field, corpus: Corpus) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": "data-files"}, "extract": {"column": item.name}}
    if item.name == "image":
        source["transform"] = {"jsonPath": "bytes"}
    listed = pa.types.is_list(item.type)
    return {
        "@type": "cr:Field",
        "@id": f"train/{item.name}",
        "name": item.name,
        "description": _meaning(item.name, corpus),
        "dataType": _croissant_type(item.type.value_type if listed else item.type),
        **({"repeated": True} if listed else {}),
        "source": source,
    }


def _digests(corpus: Corpus) -> bytes:
    header = storage.read(storage.join(corpus.uri, manifest.HEADER))
    lines = [f"{hashlib.sha256(header).hexdigest()}  {manifest.HEADER}\n"]
    with storage.open_input(storage.join(corpus.uri, manifest.NAME)) as file:
        for batch in pq.ParquetFile(file).iter_batches(_RECORDS_AT_ONCE, columns=["path", "sha256"]):
            lines += [f"{row['sha256']}  {row['path']}\n" for row in batch.to_pylist()]
    return "".join(lines).encode()


def _schema(corpus: Corpus) -> pa.Schema:
    if not corpus.paths:
        return pa.schema([])
    with storage.open_input(storage.join(corpus.uri, corpus.paths[0])) as file:
        return pq.read_schema(file)


def _meaning(name: str, corpus: Corpus) -> str:
    own = f"Value of the axis {name}." if name in corpus.axes else f"Parameter of the recipe {corpus.header['recipe']}."
    return _MEANINGS.get(name, own)


def _drawn(corpus: Corpus) -> bool:
    return bool(corpus.header["recipe"] == "skin")


def _attribution(corpus: Corpus) -> str:
    told = corpus.header["recipe_settings"].get("model", {}).get("attribution")
    return f"{str(told).rstrip('.')}." if told else "the model's file does not say whose they are."


def _terms(corpus: Corpus) -> str:
    return _DRAWN_TERMS.format(attribution=_attribution(corpus)) if _drawn(corpus) else _TERMS


def _hub_feature(item: pa.Field) -> dict[str, str]:
    if pa.types.is_list(item.type):
        return {"name": item.name, "list": _hub_type(item.type.value_type)}
    return {"name": item.name, "dtype": _hub_type(item.type)}


def _hub_type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "image"
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


def _croissant_type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def _size_category(rows: int) -> str:
    ends = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    place = sum(rows >= 10 ** (3 + step) for step in range(len(ends)))
    if place == 0:
        return "n<1K"
    return f"{ends[place - 1]}<n<{ends[place]}" if place < len(ends) else "n>1T"


def _cell(text: Any) -> str:
    # Whatever a value holds, it stays inside its table cell and is no markup.
    flat = " ".join(str(text).split())
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`")):
        flat = flat.replace(mark, harmless)
    return flat


_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
