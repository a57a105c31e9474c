"""Metadata tables: reading, naming what is wrong, joining with files."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth.catalog import metadata
from medsynth.catalog.metadata import Facts
from medsynth.errors import CatalogError


def written(path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_csv_cells_stay_as_they_are_written(tmp_path) -> None:
    uri = written(tmp_path / "t.csv", '\ufeffname,grade,note\n01,007,"a, b"\n\n02,,NA\n')
    table = metadata.read_table(uri)
    assert table.to_pydict() == {"name": ["01", "02"], "grade": ["007", None], "note": ["a, b", "NA"]}


def test_load_from_csv_and_parquet(tmp_path) -> None:
    uri = written(tmp_path / "t.csv", "file,tissue,mpp\na.png,brain,0.25\nb.png,,\n")
    assert metadata.load(uri, "file", ["tissue"]) == {"a.png": Facts(("brain",), 0.25), "b.png": Facts((None,), None)}
    columns = {
        "file": [1, 2, 3],
        "grade": [1.0, None, 2.5],
        "left": [True, False, None],
        "mpp": [0.5, None, float("nan")],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert metadata.load(str(tmp_path / "t.parquet"), "file", ["grade", "left"]) == {
        "1": Facts(("1", "true"), 0.5),
        "2": Facts((None, "false"), None),
        "3": Facts(("2.5", None), None),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,tissue\na,b\na,c\n", "the key 'a' stands twice in column 'file'"),
        ("files,tissue\na,b\n", "no column 'file'; did you mean 'files'?"),
        ("file,tisue\na,b\n", "no column 'tissue'; did you mean 'tisue'?"),
        ("file,x\na,b\n", "no column 'tissue'; known columns: file, x"),
        ("file;tissue\na;b\n", "no column 'file'; its columns are parted by ';'; save it with commas"),
        ("file,file,tissue\na,b,c\n", "the column 'file' stands twice"),
        ("file,tissue\na,b,c\n", "line 2 has 3 cells, the header 2"),
        ("file,tissue,mpp\na,b,fine\n", "a: mpp 'fine' is not a positive number"),
        ("file,tissue,mpp\na,b,-1\n", "a: mpp '-1' is not a positive number"),
        ("", "the table is empty"),
        ('file,tissue\n"a,b\n', "neither Parquet nor CSV in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text: str, message: str) -> None:
    uri = written(tmp_path / "t.csv", text)
    with pytest.raises(CatalogError) as caught:
        metadata.load(uri, "file", ["tissue"])
    assert str(caught.value).startswith(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_no_tables(tmp_path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"file": ["a"]}), sink)
    for name, data in {"cut.parquet": sink.getvalue()[:-20], "photo.csv": b"\xff\xd8\xff\xe0\x00"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CatalogError, match=name):
            metadata.read_table(str(tmp_path / name))
    with pytest.raises(CatalogError, match="no table there"):
        metadata.read_table(str(tmp_path / "none.csv"))


FACTS = {key: Facts((key,), None) for key in ("a/one.png", "two.png", "three", "images/four.png", "lost")}


def test_keys_are_paths_names_or_stems() -> None:
    uris = [f"/data/images/{path}" for path in ("a/one.png", "b/two.png", "c/three.jpg", "four.png", "five.png")]
    joined, unmatched = metadata.match(uris, "/data/images", FACTS, "/data/table.csv")
    assert {uri: facts.subgroups[0] for uri, facts in joined.items()} == {
        "/data/images/a/one.png": "a/one.png",
        "/data/images/b/two.png": "two.png",
        "/data/images/c/three.jpg": "three",
        "/data/images/four.png": "images/four.png",
    }
    assert unmatched == ["lost"]


def test_a_path_goes_before_a_name() -> None:
    facts = {"x.png": Facts(("top",), None), "a/x.png": Facts(("deep",), None)}
    joined, unmatched = metadata.match(["/d/a/x.png", "/d/x.png"], "/d", facts, "/t.csv")
    assert [found.subgroups for found in joined.values()] == [("deep",), ("top",)]
    assert unmatched == []


def test_one_row_for_two_files_is_refused() -> None:
    with pytest.raises(CatalogError, match=r"the key 'two.png' fits both /d/a/two.png and /d/b/two.png"):
        metadata.match(["/d/a/two.png", "/d/b/two.png"], "/d", FACTS, "/t.csv")
