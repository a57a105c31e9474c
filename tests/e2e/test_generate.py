"""The whole job, as a user runs it."""

import json
import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage

from tests.jobs import command, digests, run_job, write_spec
from tests.servers import S3Server

pytestmark = pytest.mark.slow

IHC = Path(skimage.__file__).parent / "data" / "ihc.png"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    spec = write_spec(folder / "spec.yaml")
    done = run_job("generate", "--spec", spec, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    assert "120 rows, 8 shards" in done.stdout
    assert "report.html" in done.stdout
    return folder / "out"


def assert_one_line(done: subprocess.CompletedProcess[str], message: str) -> None:
    """The user's mistake: exit 2, and one line of error, the last."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert [line for line in lines if "/s, " not in line] == lines[-1:]  # the others tell how far the job is
    assert message in lines[-1]


def rows_of(corpus: Path) -> list[dict[str, object]]:
    return [row for path in sorted((corpus / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_corpus_is_balanced_to_the_row(corpus: Path) -> None:
    rows = rows_of(corpus)
    assert Counter(row["focus_class"] for row in rows) == dict.fromkeys(range(30), 4)
    assert [row["index"] for row in rows] == list(range(120))
    assert len({row["sample_id"] for row in rows}) == 120
    assert all(row["synthetic"] is True for row in rows)


def test_images_are_what_their_rows_say(corpus: Path) -> None:
    radii = []
    sharpness = []
    for row in rows_of(corpus):
        image = cv2.imdecode(np.frombuffer(row["image"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (176, 176, 3)
        radii.append(row["blur_radius_px"])
        sharpness.append(cv2.Laplacian(cv2.GaussianBlur(image[:, :, 1], (0, 0), 1.5), cv2.CV_32F).var())
    order = np.argsort(radii)
    strong, weak = np.array(sharpness)[order[-30:]], np.array(sharpness)[order[:30]]
    assert np.median(weak) > 3 * np.median(strong)


def test_verify_finds_it_sound_and_finds_what_is_not(corpus: Path, tmp_path: Path) -> None:
    done = run_job("verify", corpus, "--rows", "60")
    assert done.returncode == 0, done.stdout
    assert "8 shards and 120 rows read, 60 rows made again: all as the manifest says" in done.stdout
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", corpus, broken], check=True)
    shard = broken / "data" / "train-00003-of-00008.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (broken / "data" / "train-00005-of-00008.parquet").unlink()
    done = run_job("verify", broken, "--rows", "0")
    assert done.returncode == 1
    assert "train-00003-of-00008.parquet: its bytes are not those in the manifest" in done.stdout
    assert "train-00005-of-00008.parquet: missing" in done.stdout
    shard.unlink()
    done = run_job("generate", "--spec", corpus.parent / "spec.yaml", "--out", broken)
    assert done.returncode == 0, done.stderr
    assert "; 32 rows made now" in done.stdout
    assert digests(broken) == digests(corpus)


def test_same_command_again_makes_nothing_and_changes_nothing(corpus: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (corpus / "data").iterdir()}
    done = run_job("generate", "--spec", corpus.parent / "spec.yaml", "--out", corpus)
    assert done.returncode == 0, done.stderr
    assert "0 rows made now" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (corpus / "data").iterdir()} == before


def test_another_spec_in_the_same_place_is_refused(corpus: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml", seed=8)
    message = "holds another corpus (spec.seed: 7 there, 8 now)"
    assert_one_line(run_job("generate", "--spec", spec, "--out", corpus), message)


def test_same_bytes_with_one_worker_and_after_a_kill(corpus: Path, tmp_path: Path) -> None:
    args = ("generate", "--spec", corpus.parent / "spec.yaml", "--out", tmp_path / "out", "--workers", "1")
    running = subprocess.Popen(command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    data = tmp_path / "out" / "data"
    while running.poll() is None and len(list(data.glob("*.parquet")) if data.is_dir() else []) < 3:
        os.sched_yield()
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    done = run_job(*args)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(corpus)
    assert not list((tmp_path / "out").rglob(".staging"))


def test_ctrl_c_leaves_a_resumable_corpus(tmp_path: Path) -> None:
    balance = {"axes": {"focus_class": {"from": 0, "to": 29}}, "per_subgroup": 100, "max_reuse": 1000}
    spec = write_spec(tmp_path / "spec.yaml", balance=balance)
    args = ("generate", "--spec", spec, "--out", tmp_path / "out")
    running = subprocess.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    data = tmp_path / "out" / "data"
    while running.poll() is None and not (data.is_dir() and list(data.glob("*.parquet"))):
        os.sched_yield()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "interrupted; what is finished is kept" in err
    assert "Traceback" not in err
    done = run_job(*args)
    assert done.returncode == 0, done.stderr
    assert 0 < int(re.search(r"([\d,]+) rows made now", done.stdout)[1].replace(",", "")) < 3000


def test_whole_job_from_and_to_object_storage(s3_env: S3Server, corpus: Path) -> None:
    bucket = s3_env.bucket()
    client = s3_env.client()
    name = bucket.removeprefix("s3://")
    client.upload_file(str(corpus.parent / "spec.yaml"), name, "specs/small.yaml")
    done = run_job("generate", "--spec", f"{bucket}/specs/small.yaml", "--out", f"{bucket}/corpora/small")
    assert done.returncode == 0, done.stderr
    assert ("ignores conditional writes" in done.stdout) is not s3_env.conditional
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=name, Prefix="corpora/small/")["Contents"]]
    assert not [key for key in keys if "probe" in key]
    for path in (corpus / "data").iterdir():
        assert client.get_object(Bucket=name, Key=f"corpora/small/data/{path.name}")["Body"].read() == path.read_bytes()
    done = run_job("verify", f"{bucket}/corpora/small", "--rows", "5")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dry_run_prints_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml")
    done = run_job("generate", "--spec", spec, "--out", tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "120 rows in 8 shards" in done.stdout
    assert "estimate from 32 samples" in done.stdout
    assert not (tmp_path / "out" / "corpus.json").exists()
    assert not (tmp_path / "out" / "data").exists()


def test_preview_is_a_picture(tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml")
    done = run_job("generate", "--spec", spec, "--out", tmp_path / "out", "--preview", "12")
    assert done.returncode == 0, done.stderr
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


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"balance": {"axes": {"focus_class": ["30"]}, "total": 5}}, (), "the radius table has 0 to 29"),
        (
            {"balance": {"axes": {"focus_class": ["0"]}, "totl": 5}},
            (),
            "unknown key 'balance.totl'; did you mean 'total'?",
        ),
        ({"out_of_focus": {"bokhe": None}}, (), "unknown key 'bokhe'; did you mean 'bokeh'?"),
        ({"out_of_focus": {"jpeg": None}}, (), "set it to png"),
        ({"out_of_focus": {"device": "aperio"}}, (), "aperio"),
        ({"source": None}, (), "name a catalog"),
        ({"recipe": "skin"}, (), "cannot make 'skin'"),
        ({}, ("--workers", "0"), "workers"),
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


def test_header_says_what_the_corpus_is(corpus: Path) -> None:
    header = json.loads((corpus / "corpus.json").read_text())
    assert header["synthetic"] is True
    assert header["rows"] == 120
    assert {quota["planned"] for quota in header["quotas"]} == {4}
