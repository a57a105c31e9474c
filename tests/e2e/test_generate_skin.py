"""A skin corpus as a user makes it: gone on with, verified, and the same to the byte as without Ray."""

import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from medsynth.verify import verify
from tests import skin_model
from tests.jobs import digests, rows_of, run_job
from tests.recipes.test_skin import half_refused, make, run

pytestmark = pytest.mark.slow


def test_what_a_run_without_ray_began_the_job_ends_with_the_same_bytes(tmp_path: Path) -> None:
    weights = skin_model.save(tmp_path)
    section = half_refused(weights)
    order = skin_model.order(weights, section)
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(order, sort_keys=False))
    make(tmp_path / "plain", run(weights, section))
    plain = digests(tmp_path / "plain")
    assert {name.split("/")[0] for name in plain} == {"corpus.json", "data", "rejects"}
    shutil.copytree(tmp_path / "plain", tmp_path / "out")
    lost = [tmp_path / "out" / "data" / f"train-0000{shard}-of-00004.parquet" for shard in (1, 2)]
    missing = sum(pq.read_metadata(path).num_rows for path in lost)
    for path in (*lost, tmp_path / "out" / "manifest.parquet"):
        path.unlink()
    done = run_job("generate", "--spec", spec, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "24 rows, 4 shards" in done.stdout
    assert "no_lesion" in done.stdout
    assert f"; {missing} rows made now" in done.stdout
    rows = rows_of(tmp_path / "out")
    assert set(Counter((row["condition"], row["fitzpatrick"], row["device"]) for row in rows).values()) == {2}
    whole = digests(tmp_path / "out")
    assert plain == {name: whole[name] for name in plain}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "What the network learnt from: Photos of nobody, CC0." in card
    assert "Dark skin is the least to be trusted" in card
    assert (tmp_path / "out" / "report.html").exists()
    findings = verify(str(tmp_path / "out"), 24)
    assert (findings.problems, findings.remade) == ([], 24)
