"""The catalog as a user makes it: the job, on disk and on object storage, killed and started again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth import storage
from medsynth.catalog import table, tiles
from medsynth.distributed import indexing
from medsynth.errors import CatalogError, UserError
from medsynth.spec import Index, Spec
from tests.bad_inputs import BAD, ODD, encoded, picture
from tests.jobs import REPO, SPEC, run_job
from tests.servers import S3Server

FILES = {**{name: data for name, (data, _) in BAD.items()}, **ODD}


def fill(folder: Path, count: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}.png").write_bytes(encoded(picture(64, 64, seed=number), "PNG"))
    return str(folder)


def contents(catalog: str) -> list[dict[str, object]]:
    return [*table.read(catalog).to_pylist(), *table.read_rejects(catalog).to_pylist()]


@pytest.mark.slow
def test_the_job_indexes_all_that_is_good_and_names_the_rest(tmp_path: Path) -> None:
    source, out = tmp_path / "images", tmp_path / "catalog"
    source.mkdir()
    for name, data in FILES.items():
        (source / name).write_bytes(data)
    lines = [f"{name},{'left' if place % 2 else 'right'}" for place, name in enumerate(ODD)]
    (tmp_path / "facts.csv").write_text(
        "\n".join(["file,side", *lines, *(f"{name},left" for name in BAD), "lost,left"])
    )
    flags = [
        "--images",
        source,
        "--metadata",
        tmp_path / "facts.csv",
        "--key",
        "file",
        "--subgroups",
        "side",
        "--out",
        out,
    ]
    done = run_job("index", *flags)
    assert done.returncode == 0, done.stderr
    made = table.read(str(out))
    assert made.num_rows == len(ODD)
    assert made["side"].to_pylist().count("left") == len(ODD) // 2
    assert table.read_rejects(str(out)).num_rows == len(BAD)
    assert sorted(path.name for path in out.iterdir()) == ["catalog.parquet", "rejects.parquet"]
    for word in (
        "left",
        "right",
        "truncated",
        "too_many_pixels",
        "1 metadata rows have no image: lost",
        f"{len(ODD)} tiles",
    ):
        assert word in done.stdout
    before = (out / "catalog.parquet").read_bytes()
    again = run_job("index", *flags)
    assert again.returncode == 0
    assert " 0 read now" in again.stdout
    assert (out / "catalog.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "nowhere"], "no files there"),
        (["--images", "{images}", "--metadata", "{facts}", "--key", "fil"], "did you mean 'file'?"),
        (["--images", "{images}", "--tile-size", "3"], "tile_size"),
        (["--images", "s4://bucket/x"], "unknown scheme"),
        ([], "--images"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, flags: list[str], message: str) -> None:
    fill(tmp_path / "images", 1)
    (tmp_path / "facts.csv").write_text("file\n000.png\n")
    places = {"images": tmp_path / "images", "facts": tmp_path / "facts.csv"}
    done = run_job("index", *(flag.format(**places) for flag in flags), "--out", tmp_path / "out")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_from_and_to_object_storage(moto_env: S3Server, tmp_path: Path) -> None:
    bucket = moto_env.bucket()
    source, out = storage.join(bucket, "images"), storage.join(bucket, "images", "catalog")
    for name, data in FILES.items():
        storage.put(storage.join(source, name), data)
    facts = storage.join(bucket, "facts.parquet")
    pq.write_table(pa.table({"name": list(FILES), "grade": [place % 3 for place in range(len(FILES))]}), tmp_path / "f")
    storage.put(facts, (tmp_path / "f").read_bytes())
    flags = ["--images", source, "--metadata", facts, "--key", "name", "--subgroups", "grade", "--out", out]
    done = run_job("index", *flags, env=moto_env.env)
    assert done.returncode == 0, done.stderr
    assert f"{len(FILES)} read now" in done.stdout
    made = table.read(out).to_pylist()
    assert len(made) == len(ODD)
    for row in made:
        assert row["uri"].startswith(source + "/")
        assert row["grade"] in "012"
        assert tiles.load(tiles.fetch(row["uri"]), row["sha256"]).shape == (row["height"], row["width"], 3)
    assert table.read_rejects(out).num_rows == len(BAD)
    # With nothing new to read there is no work for Ray.
    storage.put(storage.join(source, "new.png"), encoded(picture(seed=5), "PNG"))
    storage.delete(storage.join(source, "plain.bmp"))
    again = indexing.index(source, Index(metadata=facts, key="name", subgroups=("grade",)), out)
    assert (again.tiles, again.measured, again.rejects["no_metadata"]) == (len(ODD) - 1, 0, 1)
    assert again.unmatched == ["plain.bmp"]


def test_a_source_of_bad_images_alone_is_an_error_that_counts_them(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(CatalogError, match=r"no usable image \(1 unreadable\); .*rejects\.parquet names each"):
        indexing.index(str(tmp_path / "images"), Index(), str(tmp_path / "out"))
    assert table.read_rejects(str(tmp_path / "out")).num_rows == 1


def test_waves_and_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "images", 23)
    indexing.index(source, Index(), str(tmp_path / "one"))
    monkeypatch.setattr(indexing, "_BATCH_UNITS", 3)
    monkeypatch.setattr(indexing, "_WAVE_BATCHES", 2)
    seen: list[tuple[int, int]] = []
    indexing.index(
        source, Index(), str(tmp_path / "many"), progress=lambda done, total, *, fresh: seen.append((done, total))
    )
    assert len(seen) == 8
    assert seen[1::2] == [(6, 23), (12, 23), (18, 23), (23, 23)]
    for name in (table.TABLE, table.REJECTS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_row_groups_of_one_file_stay_in_one_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_BATCH_UNITS", 2)
    monkeypatch.setattr(indexing, "_WAVE_BATCHES", 2)
    units = [indexing.Unit(f"{file}.parquet", "e", 1, group) for file in range(5) for group in range(7)]
    waves = list(indexing._waves(units))
    assert [unit for wave in waves for batch in wave for unit in batch] == units
    files = [{unit.uri for batch in wave for unit in batch} for wave in waves]
    assert len(files) > 1
    assert all(one.isdisjoint(other) for place, one in enumerate(files) for other in files[:place])


KILLED = """
import sys, time
from medsynth.distributed import indexing
from medsynth.distributed.session import session
from medsynth.spec import Index
indexing._BATCH_UNITS, indexing._WAVE_BATCHES = 2, 2
with session():
    indexing.index(sys.argv[1], Index(), sys.argv[2], progress=lambda done, total, *, fresh: time.sleep(0.2))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "images", 60), tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, source, str(out)], cwd=REPO, env=dict(os.environ))
    try:
        limit = time.monotonic() + 120
        while len(list(out.glob("part-*.catalog.parquet"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not (out / "catalog.parquet").exists()
    known = sum(table.read(str(part)).num_rows for part in out.glob("part-*.catalog.parquet"))
    summary = indexing.index(source, Index(), str(out))
    assert summary.measured == 60 - known < 60
    assert sorted(path.name for path in out.iterdir()) == ["catalog.parquet", "rejects.parquet"]
    indexing.index(source, Index(), str(tmp_path / "whole"))
    assert contents(str(out)) == contents(str(tmp_path / "whole"))


def test_a_part_cut_between_its_files_is_cleared_away(tmp_path: Path) -> None:
    source, out = fill(tmp_path / "images", 2), tmp_path / "out"
    indexing.index(source, Index(), str(out))
    (out / "catalog.parquet").unlink()
    (out / "rejects.parquet").rename(out / "part-0123.rejects.parquet")
    assert indexing.index(source, Index(), str(out)).measured == 2
    assert sorted(path.name for path in out.iterdir()) == ["catalog.parquet", "rejects.parquet"]


@pytest.mark.parametrize("batch", [indexing._BATCH_UNITS, 1])
def test_a_mistake_in_the_source_stops_the_run_in_one_line_here_and_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(indexing, "_BATCH_UNITS", batch)
    columns = {"image": [encoded(picture(), "PNG")] * 2, "mpp": ["0.25", "much"]}
    for name in "ab":
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match=r"\.parquet: row 1: mpp 'much' is not a positive number"):
        indexing.index(str(tmp_path), Index(), str(tmp_path / "out"))


def test_subgroups_are_counted(tmp_path: Path) -> None:
    cells = [encoded(picture(128, 128, seed=seed), "PNG") for seed in range(3)]
    cells[2] = encoded(np.full((64, 64, 3), 230, np.uint8), "PNG")
    pq.write_table(pa.table({"image": cells, "a": ["x", "y", "x"], "b": [1, 1, 1]}), tmp_path / "a.parquet")
    summary = indexing.index(str(tmp_path), Index(subgroups=("a", "b"), min_sharpness=1e-6), str(tmp_path / "out"))
    assert summary.subgroups == {("x", "1"): (2, 1), ("y", "1"): (1, 1)}
    assert (summary.tiles, summary.soft) == (3, 1)


def test_the_source_of_a_spec_is_a_catalog_or_becomes_one(tmp_path: Path) -> None:
    source, corpus = fill(tmp_path / "images", 3), str(tmp_path / "images" / "corpus")
    storage.put(storage.join(corpus, "preview.png"), encoded(picture(64, 64, seed=9), "PNG"))
    spec = Spec.model_validate({**SPEC, "source": source, "index": {"tile_size": 64}})
    made, where = indexing.catalog_for(spec, corpus)
    assert where == storage.join(corpus, "catalog")
    assert made is not None
    assert made.num_rows == 3
    there, where = indexing.catalog_for(spec.model_copy(update={"source": where}), str(tmp_path / "unused"))
    assert where == storage.join(corpus, "catalog")
    assert made.equals(there)
    assert indexing.catalog_for(spec.model_copy(update={"source": None}), corpus) == (None, "")
    with pytest.raises(CatalogError, match="no files there"):
        indexing.catalog_for(spec.model_copy(update={"source": str(tmp_path / "none")}), corpus)
    assert not (tmp_path / "unused").exists()


def test_an_image_of_an_installed_package_is_a_source(tmp_path: Path) -> None:
    summary = indexing.index("package://skimage/data/ihc.png", Index(stride=128), str(tmp_path / "out"))
    assert (summary.tiles, summary.soft) == (9, 0)
    uri = table.read(str(tmp_path / "out"))["uri"][0].as_py()
    assert len(tiles.fetch(uri)) > 1000
