"""Every row explains itself, and the datasets library sees a picture in it."""

import json

import pyarrow as pa
import pytest

from medsynth.corpus.schema import IMAGE, check_axes, reject_schema, row_schema, sample_id
from medsynth.errors import SpecError


def test_image_is_exactly_the_struct_that_datasets_takes() -> None:
    schema = row_schema(["tissue", "focus_class"], [pa.field("photons", pa.float64())])
    assert schema.field("image").type == IMAGE == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["focus_class"] == {"dtype": "int64", "_type": "Value"}
    assert features["tissue"] == {"dtype": "string", "_type": "Value"}
    assert list(features) == schema.names


def test_a_parameter_that_is_an_axis_stands_once() -> None:
    schema = row_schema(["device"], [pa.field("device", pa.string()), pa.field("photons", pa.float64())])
    assert schema.names.count("device") == 1


@pytest.mark.parametrize("axis", ["seed", "image", "synthetic", "source_uri", "reason", "photons"])
def test_an_axis_named_like_a_column_is_refused(axis: str) -> None:
    parameters = [pa.field("device", pa.string()), pa.field("photons", pa.float64())]
    check_axes(["tissue", "device"], ["device"], parameters)
    with pytest.raises(SpecError, match=rf"balance.axes.{axis}: .*rename"):
        check_axes(["tissue", axis], ["device"], parameters)


def test_rejects_name_sample_source_and_reason() -> None:
    assert reject_schema(["tissue"]).names == ["index", "tissue", "source_uri", "source_row", "reason", "detail"]


def test_sample_ids_sort_like_their_numbers() -> None:
    assert sorted(sample_id("abcdef0123", i) for i in (11, 2, 100)) == [f"abcdef01-{i:010d}" for i in (2, 11, 100)]
