"""The spec: what it means, and each mistake refused in one line that names the key."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medsynth import spec
from medsynth.errors import SpecError, StorageError
from tests.servers import S3Server

GOOD: dict[str, Any] = {
    "name": "focus-v1",
    "recipe": "out_of_focus",
    "seed": 1,
    "balance": {"axes": {"tissue": ["brain", "breast"]}, "total": 10},
}


def with_balance(**changes: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    data["balance"].update(changes)
    return data


def with_axis(values: Any) -> dict[str, Any]:
    return with_balance(axes={"t": values})


def refused(data: Any, model: type[spec.Settings] = spec.Spec) -> str:
    with pytest.raises(SpecError) as error:
        spec.parse(model, data, "spec.yaml")
    message = str(error.value)
    assert message.startswith("spec.yaml: ")
    assert "\n" not in message
    return message.removeprefix("spec.yaml: ")


class Nested(spec.Settings):
    """Every way in which settings can stand inside settings."""

    optional: spec.Output | None = None
    several: tuple[spec.Output, ...] = ()
    named: dict[str, spec.Output] = {}
    strength: spec.Range = spec.Range(low=1, high=1)
    shares: dict[str, float] = {}
    switch: bool = False


def test_a_whole_spec_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("""
name: focus-v1
recipe: out_of_focus
seed: 20260101
source: s3://bucket/catalog
balance:
  axes:
    tissue: [brain, breast]
    grade: {1: 3, 2: 1}
    focus_class: {from: 0, to: 29}
  total: 100000
  on_shortfall: report
output: {rows_per_shard: 512, image_format: png}
index:
out_of_focus: {bokeh: disc}
""")
    read = spec.load(str(file))
    assert read.balance.axes["tissue"].weights == {"brain": 1.0, "breast": 1.0}
    assert read.balance.axes["grade"].weights == {"1": 3.0, "2": 1.0}
    assert read.balance.axes["focus_class"].values == tuple(str(n) for n in range(30))
    assert read.balance.axes["grade"].weighted
    assert not read.balance.axes["focus_class"].weighted
    assert (read.balance.total, read.balance.max_reuse, read.balance.on_shortfall) == (100000, 64, "report")
    assert read.output == spec.Output(rows_per_shard=512, image_format="png")
    assert read.index == spec.Index()
    assert read.out_of_focus == {"bokeh": "disc"}
    assert spec.parse(spec.Spec, read.model_dump(), "again") == read


def test_a_spec_is_read_from_a_bucket(rclone_env: S3Server) -> None:
    bucket = rclone_env.bucket()
    rclone_env.client().put_object(
        Bucket=bucket.removeprefix("s3://"), Key="a.yaml", Body=yaml.safe_dump(GOOD).encode()
    )
    assert spec.load(f"{bucket}/a.yaml") == spec.parse(spec.Spec, GOOD, "")


@pytest.mark.parametrize(
    ("data", "path", "nearest"),
    [
        ({**GOOD, "sede": 1}, "sede", "seed"),
        (with_balance(totl=1), "balance.totl", "total"),
        (with_balance(total=None, top_up={"real": "x", "to": 1, "rael": "x"}), "balance.top_up.rael", "real"),
        ({**GOOD, "output": {"rows_per_shrd": 1}}, "output.rows_per_shrd", "rows_per_shard"),
        ({**GOOD, "index": {"tilesize": 1}}, "index.tilesize", "tile_size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(data: dict[str, Any], path: str, nearest: str) -> None:
    assert refused(data) == f"unknown key {path!r}; did you mean {nearest!r}?"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"optional": {"rows_per_shrd": 1}}, "optional.rows_per_shrd"),
        ({"several": [{}, {"rows_per_shrd": 1}]}, "several.1.rows_per_shrd"),
        ({"named": {"a": {"rows_per_shrd": 1}}}, "named.a.rows_per_shrd"),
    ],
)
def test_an_unknown_key_is_found_at_every_depth(data: dict[str, Any], path: str) -> None:
    assert refused(data, Nested) == f"unknown key {path!r}; did you mean 'rows_per_shard'?"


def test_an_unknown_key_like_no_other_brings_the_list() -> None:
    message = refused({**GOOD, "output": {"zzz": 1}})
    assert message == "unknown key 'output.zzz'; known keys: image_format, rows_per_shard"


def test_an_unknown_key_is_named_before_other_mistakes() -> None:
    # Or a misspelt key would first show as a missing one.
    data = {**{key: value for key, value in GOOD.items() if key != "seed"}, "sede": 1}
    assert "did you mean 'seed'" in refused(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({k: v for k, v in GOOD.items() if k != "seed"}, "the key 'seed' is missing; add it"),
        ({**GOOD, "recipe": "skn"}, "recipe: Input should be 'out_of_focus' or 'skin' (found 'skn')"),
        ({**GOOD, "name": "a/b"}, "(found 'a/b')"),
        ({**GOOD, "seed": -1}, "seed: Input should be greater than or equal to 0 (found -1)"),
        ({**GOOD, "seed": 2**63}, "seed: Input should be less than"),
        ({**GOOD, "seed": 1.5}, "(found 1.5)"),
        ({**GOOD, "seed": True}, "seed: write a number; YAML takes true, false"),
        ({**GOOD, "source": 5}, "source: Input should be a valid string (found 5)"),
        ({**GOOD, "balance": None}, "balance: expected keys and values (found None)"),
        ({**GOOD, "balance": [1]}, "balance: expected keys and values"),
        ({**GOOD, "out_of_focus": [1]}, "out_of_focus: expected keys and values"),
        ({**GOOD, 5: 1}, "5: Keys should be strings"),
        ({**GOOD, "index": {"subgroups": "tissue"}}, "index.subgroups"),
        ({**GOOD, "output": {"rows_per_shard": 0}}, "output.rows_per_shard"),
        (with_balance(total="many"), "balance.total: Input should be a valid integer"),
        (with_balance(total=True), "balance.total: write a number"),
        (with_balance(total=0), "balance.total: Input should be greater than or equal to 1 (found 0)"),
        (with_balance(total=10**13), "balance.total: Input should be less than or equal to"),
        (with_balance(max_reuse=0), "balance.max_reuse"),
        (with_balance(on_shortfall="ignore"), "balance.on_shortfall: Input should be 'error' or 'report'"),
        (with_balance(axes={}), "balance.axes: Dictionary should have at least 1 item"),
        (with_balance(axes=["t"]), "balance.axes: expected keys and values"),
        (with_balance(axes={"": ["a"]}), "balance.axes"),
        (with_balance(axes={3: ["a"]}), "balance.axes.3"),
        (with_balance(axes={a: {"from": 1, "to": 1001} for a in "ab"}), "the axes make 1,002,001 subgroups"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_key(data: dict[str, Any], message: str) -> None:
    assert message in refused(data)


@pytest.mark.parametrize(
    ("amounts", "found"),
    [
        ({}, "none"),
        ({"total": 1, "per_subgroup": 1}, "total and per_subgroup"),
        ({"total": 1, "top_up": {"real": "x", "to": 1}}, "total and top_up"),
        ({"total": 1, "per_subgroup": 1, "top_up": {"real": "x", "to": 1}}, "total and per_subgroup and top_up"),
    ],
)
def test_exactly_one_amount_is_asked_for(amounts: dict[str, Any], found: str) -> None:
    message = refused(with_balance(**{"total": None, **amounts}))
    assert message == f"balance: name exactly one of total, per_subgroup and top_up (found {found})"


@pytest.mark.parametrize("amount", [{"per_subgroup": 1}, {"top_up": {"real": "x", "to": 1}}])
def test_unequal_weights_need_a_total(amount: dict[str, Any]) -> None:
    data = with_balance(axes={"t": {"a": 1, "b": 2}}, total=None, **amount)
    assert refused(data).startswith("balance: the weights of axis 't' need total")
    data["balance"]["axes"]["t"] = {"a": 2, "b": 2}
    assert not spec.parse(spec.Spec, data, "").balance.axes["t"].weighted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "the axis has no values"),
        ({}, "the axis has no values"),
        ("brain", "write a list of values"),
        (None, "write a list of values"),
        (["a", "a"], "the value 'a' stands twice"),
        ([1, "1"], "the value '1' stands twice"),
        ({1: 2, "1": 3}, "a value stands twice"),
        ([""], "a value is empty"),
        ([True, False], "the value True is neither text nor a whole number; put it in quotes"),
        ({True: 1}, "the value True is neither text nor a whole number; put it in quotes"),
        ([1.5], "the value 1.5 is neither text nor a whole number"),
        ([None], "the value None is neither text nor a whole number"),
        ([["a"]], "is neither text nor a whole number"),
        ({"a": -1, "b": 1}, "the weight of 'a' is negative"),
        ({"a": 0, "b": 0}, "all weights are zero"),
        ({"a": math.nan}, "Input should be a finite number (found nan)"),
        ({"a": math.inf}, "Input should be a finite number (found inf)"),
        ({"a": "much"}, "Input should be a valid number"),
        ({"a": None}, "Input should be a valid number"),
        ({"a": True}, "write a number"),
        ({"from": 0}, "{from: 0, to: 29}"),
        ({"form": 0, "to": 29}, "{from: 0, to: 29}"),
        ({"from": 5, "to": 1}, "from no greater than to"),
        ({"from": 0.5, "to": 3}, "whole numbers"),
        ({"from": False, "to": 3}, "whole numbers"),
        ({"from": 0, "to": 10**12}, "whole numbers"),
    ],
)
def test_an_axis_that_cannot_be_is_refused(values: Any, message: str) -> None:
    refusal = refused(with_axis(values))
    assert refusal.startswith("balance.axes.t")
    assert message in refusal


@pytest.mark.parametrize(
    ("value", "low", "high", "logarithmic"),
    [
        (3, 3, 3, False),
        (2.5, 2.5, 2.5, False),
        ({"uniform": [40, 90]}, 40, 90, False),
        ({"log_uniform": [100, 10000]}, 100, 10000, True),
    ],
)
def test_a_range_is_a_number_or_two_ends(value: Any, low: float, high: float, logarithmic: bool) -> None:
    read = spec.parse(Nested, {"strength": value}, "").strength
    assert read == spec.Range(low=low, high=high, logarithmic=logarithmic)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a", "write a number, {uniform: [low, high]} or {log_uniform: [low, high]}"),
        (True, "write a number"),
        (None, "write a number"),
        ({"unifrm": [1, 2]}, "{uniform: [low, high]}"),
        ({"uniform": [1, 2, 3]}, "{uniform: [low, high]}"),
        ({"uniform": 1}, "{uniform: [low, high]}"),
        ({"uniform": ["a", 2]}, "Input should be a valid number"),
        ({"uniform": [True, 2]}, "write a number"),
        ({"uniform": [3, 2]}, "the range's low end 3 lies above its high end 2"),
        ({"log_uniform": [0, 2]}, "a log_uniform range must start above 0"),
        (math.nan, "Input should be a finite number"),
        ({"uniform": [1, math.inf]}, "Input should be a finite number"),
    ],
)
def test_a_range_that_cannot_be_is_refused(value: Any, message: str) -> None:
    refusal = refused({"strength": value}, Nested)
    assert refusal.startswith("strength")
    assert message in refusal


def test_truth_is_no_number_but_a_switch() -> None:
    assert spec.parse(Nested, {"switch": True}, "").switch
    assert refused({"shares": {"a": True}}, Nested).startswith("shares: write a number")


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_range_s_values_lie_in_it(one: float, other: float, logarithmic: bool, fraction: float) -> None:
    span = spec.Range(low=min(one, other), high=max(one, other), logarithmic=logarithmic)
    value = span.at(fraction)
    assert span.low * (1 - 1e-5) <= value <= span.high * (1 + 1e-5)
    if span.low != span.high:
        assert value == float(f"{value:.6g}")
        expected = (fraction * (math.log(span.high) - math.log(span.low)) + math.log(span.low)) if logarithmic else None
        expected = math.exp(expected) if expected is not None else span.low + fraction * (span.high - span.low)
        assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys and values, found nothing"),
        (b"# only a comment\n", "expected keys and values, found nothing"),
        (b"- a\n- b\n", "expected keys and values, found a list"),
        (b"hello", "expected keys and values, found text"),
        (b"\xff\xfea: 1", "not a text file; name a YAML file"),
        (b"a: 1\nb: 2\na: 3\n", "(line 3): the key 'a' stands twice; mend the YAML"),
        (b"a:\n  b: 1\n  b: 2\n", "(line 3): the key 'b' stands twice; mend the YAML"),
        (b"a:\n\t- b", "(line 2): found character '\\t'"),
        (b"a: [1", "(line 1): expected ',' or ']'"),
        (b"a: b: c", "(line 1): mapping values are not allowed here"),
        (b"a: 1\n---\nb: 2\n", "(line 2): but found another document"),
        (b"? [a]\n: 1\n", "(line 1): found unhashable key"),
        (b"a: !!python/object/apply:os.getcwd []", "(line 1): could not determine a constructor"),
        (b"a: \x00\n", "not YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as error:
        spec.load(str(file))
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_s_merge_keys_work(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\n")
    assert spec.load_yaml(str(file))["other"] == {"a": 1, "b": 3}


def test_a_spec_that_is_not_there_is_named(tmp_path: Path) -> None:
    for uri in (f"{tmp_path}/none.yaml", "package://skimage/none.yaml"):
        with pytest.raises(SpecError, match="no such file; name an existing YAML file") as error:
            spec.load(uri)
        assert str(error.value).startswith(uri)
    with pytest.raises(StorageError, match="Is a directory"):
        spec.load(str(tmp_path))
