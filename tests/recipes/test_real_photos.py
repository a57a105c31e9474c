"""A top-up's table of real photos: which of them are counted, where, and what is told of the others."""

import re
from pathlib import Path
from typing import Any

import pytest

from medsynth import spec as specs
from medsynth import storage
from medsynth.errors import ShortfallError, SpecError
from medsynth.model_file import ModelError
from medsynth.recipes import build, preparation
from medsynth.recipes.preparation import Prepared
from tests import skin_model
from tests.recipes.test_skin import run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return skin_model.save(tmp_path_factory.mktemp("weights"))


def test_top_up_counts_a_table_of_photos(weights: str, tmp_path: Path) -> None:
    table = tmp_path / "photos.csv"
    head = "image,condition,fitzpatrick,width,height,x0,y0,x1,y1\n"
    lines = [
        "a,BCC,1,100,100,0,0,20,20",
        "b,BCC,I,100,100,0,0,20,20",
        "c,NEV,6.0,200,100,10,10,70,60",
        "d,NEV,,9,9,0,0,9,9",
        "e,NEV,2,100,100,0,0,20,20",
    ]
    table.write_text(head + "\n".join(lines) + "\n")
    axes = {"condition": ["BCC", "NEV"], "fitzpatrick": ["I", "VI"], "size": ["small", "large"]}
    prepared = run(weights, balance={"axes": axes, "top_up": {"real": str(table), "to": 3}})
    planned = {quota.subgroup: quota.planned for quota in prepared.plan.quotas()}
    assert planned.pop(("BCC", "I", "small")) == 1
    assert planned.pop(("NEV", "VI", "large")) == 2
    assert set(planned.values()) == {3}
    assert "1 real images belong to subgroups that were not asked for" in prepared.header["notes"]
    assert "1 real images have no skin type: counted in no subgroup" in prepared.header["notes"]
    full = {"axes": {"condition": ["BCC"]}, "top_up": {"real": str(table), "to": 2}}
    with pytest.raises(ShortfallError, match="nothing to make: every quota is 0"):
        run(weights, balance=full)
    table.write_text("image,condition\na,BCC\n")
    with pytest.raises(SpecError, match=r"top_up.real: .*no column 'fitzpatrick'"):
        run(weights, balance={"axes": axes, "top_up": {"real": str(table), "to": 3}})


def topped_up(weights: str, folder: Path, text: str, axes: dict[str, Any]) -> Prepared:
    """An order to top up a table, up to 5 in each subgroup."""
    (folder / "photos.csv").write_text(text)
    real = str(folder / "photos.csv")
    return run(weights, {}, balance={"axes": axes, "top_up": {"real": real, "to": 5}})


def test_top_up_tells_why_photos_are_not_counted(weights: str, tmp_path: Path) -> None:
    rows = [
        "BCC,I,100,100,0,0,20,20",
        "BCC,,100,100,0,0,20,20",
        "BCC,,100,100,0,0,100,100",
        "BCC,I,100,100,0,0,27,27",
        "NEV ,VI,100,100,0,0,10,10",
        "BCC,I,100,100,,,,",
        "BCC,I,,100,0,0,20,20",
        ",I,100,100,0,0,20,20",
        "MEL,I,100,100,0,0,20,20",
    ]
    text = "\n".join(["condition,fitzpatrick,width,height,x0,y0,x1,y1", *rows, ""])
    axes = {"condition": ["BCC", "NEV"], "fitzpatrick": ["I", "VI"], "size": ["small", "medium", "large"]}
    prepared = topped_up(weights, tmp_path, text, axes)
    counted = {quota.subgroup: 5 - quota.planned for quota in prepared.plan.quotas() if quota.planned < 5}
    assert counted == {("BCC", "I", "small"): 1}
    told = [note for note in prepared.header["notes"] if "real" in note and "skin.real" not in note]
    assert told == [
        "2 real images have no box, width or height: counted in no subgroup",
        "1 real images have no condition: counted in no subgroup",
        "2 real images have no skin type: counted in no subgroup",
        "2 real images show a lesion between two sizes, or beyond them all: counted in no subgroup",
        "skin types of the real table are clinical judgements, those of the corpus bins of the asked colour's angle: "
        "counts by one are topped up by the other",
        "1 real images belong to subgroups that were not asked for",
    ]
    untyped = topped_up(weights, tmp_path, text, {"condition": ["BCC", "NEV"]})
    assert not any("clinical" in note for note in untyped.header["notes"])


def test_a_top_up_reads_its_table_once(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = storage.read

    def counted(uri: str) -> bytes:
        asked.append(uri)
        return read(uri)

    monkeypatch.setattr(storage, "read", counted)
    topped_up(weights, tmp_path, "condition\nBCC\n", {"condition": ["BCC", "NEV"]})
    assert asked.count(f"{tmp_path}/photos.csv") == 1


def test_top_up_takes_the_box_in_one_column(weights: str, tmp_path: Path) -> None:
    text = 'condition,box,width,height\nBCC,"0,0,20,20",100,100\nNEV,"[10, 10, 70, 60]",200,100\n'
    axes = {"condition": ["BCC", "NEV"], "size": ["small", "large"]}
    prepared = topped_up(weights, tmp_path, text, axes)
    counted = {quota.subgroup: 5 - quota.planned for quota in prepared.plan.quotas() if quota.planned < 5}
    assert counted == {("BCC", "small"): 1, ("NEV", "large"): 1}


@pytest.mark.parametrize(
    ("axis", "head", "row", "message"),
    [
        (
            "size",
            "image,box,width,height",
            'a.jpg,"0,0,9,9",0,0',
            "row 1 (a.jpg): width is '0'; give the photo's width",
        ),
        ("size", "x0,y0,x1,y1,width,height", "abc,0,3,4,5,6", "row 1: x0 is 'abc', not a number of pixels; give the"),
        ("size", "x0,y0,x1,y1,width,height", "0,0,inf,4,5,6", "row 1: x1 is 'inf', not a number of pixels"),
        ("size", "box,width,height", '"0,0,7,4",5,6', "row 1: the box 0,0,7,4 is not inside the picture of 5x6 px"),
        ("size", "box", '"0,0,7,4"', "no column 'width'; the axis size is the share of the picture"),
        ("size", "image,width,height", "a.jpg,5,6", "no column 'x0'; the axis size is the share of the picture"),
        (
            "fitzpatrick",
            "fitzpatrick,x0,y0,x1,y1,width,height",
            "9,0,0,3,4,0,0",
            "row 1: fitzpatrick is '9'; write 1 to",
        ),
        ("condition", "condition", "bcc", "row 1: condition 'bcc' differs from 'BCC' by case only; write one of them"),
        ("device", "image", "a.jpg", "no column 'device', and no photo tells which of these cameras took it; remove"),
    ],
)
def test_a_table_that_cannot_be_topped_up_is_named(
    weights: str, tmp_path: Path, axis: str, head: str, row: str, message: str
) -> None:
    values = {"size": "small", "fitzpatrick": "I", "condition": "BCC", "device": "phone-budget"}
    with pytest.raises(SpecError) as found:
        topped_up(weights, tmp_path, f"{head}\n{row}\n", {axis: [values[axis]]})
    assert str(found.value).startswith(f"balance.top_up.real: {tmp_path}/photos.csv: {message}")
    assert "\n" not in str(found.value)


def test_cells_of_no_axis_are_not_looked_at_by_a_top_up(weights: str, tmp_path: Path) -> None:
    text = "fitzpatrick,x0,y0,x1,y1,width,height\nI,0,0,3,4,0,0\n"
    prepared = topped_up(weights, tmp_path, text, {"fitzpatrick": ["I", "II"]})
    assert [quota.planned for quota in prepared.plan.quotas()] == [4, 5]


def test_the_shipped_order_can_be_topped_up_as_its_comment_says(tmp_path: Path) -> None:
    text = Path("jobs/specs/skin.yaml").read_text()
    (advice,) = re.findall(r"top_up: \{real: photos.csv, to: 5000\}", text)
    (tmp_path / "photos.csv").write_text(
        "image,condition,patient_id,fitzpatrick,x0,y0,x1,y1,width,height\na.jpg,BCC,P1,4,0,0,20,20,100,100\n"
    )
    advice = advice.replace("photos.csv", str(tmp_path / "photos.csv"))
    text = re.sub(r"per_subgroup: 2 .*", advice, text)
    assert "remove the axis device" in re.sub(r"\n *# *", " ", text)
    text = re.sub(r" *device: \[.*\]\n", "", text)
    (tmp_path / "skin.yaml").write_text(text)
    order = specs.load(str(tmp_path / "skin.yaml"))
    try:
        recipe = build(order)
    except ModelError:
        pytest.skip("the shipped weights are not there")
    prepared = preparation.prepare(order, recipe, None, "")
    assert prepared.plan.rows == 6 * 6 * 2 * 5000 - 1
