"""A spec's sources: the catalog's usable tiles in the plan's order, found by place."""

from pathlib import Path

import pyarrow as pa
import pytest

from medsynth.corpus import sources
from medsynth.errors import SpecError
from medsynth.spec import Axis


def axis(*values: str) -> Axis:
    return Axis(weights=dict.fromkeys(values, 1.0))


def catalog(count: int = 40) -> pa.Table:
    return pa.table(
        {
            "uri": [f"s3://b/{i % 7}.png" for i in range(count)],
            "row": pa.array([None] * count, pa.int64()),
            "image_column": pa.array([None] * count, pa.string()),
            "x": pa.array([256 * (i // 7) for i in range(count)], pa.int32()),
            "y": pa.array([0] * count, pa.int32()),
            "width": pa.array([256] * count, pa.int32()),
            "height": pa.array([256] * count, pa.int32()),
            "mpp": [0.25] * count,
            "sha256": [f"{i % 7}" * 64 for i in range(count)],
            "in_focus": [i % 5 != 0 for i in range(count)],
            "tissue": [("brain", "breast", "lung")[i % 3] for i in range(count)],
            "stain": [("he", "ihc")[i % 2] for i in range(count)],
        }
    )


def test_tiles_stand_group_by_group_and_in_order_within() -> None:
    table = catalog()
    axes = {"tissue": axis("breast", "brain"), "stain": axis("he", "ihc")}
    found = sources.select(table, axes, ["tissue", "stain"], "cat")
    expected: list[tuple[str, int]] = []
    rows = table.to_pylist()
    for tissue in ("breast", "brain"):
        for stain in ("he", "ihc"):
            members = [r for r in rows if (r["tissue"], r["stain"], r["in_focus"]) == (tissue, stain, True)]
            assert found.counts[tissue, stain] == len(members)
            expected += sorted((r["uri"], r["x"]) for r in members)
    assert list(zip(found.table["uri"].to_pylist(), found.table["x"].to_pylist(), strict=True)) == expected
    assert found.other == sum(r["tissue"] == "lung" for r in rows)
    assert found.soft == sum(r["tissue"] != "lung" and not r["in_focus"] for r in rows)


def test_order_does_not_depend_on_the_catalogs() -> None:
    table = catalog()
    shuffled = table.take(pa.array(list(reversed(range(table.num_rows)))))
    axes = {"tissue": axis("brain", "lung")}
    one, two = (sources.to_bytes(sources.select(t, axes, ["tissue"], "cat").table) for t in (table, shuffled))
    assert one == two


def test_without_catalog_axes_all_sharp_tiles_are_one_group() -> None:
    found = sources.select(catalog(), {}, [], "cat")
    assert found.counts == {(): 32}


def test_unknown_axis_and_misspelt_value_name_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"balance.axes.tisue: .* cat has no such column; did you mean 'tissue'\?"):
        sources.select(catalog(), {"tisue": axis("brain")}, ["tisue"], "cat")
    with pytest.raises(SpecError, match=r"no tile of cat has the value 'brian'; did you mean 'brain'\?"):
        sources.select(catalog(), {"tissue": axis("brian")}, ["tissue"], "cat")


def test_places_are_found_across_row_groups(tmp_path: Path) -> None:
    table = sources.select(catalog(20_000), {}, [], "cat").table
    (tmp_path / sources.NAME).write_bytes(sources.to_bytes(table))
    rows = table.to_pylist()
    found = sources.at(str(tmp_path), [0, 4095, 4096, 15_999, 4096])
    assert {place: (s.uri, s.x) for place, s in found.items()} == {
        place: (rows[place]["uri"], rows[place]["x"]) for place in (0, 4095, 4096, 15_999)
    }
