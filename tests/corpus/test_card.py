import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import mlcroissant
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

from medsynth import storage
from medsynth.corpus import card, manifest
from medsynth.errors import CorpusError
from tests.corpus.conftest import Small, make_corpus
from tests.servers import S3Server


@pytest.fixture(scope="module")
def carded(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = make_corpus(str(tmp_path_factory.mktemp("carded") / "corpus"))
    card.write_card(made.uri)
    return made


def written(made: Small) -> dict[str, bytes]:
    return {name: storage.read(storage.join(made.uri, name)) for name in (card.CARD, card.CROISSANT, card.DIGESTS)}


class TestFrontMatter:
    def test_it_is_what_the_hub_takes(self, carded: Small) -> None:
        data = DatasetCard(written(carded)[card.CARD].decode()).data
        assert data.license == "other"
        assert {"synthetic", "medical", "ray"} <= set(data.tags)
        assert data.task_categories == ["image-classification"]
        assert data.size_categories == ["n<1K"]
        assert data.pretty_name == "small-v1 (synthetic)"

    def test_datasets_loads_the_folder_and_shows_pictures(self, carded: Small, tmp_path: Path) -> None:
        rows = load_dataset(carded.uri, cache_dir=str(tmp_path))
        assert list(rows) == ["train"]
        assert rows["train"]["index"][:] == list(range(48))
        assert isinstance(rows["train"][0]["image"], Image.Image)

    def test_its_features_are_the_files_own(self, carded: Small, tmp_path: Path) -> None:
        text = written(carded)[card.CARD].decode()
        stated = yaml.safe_load(text.split("---\n")[1])["dataset_info"]["features"]
        files = [str(path) for path in sorted(Path(carded.uri, "data").glob("*.parquet"))]
        found = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path)).features
        assert {item["name"]: item["dtype"] for item in stated} == {
            name: "image" if name == "image" else feature.dtype for name, feature in found.items()
        }

    @pytest.mark.parametrize(
        ("rows", "category"),
        [
            (0, "n<1K"),
            (999, "n<1K"),
            (1000, "1K<n<10K"),
            (99_999, "10K<n<100K"),
            (100_000, "100K<n<1M"),
            (10**9, "1B<n<10B"),
            (10**12, "n>1T"),
        ],
    )
    def test_size_categories(self, rows: int, category: str) -> None:
        assert card._size_category(rows) == category


class TestBody:
    def test_it_says_what_it_is_and_what_it_is_not(self, carded: Small) -> None:
        text = " ".join(written(carded)[card.CARD].decode().split())
        for words in (
            "for training only, never for validation or test",
            "Not for diagnosis",
            "48 synthetic images",
            "from 8 source tiles",
            "quality: 40 to 90 of 100, uniform",
            "2 of 50 rows are missing",
            "truncated: 1",
            "3 tiles were left out as soft",
            "reader.torch_dataset",
            "reader.ray_dataset",
            "load_dataset",
            "jobs/verify.py",
        ):
            assert words in text

    def test_its_subgroups_are_the_manifest_s(self, carded: Small) -> None:
        text = written(carded)[card.CARD].decode()
        assert "| breast | 5 | 6 | 4 | 2 |" in text
        assert "| brain | 0 | 4 | 4 | 0 |" in text

    def test_a_strange_value_stays_in_its_cell(self, tmp_path: Path) -> None:
        made = make_corpus(str(tmp_path / "corpus"), tissues=("a|b", "<script>x</script>"))
        card.write_card(made.uri)
        text = written(made)[card.CARD].decode()
        assert "| a\\|b | 0 | 4 | 4 | 0 |" in text
        assert "<script>" not in text


class TestCroissant:
    def test_mlcroissant_finds_no_error_and_reads_the_rows(self, carded: Small) -> None:
        dataset = mlcroissant.Dataset(jsonld=str(Path(carded.uri, card.CROISSANT)))
        assert not dataset.metadata.ctx.issues.errors
        records = list(dataset.records("train"))
        assert [record["train/index"] for record in records] == list(range(48))
        names = set(pq.read_schema(Path(carded.uri, "data", "train-00000-of-00002.parquet")).names)
        assert {key.removeprefix("train/") for key in records[0]} == names
        for record, row in zip(records[::9], carded.rows[::9], strict=True):
            assert record["train/seed"] == row["seed"]
            assert record["train/photons"] == row["photons"]
            assert record["train/source_row"] is None
            assert record["train/synthetic"] is True
            assert np.asarray(record["train/image"]).shape == (64, 64, 3)

    def test_it_is_marked_synthetic(self, carded: Small) -> None:
        described = json.loads(written(carded)[card.CROISSANT])
        assert "synthetic" in described["keywords"]
        assert described["rai:dataCollectionType"] == ["Synthetic"]
        assert "never for validation or test" in described["description"]

    def test_it_vouches_for_the_list_of_digests(self, carded: Small) -> None:
        described = json.loads(written(carded)[card.CROISSANT])
        entry = next(item for item in described["distribution"] if item["name"] == card.DIGESTS)
        assert entry["sha256"] == hashlib.sha256(written(carded)[card.DIGESTS]).hexdigest()


def test_sha256sum_takes_the_digests_and_finds_a_changed_file(carded: Small, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(carded.uri, copy)
    command = ["sha256sum", "--check", "--strict", "--quiet", card.DIGESTS]
    assert subprocess.run(command, cwd=copy, check=False).returncode == 0
    changed = copy / "data" / "train-00001-of-00002.parquet"
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    assert subprocess.run(command, cwd=copy, check=False, capture_output=True).returncode == 1


def test_the_same_corpus_gives_the_same_bytes_whatever_the_time_it_took(carded: Small, tmp_path: Path) -> None:
    again = make_corpus(str(tmp_path / "elsewhere"), seconds=99.0)
    assert Path(again.uri, "manifest.parquet").read_bytes() != Path(carded.uri, "manifest.parquet").read_bytes()
    card.write_card(again.uri)
    assert written(again) == written(carded)


def test_object_storage(moto_env: S3Server, carded: Small) -> None:
    made = make_corpus(storage.join(moto_env.bucket(), "corpus"))
    card.write_card(made.uri)
    assert written(made) == written(carded)


def test_incomplete_corpus_is_refused(tmp_path: Path) -> None:
    made = make_corpus(str(tmp_path / "corpus"))
    Path(made.uri, "manifest.parquet").unlink()
    with pytest.raises(CorpusError, match="incomplete"):
        card.write_card(made.uri)


def test_croissant_and_card_do_not_grow_with_the_shards(carded: Small, tmp_path: Path) -> None:
    many = str(tmp_path / "many")
    shutil.copytree(carded.uri, many)
    record = pq.read_table(Path(many, "manifest.parquet")).slice(0, 1)
    pq.write_table(pa.concat_tables([record] * 3000).cast(manifest.SCHEMA), Path(many, "manifest.parquet"))
    card.write_card(many)
    for name in (card.CARD, card.CROISSANT):
        assert len(Path(many, name).read_bytes()) < len(written(carded)[name]) + 400
