"""Parquet files with images: which column, and what its neighbours say."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth.catalog import parquet
from medsynth.errors import CatalogError, Reason, Rejected

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def features(**kinds: dict[str, object]) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": kinds}})}


@pytest.mark.parametrize(
    ("schema", "column"),
    [
        (pa.schema([("x", pa.string()), ("photo", STRUCT)]), "photo"),
        (pa.schema([("thumb", STRUCT), ("image", STRUCT)]), "image"),
        (pa.schema([("mask", pa.binary()), ("photo", STRUCT)]), "photo"),
        (pa.schema([("x", pa.string()), ("data", pa.large_binary())]), "data"),
        (pa.schema([("a", STRUCT), ("b", STRUCT)], metadata=features(b={"_type": "Image"})), "b"),
        (pa.schema([("a", STRUCT)], metadata={"huggingface": "no JSON"}), "a"),
    ],
)
def test_the_image_column_is_found(schema: pa.Schema, column: str) -> None:
    assert parquet.image_column(schema, "file") == column


def test_no_or_several_image_columns_are_named() -> None:
    with pytest.raises(CatalogError, match="file: no image column among x, y"):
        parquet.image_column(pa.schema([("x", pa.string()), ("y", pa.int64())]), "file")
    with pytest.raises(CatalogError, match=r"file: several image columns \(a, b\)"):
        parquet.image_column(pa.schema([("a", STRUCT), ("b", STRUCT)]), "file")


def test_class_labels_get_their_names() -> None:
    table = pa.table({"label": [1, 0, None, 7], "plain": [1, 0, None, 7]}).replace_schema_metadata(
        features(label={"_type": "ClassLabel", "names": ["benign", "malignant"]})
    )
    assert parquet.texts(table, "label") == ["malignant", "benign", None, None]
    assert parquet.texts(table, "plain") == ["1", "0", None, "7"]


def test_damaged_files_come_back_as_rejects(tmp_path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"x" * 5000] * 10}), path, compression=None, use_dictionary=False)
    assert parquet.footer(str(path)).num_rows == 10
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert parquet.footer(str(path)).reason is Reason.UNREADABLE
    path.write_bytes(whole[:4] + b"\xff" * 100 + whole[104:])
    found = parquet.row_group(str(path), 0, ["image", "absent"])
    assert isinstance(found, Rejected)
    assert found.reason is Reason.UNREADABLE
    path.unlink()
    assert parquet.footer(str(path)).reason is Reason.MISSING
    assert parquet.row_group(str(path), 0, ["image"]).reason is Reason.MISSING
