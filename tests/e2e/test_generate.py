"""The whole job, as a user runs it."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.jobs import digests, rows_of, run_job
from tests.servers import S3Server

pytestmark = pytest.mark.slow


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


def test_whole_job_from_and_to_a_server_that_ignores_conditions(rclone_env: S3Server, corpus: Path) -> None:
    # With moto's, which keeps them, tests/faults does the whole job.
    bucket, client = rclone_env.bucket(), rclone_env.client()
    name = bucket.removeprefix("s3://")
    client.upload_file(str(corpus.parent / "spec.yaml"), name, "specs/small.yaml")
    flags = ["--spec", f"{bucket}/specs/small.yaml", "--out", f"{bucket}/corpora/small", "--workers", 1]
    done = run_job("generate", *flags, env=rclone_env.env)
    assert done.returncode == 0, done.stderr
    assert "ignores conditional writes" in done.stdout
    assert f"report: {bucket}/corpora/small/report.html" in done.stdout
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=name, Prefix="corpora/small/")["Contents"]]
    assert not [key for key in keys if "probe" in key]
    for path in (corpus / "data").iterdir():
        assert client.get_object(Bucket=name, Key=f"corpora/small/data/{path.name}")["Body"].read() == path.read_bytes()
    done = run_job("verify", f"{bucket}/corpora/small", "--rows", "5")
    assert done.returncode == 0, done.stdout + done.stderr


def test_header_says_what_the_corpus_is(corpus: Path) -> None:
    header = json.loads((corpus / "corpus.json").read_text())
    assert header["synthetic"] is True
    assert header["rows"] == 120
    assert {quota["planned"] for quota in header["quotas"]} == {4}
