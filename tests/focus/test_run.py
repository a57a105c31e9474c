from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from medsynth import storage
from medsynth.catalog import table
from medsynth.errors import CatalogError, SpecError, TrainingError
from medsynth.focus import feed
from medsynth.focus.feed import HELD_OUT_BATCH
from medsynth.focus.model import FocusModel
from medsynth.focus.run import PRESETS, Order, TrainSettings, finish, set_up, settings
from tests import corpora

SLIDES = ("a", "a", "b", "c", "c", "d")


def write_catalog(folder: Path, slides: tuple[str, ...] = SLIDES, side: int = 300, **columns: Any) -> str:
    """A catalog of windows of ihc.png; the windows of a slide are told by the column tissue."""
    made = corpora.catalog(slides, side)
    made = made.set_column(made.schema.get_field_index("x"), "x", pa.array(np.arange(len(slides)) * 30, pa.int32()))
    made = made.append_column("sharpness", pa.array([1.0] * len(slides)))
    for name, values in columns.items():
        made = made.set_column(made.schema.get_field_index(name), name, pa.array(values))
    rejects = table.REJECT_COLUMNS.empty_table()
    table.write(str(folder), made.append_column("number", pa.array(range(len(slides)))), rejects, {})
    return str(folder)


def order(out: object = "out", source: str = "catalog", seed: int = 5, **changes: Any) -> Order:
    flags = {"slide_column": "tissue", "hold_out": 0.3, "validation_samples": 80, **changes}
    return Order(str(out), settings("smoke", None, flags), seed, source)


def test_no_slide_is_on_both_sides_and_none_is_lost(tmp_path: Path) -> None:
    uri = write_catalog(tmp_path / "catalog")
    run = set_up(order(), uri)
    assert run.validation is not None
    learnt, held = set(run.training.opened().slides), set(run.validation.opened().slides)
    assert len(held) == 1
    assert not learnt & held
    assert learnt | held == set(SLIDES)
    assert len(run.training.opened()) + len(run.validation.opened()) == len(SLIDES)
    assert set_up(order(seed=6), uri).validation == run.validation, "other seeds are judged on the same slides"
    named = set_up(order(held_out_slides=("b", "d")), uri)
    assert named.validation is not None
    assert set(named.validation.opened().slides) == {"b", "d"}
    assert set_up(order(hold_out=0), uri).validation is None


def test_shares_of_a_step_are_the_step_and_a_batch_is_a_function_of_its_number(tmp_path: Path) -> None:
    run = set_up(order(), write_catalog(tmp_path / "catalog"))
    whole = run.feed.batch(7, 0, 1)
    assert whole["images"].shape == (16, 128, 128, 3)
    shares = [run.feed.batch(7, rank, 4) for rank in (2, 0, 3, 1)]
    for name in whole:
        joined = np.concatenate([shares[place][name] for place in (1, 3, 0, 2)])
        assert np.array_equal(joined, whole[name])
    assert not np.array_equal(run.feed.batch(8, 0, 1)["images"], whole["images"])
    other = set_up(order(seed=6), run.training.uri)
    assert not np.array_equal(other.feed.batch(7, 0, 1)["images"], whole["images"])


def test_held_out_batches_are_all_the_samples_and_never_those_of_the_training(tmp_path: Path) -> None:
    run = set_up(order(), write_catalog(tmp_path / "catalog"))
    batches = [run.feed.held_out(number) for number in range(run.held_out_batches)]
    assert [len(batch["radii"]) for batch in batches] == [HELD_OUT_BATCH, 80 - HELD_OUT_BATCH]
    assert set(batches[0]["radii"][:16].tolist()) != set(run.feed.batch(0, 0, 1)["radii"].tolist())
    assert np.concatenate([batch["radii"] for batch in batches]).std() > 1


def test_what_cannot_be_learnt_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"1 slide\(s\) cannot be parted .* --validate-on, .* --hold-out 0"):
        set_up(order(slide_column=None), write_catalog(tmp_path / "one"))
    with pytest.raises(TrainingError, match="held_out_slides: 'z' is no slide of"):
        set_up(order(held_out_slides=("z",)), write_catalog(tmp_path / "four"))
    with pytest.raises(CatalogError, match="no column 'scanner'; its own are tissue"):
        set_up(order(slide_column="scanner"), write_catalog(tmp_path / "four"))
    with pytest.raises(CatalogError, match=r"smaller than 1\d\d px; index it with --tile-size 1\d\d"):
        set_up(order(), write_catalog(tmp_path / "small", side=130))
    with pytest.raises(CatalogError, match="no tile is in focus"):
        set_up(order(), write_catalog(tmp_path / "soft", in_focus=[False] * len(SLIDES)))
    with pytest.raises(CatalogError, match="no catalog there"):
        set_up(order(), str(tmp_path / "none"))


def test_a_tile_that_is_gone_and_a_catalog_that_changed_are_named(tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(storage.read(corpora.IHC))
    uri = write_catalog(tmp_path / "catalog", uri=[str(copy)] * len(SLIDES))
    run = set_up(order(), uri)
    copy.unlink()
    with pytest.raises(TrainingError, match=r"missing.*mend the image, or index the source again"):
        run.feed.batch(0, 0, 1)
    write_catalog(tmp_path / "catalog", side=310)
    feed._opened.cache_clear()  # as in a process that starts now
    feed._catalog.cache_clear()
    with pytest.raises(CatalogError, match="has changed since the training began"):
        run.training.opened()


def test_flags_replace_the_file_which_replaces_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"steps": 77, "batch": 24, "samples": {"noise": False}}))
    found = settings("smoke", str(file), {"batch": 48})
    assert (found.steps, found.batch, found.log_every) == (77, 48, PRESETS["smoke"]["log_every"])
    assert found.samples.noise is False
    assert found.samples.size == PRESETS["smoke"]["samples"]["size"]
    for name in PRESETS:
        assert settings(name, None, {}).network.classes == 30


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"stesp": 5}, "unknown key 'stesp'; did you mean 'steps'?"),
        ({"samples": {"jepg": False}}, "unknown key 'samples.jepg'; did you mean 'jpeg'?"),
        ({"samples": {"size": 64}}, "samples.size is 64 px; the small network needs"),
        ({"network": {"classes": 10}}, "network.classes is 10 and samples.radii_px has 30 radii"),
        ({"validate_every": 25, "log_every": 10}, "validate_every must be a multiple of log_every"),
        ({"learning_rate": -1}, "learning_rate"),
        ([1], "expected keys and values, found a list"),
    ],
)
def test_settings_that_cannot_be_are_one_line(tmp_path: Path, own: Any, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(own))
    with pytest.raises(SpecError) as caught:
        settings("small", str(file), {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_finished_run_leaves_weights_that_load_and_a_card(tmp_path: Path) -> None:
    run = set_up(order(tmp_path / "out"), write_catalog(tmp_path / "catalog"))
    trainer = run.trainer(torch.device("cpu"))
    batch = run.feed.batch(0, 0, 1)
    trainer.step(batch["images"], batch["radii"])
    curve = [{"step": "1", "loss": "5.5", "within_one": "0.25", "class_error": "4.5"}]
    uri = finish(run, trainer.state(), curve, "python jobs/train_focus.py --source catalog")
    model = FocusModel.load(uri)
    assert model.about["figures"] == {"within_one": "0.25", "class_error": "4.5"}
    assert model.radii_px == run.settings.samples.radii_px
    for name, tensor in trainer.averaged.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| mean error in classes | 4.5000 |" in card
    assert "python jobs/train_focus.py --source catalog" in card
    inside = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert TrainSettings(**inside).deciding() == run.settings.deciding(), "the card's settings make the run again"
