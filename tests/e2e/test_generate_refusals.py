"""What the job refuses, replaces or only shows."""

from collections import Counter
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest
import skimage

from tests.jobs import assert_one_line, rows_of, run_job, write_spec

pytestmark = pytest.mark.slow

IHC = Path(skimage.__file__).parent / "data" / "ihc.png"


def test_another_spec_in_the_same_place_is_refused(corpus: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml", seed=8)
    message = "holds another corpus (spec.seed: 7 there, 8 now)"
    assert_one_line(run_job("generate", "--spec", spec, "--out", corpus), message)


def test_a_dry_run_prints_the_plan_shows_a_preview_and_makes_nothing(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml")
    done = run_job("generate", "--spec", spec, "--out", tmp_path / "out", "--dry-run", "--preview", "12")
    assert done.returncode == 0, done.stderr
    assert "120 rows in 8 shards" in done.stdout
    assert "estimate from 32 samples" in done.stdout
    assert not (tmp_path / "out" / "corpus.json").exists()
    assert not (tmp_path / "out" / "data").exists()
    sheet = cv2.imread(str(tmp_path / "out" / "preview.png"))
    assert sheet is not None
    assert sheet.std() > 10


def test_bad_sources_are_replaced_and_told(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    picture = cv2.imread(str(IHC))
    for number, (y, x) in enumerate((y, x) for y in (0, 128, 256) for x in (0, 128, 256)):
        cv2.imwrite(str(images / f"{number}.png"), picture[y : y + 256, x : x + 256])
    assert run_job("index", "--images", images, "--out", tmp_path / "catalog").returncode == 0
    (images / "2.png").unlink()
    (images / "4.png").write_bytes((images / "4.png").read_bytes()[:5000])
    (images / "6.png").write_bytes((images / "7.png").read_bytes())
    spec = write_spec(tmp_path / "spec.yaml", source=str(tmp_path / "catalog"))
    done = run_job("generate", "--spec", spec, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "120 rows" in done.stdout
    rows = rows_of(tmp_path / "out")
    assert Counter(row["focus_class"] for row in rows) == dict.fromkeys(range(30), 4)
    assert not {Path(str(row["source_uri"])).name for row in rows} & {"2.png", "4.png", "6.png"}
    rejects = [r for p in sorted((tmp_path / "out" / "rejects").iterdir()) for r in pq.read_table(p).to_pylist()]
    assert {(Path(r["source_uri"]).name, r["reason"]) for r in rejects} == {
        ("2.png", "missing"), ("4.png", "changed_since_catalog"), ("6.png", "changed_since_catalog"),
    }  # fmt: skip
    assert run_job("verify", tmp_path / "out").returncode == 0
    for image in images.iterdir():
        image.unlink()
    done = run_job("generate", "--spec", spec, "--out", tmp_path / "none")
    assert "undelivered, rows that found no good tile: 120 (focus_class=0: 4; " in done.stdout
    assert_one_line(done, "120 rows are undelivered, since sources went bad after the catalog was made")
    assert "120 of 120 rows are missing" in (tmp_path / "none" / "README.md").read_text()


def test_images_that_the_catalog_made_on_the_way_is_without_are_told(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.png").write_bytes(IHC.read_bytes())
    (images / "cut.png").write_bytes(IHC.read_bytes()[:5000])
    cv2.imwrite(str(images / "dot.png"), cv2.imread(str(IHC))[:1, :1])
    spec = write_spec(tmp_path / "spec.yaml", source=str(images))
    done = run_job("generate", "--spec", spec, "--out", tmp_path / "out", "--dry-run")
    told = f"could not be used: 2 (too_small: 1, truncated: 1); {tmp_path}/out/catalog/rejects.parquet names each"
    assert done.returncode == 0
    assert told in done.stdout


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"balance": {"axes": {"focus_class": ["30"]}, "total": 5}}, (), "the radius table has 0 to 29"),
        (
            {"balance": {"axes": {"focus_class": ["0"]}, "totl": 5}},
            (),
            "unknown key 'balance.totl'; did you mean 'total'?",
        ),
        ({"out_of_focus": {"device": "aperio"}}, (), "aperio"),
        ({"source": None}, (), "name a catalog"),
        ({}, ("--no-such-flag",), "no-such-flag"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path, changes: dict[str, object], flags: tuple[str, ...], message: str
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", **changes)
    assert_one_line(run_job("generate", "--spec", spec, "--out", tmp_path / "out", *flags), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"balance": {"axes": {"tissue": ["brain"], "focus_class": ["0"]}, "total": 5}},
            "axes.tissue: the recipe does not make it",
        ),
        ({"balance": {"axes": {"focus_class": ["0"]}, "total": 5000}}, "quotas cannot be met"),
        ({"source": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_mistakes_that_only_the_source_shows_are_one_line_too(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    spec = write_spec(tmp_path / "spec.yaml", **changes)
    assert_one_line(run_job("generate", "--spec", spec, "--out", tmp_path / "out"), message)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml")
    (tmp_path / "file").write_text("in the way")
    assert_one_line(run_job("generate", "--spec", spec, "--out", tmp_path / "file" / "out"), "file/out")
