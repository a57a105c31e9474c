"""A shard is committed whole, once, with its own record inside."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medsynth.corpus import shard
from medsynth.corpus.schema import row_schema
from medsynth.corpus.shard import Record, Reject
from medsynth.errors import CorpusConflictError, CorpusError

AXES = ("tissue", "focus_class")


def rows(count: int = 5, image: bytes = b"picture") -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "sample_id": f"s-{i}",
                "index": i,
                "image": {"bytes": image + bytes([i]), "path": f"s-{i}.jpg"},
                "tissue": "brain" if i % 2 else "breast",
                "focus_class": i % 3,
                "synthetic": True,
                "seed": i,
            }
            for i in range(count)
        ],
        schema=row_schema(AXES, []),
    )


REJECTS = [
    Reject(7, 3, ("brain", "1"), "a.png", None, "truncated", "ends early"),
    Reject(6, 3, ("brain", "0"), "a.png", None, "truncated", "ends early"),
    Reject(9, 4, ("brain", "1"), "b.png", None, "missing", "gone"),
]


def commit(folder: Path, table: pa.Table, rejects: list[Reject] | None = None) -> Record:
    return shard.commit(
        str(folder), "train-00000-of-00001", table, AXES, rejects or [], fingerprint="f" * 64, conditional=True
    )


def test_record_counts_rows_and_names_what_is_lost(tmp_path: Path) -> None:
    record = commit(tmp_path, rows(), REJECTS)
    assert record.counts == {
        ("brain", "0"): 1, ("brain", "1"): 1, ("breast", "0"): 1, ("breast", "1"): 1, ("breast", "2"): 1,
    }  # fmt: skip
    assert record.rejects == {
        (("brain", "0"), "truncated"): 1,
        (("brain", "1"), "missing"): 1,
        (("brain", "1"), "truncated"): 1,
    }
    assert record.lost == [(6, 8), (9, 10)]
    assert record.bad_tiles == [3, 4]
    data = (tmp_path / record.path).read_bytes()
    assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_record_can_be_had_from_the_file_and_from_text(tmp_path: Path) -> None:
    record = commit(tmp_path, rows(), REJECTS)
    assert shard.existing(str(tmp_path), record.shard, fingerprint="f" * 64) == record
    assert Record.from_json(record.to_json()) == record


def test_second_commit_of_the_same_bytes_changes_nothing(tmp_path: Path) -> None:
    first = commit(tmp_path, rows(), REJECTS)
    before = (tmp_path / first.path).stat().st_ino
    assert commit(tmp_path, rows(), REJECTS) == first
    assert (tmp_path / first.path).stat().st_ino == before


def test_other_bytes_in_the_same_place_are_an_error_not_a_silent_loss(tmp_path: Path) -> None:
    commit(tmp_path, rows())
    with pytest.raises(CorpusError, match="holds other bytes than this machine makes"):
        commit(tmp_path, rows(image=b"other"))


def test_shard_of_another_corpus_is_refused(tmp_path: Path) -> None:
    commit(tmp_path, rows())
    with pytest.raises(CorpusConflictError, match="another corpus"):
        shard.existing(str(tmp_path), "train-00000-of-00001", fingerprint="0" * 64)


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    record = commit(tmp_path, rows())
    (tmp_path / record.path).write_bytes(b"PAR1 no more")
    with pytest.raises(CorpusError, match=r"train-00000-of-00001.parquet: damaged"):
        shard.existing(str(tmp_path), record.shard, fingerprint="f" * 64)


def test_a_bit_that_flipped_anywhere_is_noticed_before_a_manifest_vouches_for_it(tmp_path: Path) -> None:
    record = commit(tmp_path, rows())
    file = tmp_path / record.path
    whole = file.read_bytes()
    for place in range(0, len(whole), 11):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises((CorpusError, CorpusConflictError)):
            shard.existing(str(tmp_path), record.shard, fingerprint="f" * 64)


def test_rejects_are_a_table_in_order_and_only_where_there_are_any(tmp_path: Path) -> None:
    commit(tmp_path / "with", rows(), REJECTS)
    commit(tmp_path / "without", rows())
    table = pq.read_table(tmp_path / "with" / "rejects" / "train-00000-of-00001.parquet")
    assert table["index"].to_pylist() == [6, 7, 9]
    assert table["reason"].to_pylist() == ["truncated", "truncated", "missing"]
    assert not (tmp_path / "without" / "rejects").exists()


def test_a_shard_without_rows_is_still_a_shard(tmp_path: Path) -> None:
    record = commit(tmp_path, rows(0), REJECTS)
    assert record.rows == 0
    assert shard.existing(str(tmp_path), record.shard, fingerprint="f" * 64) == record
