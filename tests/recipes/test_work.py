"""A shard of work can be done again, by anyone, at any time."""

from pathlib import Path

from medsynth.recipes.work import make_and_commit
from tests import corpora


def test_a_shard_that_is_there_is_found_not_made(tmp_path: Path) -> None:
    job = corpora.job(corpora.prepared(), str(tmp_path))
    made = make_and_commit(job, 1)
    assert set(made.seconds) == {"read", "render", "commit"}
    written = (tmp_path / made.path).stat().st_mtime_ns
    found = make_and_commit(job, 1)
    assert found.seconds == {}
    assert (found.sha256, found.counts) == (made.sha256, made.counts)
    assert (tmp_path / made.path).stat().st_mtime_ns == written


def test_a_shard_made_again_has_the_same_bytes_whatever_came_before(tmp_path: Path) -> None:
    run = corpora.prepared()
    forwards = corpora.job(run, str(tmp_path / "forwards"))
    backwards = corpora.job(run, str(tmp_path / "backwards"))
    one = {number: make_and_commit(forwards, number).sha256 for number in range(run.plan.shards)}
    two = {number: make_and_commit(backwards, number).sha256 for number in reversed(range(run.plan.shards))}
    assert one == two


def test_names_say_which_shard_of_how_many(tmp_path: Path) -> None:
    run = corpora.prepared()
    job = corpora.job(run, str(tmp_path))
    assert make_and_commit(job, 3).path == "data/train-00003-of-00004.parquet"
