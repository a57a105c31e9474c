"""Planning, measuring and assembling a catalog, without Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth import images
from medsynth.catalog import index, metadata, sharpness, tiles
from medsynth.catalog.index import IndexPlan, Previous
from medsynth.catalog.units import Measured, measure
from medsynth.errors import CatalogError
from medsynth.spec import Index
from tests.bad_inputs import BAD, ODD, encoded, picture

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(folder: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def run(source: str, settings: Index, previous: Measured | None = None, plan_then: IndexPlan | None = None, **options):
    """One whole index run; gives the plan and the catalog."""
    earlier = []
    if previous is not None and plan_then is not None:
        earlier = [Previous(previous, plan_then.about)]
    plan = index.plan_index(source, settings, earlier, **options)
    measured = [measure(plan.units, settings, plan.columns, options.get("score", sharpness.sharpness))]
    return plan, index.assemble(plan, measured)


def reasons(made: Measured) -> dict[str, str]:
    return {Path(r["uri"]).name: r["reason"] for r in made.rejects.to_pylist()}


PNG = encoded(picture(), "PNG")


def test_one_bad_file_never_stops_the_rest(tmp_path: Path) -> None:
    source = write(tmp_path, {name: data for name, (data, _) in BAD.items()} | ODD)
    plan, made = run(source, Index())
    assert reasons(made) == {name: str(reason) for name, (_, reason) in BAD.items()}
    assert {Path(uri).name for uri in made.tiles["uri"].to_pylist()} == set(ODD)
    assert plan.files == len(BAD) + len(ODD)


def test_rows_tell_where_the_tiles_are(tmp_path: Path) -> None:
    source = write(
        tmp_path, {"a.png": encoded(picture(300, 560), "PNG"), "sub/b.jpg": encoded(picture(100, 90), "JPEG")}
    )
    _, made = run(source, Index(tile_size=128, stride=200, margin=4, mpp=0.5))
    rows = made.tiles.to_pylist()
    assert [(Path(r["uri"]).name, r["x"], r["y"], r["width"], r["margin"]) for r in rows] == [
        ("a.png", 0, 0, 136, 4),
        ("a.png", 200, 0, 136, 4),
        ("a.png", 400, 0, 136, 4),
        ("b.jpg", 0, 0, 90, 0),
    ]
    for r in rows:
        data = Path(r["uri"]).read_bytes()
        window = tiles.load(data, r["sha256"])[r["y"] : r["y"] + r["height"], r["x"] : r["x"] + r["width"]]
        assert r["sharpness"] == sharpness.sharpness(window)
        assert r["bytes"] == len(data)
        assert (r["row"], r["image_column"], r["mpp"], r["own_mpp"]) == (None, None, 0.5, None)


def test_soft_tiles_are_kept_but_marked(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.png": encoded(picture(300, 300), "PNG"), "blank.png": encoded(picture() * 0, "PNG")})
    _, made = run(source, Index(), score=lambda tile: float(tile.max()))
    assert made.tiles["in_focus"].to_pylist() == [True, False]
    for least, expected in ((0.0, [True, True]), (1000.0, [False, False])):
        _, made = run(source, Index(min_sharpness=least), score=lambda tile: float(tile.max()))
        assert made.tiles["in_focus"].to_pylist() == expected


def test_too_small_and_ignored_files(tmp_path: Path) -> None:
    source = write(
        tmp_path, {"dot.png": encoded(picture()[:1, :1], "PNG"), "a.png": PNG, "notes.txt": b"x", ".b.png": PNG}
    )
    plan, made = run(source, Index())
    assert reasons(made) == {"dot.png": "too_small"}
    assert (plan.files, plan.ignored) == (2, 1)


def test_the_join_with_metadata(tmp_path: Path) -> None:
    source = write(tmp_path / "images", {f"{name}.png": PNG for name in "abcd"})
    facts = tmp_path / "facts.csv"
    facts.write_text("file,tissue,grade,mpp\na,brain,1,0.25\nb.png,breast,2,\nc,,3,\nlost,brain,1,\n")
    settings = Index(metadata=str(facts), key="file", subgroups=("grade", "tissue"))
    plan, made = run(source, settings)
    columns = ["uri", "grade", "tissue", "mpp"]
    assert [tuple(r.values()) for r in made.tiles.select(columns).to_pylist()] == [
        (f"{source}/a.png", "1", "brain", 0.25),
        (f"{source}/b.png", "2", "breast", None),
    ]
    assert made.tiles.column_names[-2:] == ["grade", "tissue"]
    assert reasons(made) == {"c.png": "no_metadata", "d.png": "no_metadata"}
    details = dict(zip(made.rejects["uri"].to_pylist(), made.rejects["detail"].to_pylist(), strict=True))
    assert "'tissue'" in details[f"{source}/c.png"]
    assert plan.unmatched == ["lost"]
    # Another mpp and another subgroup are joined without reading an image.
    facts.write_text("file,tissue,grade,mpp\na,lung,1,\nb.png,breast,2,0.5\n")
    again, renewed = run(source, settings.model_copy(update={"min_sharpness": 1e6}), made, plan)
    assert again.units == []
    assert [tuple(r.values()) for r in renewed.tiles.select(columns).to_pylist()] == [
        (f"{source}/a.png", "1", "lung", None),
        (f"{source}/b.png", "2", "breast", 0.5),
    ]
    assert renewed.tiles["in_focus"].to_pylist() == [False, False]
    # An image that gets its row later is read then.
    facts.write_text("file,tissue,grade\na,lung,1\nb.png,breast,2\nc,lung,1\n")
    later, _ = run(source, settings, renewed, again)
    assert [Path(unit.uri).name for unit in later.units] == ["c.png"]


def test_mpp_of_a_flag_goes_before_the_table_and_the_table_before_the_tags(tmp_path: Path) -> None:
    source = write(
        tmp_path, {"a.tif": encoded(picture(), "TIFF", resolution_unit=3, x_resolution=20_000, y_resolution=20_000)}
    )
    (tmp_path / "facts.csv").write_text("file,mpp\na,0.25\n")
    assert run(source, Index())[1].tiles["mpp"].to_pylist() == [0.5]
    joined = Index(metadata=str(tmp_path / "facts.csv"), key="file")
    assert run(source, joined)[1].tiles["mpp"].to_pylist() == [0.25]
    assert run(source, joined.model_copy(update={"mpp": 1.0}))[1].tiles["mpp"].to_pylist() == [1.0]


def test_a_second_run_reads_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{number}.png": encoded(picture(seed=number), "PNG") for number in range(5)}
    source = write(tmp_path, {**files, "bad.png": b"no image"})
    decoded: list[bytes] = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda data: decoded.append(data) or decode(data))
    plan, first = run(source, Index())
    assert len(decoded) == 6
    decoded.clear()
    plan, second = run(source, Index(), first, plan)
    assert decoded == []
    assert second.tiles.equals(first.tiles)
    assert second.rejects.equals(first.rejects)

    changed, new = encoded(picture(seed=9), "PNG"), encoded(picture(seed=10), "PNG")
    write(tmp_path, {"1.png": changed, "new.png": new})
    (tmp_path / "2.png").unlink()
    plan, third = run(source, Index(), second, plan)
    assert sorted(decoded) == sorted([changed, new])
    expected = run(source, Index())[1]
    assert sorted(map(str, third.tiles.to_pylist())) == sorted(map(str, expected.tiles.to_pylist()))
    assert reasons(third) == {"bad.png": "unreadable"}


@pytest.mark.parametrize("change", [{"tile_size": 32}, {"stride": 7}, {"margin": 3}])
def test_settings_that_decide_what_is_measured_make_it_anew(tmp_path: Path, change: dict[str, int]) -> None:
    source = write(tmp_path, {"a.png": PNG})
    plan, made = run(source, Index(tile_size=64))
    assert run(source, Index(tile_size=64, stride=64, mpp=2.0), made, plan)[0].units == []
    assert len(run(source, Index(**{"tile_size": 64, **change}), made, plan)[0].units) == 1
    assert len(run(source, Index(tile_size=64), made, plan, score=lambda tile: 1.0)[0].units) == 1


def test_a_file_gone_between_listing_and_reading_is_tried_again(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.png": PNG, "b.png": PNG})
    plan = index.plan_index(source, Index())
    (tmp_path / "b.png").rename(tmp_path / "away")
    made = index.assemble(plan, [measure(plan.units, Index(), [])])
    assert reasons(made) == {"b.png": "missing"}
    (tmp_path / "away").rename(tmp_path / "b.png")
    again, made = run(source, Index(), made, plan)
    assert [Path(unit.uri).name for unit in again.units] == ["b.png"]
    assert made.rejects.num_rows == 0


def test_parts_of_a_killed_run_are_taken_up_without_repeats(tmp_path: Path) -> None:
    source = write(tmp_path, {f"{number}.png": encoded(picture(seed=number), "PNG") for number in range(6)})
    plan = index.plan_index(source, Index())
    whole = index.assemble(plan, [measure(plan.units, Index(), [])])
    # Two runs at the same time: their parts overlap.
    parts = [Previous(measure(plan.units[a:b], Index(), []), plan.about) for a, b in ((0, 3), (2, 5))]
    again = index.plan_index(source, Index(), parts)
    assert again.units == plan.units[5:]
    made = index.assemble(again, [measure(again.units, Index(), [])])
    assert made.tiles.sort_by("uri").equals(whole.tiles)


def parquet_file(path: Path, cells: list[bytes | None], group: int = 3, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.array([cell and {"bytes": cell, "path": None} for cell in cells], STRUCT)
    pq.write_table(pa.table({"image": image, **columns}), path, row_group_size=group)


def test_parquet_files_with_an_image_column(tmp_path: Path) -> None:
    cells = [encoded(picture(seed=seed), "PNG") for seed in range(7)]
    cells[2], cells[4] = b"no image", None
    tissue = ["brain", "brain", "brain", "breast", "breast", None, "breast"]
    parquet_file(tmp_path / "a.parquet", cells, tissue=tissue, mpp=[0.25] * 6 + [None])
    parquet_file(tmp_path / "b.parquet", [PNG], tissue=["lung"], extra=[1])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    settings = Index(subgroups=("tissue",))
    plan, made = run(str(tmp_path), settings)
    assert [(unit.group, unit.first_row) for unit in plan.units] == [(0, 0), (1, 3), (2, 6), (0, 0)]
    rows = [(Path(r["uri"]).name, r["row"], r["tissue"], r["mpp"]) for r in made.tiles.to_pylist()]
    assert rows == [
        ("a.parquet", 0, "brain", 0.25),
        ("a.parquet", 1, "brain", 0.25),
        ("a.parquet", 3, "breast", 0.25),
        ("a.parquet", 6, "breast", None),
        ("b.parquet", 0, "lung", None),
    ]
    refused = {(Path(r["uri"]).name, r["row"]): r["reason"] for r in made.rejects.to_pylist()}
    assert refused == {
        ("a.parquet", 2): "unreadable",
        ("a.parquet", 4): "missing",
        ("a.parquet", 5): "no_metadata",
        ("broken.parquet", None): "unreadable",
    }
    for r in made.tiles.to_pylist():
        pixels = tiles.load(tiles.fetch(r["uri"], r["row"], r["image_column"]), r["sha256"])
        assert pixels.shape == (r["height"], r["width"], 3)

    again, same = run(str(tmp_path), settings, made, plan)
    assert again.units == []
    assert same.tiles.equals(made.tiles)
    assert sorted(map(str, same.rejects.to_pylist())) == sorted(map(str, made.rejects.to_pylist()))
    # The subgroups come out of the files here, so others mean reading them again.
    assert len(run(str(tmp_path), Index(), made, plan)[0].units) == 4


def test_a_catalog_inside_its_source_is_no_source(tmp_path: Path) -> None:
    parquet_file(tmp_path / "a.parquet", [PNG])
    parquet_file(tmp_path / "catalog" / "catalog.parquet", [PNG])
    plan = index.plan_index(str(tmp_path), Index(), out=str(tmp_path / "catalog"))
    assert [Path(unit.uri).name for unit in plan.units] == ["a.parquet"]


@pytest.mark.parametrize("mark", [b"medsynth", b"medsynth.catalog"])
def test_what_medsynth_made_is_no_source(tmp_path: Path, mark: bytes) -> None:
    pq.write_table(pa.table({"image": [PNG]}).replace_schema_metadata({mark: b"{}"}), tmp_path / "a.parquet")
    with pytest.raises(CatalogError, match=r"a\.parquet: part of a corpus or catalog of medsynth"):
        index.plan_index(str(tmp_path), Index())


def test_images_make_tables_beside_them_metadata(tmp_path: Path) -> None:
    parquet_file(tmp_path / "facts.parquet", [PNG])
    write(tmp_path, {"a.png": PNG})
    plan = index.plan_index(str(tmp_path), Index())
    assert [Path(unit.uri).name for unit in plan.units] == ["a.png"]
    assert plan.ignored == 1


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": PNG, "b.png": PNG})
    (tmp_path / "t.csv").write_text("file,tissue\na.png,brain\n")
    settings = Index(metadata=str(tmp_path / "t.csv"), key="file", subgroups=("tissue",))
    plan, made = run(str(tmp_path / "a.png"), settings)
    assert made.tiles["tissue"].to_pylist() == ["brain"]
    assert plan.unmatched == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Index(subgroups=("tissue",)), "needs a metadata table"),
        (Index(key="file"), "there is no metadata table"),
        (Index(metadata="t.csv"), "name the metadata table's column"),
        (Index(metadata="t.csv", key="file", subgroups=("sharpness",)), "has a column of that name"),
        (Index(metadata="t.csv", key="file"), "no table there"),
    ],
)
def test_settings_that_do_not_fit_images(tmp_path: Path, settings: Index, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        index.plan_index(write(tmp_path, {"a.png": PNG}), settings)


def test_sources_without_images(tmp_path: Path) -> None:
    parquet_file(tmp_path / "p" / "a.parquet", [PNG], tissue=["brain"])
    for settings, message in (
        (Index(metadata="t.csv", key="k"), "Parquet files carry their own columns"),
        (Index(subgroups=("tisue",)), "did you mean 'tissue'"),
    ):
        with pytest.raises(CatalogError, match=message):
            index.plan_index(str(tmp_path / "p"), settings)
    with pytest.raises(CatalogError, match="no files there"):
        index.plan_index(str(tmp_path / "none"), Index())
    with pytest.raises(CatalogError, match="no images and no Parquet files among its 1 files"):
        index.plan_index(write(tmp_path / "t", {"notes.txt": b"x"}), Index())


def test_a_subgroup_value_is_text_whatever_it_was() -> None:
    values = [1, True, 2.0, 2.5, "x", np.float64("nan"), "", None]
    assert [metadata.as_text(value) for value in values] == ["1", "true", "2", "2.5", "x", None, None, None]


def test_real_slides_are_cut_into_tiles(shared_data: Path) -> None:
    _, made = run(str(shared_data / "pathology" / "OS-1-detail.ome.tif"), Index())
    assert made.tiles.num_rows == 16
    assert set(made.tiles["mpp"].to_pylist()) == {0.227097}
    assert all(made.tiles["in_focus"].to_pylist())
