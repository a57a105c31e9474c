"""Slides as a user scores them: the job, folders of good and bad, killed and started again, local and remote."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medsynth import storage
from medsynth.catalog import slides
from medsynth.distributed import scoring
from medsynth.errors import ScoringError
from medsynth.focus import stages
from medsynth.focus.heatmap import Grades, HeatMap
from medsynth.focus.model import FocusModel
from tests import cluster
from tests.jobs import REPO, own_env, run_job
from tests.servers import S3Server
from tests.slides import RADII, network, on_glass, stained, write_huge, write_tiff

GOOD = on_glass(1100, 900, (90, 130, 800, 600))


@pytest.fixture(scope="module")
def model() -> FocusModel:
    return network()


def fill(folder: Path) -> Path:
    """Two good slides of one name, and one of each kind of bad."""
    (folder / "other").mkdir(parents=True)
    write_tiff(folder / "good.tif", GOOD)
    write_tiff(folder / "other" / "good.tif", stained(500, 600, 7), levels=2)
    write_tiff(folder / "glass.tif", on_glass(400, 400, (0, 0, 0, 0)))
    write_tiff(folder / "grey.tif", stained(400, 400).mean(axis=2).astype(np.uint8), photometric="minisblack")
    write_tiff(folder / "no_mpp.tif", stained(300, 300), None)
    write_tiff(folder / "small.tif", stained(90, 300))
    whole = write_tiff(folder / "cut.tif", stained(600, 600)).read_bytes()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.svs").write_bytes(b"")
    return folder


REASONS = {
    "cut": "truncated",
    "empty": "truncated",
    "glass": "no_tissue",
    "grey": "not_bright_field",
    "no_mpp": "unknown_mpp",
    "small": "too_small",
}


def settings_for(out: str, **changes: object) -> stages.Settings:
    known = {"spacing": 32, "mpp": None, "grades": Grades(), "exports": ("geojson",)}
    return stages.Settings(out, **{**known, **changes})  # type: ignore[arg-type]


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != stages.SLIDE
    }


def test_good_slides_are_scored_and_bad_ones_named(tmp_path: Path, model: FocusModel) -> None:
    folder, out = fill(tmp_path / "slides"), tmp_path / "out"
    seen: list[scoring.Progress] = []
    found = scoring.score(slides.find([str(folder)]), model, settings_for(str(out)), progress=seen.append)
    by_stem = {outcome.name: outcome for outcome in found.outcomes}
    good = [outcome for outcome in found.outcomes if outcome.status == stages.SCORED]
    assert len(good) == 2
    assert all(outcome.name.startswith("good-") for outcome in good), "two slides of one name have folders of their own"
    assert {name: by_stem[name].reason for name in REASONS} == REASONS
    assert by_stem["glass"].status == stages.NOTHING
    assert "--mpp" in str(by_stem["no_mpp"].detail)
    assert {one.stage for one in seen} == {"surveys", "bands", "maps"}
    assert found.tissue_px > 1e5
    for outcome in good:
        files = {path.name for path in (out / outcome.name).iterdir() if path.is_file()}
        assert files == {"slide.json", "survey.npz", "map.npz", "regions.geojson", "summary.json"}
        heat = HeatMap.from_bytes((out / outcome.name / "map.npz").read_bytes())
        assert 0 < np.isfinite(heat.radius_um).mean() <= 1
    before = contents(out)
    again = scoring.score(slides.find([str(folder)]), model, settings_for(str(out)))
    assert again.tissue_px == 0
    assert not any(outcome.fresh for outcome in again.outcomes if outcome.status != scoring.REJECTED)
    assert contents(out) == before


def test_exports_can_be_asked_for_later(tmp_path: Path, model: FocusModel) -> None:
    write_tiff(tmp_path / "a.tif", stained(400, 500))
    found = slides.find([str(tmp_path / "a.tif")])
    scoring.score(found, model, settings_for(str(tmp_path / "out"), exports=()))
    assert not (tmp_path / "out" / "a" / "overlay.png").exists()
    more = scoring.score(found, model, settings_for(str(tmp_path / "out"), exports=("overlay", "ome_tiff")))
    assert more.tissue_px == 0
    assert {"overlay.png", "map.ome.tif"} <= {path.name for path in (tmp_path / "out" / "a").iterdir()}


def test_workers_and_pieces_shared_out_do_not_show(
    tmp_path: Path, model: FocusModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiff(tmp_path / "tall.tif", on_glass(5000, 500, (200, 50, 4500, 400)))
    found = slides.find([str(tmp_path / "tall.tif")])
    for workers in (1, 2):
        scoring.score(found, model, settings_for(str(tmp_path / str(workers))), workers=workers)
    monkeypatch.setattr(scoring, "_WAVE", 1)
    scoring.score(found, model, settings_for(str(tmp_path / "waves")))
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "waves")


def test_another_run_in_the_same_place_is_refused(tmp_path: Path, model: FocusModel) -> None:
    write_tiff(tmp_path / "a.tif", stained(300, 300))
    found, out = slides.find([str(tmp_path / "a.tif")]), str(tmp_path / "out")
    scoring.score(found, model, settings_for(out))
    for changes, named in (
        ({"spacing": 64}, "stride: 32 there, 64 here"),
        ({"mpp": 0.5}, "mpp"),
    ):
        with pytest.raises(ScoringError, match=named):
            scoring.score(found, model, settings_for(out, **changes))
    other = FocusModel(model.network, tuple(2 * radius for radius in RADII), {})
    with pytest.raises(ScoringError, match="weights_sha256"):
        scoring.score(found, other, settings_for(out))
    write_tiff(tmp_path / "a.tif", stained(300, 301))
    (changed,) = scoring.score(slides.find([str(tmp_path / "a.tif")]), model, settings_for(out)).outcomes
    assert changed.reason == "changed_since_catalog"


def test_a_slide_of_the_same_name_elsewhere_gets_a_folder_of_its_own(tmp_path: Path, model: FocusModel) -> None:
    out = str(tmp_path / "out")
    names = []
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        write_tiff(tmp_path / place / "a.tif", stained(300, 300))
        found = scoring.score(slides.find([str(tmp_path / place)]), model, settings_for(out))
        names.append(found.outcomes[0].name)
    assert names[0] == "a"
    assert names[1].startswith("a-")


def test_a_slide_that_breaks_in_the_middle_is_rejected_and_the_others_go_on(tmp_path: Path, model: FocusModel) -> None:
    write_tiff(tmp_path / "good.tif", stained(400, 400))
    path = write_tiff(tmp_path / "broken.tif", stained(1200, 400), levels=3)
    data = bytearray(path.read_bytes())
    slide = slides.open_slide(path)
    page = slide._pages[0]  # type: ignore[attr-defined]
    for start in page.dataoffsets[-3:]:
        data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    found = scoring.score(slides.find([str(tmp_path)]), model, settings_for(str(tmp_path / "out")))
    assert {outcome.name: outcome.status for outcome in found.outcomes} == {"good": "scored", "broken": "rejected"}


@pytest.mark.slow
def test_from_and_to_object_storage(moto_env: S3Server, tmp_path: Path, model: FocusModel) -> None:
    bucket = moto_env.bucket()
    storage.put(storage.join(bucket, "slides/a.tif"), write_tiff(tmp_path / "a.tif", GOOD).read_bytes())
    storage.put(storage.join(bucket, "slides/b.svs"), b"rubbish")
    model.save(storage.join(bucket, "w.safetensors"))
    out = storage.join(bucket, "out")
    flags = ["--out", out, "--weights", storage.join(bucket, "w.safetensors"), "--geojson", "--workers", 1]
    done = run_job("score_slides", storage.join(bucket, "slides"), *flags, env=moto_env.env)
    assert done.returncode == 0, done.stderr
    assert "1 slides scored, 1 of them now" in done.stdout
    assert "b.svs: unreadable" in done.stdout
    scoring.score(slides.find([str(tmp_path / "a.tif")]), model, settings_for(str(tmp_path / "out")))
    assert storage.read(storage.join(out, "a/map.npz")) == (tmp_path / "out" / "a" / "map.npz").read_bytes()
    assert not list(Path(tempfile.gettempdir()).glob("medsynth-slide-*"))


def test_a_mistake_is_told_in_one_line(tmp_path: Path, model: FocusModel) -> None:
    write_tiff(tmp_path / "no_mpp.tif", stained(300, 300), None)
    model.save(str(tmp_path / "w.safetensors"))
    common = ["--out", tmp_path / "out", "--weights", tmp_path / "w.safetensors"]
    for flags, message in (
        (["--grades", "1,1,2"], "--grades: the grades' radii must be above 0 and grow"),
        ([], "none of the 1 slides could be scored"),
    ):
        done = run_job("score_slides", tmp_path / "no_mpp.tif", *common, *flags)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 2, done.stderr
        assert len(errors) == 1
        assert message in errors[0]
        assert "Traceback" not in done.stderr
    assert "give --mpp" in done.stdout


@pytest.mark.slow
def test_the_job_scores_draws_and_tells(tmp_path: Path, model: FocusModel) -> None:
    folder, out = fill(tmp_path / "slides"), tmp_path / "out"
    model.save(str(tmp_path / "w.safetensors"))
    lines = [f"{radius * 0.25},{0.02 * number}" for number, radius in enumerate(RADII)]
    (tmp_path / "errors.csv").write_text("\n".join(["blur_radius_um,error", *lines]))
    flags = [folder, "--out", out, "--weights", tmp_path / "w.safetensors", "--errors", tmp_path / "errors.csv"]
    flags += ["--overlay", "--geojson", "--ome-tiff"]
    done = run_job("score_slides", *flags)
    assert done.returncode == 0, done.stderr
    assert "2 slides scored, 2 of them now" in done.stdout
    assert "1 with nothing to score, 5 rejected" in done.stdout
    for reason in REASONS.values():
        assert reason in done.stdout
    rows = pq.read_table(out / "slides.parquet").to_pylist()
    assert len(rows) == 8
    for row in rows:
        if row["status"] == "scored":
            expected = np.dot(row["classes"], 0.02 * np.arange(30)) / np.sum(row["classes"])
            assert row["expected_error"] == pytest.approx(expected, rel=1e-4)
            assert {"overlay.png", "regions.geojson", "map.ome.tif"} <= {p.name for p in (out / row["slide"]).iterdir()}
            json.loads((out / row["slide"] / "regions.geojson").read_bytes())
    before = contents(out)
    again = run_job("score_slides", *flags)
    assert "2 slides scored, 0 of them now" in again.stdout
    assert contents(out) == before


KILLED = """
import sys, time
from medsynth.catalog import slides
from medsynth.distributed import scoring
from medsynth.distributed.session import session
from medsynth.focus import stages
from medsynth.focus.heatmap import Grades
from medsynth.focus.model import FocusModel
with session():
    settings = stages.Settings(sys.argv[2], 32, None, Grades(), ("geojson",))
    scoring._WAVE = 1
    wait = lambda one: time.sleep(0.5 if one.stage == "bands" else 0)
    scoring.score(slides.find([sys.argv[1]]), FocusModel.load(sys.argv[3]), settings, progress=wait)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, model: FocusModel) -> None:
    write_tiff(tmp_path / "tall.tif", on_glass(16000, 400, (200, 50, 15600, 300)))
    model.save(str(tmp_path / "w.safetensors"))
    source, out = tmp_path / "tall.tif", tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(out), str(tmp_path / "w.safetensors")],
        cwd=REPO,
        env={**own_env(), "RAY_ADDRESS": cluster.address()},
    )
    try:
        limit = time.monotonic() + 120
        while len(list(out.glob("tall/bands/*.npz"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not (out / "tall" / "map.npz").exists()
    kept = len(list(out.glob("tall/bands/*.npz")))
    seen: list[scoring.Progress] = []
    found = slides.find([str(source)])
    scoring.score(found, model, settings_for(str(out)), progress=seen.append)
    assert max(one.total for one in seen if one.stage == "bands") == 8 - kept
    scoring.score(found, model, settings_for(str(tmp_path / "whole")))
    assert contents(out) == contents(tmp_path / "whole")


MEASURED = r"""
import re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from medsynth.catalog import slides
from medsynth.focus import slide as scoring
from medsynth.focus.model import FocusModel
model = FocusModel.load(sys.argv[2])
with slides.opened(sys.argv[1]) as slide:
    found = scoring.survey(slide, scoring.geometry(slide, model, model.stride))
    middle = found.geometry.bands // 2
    scoring.score_band(slide, found, model, middle)
    # Not getrusage: its peak is inherited from the process that started this one.
    print(found.tissue.mean(), 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.slow
def test_a_huge_slide_stays_small_in_memory(tmp_path: Path, model: FocusModel) -> None:
    # One level, so that even the overview is made of all of its pixels: 1.2 GB of them.
    path = write_huge(tmp_path / "huge.tif", 20_000)
    model.save(str(tmp_path / "w.safetensors"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "w.safetensors")],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    tissue, peak = map(float, done.stdout.split())
    assert 0.4 < tissue < 0.6
    assert peak < 1e9
