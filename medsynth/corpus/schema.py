"""The columns of a corpus: what every row says of itself, whatever the recipe."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from medsynth.errors import SpecError

# Exactly this struct, in this order and nullable, is what the datasets library takes for an image.
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
# Parquet's own name for a list's items: another does not come back, and a file could not be told from a damaged one.
INTEGERS = pa.list_(pa.field("element", pa.int32()))
INTEGER_AXES = frozenset({"focus_class"})

_HEAD = (
    pa.field("sample_id", pa.string()),
    pa.field("index", pa.int64()),
    pa.field("image", IMAGE),
)
_TAIL = (
    pa.field("synthetic", pa.bool_()),
    pa.field("recipe", pa.string()),
    pa.field("source_uri", pa.string()),
    pa.field("source_row", pa.int64()),
    pa.field("source_column", pa.string()),
    pa.field("source_x", pa.int32()),
    pa.field("source_y", pa.int32()),
    pa.field("source_width", pa.int32()),
    pa.field("source_height", pa.int32()),
    pa.field("source_sha256", pa.string()),
    pa.field("seed", pa.int64()),
)
_HUGGING_FACE_TYPES = {pa.binary(): "binary", pa.float64(): "float64", pa.bool_(): "bool"}


def axis_type(axis: str) -> pa.DataType:
    """The Arrow type of an axis's column."""
    return pa.int64() if axis in INTEGER_AXES else pa.string()


def check_axes(axes: Iterable[str], made: Sequence[str], parameters: Iterable[pa.Field]) -> None:
    """Make sure that every axis can have a column of its own.

    Args:
        axes: the spec's axes.
        made: those that the recipe makes; their columns are among its parameters.
        parameters: the recipe's columns.

    Raises:
        SpecError: an axis has the name of a column that means something else.
    """
    own = {item.name for item in (*_HEAD, *_TAIL, *reject_schema(()), *parameters)}.difference(made)
    for axis in axes:
        if axis in own:
            raise SpecError(f"balance.axes.{axis}: every row has a column of this name already; rename the axis")


def row_schema(axes: Sequence[str], parameters: Iterable[pa.Field]) -> pa.Schema:
    """The schema of a corpus's data files.

    Args:
        axes: the spec's axes, in order.
        parameters: the recipe's columns; one that is an axis too stands once, as the axis.

    Returns:
        The schema, with the metadata by which the datasets library shows pictures.
    """
    fields = [
        *_HEAD,
        *(pa.field(axis, axis_type(axis)) for axis in axes),
        *_TAIL,
        *(item for item in parameters if item.name not in axes),
    ]
    features = {item.name: _feature(item.type) for item in fields}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}, separators=(",", ":"))}
    return pa.schema(fields, metadata=metadata)


def reject_schema(axes: Sequence[str]) -> pa.Schema:
    """The schema of a shard's reject file: which samples could not be made, and why."""
    return pa.schema(
        [
            pa.field("index", pa.int64()),
            *(pa.field(axis, axis_type(axis)) for axis in axes),
            pa.field("source_uri", pa.string()),
            pa.field("source_row", pa.int64()),
            pa.field("reason", pa.string()),
            pa.field("detail", pa.string()),
        ]
    )


def sample_id(fingerprint: str, index: int) -> str:
    """A sample's name, unique over corpora and stable from run to run."""
    return f"{fingerprint[:8]}-{index:010d}"


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": _HUGGING_FACE_TYPES.get(kind, str(kind)), "_type": "Value"}
