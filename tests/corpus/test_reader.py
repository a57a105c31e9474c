import io
import json
import os
import pickle
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from torch import distributed
from torch.multiprocessing.spawn import start_processes
from torch.utils.data import DataLoader

from medsynth import storage
from medsynth.corpus import reader
from medsynth.errors import CorpusError, NotFoundError, SyntheticSplitError
from tests import cluster
from tests.corpus.conftest import Small, make_corpus
from tests.servers import S3Server


def indices(dataset, **settings) -> list[int]:
    loader = DataLoader(dataset, batch_size=None, **settings)
    return [row["index"] for row in loader]


def test_corpus_knows_its_rows_and_axes(small: Small) -> None:
    corpus = reader.open_corpus(small.uri)
    assert len(corpus) == 48
    assert corpus.axes == {"tissue": ["brain", "breast"], "focus_class": ["0", "1", "2", "3", "4", "5"]}
    assert corpus.paths[-1] == "data/train-r1-00000-of-00001.parquet"


@pytest.mark.parametrize("split", ["validation", "valid", "val", "dev", "test", "testing", "TEST", "eval", "holdout"])
def test_held_out_splits_are_refused_with_the_reason(small: Small, split: str) -> None:
    with pytest.raises(SyntheticSplitError, match=r"synthetic.*real images") as raised:
        reader.open_corpus(small.uri, split=split)
    assert "\n" not in str(raised.value)
    with pytest.raises(SyntheticSplitError):
        reader.torch_dataset(small.uri, split=split)
    with pytest.raises(SyntheticSplitError):
        reader.ray_dataset(small.uri, None, split=split)


@pytest.mark.parametrize("split", ["", "Train", "all", "train[:10%]"])
def test_unknown_splits_are_refused(small: Small, split: str) -> None:
    with pytest.raises(SyntheticSplitError, match="one split, 'train'"):
        reader.open_corpus(small.uri, split=split)


def test_refusal_comes_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SyntheticSplitError):
        reader.open_corpus(str(tmp_path / "nothing"), split="test")


def test_incomplete_corpus_is_refused_with_the_remedy(tmp_path: Path) -> None:
    made = make_corpus(str(tmp_path / "cut-short"))
    (tmp_path / "cut-short" / "manifest.parquet").unlink()
    with pytest.raises(CorpusError, match=r"incomplete.*run the job that makes it again"):
        reader.train_files(made.uri)


def test_no_corpus_and_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no corpus"):
        reader.open_corpus(str(tmp_path))
    (tmp_path / "corpus.json").write_text(json.dumps({"format": "medsynth-corpus-9"}))
    with pytest.raises(CorpusError, match="medsynth-corpus-1"):
        reader.open_corpus(str(tmp_path))


def test_files_come_from_the_manifest_and_not_from_a_listing(tmp_path: Path) -> None:
    made = make_corpus(str(tmp_path / "corpus"))
    (tmp_path / "corpus" / "data" / "train-99999-of-00002.parquet").write_bytes(b"left by something else")
    files = reader.train_files(made.uri)
    assert [Path(file).name for file in files] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "train-r1-00000-of-00001.parquet",
    ]


def test_datasets_shows_pictures(small: Small, tmp_path: Path) -> None:
    rows = load_dataset(
        "parquet", data_files={"train": reader.train_files(small.uri)}, split="train", cache_dir=str(tmp_path)
    )
    assert isinstance(rows[5]["image"], Image.Image)
    expected = np.asarray(Image.open(io.BytesIO(small.rows[5]["image"]["bytes"])))
    np.testing.assert_array_equal(np.asarray(rows[5]["image"]), expected)
    assert rows["index"][:] == list(range(48))


class TestTorch:
    def test_rows_are_decoded_in_the_manifest_s_order(self, small: Small) -> None:
        rows = list(reader.torch_dataset(small.uri))
        assert [row["index"] for row in rows] == list(range(48))
        assert set(rows[0]) == {"image", "sample_id", "index", "tissue", "focus_class", "seed"}
        first = rows[7]["image"]
        assert first.dtype == torch.uint8
        assert first.shape == (3, 64, 64)
        assert first.is_contiguous()
        expected = np.asarray(Image.open(io.BytesIO(small.rows[7]["image"]["bytes"])))
        np.testing.assert_array_equal(first.permute(1, 2, 0).numpy(), expected)
        assert rows[7]["seed"] == small.rows[7]["seed"]

    def test_rows_collate(self, small: Small) -> None:
        batch = next(iter(DataLoader(reader.torch_dataset(small.uri), batch_size=6)))
        assert batch["image"].shape == (6, 3, 64, 64)
        assert batch["focus_class"].tolist() == [0, 1, 2, 3, 4, 5]
        assert batch["tissue"] == ["brain"] * 6

    @pytest.mark.parametrize("shuffle_seed", [None, 3])
    @pytest.mark.parametrize("workers", [0, 1, 2, 5])
    def test_every_row_comes_once_over_workers(self, small: Small, workers: int, shuffle_seed: int | None) -> None:
        dataset = reader.torch_dataset(small.uri, columns=["index"], shuffle_seed=shuffle_seed)
        assert sorted(indices(dataset, num_workers=workers)) == list(range(48))

    def test_every_row_comes_once_over_ranks_and_workers(self, small: Small, tmp_path: Path) -> None:
        start_processes(_one_rank, (small.uri, str(tmp_path)), nprocs=3, start_method="fork")
        ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
        assert sorted(chain(*ranks)) == list(range(48))
        assert [len(rank) for rank in ranks] == [16, 16, 16]

    def test_columns_and_transform(self, small: Small) -> None:
        dataset = reader.torch_dataset(small.uri, columns=["photons"], transform=lambda row: row["photons"] / 100)
        assert list(dataset) == pytest.approx(range(1, 49))

    def test_unknown_column_is_refused(self, small: Small) -> None:
        with pytest.raises(CorpusError, match=r"no column 'blur'.*blur_radius_px"):
            reader.torch_dataset(small.uri, columns=["blur"])

    def test_shuffle_is_repeatable_and_differs_by_epoch_and_seed(self, small: Small) -> None:
        def order(seed: int, epoch: int) -> list[int]:
            dataset = reader.torch_dataset(small.uri, columns=["index"], shuffle_seed=seed)
            dataset.set_epoch(epoch)
            return [row["index"] for row in dataset]

        orders = [order(1, 0), order(1, 1), order(2, 0)]
        assert orders[0] == order(1, 0)
        assert len({tuple(found) for found in orders}) == 3
        assert all(sorted(found) == list(range(48)) != found for found in orders)

    def test_living_workers_see_a_new_epoch(self, small: Small) -> None:
        dataset = reader.torch_dataset(small.uri, columns=["index"], shuffle_seed=1)
        loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
        first = [row["index"] for row in loader]
        dataset.set_epoch(1)
        second = [row["index"] for row in loader]
        dataset.set_epoch(0)
        assert first == [row["index"] for row in loader] != second

    def test_dataset_can_be_sent_to_spawned_workers(self, small: Small) -> None:
        copy = pickle.loads(pickle.dumps(reader.torch_dataset(small.uri, columns=["index"], shuffle_seed=5)))
        assert sorted(row["index"] for row in copy) == list(range(48))

    def test_corpus_on_object_storage(self, moto_env: S3Server) -> None:
        uri = storage.join(moto_env.bucket(), "a", "corpus")
        made = make_corpus(uri)
        assert [row["sample_id"] for row in reader.torch_dataset(uri)] == [row["sample_id"] for row in made.rows]


def _one_rank(rank: int, uri: str, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=3)
    found = indices(reader.torch_dataset(uri, columns=["index"], shuffle_seed=9), num_workers=2)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def test_storage_view_for_other_libraries(moto_env: S3Server) -> None:
    bucket = moto_env.bucket()
    storage.put(storage.join(bucket, "a b", "c.bin"), b"0123456789")
    view = pickle.loads(pickle.dumps(reader.StorageFileSystem(scheme="s3")))
    path = bucket.removeprefix("s3://") + "/a b/c.bin"
    assert view.info(path)["size"] == 10
    assert view.ls(f"s3://{path}", detail=False) == [path]
    with view.open(path, "rb") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
    with pytest.raises(FileNotFoundError):
        view.info(path + "x")
    with pytest.raises(NotFoundError):
        view.open(path + "x", "rb")
    with pytest.raises(NotImplementedError):
        view.open(path, "wb")


def test_ray_data_starts_no_more_processes_for_footers_than_the_files_keep_busy(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Dataset:
        def select_columns(self, names: object) -> "Dataset":
            return self

    def read_parquet(paths: object, **_: object) -> Dataset:
        told.append(os.environ["RAY_DATA_PARQUET_FOOTER_NUM_ACTORS"])
        return Dataset()

    ray_data = SimpleNamespace(read_parquet=read_parquet)
    reader.ray_dataset(small.uri, ray_data, columns=["index"])
    assert "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS" not in os.environ
    monkeypatch.setenv("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "7")
    reader.ray_dataset(small.uri, ray_data, columns=["index"])
    assert told == ["1", "7"]


@pytest.fixture(scope="module")
def ray_data(moto_s3: S3Server):
    import ray.data

    with pytest.MonkeyPatch.context() as patch:
        for name, value in moto_s3.env.items():  # the session hands them on to its workers
            patch.setenv(name, value)
        with cluster.joined_at(cluster.address()):
            yield ray.data


@pytest.mark.slow
class TestRay:
    def test_every_row_comes_once_with_its_pixels(self, small: Small, ray_data) -> None:
        self._check(small, reader.ray_dataset(small.uri, ray_data))

    def test_corpus_on_object_storage(self, moto_env: S3Server, ray_data) -> None:
        made = make_corpus(storage.join(moto_env.bucket(), "corpora", "small v1"))
        self._check(made, reader.ray_dataset(made.uri, ray_data))

    def test_columns_without_the_image(self, small: Small, ray_data) -> None:
        rows = reader.ray_dataset(small.uri, ray_data, columns=["index", "source_row"]).take_all()
        assert Counter(row["index"] for row in rows) == Counter(range(48))
        assert {row["source_row"] for row in rows} == {None}

    def _check(self, made: Small, dataset) -> None:
        rows = sorted(dataset.take_all(), key=lambda row: row["index"])
        assert [row["index"] for row in rows] == list(range(48))
        assert set(rows[0]) == {"image", "sample_id", "index", "tissue", "focus_class", "seed"}
        for row in rows[::7]:
            expected = np.asarray(Image.open(io.BytesIO(made.rows[row["index"]]["image"]["bytes"])))
            assert row["image"].dtype == np.uint8
            np.testing.assert_array_equal(row["image"], expected)
