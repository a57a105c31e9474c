"""Parquet files with an image column, as Hugging Face's datasets write them or plain."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medsynth import storage
from medsynth.catalog import metadata
from medsynth.errors import CatalogError, NotFoundError, Reason, Rejected


def footer(uri: str) -> pq.FileMetaData | Rejected:
    """Read a file's footer; a file that is gone or damaged comes back as a reject."""
    try:
        with pq.ParquetFile(storage.open_input(uri)) as file:
            return file.metadata
    except NotFoundError as error:
        return Rejected(Reason.MISSING, str(error))
    except (pa.ArrowException, OSError) as error:
        return Rejected(Reason.UNREADABLE, describe(error))


def row_group(uri: str, number: int, columns: list[str]) -> pa.Table | Rejected:
    """Read those of some columns that a row group has; a fault of the file comes back as a reject."""
    try:
        with pq.ParquetFile(storage.open_input(uri)) as file:
            return file.read_row_group(number, columns=[name for name in columns if name in file.schema_arrow.names])
    except NotFoundError as error:
        return Rejected(Reason.MISSING, str(error))
    except (pa.ArrowException, OSError) as error:
        return Rejected(Reason.UNREADABLE, f"row group {number}: {describe(error)}")


def image_column(schema: pa.Schema, uri: str) -> str:
    """The column that holds images: by Hugging Face's description, by its type, or by the name ``image``.

    Raises:
        CatalogError: there is none, or there are several and none is called ``image``.
    """
    features = _features(schema)
    described: list[str] = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    structs: list[str] = [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    plain: list[str] = [f.name for f in schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
    for candidates in (described, structs, plain):
        if "image" in candidates:
            return "image"
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise CatalogError(f"{uri}: several image columns ({', '.join(candidates)}); name the one meant 'image'")
    raise CatalogError(
        f"{uri}: no image column among {', '.join(schema.names)}; it must be binary or struct<bytes, path>"
    )


def texts(content: pa.Table, name: str) -> list[str | None]:
    """A column's cells as text; class labels that are numbers get the names in Hugging Face's description."""
    values = content[name].to_pylist()
    feature = _features(content.schema).get(name, {})
    if feature.get("_type") == "ClassLabel" and feature.get("names"):
        labels = feature["names"]
        values = [labels[value] if value is not None and 0 <= value < len(labels) else None for value in values]
    return [metadata.as_text(value) for value in values]


def describe(error: Exception) -> str:
    """An error's kind and first line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: one for name, one in found.items() if isinstance(one, dict)}
