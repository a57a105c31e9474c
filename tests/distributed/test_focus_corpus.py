from pathlib import Path

import numpy as np
import pytest

from medsynth import storage
from medsynth.distributed.focus_corpus import corpus_tiles, is_corpus, refuse_validation
from medsynth.errors import CorpusError, SyntheticSplitError, TrainingError
from medsynth.focus.run import set_up
from tests import corpora
from tests.focus.test_run import SLIDES, order, write_catalog


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    corpora.make(tmp_path / "corpus", corpora.prepared())
    return str(tmp_path / "corpus")


def test_a_corpus_teaches_its_own_labels(corpus: str) -> None:
    run = set_up(order(source=corpus), corpus_tiles(corpus, 128))
    assert run.validation is None
    batch = run.feed.batch(0, 0, 1)
    assert {round(float(radius), 2) for radius in batch["radii"]} == {0.0, 2.88, 12.0}
    sharp, soft = (batch["images"][batch["radii"] == radius].astype(float) for radius in (0, 12))
    assert np.abs(np.diff(sharp, axis=2)).mean() > 1.5 * np.abs(np.diff(soft, axis=2)).mean()
    shares = [run.feed.batch(3, rank, 2)["images"] for rank in range(2)]
    assert np.array_equal(np.concatenate(shares), run.feed.batch(3, 0, 1)["images"])


def test_every_shard_has_its_turn(tmp_path: Path) -> None:
    corpora.make(tmp_path / "corpus", corpora.prepared(output={"rows_per_shard": 2}))
    tiles, _ = corpus_tiles(str(tmp_path / "corpus"), 128)
    sizes = [len(tiles.at(step, 4, 1)) for step in range(12)]
    assert len(set(map(id, (tiles.at(step, 4, 1) for step in range(3))))) == 1, "a window serves for several steps"
    assert sorted(set(sizes)) == [14, 16], "thirty rows in fifteen shards: eight and then seven of them"
    assert sizes[:3] != sizes[3:6]


def test_nobody_validates_on_a_corpus_nor_on_what_it_was_made_from(corpus: str, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog")
    assert is_corpus(corpus)
    assert not is_corpus(catalog)
    refuse_validation(catalog)
    with pytest.raises(SyntheticSplitError, match=r"--validate-on .*corpus: a corpus is synthetic"):
        refuse_validation(corpus)
    learnt = corpus_tiles(corpus, 128)
    with pytest.raises(TrainingError, match="all of its slides are trained on; validate on others"):
        set_up(order(), learnt, catalog)
    copy = str(tmp_path / "copy.png")
    storage.put(copy, storage.read(corpora.IHC))
    others = write_catalog(tmp_path / "others", uri=[copy if slide == "d" else corpora.IHC for slide in SLIDES])
    run = set_up(order(), learnt, others)
    assert run.validation is not None
    assert set(run.validation.opened().slides) == {"d"}


def test_a_corpus_that_cannot_be_learnt_from_is_named(corpus: str) -> None:
    with pytest.raises(TrainingError, match=r"176 px a side, less than samples\.size, 200"):
        corpus_tiles(corpus, 200)
    Path(corpus, "manifest.parquet").unlink()
    with pytest.raises(CorpusError, match="incomplete"):
        corpus_tiles(corpus, 128)
