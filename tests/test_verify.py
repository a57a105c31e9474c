"""Verification finds every kind of untruth, and nothing in a sound corpus."""

import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from medsynth.corpus import manifest
from medsynth.corpus.shard import Record
from medsynth.errors import CorpusError
from medsynth.verify import verify
from tests import corpora


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    corpora.make(tmp_path, corpora.prepared())
    return tmp_path


def shard(corpus: Path, number: int) -> Path:
    return sorted((corpus / "data").glob("*.parquet"))[number]


def rewrite(corpus: Path, number: int, table: pa.Table) -> None:
    """Replace a shard, and make the manifest agree with its new bytes."""
    path = shard(corpus, number)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    path.write_bytes(sink.getvalue())
    records = manifest.read_manifest(str(corpus)) or []
    changed = Record(**{**vars(records[number]), "sha256": hashlib.sha256(sink.getvalue()).hexdigest()})
    writer = manifest.Writer()
    writer.write([*records[:number], changed, *records[number + 1 :]])
    manifest.write_manifest(str(corpus), writer.finish())


def test_a_sound_corpus_has_no_problems(corpus: Path) -> None:
    seen: list[tuple[int, int]] = []
    findings = verify(str(corpus), 1000, progress=lambda done, total: seen.append((done, total)))
    assert findings.problems == []
    assert (findings.shards, findings.rows, findings.remade) == (4, 30, 30)
    assert set(findings.counts.values()) == {5}
    assert seen[-1] == (4, 4)


def test_rows_to_make_again_are_drawn_from_all_shards_and_differ_by_seed(corpus: Path) -> None:
    assert verify(str(corpus), 3).remade == 3
    assert verify(str(corpus), 0).remade == 0


def test_a_changed_byte_is_found(corpus: Path) -> None:
    data = bytearray(shard(corpus, 2).read_bytes())
    data[100] ^= 1
    shard(corpus, 2).write_bytes(data)
    (problem,) = [p for p in verify(str(corpus), 0).problems if "bytes are not those" in p]
    assert "train-00002-of-00004" in problem


def test_a_missing_shard_is_found(corpus: Path) -> None:
    shard(corpus, 1).unlink()
    problems = verify(str(corpus), 100).problems
    assert any("train-00001-of-00004.parquet: missing" in problem for problem in problems)


def test_a_truncated_shard_is_found(corpus: Path) -> None:
    shard(corpus, 1).write_bytes(shard(corpus, 1).read_bytes()[:500])
    assert any("not readable" in problem for problem in verify(str(corpus), 100).problems)


def test_rows_moved_between_subgroups_are_found_even_if_digests_agree(corpus: Path) -> None:
    table = pq.read_table(shard(corpus, 0))
    place = table.schema.get_field_index("focus_class")
    values = [10 if value == 0 else value for value in table["focus_class"].to_pylist()]
    rewrite(corpus, 0, table.set_column(place, "focus_class", pa.array(values, pa.int64())))
    problems = verify(str(corpus), 0).problems
    assert any("rows by subgroup are not those in the manifest" in problem for problem in problems)
    assert any("planned" in problem and "delivered" in problem for problem in problems)


def test_an_image_that_its_row_does_not_make_is_found_even_if_digests_agree(corpus: Path) -> None:
    table = pq.read_table(shard(corpus, 0))
    images = table["image"].to_pylist()
    images[0], images[1] = images[1], images[0]
    place = table.schema.get_field_index("image")
    rewrite(
        corpus, 0, table.set_column(place, table.schema.field(place), pa.array(images, table.schema.field(place).type))
    )
    problems = verify(str(corpus), 100).problems
    assert len([p for p in problems if "made again, its bytes differ" in p]) == 2


def test_a_parameter_changed_by_hand_is_found(corpus: Path) -> None:
    table = pq.read_table(shard(corpus, 0))
    place = table.schema.get_field_index("photons")
    rewrite(corpus, 0, table.set_column(place, "photons", pa.array([500.0] * table.num_rows)))
    problems = verify(str(corpus), 100).problems
    assert len([p for p in problems if "made again, its bytes differ" in p]) == table.num_rows


def test_rows_that_hide_that_they_are_synthetic_are_found(corpus: Path) -> None:
    table = pq.read_table(shard(corpus, 0))
    place = table.schema.get_field_index("synthetic")
    rewrite(corpus, 0, table.set_column(place, "synthetic", pa.array([False] * table.num_rows)))
    assert any("do not say that they are synthetic" in problem for problem in verify(str(corpus), 0).problems)


def test_a_row_that_stands_twice_is_found_even_if_digests_agree(corpus: Path) -> None:
    table = pq.read_table(shard(corpus, 1))
    place = table.schema.get_field_index("index")
    rewrite(corpus, 1, table.set_column(place, "index", pc.subtract(table["index"], 8)))
    assert any("stand twice" in problem for problem in verify(str(corpus), 0).problems)


def test_other_sources_and_an_edited_header_are_found(corpus: Path) -> None:
    (corpus / "sources.parquet").write_bytes(b"others")
    header = (corpus / "corpus.json").read_text()
    (corpus / "corpus.json").write_text(header.replace('"size": 176', '"size": 177'))
    problems = verify(str(corpus), 0).problems
    assert [problem.split("/")[-1].split(":")[0] for problem in problems] == ["corpus.json", "sources.parquet"]


def test_files_that_the_manifest_does_not_name_are_found(corpus: Path) -> None:
    (corpus / "data" / "train-extra.parquet").write_bytes(shard(corpus, 0).read_bytes())
    (problem,) = verify(str(corpus), 0).problems
    assert "train-extra.parquet: not in the manifest" in problem


def test_undelivered_rows_are_counted_and_their_reasons_must_be_there(tmp_path: Path) -> None:
    gone = corpora.catalog().to_pylist()
    gone[0]["uri"] = "package://skimage/data/none.png"  # the second of two tiles, that 15 rows go to
    corpora.make(tmp_path, corpora.prepared(pa.Table.from_pylist(gone, schema=corpora.catalog().schema)))
    findings = verify(str(tmp_path), 0)
    assert (findings.problems, findings.undelivered) == ([], 8)
    next((tmp_path / "rejects").iterdir()).unlink()
    assert any("missing, with the reasons" in p for p in verify(str(tmp_path), 0).problems)


def test_an_incomplete_corpus_is_not_verified(corpus: Path) -> None:
    (corpus / "manifest.parquet").unlink()
    with pytest.raises(CorpusError, match=r"not complete .*; run the job"):
        verify(str(corpus), 0)


def test_no_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no corpus of medsynth"):
        verify(str(tmp_path), 0)
