"""A place belongs to one corpus, and a corpus is complete when its manifest exists."""

import json
from pathlib import Path
from typing import Any

import pytest

from medsynth.corpus import manifest
from medsynth.corpus.shard import Record
from medsynth.errors import CorpusConflictError, CorpusError

HEADER: dict[str, Any] = {
    **dict.fromkeys(manifest.KEYS, 0),
    "format": manifest.FORMAT,
    "spec": {"seed": 1, "balance": {"total": 100}},
    "fingerprint": "a" * 64,
    "versions": {"numpy": "2.4.6"},
}


def test_same_header_again_is_a_resume(tmp_path: Path) -> None:
    manifest.write_header(str(tmp_path), HEADER, conditional=True)
    manifest.write_header(str(tmp_path), HEADER, conditional=True)
    assert manifest.read_header(str(tmp_path)) == HEADER


def test_another_corpus_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    manifest.write_header(str(tmp_path), HEADER, conditional=True)
    other = {**HEADER, "spec": {"seed": 2, "balance": {"total": 100}}, "fingerprint": "b" * 64}
    with pytest.raises(
        CorpusConflictError, match=r"holds another corpus \(spec.seed: 1 there, 2 now; fingerprint"
    ) as error:
        manifest.write_header(str(tmp_path), other, conditional=True)
    assert "\n" not in str(error.value)


def test_sources_that_changed_are_told_in_words(tmp_path: Path) -> None:
    before = {**HEADER, "fingerprint_parts": {"sources": "a"}}
    manifest.write_header(str(tmp_path), before, conditional=True)
    after = {**before, "fingerprint": "b" * 64, "fingerprint_parts": {"sources": "b"}}
    with pytest.raises(CorpusConflictError, match=r"corpus \(its source tiles are others, since images were added"):
        manifest.write_header(str(tmp_path), after, conditional=True)


def test_other_versions_are_named(tmp_path: Path) -> None:
    manifest.write_header(str(tmp_path), HEADER, conditional=True)
    with pytest.raises(CorpusConflictError, match=r'versions.numpy: "2.4.6" there, "3.0" now'):
        manifest.write_header(str(tmp_path), {**HEADER, "versions": {"numpy": "3.0"}}, conditional=True)


def test_no_corpus_and_no_json_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no corpus of medsynth"):
        manifest.read_header(str(tmp_path))
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(CorpusError, match="damaged"):
        manifest.read_header(str(tmp_path))
    (tmp_path / "corpus.json").write_text(json.dumps({key: v for key, v in HEADER.items() if key != "quotas"}))
    with pytest.raises(CorpusError, match="damaged, it has no 'quotas'"):
        manifest.read_header(str(tmp_path))
    (tmp_path / "corpus.json").write_text('{"format": "other"}')
    with pytest.raises(CorpusError, match="not of the format"):
        manifest.read_header(str(tmp_path))


def test_manifest_keeps_every_record_in_order(tmp_path: Path) -> None:
    records = [
        Record(
            shard=f"train-{i:05d}-of-00004",
            rows=3,
            bytes=100 + i,
            sha256=str(i) * 64,
            counts={("brain", "0"): 1, ("brain", "1"): 2},
            rejects={(("brain", "1"), "truncated"): 1},
            seconds={"read": 0.1, "render": 0.2, "commit": 0.3},
        )
        for i in range(4)
    ]
    writer = manifest.Writer()
    writer.write(records[:2])
    writer.write(records[2:])
    assert manifest.read_manifest(str(tmp_path)) is None
    manifest.write_manifest(str(tmp_path), writer.finish())
    assert manifest.read_manifest(str(tmp_path)) == records


def test_shards_that_are_gone_or_cut_are_missing(tmp_path: Path) -> None:
    records = [Record(f"train-{i:05d}-of-00003", 1, 5, "", {}, {}) for i in range(3)]
    assert len(manifest.missing(str(tmp_path), records)) == 3
    (tmp_path / "data").mkdir()
    for record, size in zip(records, (5, 4, 5), strict=True):
        (tmp_path / record.path).write_bytes(bytes(size))
    assert manifest.missing(f"{tmp_path}/", records) == ["data/train-00001-of-00003.parquet"]


def test_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(b"nothing")
    with pytest.raises(CorpusError, match=r"manifest.parquet: damaged"):
        manifest.read_manifest(str(tmp_path))
