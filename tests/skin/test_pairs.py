from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth.errors import CatalogError
from medsynth.skin import pairs
from medsynth.skin.pairs import PairsError
from medsynth.skin.semantic_map import Box

HEAD = "image,condition,fitzpatrick,patient_id,x0,y0,x1,y1,width,height"


def table(folder: Path, *rows: str, head: str = HEAD) -> str:
    path = folder / "photos.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def test_a_table_is_read_with_places_beside_it(tmp_path: Path) -> None:
    found = pairs.read(table(tmp_path, "a.jpg,NEV,iv,P1,1,2,30,40,64,64", "s3://b/c.jpg,BCC,,P2,0,0,64,64,64,64"))
    assert [photo.uri for photo in found.photos] == [f"{tmp_path}/a.jpg", "s3://b/c.jpg"]
    assert [photo.fitzpatrick for photo in found.photos] == [4, None]
    assert found.photos[0].box == Box(1, 2, 30, 40)
    assert found.conditions == ("BCC", "NEV")


def test_parquet_with_boxes_in_one_column(tmp_path: Path) -> None:
    rows = pa.table({"image": ["a"], "condition": ["X"], "patient_id": [7], "box": [[1, 2, 3, 4]]})
    pq.write_table(rows, tmp_path / "t.parquet")
    (photo,) = pairs.read(str(tmp_path / "t.parquet")).photos
    assert (photo.box, photo.patient) == (Box(1, 2, 3, 4), "7")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,NEV,2,P1,,,,,64,64", "row 1 (a.jpg): no box; give the lesion's x0,y0,x1,y1"),
        ("a.jpg,NEV,2,P1,1,2,70,40,64,64", "the box 1,2,70,40 is not inside the picture of 64x64 px"),
        ("a.jpg,NEV,2,P1,1,2,,40,64,64", "row 1 (a.jpg): x1 is empty; give the lesion's x0,y0,x1,y1 in pixels"),
        ("a.jpg,NEV,2,P1,a,2,70,40,64,64", "x0 is 'a', not a number of pixels; give the lesion's x0,y0,x1,y1"),
        ("a.jpg,NEV,2,P1,1,2,inf,40,64,64", "x1 is 'inf', not a number of pixels"),
        ("a.jpg,NEV,2,P1,1,2,1e400,40,64,64", "x1 is '1e400', not a number of pixels"),
        ("a.jpg,NEV,2,P1,1,2,nan,40,64,64", "x1 is 'nan', not a number of pixels"),
        ("a.jpg,NEV,2,P1,9,2,8,40,,", "the box 9,2,8,40 is empty or begins outside; give 0 <= x0 < x1"),
        (
            "a.jpg,NEV,2,P1,0.2,0.3,0.5,0.6,,",
            "row 1 (a.jpg): the box 0.2,0.3,0.5,0.6 lies within one pixel, as fractions of a photo do; give "
            "the lesion's x0,y0,x1,y1 in pixels",
        ),
        ("a.jpg,NEV,2,P1,0.2,0.3,0.7,0.8,64,64", "the box 0.2,0.3,0.7,0.8 lies within one pixel"),
        ("a.jpg,NEV,2,P1,0,0,1,0.95,64,64", "the box 0,0,1,0.95 lies within one pixel"),
        ("a.jpg,NEV,2,P1,1,2,30,40,abc,64", "width is 'abc', not a number of pixels; give the photo's width in pixels"),
        ("a.jpg,NEV,2,P1,1,2,30,40,,inf", "height is 'inf', not a number of pixels"),
        ("a.jpg,NEV,2,P1,1,2,30,40,nan,64", "width is 'nan', not a number of pixels"),
        ("a.jpg,NEV,2,P1,1,2,30,40,64,0", "height is '0'; give the photo's height in pixels, or leave it empty"),
        ("a.jpg,NEV,9,P1,1,2,30,40,64,64", "fitzpatrick is '9'; write 1 to 6"),
        ("a.jpg,,2,P1,1,2,30,40,64,64", "condition is empty"),
        (",NEV,2,P1,1,2,30,40,64,64", "row 1: image is empty"),
        ("a.jpg,NEV,2,  ,1,2,30,40,64,64", "patient_id is empty"),
    ],
)
def test_a_wrong_row_is_refused_in_one_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(PairsError) as caught:
        pairs.read(table(tmp_path, row))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            {"image": {"bytes": b"x", "path": "a.jpg"}},
            "row 1: image is {'bytes': b'x', 'path': 'a.jpg'}, not text; write",
        ),
        ({"image": b"a.jpg"}, "row 1: image is b'a.jpg', not text; write the path or URI of a file"),
        ({"condition": ["NEV"]}, "row 1 (a.jpg): condition is ['NEV'], not text; write a name"),
        ({"x1": [3]}, "row 1 (a.jpg): x1 is [3], not a number of pixels"),
        ({"x1": float("inf")}, "row 1 (a.jpg): x1 is inf, not a number of pixels"),
        ({"width": float("inf"), "height": 9.0}, "row 1 (a.jpg): width is inf, not a number of pixels"),
        ({"fitzpatrick": [3]}, "row 1 (a.jpg): fitzpatrick is '[3]'; write 1 to 6"),
        ({"box": [1, 2, None, 4]}, "row 1 (a.jpg): x1 of box is empty; give the lesion's x0,y0,x1,y1"),
        ({"box": [0.25, 0.0, 0.75, 1.0]}, "row 1 (a.jpg): the box 0.25,0,0.75,1 lies within one pixel"),
        ({"box": "1,2,x,4"}, "row 1 (a.jpg): x1 of box is 'x', not a number of pixels"),
        ({"box": "1 2 3 4"}, "row 1 (a.jpg): box is '1 2 3 4', not four numbers; give the lesion's x0,y0,x1,y1"),
        ({"box": {"x0": 1}}, "row 1 (a.jpg): box is {'x0': 1}, not four numbers"),
        ({"box": "  "}, "row 1 (a.jpg): no box; give the lesion's x0,y0,x1,y1"),
    ],
)
def test_a_wrong_cell_of_parquet_is_refused_in_one_line(tmp_path: Path, cells: dict[str, Any], message: str) -> None:
    row = {"image": "a.jpg", "condition": "NEV", "patient_id": 7, "x0": 1, "y0": 2, "x1": 3, "y1": 4, **cells}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    with pytest.raises(PairsError) as caught:
        pairs.read(str(tmp_path / "t.parquet"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("box", "read"),
    [
        ((0, 0, 1, 1), Box(0, 0, 1, 1)),
        ((0.0, 0.0, 1.0, 1.0), Box(0, 0, 1, 1)),
        ((0.6, 0.7, 2.2, 1.9), Box(1, 1, 2, 2)),
        ((40.2, 7.4, 41.1, 8.3), Box(40, 7, 41, 8)),
    ],
)
def test_a_box_in_pixels_may_be_small_and_between_them(tmp_path: Path, box: tuple[float, ...], read: Box) -> None:
    cells = ",".join(map(str, box))
    (photo,) = pairs.read(table(tmp_path, f"a.jpg,NEV,2,P1,{cells},64,64")).photos
    assert photo.box == read


def test_blanks_about_a_cell_do_not_count(tmp_path: Path) -> None:
    rows = ["a.jpg,NEV , iv,P1,1,2,30,40,64,64", " b.jpg , NEV,, P1, 1 ,2,30,40, ,64"]
    found = pairs.read(table(tmp_path, *rows))
    assert (found.conditions, found.patients) == (("NEV",), ("P1",))
    assert [photo.uri for photo in found.photos] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]


def test_conditions_that_differ_by_case_only_are_refused(tmp_path: Path) -> None:
    rows = ["a.jpg,NEV,2,P1,1,2,30,40,64,64", "b.jpg,nev,2,P2,1,2,30,40,64,64"]
    with pytest.raises(
        PairsError, match=r"row 2 \(b.jpg\): condition 'nev' differs from 'NEV' by case only; write one"
    ):
        pairs.read(table(tmp_path, *rows))


@pytest.mark.parametrize("again", ["a.jpg", "./a.jpg", "x/../a.jpg", ".//a.jpg", "{folder}/a.jpg", "{folder}/./a.jpg"])
def test_a_photo_that_stands_twice_is_refused_however_it_is_spelt(tmp_path: Path, again: str) -> None:
    rows = [f"{name},NEV,2,{name},1,2,30,40,64,64" for name in ("a.jpg", "b.jpg", again.format(folder=tmp_path))]
    with pytest.raises(PairsError, match=r"row 3 .*: stands twice, in row 1 as 'a.jpg' too; keep one row a photo"):
        pairs.read(table(tmp_path, *rows))


def test_a_missing_column_and_an_empty_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no column 'patient_id'"):
        pairs.read(table(tmp_path, "a,b,1,2,3,4", head="image,condition,x0,y0,x1,y1"))
    with pytest.raises(PairsError, match="no rows"):
        pairs.read(table(tmp_path))


def test_patients_are_never_parted(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,NEV,2,P{n // 3},1,2,30,40,64,64" for n in range(60)]
    whole = pairs.read(table(tmp_path, *rows))
    training, held = pairs.split(whole, 0.2, 5)
    assert not set(training.patients) & set(held.patients)
    assert (len(training.patients), len(held.patients)) == (16, 4)
    assert pairs.split(whole, 0.2, 5) == (training, held)
    assert pairs.split(whole, 0.2, 6) != (training, held)
    assert pairs.split(whole, 0, 5)[0] == whole
    with pytest.raises(PairsError, match="no photo is left"):
        pairs.split(whole, 1, 5)


def test_both_sides_show_the_rare_conditions_and_types(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,NEV,{1 + n // 20},P{n},1,2,30,40,64,64" for n in range(80)]
    rows += [f"m{n}.jpg,MEL,{1 + n // 4},Q{n},1,2,30,40,64,64" for n in range(8)]
    whole = pairs.read(table(tmp_path, *rows))
    for seed in range(6):
        training, held = pairs.split(whole, 0.25, seed)
        assert len(held.patients) == 22
        for condition, kind, there in [("NEV", 1, 20), ("NEV", 4, 20), ("MEL", 1, 4), ("MEL", 2, 4)]:
            found = [sum((p.condition, p.fitzpatrick) == (condition, kind) for p in part.photos)
                     for part in (training, held)]  # fmt: skip
            assert found == [there * 3 // 4, there // 4], (seed, condition, kind)


def test_the_tables_own_split_decides_and_may_not_part_a_patient(tmp_path: Path) -> None:
    head = HEAD + ",split"
    rows = ["a.jpg,NEV,2,P1,1,2,30,40,64,64,train", "b.jpg,NEV,2,P2,1,2,30,40,64,64,test"]
    training, held = pairs.split(pairs.read(table(tmp_path, *rows, head=head)), 0.5, 0)
    assert (training.patients, held.patients) == (("P1",), ("P2",))
    both = table(tmp_path, *rows, "c.jpg,NEV,2,P1,1,2,30,40,64,64,test", head=head)
    with pytest.raises(PairsError, match="patient 'P1' is in both splits"):
        pairs.split(pairs.read(both), 0.5, 0)
    empty = table(tmp_path, *rows, "c.jpg,NEV,2,P3,1,2,30,40,64,64,", head=head)
    with pytest.raises(PairsError, match="split is empty"):
        pairs.split(pairs.read(empty), 0.5, 0)


@pytest.mark.parametrize("name", ["val", "Valid", "VALIDATION", " test ", "held_out"])
def test_a_split_has_one_of_the_known_names_in_any_case(tmp_path: Path, name: str) -> None:
    rows = [f"{n}.jpg,NEV,2,P{n},1,2,30,40,64,64,{name if n else 'Train'}" for n in range(3)]
    training, held = pairs.split(pairs.read(table(tmp_path, *rows, head=HEAD + ",split")), 0.5, 0)
    assert (training.patients, held.patients) == (("P0",), ("P1", "P2"))


@pytest.mark.parametrize("name", ["training", "fold1", "1"])
def test_a_split_of_an_unknown_name_is_refused(tmp_path: Path, name: str) -> None:
    rows = [f"{n}.jpg,NEV,2,P{n},1,2,30,40,64,64,{name if n == 1 else 'train'}" for n in range(3)]
    message = f"row 2 (1.jpg): split is '{name}'; write train, or for held out one of val, valid, validation, test"
    with pytest.raises(PairsError) as caught:
        pairs.read(table(tmp_path, *rows, head=HEAD + ",split"))
    assert message in str(caught.value)


def test_masks_are_read_beside_the_table_and_asked_for_where_they_are_needed(tmp_path: Path) -> None:
    head = HEAD + ",mask"
    rows = ["a.jpg,NEV,2,P1,1,2,30,40,64,64,m/a.png", "b.jpg,NEV,2,P2,1,2,30,40,64,64,s3://b/m.png"]
    whole = pairs.read(table(tmp_path, *rows, head=head))
    assert [photo.mask for photo in whole.photos] == [f"{tmp_path}/m/a.png", "s3://b/m.png"]
    pairs.require_masks(whole, ["NEV"])
    digest = whole.digest
    some = pairs.read(table(tmp_path, *rows, "c.jpg,MEL,2,P3,1,2,30,40,64,64,", head=head))
    pairs.require_masks(some, ["NEV"])
    with pytest.raises(PairsError, match=r"photos.csv: row 3 .*c.jpg\): mask is empty; name one, leave the row out"):
        pairs.require_masks(some, ["MEL", "NEV"])
    bare = pairs.read(table(tmp_path, *(row.rpartition(",")[0] for row in rows)))
    assert bare.digest == digest
    with pytest.raises(PairsError, match=r"photos.csv: no masks, which samples.region asks for; name them in a column"):
        pairs.require_masks(bare, ["NEV"])
