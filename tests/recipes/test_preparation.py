"""A spec and a catalog become a plan with a name of its own, or one clear error."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth.errors import ShortfallError, SpecError
from medsynth.recipes import preparation
from tests import corpora


def test_fingerprint_follows_what_decides_bytes_and_nothing_else() -> None:
    base = corpora.prepared()
    assert corpora.prepared().fingerprint == base.fingerprint
    spelt_out = corpora.prepared(out_of_focus={"light": "linear", "size": 176})
    assert spelt_out.fingerprint == base.fingerprint
    others = [
        corpora.prepared(seed=8),
        corpora.prepared(out_of_focus={"light": "gamma"}),
        corpora.prepared(output={"rows_per_shard": 9}),
        corpora.prepared(corpora.catalog(("colon", "gland", "gland"))),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_header_names_the_plan_and_is_plain_json() -> None:
    header = corpora.prepared().header
    assert json.loads(json.dumps(header)) == header
    assert header["axes"] == {"tissue": ["colon", "gland"], "focus_class": ["0", "10", "29"]}
    assert (header["rows"], header["shards"], header["sources"]) == (30, 4, 4)
    assert {"medsynth", "numpy", "simplejpeg"} <= set(header["versions"])


def test_trial_estimates_without_writing(tmp_path: Path) -> None:
    trial = preparation.trial(corpora.prepared(), 12)
    assert (trial.samples, trial.made.table.num_rows) == (12, 12)
    assert 0 < trial.seconds_per_row < 1
    assert 500 < trial.bytes_per_row < 100_000
    assert preparation.trial(corpora.prepared(), 1000).samples == 30


def test_preview_is_a_png() -> None:
    assert preparation.preview(corpora.prepared(), 6).startswith(b"\x89PNG")


def test_tiles_too_small_for_the_margin_are_no_sources_and_are_told() -> None:
    mixed = pa.concat_tables([corpora.catalog(), corpora.catalog(("colon",) * 3, side=200)])
    run = corpora.prepared(mixed)
    assert run.header["sources"] == 4
    assert run.header["notes"] == [
        "3 tiles cannot be sources, too_small: 200x200 px give at most 168 px with the margin, "
        "and out_of_focus.size is 176"
    ]
    with pytest.raises(SpecError, match="none of its 4 tiles can be a source, too_small: 150x150"):
        corpora.prepared(corpora.catalog(side=150))


def test_radii_in_micrometres_need_the_scale() -> None:
    with pytest.raises(SpecError, match="unknown_mpp"):
        corpora.prepared(
            out_of_focus={"radii_um": [0, 1.0]},
            balance={"axes": {"focus_class": [0, 1]}, "total": 4},
        )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_top_up_counts_the_real_table(tmp_path: Path, kind: str) -> None:
    real = tmp_path / f"real.{kind}"
    if kind == "csv":
        real.write_text("tissue,focus_class\ncolon,0\ncolon,0\ngland,29\nlung,3\n")
    else:  # a column with an empty cell comes out of many tools as floats
        columns = {"tissue": ["colon", "colon", "gland", "gland"], "focus_class": [0.0, 0.0, 29.0, None]}
        pq.write_table(pa.table(columns), real)
    axes = corpora.ORDER["balance"]["axes"]
    run = corpora.prepared(balance={"axes": axes, "top_up": {"real": str(real), "to": 5}})
    planned = {quota.subgroup: quota.planned for quota in run.plan.quotas()}
    assert planned == {
        ("colon", "0"): 3, ("colon", "10"): 5, ("colon", "29"): 5,
        ("gland", "0"): 5, ("gland", "10"): 5, ("gland", "29"): 4,
    }  # fmt: skip
    assert "1 real images belong to subgroups that were not asked for" in run.header["notes"]


def test_fingerprint_follows_the_real_images_counted(tmp_path: Path) -> None:
    real = tmp_path / "real.csv"
    axes = corpora.ORDER["balance"]["axes"]
    found = set()
    for cells in ("colon,0\n", "colon,0\ncolon,0\n", "colon,0\ngland,0\n"):
        real.write_text("tissue,focus_class\n" + cells)
        found.add(corpora.prepared(balance={"axes": axes, "top_up": {"real": str(real), "to": 5}}).fingerprint)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tisue,focus_class\na,0\n", "no column 'tissue'; did you mean 'tisue'"),
        ("\x00\x01", "real.csv"),
        ("", "real.csv"),
    ],
)
def test_a_bad_real_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    real = tmp_path / "real.csv"
    real.write_text(text)
    axes = corpora.ORDER["balance"]["axes"]
    with pytest.raises(SpecError, match=message):
        corpora.prepared(balance={"axes": axes, "top_up": {"real": str(real), "to": 5}})


def test_an_impossible_quota_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ShortfallError, match="tissue=colon lacks"):
        corpora.prepared(balance={"axes": corpora.ORDER["balance"]["axes"], "per_subgroup": 50})
