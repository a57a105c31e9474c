from pathlib import Path

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
        ("a.jpg,NEV,2,P1,a,2,70,40,64,64", "is not four numbers"),
        ("a.jpg,NEV,9,P1,1,2,30,40,64,64", "fitzpatrick is '9'; write 1 to 6"),
        ("a.jpg,,2,P1,1,2,30,40,64,64", "condition is empty"),
        (",NEV,2,P1,1,2,30,40,64,64", "image is empty"),
    ],
)
def test_a_wrong_row_is_refused_in_one_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(PairsError) as caught:
        pairs.read(table(tmp_path, row))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column_and_a_repeated_photo_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no column 'patient_id'"):
        pairs.read(table(tmp_path, "a,b,1,2,3,4", head="image,condition,x0,y0,x1,y1"))
    row = "a.jpg,NEV,2,P1,1,2,30,40,64,64"
    with pytest.raises(PairsError, match="stands twice"):
        pairs.read(table(tmp_path, row, row))
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
