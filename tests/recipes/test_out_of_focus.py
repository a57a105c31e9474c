"""The recipe: tiles in, known defocus out, each image a function of its own row."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import yaml

from medsynth import images, storage
from medsynth.corpus.sources import Source
from medsynth.defocus import device
from medsynth.errors import SpecError
from medsynth.recipes import build, rebuild
from medsynth.recipes.base import Output, Refusal, Sample, Stopwatch
from medsynth.spec import Spec, parse

IHC = "package://skimage/data/ihc.png"
SHA256 = hashlib.sha256(storage.read(IHC)).hexdigest()


def spec(section: dict[str, Any] | None = None, **changes: Any) -> Spec:
    order = {
        "name": "t",
        "recipe": "out_of_focus",
        "seed": 3,
        "source": IHC,
        "balance": {"axes": {"focus_class": {"from": 0, "to": 29}}, "per_subgroup": 1},
        "out_of_focus": section or {},
        **changes,
    }
    return parse(Spec, order, "test")


def source(**changes: Any) -> Source:
    fields = {
        "uri": IHC,
        "row": None,
        "image_column": None,
        "x": 100,
        "y": 50,
        "width": 256,
        "height": 256,
        "mpp": 0.25,
        "sha256": SHA256,
    }
    return Source(**{**fields, **changes})


def samples(count: int, where: Source | None = None, **values: str) -> list[Sample]:
    return [Sample(i, 1000 + i, {"focus_class": str(i % 30), **values}, where or source()) for i in range(count)]


def row_of(output: Output) -> dict[str, Any]:
    where = output.sample.source
    assert where is not None
    return {
        "source_uri": where.uri, "source_row": where.row, "source_column": where.image_column, "source_x": where.x,
        "source_y": where.y, "source_width": where.width, "source_height": where.height, "source_sha256": where.sha256,
        "seed": output.sample.seed, **output.parameters,
    }  # fmt: skip


def test_each_image_can_be_made_again_from_its_row_and_the_header_alone() -> None:
    recipe = build(spec({"sharpening": {"amount": {"uniform": [0.1, 0.5]}}}))
    again = rebuild("out_of_focus", json.loads(json.dumps(recipe.identity())))
    for output in recipe.make(samples(30), Stopwatch()):
        assert isinstance(output, Output)
        assert again.remake(json.loads(json.dumps(row_of(output)))) == output.image


def test_an_image_does_not_depend_on_its_company() -> None:
    recipe = build(spec())
    together = {o.sample.index: o.image for o in recipe.make(samples(30), Stopwatch()) if isinstance(o, Output)}
    for sample in reversed(samples(30)):
        (alone,) = recipe.make([sample], Stopwatch())
        assert isinstance(alone, Output)
        assert alone.image == together[sample.index]


def test_radius_follows_the_class_and_is_given_in_both_units() -> None:
    outputs = list(build(spec()).make(samples(30), Stopwatch()))
    radii = [o.parameters["blur_radius_px"] for o in outputs if isinstance(o, Output)]
    assert radii == sorted(radii)
    assert (radii[0], radii[-1]) == (0, 12)
    for output in outputs:
        assert isinstance(output, Output)
        assert output.parameters["blur_radius_um"] == pytest.approx(
            output.parameters["blur_radius_px"] * 0.25, rel=1e-5
        )


def test_class_0_is_noisy_and_compressed_like_the_others() -> None:
    (output,) = build(spec()).make(samples(1), Stopwatch())
    assert isinstance(output, Output)
    assert output.parameters["photons"] > 0
    assert 40 <= output.parameters["jpeg_quality"] <= 90


def test_png_keeps_the_chains_jpeg_step() -> None:
    jpeg, png = (build(spec(output={"image_format": kind})) for kind in ("jpeg", "png"))
    for one, two in zip(jpeg.make(samples(3), Stopwatch()), png.make(samples(3), Stopwatch()), strict=True):
        assert isinstance(one, Output)
        assert isinstance(two, Output)
        np.testing.assert_array_equal(simplejpeg.decode_jpeg(one.image), images.decode(two.image))


def test_an_unknown_device_is_refused() -> None:
    axes = {"device": ["aperio-at2-like", "mine"], "focus_class": ["10"]}
    with pytest.raises(SpecError, match="mine"):
        build(spec(balance={"axes": axes, "per_subgroup": 1}))


def test_a_device_of_the_users_own_is_kept_in_the_header(tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(yaml.safe_dump({"name": "mine", "sensor": {"photons": 50, "read_noise_e": 1}}))
    axes = {"device": ["aperio-at2-like", "mine"], "focus_class": ["10"]}
    recipe = build(spec({"devices": {"mine": str(profile)}}, balance={"axes": axes, "per_subgroup": 1}))
    profile.unlink()
    again = rebuild("out_of_focus", json.loads(json.dumps(recipe.identity())))
    made = {}
    for name in axes["device"]:
        (output,) = recipe.make([Sample(0, 5, {"device": name, "focus_class": "10"}, source())], Stopwatch())
        assert isinstance(output, Output)
        assert again.remake(row_of(output)) == output.image
        made[name] = output
    assert made["mine"].parameters["photons"] == 50
    assert made["mine"].image != made["aperio-at2-like"].image


def test_focus_class_is_drawn_where_it_is_no_axis() -> None:
    recipe = build(spec(balance={"axes": {"device": ["aperio-at2-like"]}, "per_subgroup": 1}))
    sources = [Sample(i, 77 + i, {"device": "aperio-at2-like"}, source()) for i in range(90)]
    classes = [o.parameters["focus_class"] for o in recipe.make(sources, Stopwatch()) if isinstance(o, Output)]
    assert len(classes) == 90
    assert len(set(classes)) > 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "0" * 64}, "changed_since_catalog"),
        ({"uri": "/no/such/tile.png"}, "missing"),
        ({"width": 130, "height": 130}, "too_small"),
    ],
)
def test_a_bad_tile_is_refused_with_its_reason_and_the_others_are_made(changes: dict[str, Any], reason: str) -> None:
    mixed = [*samples(2), *(Sample(s.index + 2, s.seed, s.values, source(**changes)) for s in samples(2)), *samples(1)]
    results = list(build(spec()).make(mixed, Stopwatch()))
    assert [type(result) for result in results] == [Output, Output, Refusal, Refusal, Output]
    assert {r.why.reason for r in results if isinstance(r, Refusal)} == {reason}


def test_a_tile_is_refused_for_all_classes_or_for_none() -> None:
    recipe = build(spec({"device": "aperio-at2-like"}))
    sides = [side for side in range(160, 270) if recipe.refuses(side, side, 0.25) is None]
    assert sides == list(range(sides[0], 270))
    for side in (sides[0], sides[0] + 1):
        results = recipe.make(samples(90, source(width=side, height=side)), Stopwatch())
        assert all(isinstance(result, Output) for result in results)
    assert recipe.refuses(256, sides[0] - 1, 0.25) is not None


@pytest.mark.parametrize("mpp", [0.2271, 0.25, None])
def test_a_tile_of_256_px_is_enough_for_every_shipped_device(mpp: float | None) -> None:
    recipe = build(spec(balance={"axes": {"device": list(device.known())}, "per_subgroup": 1}))
    assert recipe.refuses(256, 256, mpp) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_of_focus": {"jpeg": None}}, "output.image_format is jpeg"),
        ({"out_of_focus": {"sizee": 3}}, "did you mean 'size'"),
        ({"out_of_focus": {"device": "aperio-at2-lke"}}, "aperio-at2-like"),
        (
            {
                "out_of_focus": {"device": "aperio-at2-like"},
                "balance": {"axes": {"device": ["aperio-at2-like"]}, "per_subgroup": 1},
            },
            r"out_of_focus\.device: device is an axis too; remove one of the two",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec(**changes))


@pytest.mark.parametrize("value", ["30", "-1", "00", "٣"])  # the last two are numbers, but rows name them otherwise
def test_unknown_classes_are_refused(value: str) -> None:
    order = spec(balance={"axes": {"focus_class": ["29", value]}, "per_subgroup": 1})
    with pytest.raises(SpecError, match=f"no class '{value}'; the radius table has 0 to 29"):
        build(order)
