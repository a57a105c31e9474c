"""The recipe: a request in, a photo out, each a function of its own row; what is refused is drawn again."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import load_dataset
from PIL import Image

from medsynth import images
from medsynth import spec as specs
from medsynth.corpus import card, manifest, shard
from medsynth.errors import Reason, SpecError, UserError
from medsynth.model_file import ModelError
from medsynth.recipes import build, preparation, processor, rebuild
from medsynth.recipes.base import Output, Refusal, Sample, Stopwatch
from medsynth.recipes.preparation import Prepared
from medsynth.recipes.skin import Skin, SkinSettings
from medsynth.recipes.work import Job, make_and_commit
from medsynth.seeds import sample_seed
from medsynth.skin import likeness, tone
from medsynth.skin.likeness import Known
from medsynth.skin.model import Request, SkinModel
from medsynth.skin.quality import Thresholds
from medsynth.skin.semantic_map import Box, MapError
from medsynth.spec import parse
from medsynth.verify import verify
from tests import skin_model

CHOICES = [
    {"condition": condition, "fitzpatrick": kind, "device": device}
    for condition in skin_model.NAMES
    for kind in ("I", "VI")
    for device in ("phone-flagship", "phone-lowlight")
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return skin_model.save(tmp_path_factory.mktemp("weights"))


def run(weights: str, section: dict[str, Any] | None = None, **changes: Any) -> Prepared:
    spec = skin_model.spec(weights, section, **changes)
    return preparation.prepare(spec, build(spec), None, "")


def make(folder: Path, prepared: Prepared, order: list[int] | None = None) -> list[dict[str, Any]]:
    """Make a corpus without Ray, its shards in any order, and give its rows."""
    corpus = str(folder)
    manifest.write_header(corpus, prepared.header, conditional=True)
    work = Job(
        corpus, prepared.fingerprint, prepared.recipe, prepared.plan, prepared.plan.axes, prepared.plan.seed, True
    )
    records = {number: make_and_commit(work, number) for number in order or range(prepared.plan.shards)}
    writer = manifest.Writer()
    writer.write([records[number] for number in range(prepared.plan.shards)])
    manifest.write_manifest(corpus, writer.finish())
    return [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def samples(values: list[dict[str, str]], run_seed: int = 3) -> list[Sample]:
    return [Sample(n, sample_seed(run_seed, n), value, None) for n, value in enumerate(values)]


def outputs(recipe: Any, wanted: list[Sample]) -> list[Output]:
    return [result for result in recipe.make(wanted, Stopwatch()) if isinstance(result, Output)]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_picture_is_the_same_in_any_company(weights: str, precision: str) -> None:
    recipe = build(skin_model.spec(weights, {"precision": precision}))
    wanted = samples(CHOICES * 2)
    whole = {result.sample.index: result.image for result in outputs(recipe, wanted)}
    assert len(set(whole.values())) == len(wanted)
    for part in ([5], [15, 2, 9], list(range(3, 14))):
        again = outputs(recipe, [wanted[n] for n in part])
        assert [result.sample.index for result in again] == part
        assert [result.image for result in again] == [whole[n] for n in part]


def test_a_corpus_is_balanced_and_its_bytes_do_not_depend_on_the_order_of_the_work(
    weights: str, tmp_path: Path
) -> None:
    prepared = run(weights)
    rows = make(tmp_path / "one", prepared)
    axes = prepared.plan.axes
    assert Counter(tuple(row[axis] for axis in axes) for row in rows) == {
        quota.subgroup: 2 for quota in prepared.plan.quotas()
    }
    # The permutation spreads them: no shard holds one value of an axis alone.
    first = rows[: prepared.plan.rows_per_shard]
    assert all(len({row[axis] for row in first}) > 1 for axis in axes)
    make(tmp_path / "two", run(weights), order=[3, 0, 2, 1])
    for path in (tmp_path / "one" / "data").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "two" / "data" / path.name).read_bytes()
    findings = verify(str(tmp_path / "one"), 24)
    assert (findings.problems, findings.remade) == ([], 24)


def test_a_corpus_in_bf16_is_another_and_comes_again(weights: str, tmp_path: Path) -> None:
    rows = make(tmp_path / "quick", run(weights, {"precision": "bf16"}))
    assert [row["image"]["bytes"] for row in rows] != [row["image"]["bytes"] for row in make(tmp_path, run(weights))]
    findings = verify(str(tmp_path / "quick"), 24)
    assert (findings.problems, findings.remade) == ([], 24)


def test_a_row_says_what_was_asked_and_what_came(weights: str) -> None:
    recipe = build(skin_model.spec(weights))
    for result in outputs(recipe, samples(CHOICES)):
        row = result.parameters
        values = result.sample.values
        assert {name: row[name] for name in values} == values
        assert tone.TYPES[int(tone.fitzpatrick(row["ita_deg"])) - 1] == values["fitzpatrick"]
        assert row["ita_deg"] == float(tone.ita(tone.to_lab(row["skin_rgb"])))
        x0, y0, x1, y1 = row["lesion_box"]
        assert row["lesion_share"] == round((x1 - x0) * (y1 - y0) / 32**2, 4)
        assert len(row["weights_sha256"]) == 64
        assert set(row) == {item.name for item in recipe.parameters}
        assert images.decode(result.image).shape == (32, 32, 3)


def test_sizes_are_shares_of_the_picture(weights: str) -> None:
    sizes = {"tiny": {"uniform": [0.03, 0.06]}, "huge": {"uniform": [0.3, 0.5]}}
    axes = {"size": ["tiny", "huge"]}
    recipe = build(skin_model.spec(weights, {"sizes": sizes}, balance={"axes": axes, "total": 2}))
    for result in outputs(recipe, samples([{"size": name} for name in ("tiny", "huge") * 8])):
        low, high = sizes[result.sample.values["size"]]["uniform"]
        # A pixel more or less on each side, of 32.
        assert low * 0.6 < result.parameters["lesion_share"] < high * 1.2
        assert result.parameters["condition"] in skin_model.NAMES
        assert recipe.remake({**result.parameters, "seed": result.sample.seed}) == result.image
        assert result.parameters["fitzpatrick"] in tone.TYPES


def test_the_camera_changes_the_picture_and_nothing_else(weights: str) -> None:
    names = ("phone-flagship", "phone-budget", "phone-lowlight")
    axes = {"device": list(names)}
    recipe = build(skin_model.spec(weights, balance={"axes": axes, "total": 3}))
    seen = {}
    for name in names:
        (result,) = outputs(recipe, [Sample(0, 77, {"device": name}, None)])
        seen[name] = result
    boxes = {tuple(result.parameters["lesion_box"]) for result in seen.values()}
    assert (len(boxes), len({result.image for result in seen.values()})) == (1, 3)
    photons = [seen[name].parameters["photons"] for name in names]
    assert photons == sorted(photons, reverse=True)
    plain = build(skin_model.spec(weights, balance={"axes": {"fitzpatrick": ["I"]}, "total": 1}))
    (result,) = outputs(plain, [Sample(0, 77, {}, None)])
    assert result.parameters["photons"] is None
    assert result.parameters["jpeg_quality"] == 95


def test_a_camera_of_the_users_own_and_png(weights: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"name": "own", "radius_px": 2, "bokeh": {"kind": "gaussian"}}))
    section = {"device": "mine", "devices": {"mine": str(own)}}
    axes = {"fitzpatrick": ["I"]}
    changes: dict[str, Any] = {"balance": {"axes": axes, "total": 1}, "output": {"image_format": "png"}}
    recipe = build(skin_model.spec(weights, section, **changes))
    (result,) = outputs(recipe, [Sample(0, 77, {"fitzpatrick": "I"}, None)])
    assert result.image.startswith(b"\x89PNG")
    assert (result.parameters["blur_kind"], result.parameters["blur_radius_px"]) == ("gaussian", 2.0)
    row = {**result.parameters, "seed": result.sample.seed}
    own.unlink()
    assert rebuild("skin", json.loads(json.dumps(recipe.identity()))).remake(row) == result.image


def half_refused(weights: str) -> dict[str, Any]:
    """A threshold in the middle of what comes."""
    recipe = build(skin_model.spec(weights))
    found = [result.parameters["lesion_change"] for result in outputs(recipe, samples(CHOICES * 4))]
    return {"reject": {**skin_model.OFF, "change": float(np.median(found))}}


@pytest.fixture(scope="module")
def section(weights: str) -> dict[str, Any]:
    return half_refused(weights)


class TestRejects:
    """A small model's pictures, of which some pass and some do not."""

    def test_are_told_with_a_reason_and_drawn_again(
        self, weights: str, section: dict[str, Any], tmp_path: Path
    ) -> None:
        prepared = run(weights, section)
        rows = make(tmp_path / "one", prepared)
        records = manifest.read_manifest(str(tmp_path / "one"))
        assert records is not None
        rejected = sum(sum(record.rejects.values()) for record in records)
        assert 6 < rejected < 60
        assert sorted(row["index"] for row in rows) == list(range(24))
        least = section["reject"]["change"]
        assert all(row["lesion_change"] >= least for row in rows)
        told = [
            r for p in sorted((tmp_path / "one" / "rejects").glob("*.parquet")) for r in pq.read_table(p).to_pylist()
        ]
        assert len(told) == rejected
        assert {r["reason"] for r in told} == {Reason.NO_LESION}
        assert len({r["detail"] for r in told}) == rejected  # each names its own seed
        make(tmp_path / "two", prepared, order=[2, 3, 1, 0])
        for path in sorted((tmp_path / "one").rglob("*.parquet")):
            if path.name != manifest.NAME:
                assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        findings = verify(str(tmp_path / "one"), 24)
        assert (findings.problems, findings.undelivered) == ([], 0)

    def test_that_never_pass_are_given_up_and_counted(self, weights: str, tmp_path: Path) -> None:
        prepared = run(weights, {"reject": {**skin_model.OFF, "spread": 50}})
        assert make(tmp_path, prepared) == []
        findings = verify(str(tmp_path), 0)
        assert (findings.problems, findings.undelivered) == ([], 24)
        records = [shard.existing(str(tmp_path), path.stem, fingerprint=prepared.fingerprint)
                   for path in sorted((tmp_path / "data").glob("*.parquet"))]  # fmt: skip
        assert [record.lost for record in records if record] == [[(0, 7)], [(7, 14)], [(14, 21)], [(21, 24)]]
        assert sum(sum(record.rejects.values()) for record in records if record) == 24 * 9

    def test_copies_of_real_photos_are_refused(self, weights: str, tmp_path: Path) -> None:
        recipe = build(skin_model.spec(weights, {"device": None}, balance={"axes": {"fitzpatrick": ["I"]}, "total": 1}))
        (drawn,) = outputs(recipe, [Sample(0, 77, {"fitzpatrick": "I"}, None)])
        # The "real photo" is what the model draws, mirrored.
        Image.fromarray(images.decode(drawn.image)[:, ::-1]).save(tmp_path / "photo.png")
        x0, y0, x1, y1 = drawn.parameters["lesion_box"]
        table = tmp_path / "photos.csv"
        table.write_text(f"image,condition,patient_id,x0,y0,x1,y1\nphoto.png,BCC,P1,{32 - x1},{y0},{32 - x0},{y1}\n")
        section = {"real": str(table), "reject": {**skin_model.OFF, "likeness": 0.8}}
        guarded = build(skin_model.spec(weights, section, balance={"axes": {"fitzpatrick": ["I"]}, "total": 1}))
        first, *_ = guarded.make([Sample(0, 77, {"fitzpatrick": "I"}, None)], Stopwatch())
        assert isinstance(first, Refusal)
        assert first.why.reason == Reason.COPY
        assert "photo 1 of skin.real" in first.why.detail
        others = outputs(guarded, samples([{"fitzpatrick": "I"}] * 4))
        assert all(result.parameters["likeness"] <= 0.8 for result in others)
        assert guarded.identity()["real"]["photos"] == 1
        table.write_text("image,condition,patient_id,x0,y0,x1,y1\nphoto.png,BCC,P1,0,0,99,9\n")
        with pytest.raises(MapError, match="not inside the picture"):
            build(skin_model.spec(weights, section))

    def test_what_an_audit_would_flag_is_refused_by_default(self, weights: str, tmp_path: Path) -> None:
        balance = {"axes": {"fitzpatrick": ["I"]}, "total": 1}
        wanted = Sample(0, 77, {"fitzpatrick": "I"}, None)
        (row,) = (one.parameters for one in outputs(build(skin_model.spec(weights, balance=balance)), [wanted]))
        box = Box(*row["lesion_box"])
        request = Request(row["condition"], 1, tuple(row["skin_rgb"]), box)
        picture = SkinModel.load(weights).draw([request], [wanted.seed])[0].image
        noise = np.random.default_rng(0).normal(0, 1, picture.shape)
        # No copy of it, but as like as no more than 1 % of strangers' photos are.
        likes = {}
        for strength in range(1, 100):
            other = (picture + strength * noise).round().clip(0, 255).astype(np.uint8)
            likes[Known(likeness.describe(other, box)[None]).nearest(picture, box)[0]] = other
        near = min((value for value in likes if value > 0.877), default=1.0)
        assert near < 0.94
        Image.fromarray(likes[near]).save(tmp_path / "photo.png")
        table = tmp_path / "photos.csv"
        corners = f"{box.x0},{box.y0},{box.x1},{box.y1}"
        table.write_text(f"image,condition,patient_id,x0,y0,x1,y1\nphoto.png,BCC,P1,{corners}\n")
        section = {"real": str(table), "reject": {**skin_model.OFF, "likeness": Thresholds().likeness}}
        guarded = build(skin_model.spec(weights, section, balance=balance))
        first, *_ = guarded.make([wanted], Stopwatch())
        assert isinstance(first, Refusal)
        assert first.why.reason == Reason.COPY


@pytest.mark.parametrize(
    ("section", "axes", "message"),
    [
        ({}, {"condition": ["BBC"]}, "balance.axes.condition: no condition 'BBC'; did you mean 'BCC'"),
        ({}, {"condition": ["wart"]}, "known: BCC, NEV"),
        ({}, {"fitzpatrick": ["1"]}, "no fitzpatrick '1'; known: I, II, III, IV, V, VI"),
        ({}, {"size": ["big"]}, "no size 'big'; known: small, medium, large"),
        ({}, {"device": ["phone-flagshp"]}, "did you mean 'phone-flagship'"),
        ({}, {"tissue": ["a"]}, "balance.axes.tissue: the recipe skin does not make this axis"),
        ({"device": "phone-budget"}, {"device": ["phone-budget"]}, "skin.device: device is an axis too"),
        ({"sizes": {"x": 1.5}}, {"size": ["x"]}, "sizes.x: a share of the picture lies between 0.001 and 0.8"),
        ({"rejct": {}}, {"size": ["small"]}, "did you mean 'reject'"),
    ],
)
def test_mistakes_in_the_spec_are_one_line(
    weights: str, section: dict[str, Any], axes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message.replace("'", ".")) as found:
        run(weights, section, balance={"axes": axes, "total": 4})
    assert "\n" not in str(found.value)


def test_weights_and_sources_that_cannot_be_used_are_named(weights: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        run(str(tmp_path / "none"))
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not a safetensors file"):
        run(str(tmp_path / "junk"))
    with pytest.raises(SpecError, match="source: the recipe skin draws"):
        run(weights, source="package://skimage/data/ihc.png")
    with pytest.raises(SpecError, match="out_of_focus: the recipe is skin; remove the section"):
        run(weights, out_of_focus={"size": 64})


def test_weights_that_change_in_between_are_refused(tmp_path: Path) -> None:
    uri = skin_model.save(tmp_path)
    recipe = build(skin_model.spec(uri))
    path = Path(uri)
    path.write_bytes(path.read_bytes().replace(b"Photos of nobody", b"Photos of no-one"))
    with pytest.raises(UserError, match="not the weights that the corpus was begun with"):
        list(recipe.make(samples(CHOICES), Stopwatch()))


def test_fingerprint_names_weights_cameras_and_processor(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = run(weights)
    assert run(weights).fingerprint == base.fingerprint
    settings = base.header["recipe_settings"]
    assert settings["processor"]["cpu"]
    assert set(settings["chains"]) == {"phone-flagship", "phone-lowlight"}
    assert settings["model"]["attribution"] == "Photos of nobody, CC0"
    assert run(weights, {"reject": {}}).fingerprint != base.fingerprint
    quick = run(weights, {"precision": "bf16"})
    assert quick.fingerprint != base.fingerprint
    assert set(quick.header["recipe_settings"]["processor"]) == {"cpu", "maker", "torch", "bf16"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(UserError, match="the pictures depend on the processor: bf16 is 'none' here"):
        rebuild("skin", {**quick.header["recipe_settings"], "processor": {"bf16": "amx_bf16"}})
    with pytest.raises(UserError, match=r"depend on the processor: maker is '.+' here, and 'Of another maker' was"):
        rebuild("skin", {**settings, "processor": {**settings["processor"], "maker": "Of another maker"}})
    monkeypatch.setattr(processor, "kind", lambda gpu, bf16: {"cpu": "another", "torch": "9"})
    assert run(weights).fingerprint != base.fingerprint
    with pytest.raises(UserError, match="the pictures depend on the processor: cpu is 'another' here"):
        rebuild("skin", settings)
    assert isinstance(base.recipe, Skin)
    with pytest.raises(UserError, match="use machines of one kind"):
        list(base.recipe.make(samples(CHOICES), Stopwatch()))


def test_a_gpu_that_is_not_there_is_named(weights: str) -> None:
    recipe = build(skin_model.spec(weights, {"gpu": "NVIDIA H200"}))
    assert recipe.gpus == 0.125
    with pytest.raises(UserError, match=r"skin.gpu: asks for 'NVIDIA H200'|the pictures depend on the processor"):
        list(recipe.make(samples(CHOICES), Stopwatch()))


def test_the_card_names_terms_and_lists_and_others_can_read_it(weights: str, tmp_path: Path) -> None:
    make(tmp_path, run(weights))
    card.write_card(str(tmp_path))
    text = (tmp_path / card.CARD).read_text()
    assert "whose terms apply: Photos of nobody, CC0. Say so" in text
    assert "source tiles" not in text
    assert "  - reject" not in text.partition("# small-skin")[0]
    assert "- weights: " in text
    features = yaml.safe_load(text.split("---\n")[1])["dataset_info"]["features"]
    assert {"name": "lesion_box", "list": "int32"} in features
    described = json.loads((tmp_path / card.CROISSANT).read_text())
    (field,) = [item for item in described["recordSet"][0]["field"] if item["name"] == "lesion_box"]
    assert (field["dataType"], field["repeated"]) == ("sc:Integer", True)
    mlcroissant.Dataset(tmp_path / card.CROISSANT)  # checks it
    rows = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows[0]["lesion_box"]) == 4


def test_the_shipped_order_asks_for_what_there_is() -> None:
    order = specs.load("jobs/specs/skin.yaml")
    assert parse(SkinSettings, order.skin, "skin").reject == Thresholds()
    try:
        recipe = build(order)
    except ModelError:
        pytest.skip("the shipped weights are not there")
    assert preparation.prepare(order, recipe, None, "").plan.rows == 432


def test_preview_shows_conditions_down_and_types_across(weights: str) -> None:
    assert preparation.preview(run(weights), 6).startswith(b"\x89PNG")
