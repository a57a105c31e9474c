import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medsynth.errors import UserError
from medsynth.skin import card, pairs, presets, run, samples, specks
from medsynth.skin.model import Request, SkinModel
from medsynth.skin.presets import TrainSettings
from medsynth.skin.run import Order, SkinRun
from medsynth.skin.specks import Channel
from tests.skin.photos import change_row, shapes, write_mask, write_photos

CPU = torch.device("cpu")
TINY = {"generator": {"size": 16, "width": 2}, "samples": {"size": 16}, "discriminator": {"scales": 1, "layers": 2}}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_photos(tmp_path_factory.mktemp("photos"), ("NEV", "MEL") * 6)


def order(table: str, out: object = "out", seed: int = 5, **changes: Any) -> Order:
    return Order(
        str(out), presets.settings("smoke", "cpu", None, {**TINY, **changes}), seed, table, "Someone, CC BY 4.0"
    )


def set_up(table: str, out: object = "out", **changes: Any) -> SkinRun:
    asked = order(table, out, **changes)
    material = run.part(asked)
    own = asked.settings.samples
    facts = [samples.load(photo, own.size, own.region).facts for photo in material.whole.photos]
    return run.set_up(asked, material, facts)


def test_no_patient_is_on_both_sides_and_none_is_lost(table: str) -> None:
    found = run.part(order(table, hold_out=0.3))
    assert not set(found.training.patients) & set(found.validation.patients)
    assert len(found.training.photos) + len(found.validation.photos) == 12
    assert len(found.validation.photos) == 4
    assert run.part(order(table, hold_out=0.3, seed=6)) == found, "other seeds are judged on the same photos"
    assert run.part(order(table, hold_out=0.3, split_seed=1)) != found
    assert run.part(order(table, hold_out=0)).validation.photos == ()


def test_a_run_is_known_by_its_photos_settings_and_seed_and_not_by_their_place(table: str, tmp_path: Path) -> None:
    one = set_up(table).header()
    assert set_up(write_photos(tmp_path / "moved", ("NEV", "MEL") * 6), tmp_path).header() == one
    assert set_up(table, checkpoint_seconds=9).header() == one
    others = [set_up(table, seed=6), set_up(table, split_seed=3), set_up(table, steps=25)]
    changed = write_photos(tmp_path / "changed", ("NEV", "MEL") * 6)
    (tmp_path / "changed" / "3.png").write_bytes((tmp_path / "moved" / "4.png").read_bytes())
    others.append(set_up(changed))
    texts = {json.dumps(found.header(), sort_keys=True) for found in others} | {json.dumps(one, sort_keys=True)}
    assert len(texts) == 5
    assert "P3" not in json.dumps(one), "weights are handed on, and name no patient"


def test_a_worker_is_given_little_and_its_shares_are_the_step(table: str) -> None:
    job = set_up(table)
    data = pickle.dumps(job)
    assert len(data) < 20_000
    again = pickle.loads(data)
    whole = job.feed.batch(7, 0, 1)
    for name, array in whole.items():
        assert np.array_equal(array, np.concatenate([again.feed.batch(7, rank, 2)[name] for rank in (0, 1)])), name
    assert job.held_out_batches == 1
    assert set_up(table, hold_out=0).held_out_batches == 0


def test_masks_decide_a_run_that_asks_for_them_and_the_sizes_of_its_lesions(tmp_path: Path) -> None:
    table = write_photos(tmp_path, ("NEV", "MEL") * 6, masks=True)
    asked = {"samples": {"size": 16, "region": "mask"}, "hold_out": 0}
    one = set_up(table, **asked)
    small = np.zeros((120, 140), dtype=bool)
    small[60:72, 70:84] = True
    write_mask(tmp_path / "3-mask.png", small)
    other = set_up(table, **asked)
    assert one.photos_sha256 != other.photos_sha256
    assert (0.55, 0.55, 0.1, 0.1) in other.geometry.boxes["MEL"]
    assert (0.55, 0.55, 0.1, 0.1) not in one.geometry.boxes["MEL"]
    assert one.geometry == set_up(table, hold_out=0).geometry, "the discs fill their boxes"
    assert one.header()["settings"]["samples"]["region"] == "mask"


def test_photos_of_much_else_than_skin_are_not_learnt_from_and_the_card_says_so(tmp_path: Path) -> None:
    table = write_photos(tmp_path, ("NEV", "MEL") * 6)
    with Image.open(tmp_path / "4.png") as found:
        shown = np.array(found)
    shown[:, :40] = (30, 60, 160)
    Image.fromarray(shown).save(tmp_path / "4.png")
    whole = set_up(table, tmp_path / "all", hold_out=0)
    clear = set_up(table, tmp_path / "out", hold_out=0, samples={"size": 16, "foreign": 0.1})
    assert clear.material.left_out is not None
    assert whole.material.left_out is None
    assert [Path(one.uri).name for one in clear.material.left_out.photos] == ["4.png"]
    assert {one.uri for one in clear.feed.training.photos} == {
        one.uri for one in whole.feed.training.photos if not one.uri.endswith("/4.png")
    }
    assert clear.geometry == whole.geometry
    assert clear.header()["pairs"] == whole.header()["pairs"], "the split is told by it"
    run.finish(clear, clear.learner(CPU, lambda tensors: None, 0).state(), [], "python jobs/train_gan.py")
    assert "Neither learnt from nor held out: 1 photo(s) (NEV 1)" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["plus", "unet"])
def test_a_run_of_masks_leaves_weights_that_say_so_and_draw_by_them(tmp_path: Path, kind: str) -> None:
    table = write_photos(tmp_path, ("NEV", "MEL") * 6, masks=True)
    own = {"samples": {"size": 16, "region": "mask"}, "generator": {**TINY["generator"], "kind": kind}}
    job = set_up(table, tmp_path / "out", **own)
    learner = job.learner(CPU, lambda tensors: None, 0)
    for step in range(2):
        learner.step(job.feed.batch(step, 0, 1))
    figures, _ = learner.validate([job.feed.held_out(0)])
    assert "held_out_lesion_l1" in figures
    model = SkinModel.load(run.finish(job, learner.state(), [], "python jobs/train_gan.py"))
    assert model.region == "mask"
    asked = [Request("MEL", 3, (200, 160, 140), mask) for mask in shapes(16).values()]
    assert len({one.image.tobytes() for one in model.draw(asked, [1] * 4)}) == 4
    assert "Learnt from lesions' masks" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"warp": 0.12}, "places moved by up to 12 % of the lesion's length"),
        ({"gloss_kept": True}, "Lightened skin kept its gloss as it was"),
    ],
)
def test_the_card_says_what_was_done_to_photos(table: str, tmp_path: Path, how: dict[str, Any], said: str) -> None:
    for name, own in ("with", how), ("without", {}):
        job = set_up(table, tmp_path / name, samples={"size": 16, **own})
        run.finish(job, job.learner(CPU, lambda tensors: None, 0).state(), [], "python jobs/train_gan.py")
        assert (said in (tmp_path / name / "README.md").read_text()) == (name == "with")


@pytest.mark.parametrize("silent", [(Channel(0, 1), Channel(1, 3)), ()])
def test_channels_that_strew_specks_are_silent_in_what_is_kept_and_the_card_names_them(
    table: str, tmp_path: Path, silent: tuple[Channel, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def strewn(model: SkinModel, share: float) -> tuple[Channel, ...]:
        asked.append(share)
        return silent

    monkeypatch.setattr(specks, "strewn", strewn)
    job = set_up(table, tmp_path, silenced=0.4)
    learner = job.learner(CPU, lambda tensors: None, 0)
    model = SkinModel.load(run.finish(job, learner.state(), [], "python jobs/train_gan.py"))
    assert asked == [0.4]
    assert model.about["silenced"] == [list(channel) for channel in silent]
    style = learner.state()["average.styles.0.bias"].clone()
    scales = style.view(2, 6, -1)[:, 0]
    for layer, place in silent:
        scales[layer, place] = -1
    assert torch.equal(model.network.state_dict()["styles.0.bias"].view(2, 6, -1)[:, 0], scales.half().float())
    said = "than 40 % of the specks of light on drawn skin: channel 1 of layer 0, 3 of layer 1 (`medsynth/skin/specks"
    assert (said in (tmp_path / "README.md").read_text()) == bool(silent)


def test_the_card_says_where_hair_comes_from(table: str, tmp_path: Path) -> None:
    job = set_up(table, tmp_path, generator=TINY["generator"] | {"hair": 0.25})
    run.finish(job, job.learner(CPU, lambda tensors: None, 0).state(), [], "python jobs/train_gan.py")
    assert "on 25 % of the pictures, lesions too, it grows by rule" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("region", "network", "said"),
    [
        (
            "mask",
            {"forms": 0.4},
            "masks: a lesion follows the mask that is asked for, and a box stands for an ellipse bent",
        ),
        ("box", {"forms": 0.4}, "though no photo taught it one, and a box stands for an ellipse bent by rule"),
        ("box", {"kind": "unet"}, "what it makes of a mask that is no rectangle, it was not taught"),
    ],
)
def test_the_card_says_what_form_a_lesion_has(tmp_path: Path, region: str, network: dict[str, Any], said: str) -> None:
    photos = write_photos(tmp_path / "photos", ("NEV", "MEL") * 6, masks=True)
    own = {"generator": TINY["generator"] | network, "samples": TINY["samples"] | {"region": region}}
    job = set_up(photos, tmp_path, **own)
    run.finish(job, job.learner(CPU, lambda tensors: None, 0).state(), [], "python jobs/train_gan.py")
    assert said in (tmp_path / "README.md").read_text()


def test_validating_tells_figures_and_draws_a_grid_that_is_always_the_same(table: str) -> None:
    job = set_up(table)
    learner = job.learner(CPU, lambda tensors: None, 0)
    batches = [job.feed.held_out(number) for number in range(job.held_out_batches)]
    figures, files = learner.validate(batches)
    angles = {"ita_found", "ita_error", "ita_spearman"}
    held_out = {f"held_out_{name}" for name in ("l1", "lesion_l1", "texture", "tone")}
    assert set(figures) == angles | held_out
    assert list(files) == ["samples/step-000000.png"]
    assert learner.validate(batches) == (figures, files)
    learner.step(job.feed.batch(0, 0, 1))
    assert learner.rates()["learning_rate"] == job.settings.learning_rate
    changed, later = learner.validate([])
    assert list(later) == ["samples/step-000001.png"]
    assert later["samples/step-000001.png"] != files["samples/step-000000.png"]
    assert set(changed) == angles


def test_a_finished_run_leaves_weights_that_draw_a_card_and_nothing_that_names_a_patient(
    table: str, tmp_path: Path
) -> None:
    job = set_up(table, tmp_path / "out")
    learner = job.learner(CPU, lambda tensors: None, 0)
    learner.step(job.feed.batch(0, 0, 1))
    curve = [{"step": "1", "judge": "1.5", "ita_found": "1", "ita_error": "4.5", "held_out_kid": "0.25"}]
    uri = run.finish(job, learner.state(), curve, "python jobs/train_gan.py --pairs table")
    model = SkinModel.load(uri)
    assert model.about["figures"] == {"ita_found": "1", "ita_error": "4.5", "held_out_kid": "0.25"}
    assert model.about["attribution"] == "Someone, CC BY 4.0"
    assert (model.conditions, model.about["steps"]) == (("MEL", "NEV"), 1)
    assert sum(len(boxes) for boxes in model.geometry.boxes.values()) == len(job.material.training.photos)
    assert model.draw([Request("MEL", 5)], [1])[0].image.shape == (16, 16, 3)
    averaged = learner.state()
    drawing = model.network.state_dict()
    assert (drawing.pop("floors") > 0).all()
    for name, tensor in drawing.items():
        assert torch.equal(tensor, averaged[f"average.{name}"].half().float())
    card = (tmp_path / "out" / "README.md").read_text()
    for part in (
        "Someone, CC BY 4.0",
        "python jobs/train_gan.py --pairs table",
        "| held_out_kid | 0.2500 |",
        "a lesion follows the mask that is asked for, though no photo taught it one, and a box stands for the ellipse",
        "retoned",
    ):
        assert part in card
    inside = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert TrainSettings(**inside).deciding() == job.settings.deciding(), "the card's settings make the run again"
    assert "P3" not in json.dumps(model.about) + card


def test_a_judge_of_both_kinds_of_picture_is_asked(table: str) -> None:
    asked = order(table)
    material = run.part(asked)
    seen: list[tuple[Any, ...]] = []

    def judge(real: Any, drawn: Any) -> dict[str, float]:
        seen.append((real, drawn))
        return {"kid": 0.5}

    facts = [samples.load(photo, 16).facts for photo in material.whole.photos]
    job = run.set_up(asked, material, facts, judge)
    batch = job.feed.held_out(0)
    figures, _ = job.learner(CPU, lambda tensors: None, 0).validate([batch])
    assert figures["held_out_kid"] == 0.5
    ((real, drawn),) = seen
    assert np.array_equal(real, batch["photos"])
    assert (drawn.dtype, drawn.shape) == (np.uint8, real.shape)


def _copied(table: str) -> None:
    # P0 is held out by the first row's own word, and its photo stands again as another patient's.
    path = Path(table)
    path.with_name("3.png").write_bytes(path.with_name("0.png").read_bytes())
    lines = path.read_text().splitlines()
    sides = ["split", "test", *("train" for _ in lines[2:])]
    path.write_text("\n".join(f"{line},{side}" for line, side in zip(lines, sides, strict=True)) + "\n")


def _in_both(table: str) -> None:
    path = Path(table)
    lines = path.read_text().splitlines()
    sides = ["split", *("train" if number else "test" for number in range(len(lines) - 1))]
    path.write_text("\n".join(f"{line},{side}" for line, side in zip(lines, sides, strict=True)) + "\n")
    change_row(table, 1, patient_id="P0")


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (None, {"conditions": ["NEV", "WART"]}, "unknown condition 'WART'; known: MEL, NEV"),
        (lambda table: change_row(table, 2, x0="", y0="", x1="", y1=""), {}, "row 3 (2.png): no box"),
        (
            lambda table: change_row(table, 2, x1="900"),
            {},
            "is not inside the picture of 140x120 px",
        ),
        (_in_both, {}, "patient 'P0' is in both splits; part the table by patient"),
        (_copied, {}, "3.png to learn from, but both are the same file; keep one of the two rows, or give both the"),
        (None, {"hold_out": 0.99}, "no photo is left to learn from; hold out fewer of the 12 patient(s)"),
        (None, {"batch": 60}, "9 photo(s) to learn from are fewer than a batch of 60; lower --batch"),
        (lambda table: change_row(table, 1, condition="SEK"), {"split_seed": 0, "hold_out": 0.5}, None),
        (
            lambda table: Path(table).with_name("2.png").write_bytes(b"no picture"),
            {},
            "mend the photo, or leave it out",
        ),
        (lambda table: Path(table).with_name("2.png").unlink(), {}, "2.png"),
        (None, {"samples": {"size": 16, "region": "mask"}}, "no masks, which samples.region asks for; name them"),
    ],
)
def test_what_cannot_be_learnt_from_is_named(
    tmp_path: Path, spoil: Callable[[str], object] | None, changes: dict[str, Any], message: str | None
) -> None:
    table = write_photos(tmp_path, ("NEV", "MEL") * 6)
    if spoil:
        spoil(table)
    if message is None:  # the only photo of its condition, held out by whichever seed does
        held = next(seed for seed in range(50) if "P1" in pairs.split(pairs.read(table), 0.5, seed)[1].patients)
        changes, message = {**changes, "split_seed": held}, "condition 'SEK' has no photo left to learn from"
    with pytest.raises(UserError) as caught:
        set_up(table, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_network_does_not_load(table: str) -> None:
    job = set_up(table)
    other = set_up(table, generator={"size": 16, "width": 4})
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.trainer(CPU).load(job.trainer(CPU).state())


def begun(table: str, weights: Path, **changes: Any) -> SkinRun:
    losses = {"l1": 0, "lesion_l1": 0, "look": 0}
    return set_up(table, begin=str(weights), losses=losses, **changes)


def test_a_run_that_begins_with_weights_draws_what_they_do_and_keeps_their_floors(table: str, tmp_path: Path) -> None:
    job = set_up(table)
    first = job.model(job.trainer(CPU), {})
    first.network.floors.mul_(3)  # as no other training would find them
    first.save(str(tmp_path / "weights"))
    kept = SkinModel.load(str(tmp_path / "weights"))
    going = begun(table, tmp_path / "weights")
    assert going.header()["begun_sha256"] == kept.sha256
    assert "begun_sha256" not in job.header()
    model = going.model(going.trainer(CPU), {})
    wanted = [Request("NEV", 2), Request("MEL", 6)]
    for one, other in zip(model.draw(wanted, [1, 2]), kept.draw(wanted, [1, 2]), strict=True):
        assert np.array_equal(one.image, other.image)
    assert model.about["begun_sha256"] == kept.sha256
    assert kept.sha256[:16] in card.text(model.about, "grid", [], "made")
    assert "did not begin from nothing" not in card.text(first.about, "grid", [], "made")


def test_kept_weights_lie_between_those_begun_with_and_those_learnt(table: str, tmp_path: Path) -> None:
    job = set_up(table)
    job.model(job.trainer(CPU), {}).save(str(tmp_path / "weights"))
    going = begun(table, tmp_path / "weights", learnt=0.25)
    trainer = going.trainer(CPU)
    first = trainer.averaged.last.weight.clone()
    with torch.no_grad():
        trainer.averaged.last.weight.add_(1.0)
    kept = going.model(trainer, {}).network
    assert torch.allclose(kept.last.weight, first + 0.25)
    assert torch.equal(kept.floors, trainer.averaged.floors)
    assert torch.equal(trainer.averaged.last.weight, first + 1.0), "the training goes on from what it learnt"


def test_weights_that_change_under_a_run_are_refused(table: str, tmp_path: Path) -> None:
    job = set_up(table)
    job.model(job.trainer(CPU), {}).save(str(tmp_path / "weights"))
    going = begun(table, tmp_path / "weights")
    set_up(table, seed=9).model(set_up(table, seed=9).trainer(CPU), {"other": "1"}).save(str(tmp_path / "weights"))
    with pytest.raises(UserError, match=r"weights: changed while it was learnt on from; put back what it was"):
        going.trainer(CPU)


def test_whose_photos_they_are_is_read_beside_their_table(tmp_path: Path) -> None:
    assert run.attribution(str(tmp_path / "photos.csv")) == ""
    (tmp_path / run.ATTRIBUTION).write_text("Someone,\nCC BY 4.0\n")
    assert run.attribution(str(tmp_path / "photos.csv")) == "Someone, CC BY 4.0"


def test_a_grid_shows_conditions_down_and_types_and_seeds_across(table: str) -> None:
    job = set_up(table, generator={"size": 128, "width": 2, "widest": 4}, samples={"size": 128})
    _, files = job.learner(CPU, lambda tensors: None, 0).validate([])
    (data,) = files.values()
    picture = np.asarray(Image.open(io.BytesIO(data)))
    # Cells of 128 px, 132 apart, found by the rows and columns that are white all along.
    filled = (picture < 255).any(axis=2)
    assert (filled.mean(axis=0) > 0.5).sum() >= 8 * 120
    assert (filled.mean(axis=1) > 0.5).sum() >= 2 * 120
