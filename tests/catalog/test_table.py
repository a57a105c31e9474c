"""The catalog's files."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth import storage
from medsynth.catalog import table
from medsynth.errors import CatalogError
from tests.servers import S3Server

ABOUT = {"source": "here", "settings": {"tile_size": 256}}


def row(uri: str, *, row: int | None = None, x: int = 0, y: int = 0, tissue: str = "brain") -> dict[str, object]:
    return {
        "uri": uri,
        "row": row,
        "image_column": None if row is None else "image",
        "x": x,
        "y": y,
        "width": 256,
        "height": 256,
        "margin": 0,
        "mpp": 0.25,
        "own_mpp": None,
        "etag": "e",
        "bytes": 10,
        "sha256": "0" * 64,
        "sharpness": 3.0,
        "in_focus": True,
        "tissue": tissue,
    }


def tables() -> tuple[pa.Table, pa.Table]:
    rows = [row("b", x=256), row("b", y=256), row("b"), row("a", row=2), row("a", row=1)]
    rejects = [{"uri": "c", "row": None, "etag": "e", "reason": "truncated", "detail": "why"}]
    return (
        pa.Table.from_pylist(rows, schema=table.schema(["tissue"])),
        pa.Table.from_pylist(rejects, schema=table.REJECT_COLUMNS),
    )


def check(folder: str) -> None:
    assert not table.is_catalog(folder)
    table.write(folder, *tables(), ABOUT)
    assert table.is_catalog(folder)
    assert table.is_catalog(storage.join(folder, table.TABLE))
    found = table.read(folder)
    order = [(r["uri"], r["row"], r["y"], r["x"]) for r in found.to_pylist()]
    assert order == [("a", 1, 0, 0), ("a", 2, 0, 0), ("b", None, 0, 0), ("b", None, 0, 256), ("b", None, 256, 0)]
    assert found.schema.remove_metadata() == table.schema(["tissue"])
    assert table.read(folder, ["uri", "tissue"]).column_names == ["uri", "tissue"]
    assert table.about(folder) == ABOUT
    assert table.read_rejects(folder)["reason"].to_pylist() == ["truncated"]
    assert table.read_rejects(storage.join(folder, table.TABLE)).num_rows == 1


def test_round_trip(tmp_path) -> None:
    check(str(tmp_path / "catalog"))


def test_round_trip_on_object_storage(moto_env: S3Server) -> None:
    check(storage.join(moto_env.bucket(), "catalog"))


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path) -> None:
    rows, rejects = tables()
    table.write(str(tmp_path / "1"), rows, rejects, ABOUT)
    table.write(str(tmp_path / "2"), rows.take([3, 1, 4, 0, 2]), rejects, dict(reversed(ABOUT.items())))
    for name in (table.TABLE, table.REJECTS):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_what_is_no_catalog_is_refused_in_one_line(tmp_path) -> None:
    with pytest.raises(CatalogError, match="no catalog there"):
        table.read(str(tmp_path / "none"))
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / table.TABLE).write_bytes(b"PAR1")
    with pytest.raises(CatalogError, match="damaged"):
        table.read(str(tmp_path / "cut"))
    pq.write_table(pa.table({"uri": ["a"]}), tmp_path / table.TABLE)
    with pytest.raises(CatalogError, match=r"was not made by jobs/index\.py"):
        table.read(str(tmp_path))


def test_a_file_is_no_folder(tmp_path) -> None:
    (tmp_path / "image.png").write_bytes(b"x")
    assert not table.is_catalog(str(tmp_path / "image.png"))


def test_a_subgroup_may_not_take_the_name_of_a_column() -> None:
    with pytest.raises(CatalogError, match="'mpp'"):
        table.schema(["tissue", "mpp"])
