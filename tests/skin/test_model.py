import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from medsynth import storage
from medsynth.model_file import ModelError, metadata
from medsynth.recipes import processor
from medsynth.skin import generator, hair, regions, semantic_map, tone
from medsynth.skin.generator import GeneratorSettings, PlusNetwork
from medsynth.skin.model import DEFAULT_URI, Request, SkinModel
from medsynth.skin.regions import RegionKind
from medsynth.skin.semantic_map import Box, Geometry, MapError
from tests.skin.photos import shapes
from tests.torch_threads import torch_threads

NAMES = ("BCC", "NEV")


@pytest.fixture(scope="module")
def model() -> SkinModel:
    return made("box")


@pytest.fixture(scope="module")
def of_masks() -> SkinModel:
    return made("mask")


def made(region: RegionKind) -> SkinModel:
    torch.manual_seed(0)
    settings = GeneratorSettings(size=64, width=8, widest=32, latent=8, embedding=16)
    geometry = Geometry(dict.fromkeys(NAMES, ((0.5, 0.5, 0.3, 0.25),)))
    network = generator.build(settings, len(NAMES))
    found = SkinModel(network, NAMES, geometry, {"steps": 1}, region=region)
    return SkinModel.from_bytes(found.to_bytes(), "test")


def test_a_picture_is_the_same_in_any_company(model: SkinModel) -> None:
    requests = [Request(NAMES[n % 2], fitzpatrick=n % 6 + 1) for n in range(11)]
    seeds = list(range(100, 100 + len(requests)))
    whole = [drawn.image.tobytes() for drawn in model.draw(requests, seeds)]
    assert len(set(whole)) == len(whole)
    for order in (list(reversed(range(len(requests)))), [4, 9, 0], [10], [3, 3, 3]):
        again = model.draw([requests[n] for n in order], [seeds[n] for n in order])
        assert [drawn.image.tobytes() for drawn in again] == [whole[n] for n in order]


def test_what_is_asked_for_is_in_the_map(model: SkinModel) -> None:
    box = Box(10, 12, 30, 40)
    (drawn,) = model.draw([Request("NEV", skin=(90, 60, 50), region=box)], [7])
    assert drawn.skin == (90, 60, 50)
    assert drawn.map[0, 0].tolist() == [90, 60, 50]
    assert drawn.region == box
    assert drawn.image.shape == (64, 64, 3)
    for kind in range(1, 7):
        for found in model.draw([Request("BCC", fitzpatrick=kind)] * 3, [1, 2, 3]):
            assert int(tone.fitzpatrick(tone.ita(tone.to_lab(found.skin)))) == kind


def test_a_saved_model_draws_the_same(model: SkinModel, tmp_path: Path) -> None:
    uri = str(tmp_path / "m.safetensors")
    model.save(uri)
    again = SkinModel.load(uri)
    request, seed = [Request("NEV")], [5]
    assert np.array_equal(again.draw(request, seed)[0].image, model.draw(request, seed)[0].image)
    assert (again.sha256, again.about, again.conditions) == (model.sha256, {"steps": 1}, NAMES)
    assert again.geometry == model.geometry


def test_softness_gives_floors_that_are_saved_and_drawn_with() -> None:
    model = made("box")
    hard = model.draw([Request("NEV", 2)], [5])[0].image
    model.soften()
    assert isinstance(model.network, PlusNetwork)
    floors = model.network.floors.clone()
    assert (floors > 0).all()
    soft = model.draw([Request("NEV", 2)], [5])[0].image
    assert not np.array_equal(soft, hard)
    model.soften()
    assert torch.equal(model.network.floors, floors)  # found without those that it had
    again = SkinModel.from_bytes(model.to_bytes(), "test")
    assert np.array_equal(again.draw([Request("NEV", 2)], [5])[0].image, soft)
    model.network.settings = model.network.settings.model_copy(update={"softness": 0.4})
    model.soften()
    torch.testing.assert_close(model.network.floors / floors, torch.tensor([0.5] * 4 + [1.0] * 3), rtol=2e-3, atol=0)
    model.network.settings = model.network.settings.model_copy(update={"softness": 0, "fine_softness": 0})
    model.soften()
    assert np.array_equal(model.draw([Request("NEV", 2)], [5])[0].image, hard)


def test_the_usual_pictures_are_always_the_same_and_more_of_them_are_others(model: SkinModel) -> None:
    twice, once = list(model.usual(2)), list(model.usual())
    assert (len(once), len(twice)) == (12, 24)
    for (asked, noise), (same, same_noise) in zip(once, twice, strict=False):
        assert torch.equal(asked.maps, same.maps)
        assert torch.equal(noise.look, same_noise.look)
    assert len({noise.look.numpy().tobytes() for _, noise in twice}) == 24
    assert sorted((int(asked.conditions), int(asked.types)) for asked, _ in twice[12:]) == [
        (condition, kind) for condition in range(2) for kind in range(1, 7)
    ]


def test_hair_grows_on_the_share_of_pictures_that_the_weights_ask_for(model: SkinModel) -> None:
    network = generator.build(model.network.settings.model_copy(update={"hair": 0.5}), len(NAMES))
    network.load_state_dict(model.network.state_dict())
    told = SkinModel(network, NAMES, model.geometry, {}).to_bytes()
    hairy = SkinModel.from_bytes(told, "test")
    asked, seeds = [Request("NEV", 3)] * 40, range(40)
    pairs = zip(model.draw(asked, seeds), hairy.draw(asked, seeds), strict=True)
    some = []
    for seed, (bald, grown) in enumerate(pairs):
        assert grown.skin == bald.skin
        image, hairs = hair.grown(bald.image, bald.skin, seed, 0.5)
        assert np.array_equal(grown.image, image)
        assert (grown.hairs, bald.hairs) == (hairs, 0)
        some.append(hairs > 0)
    assert 10 <= sum(some) <= 30


def test_a_u_net_has_nothing_to_soften() -> None:
    torch.manual_seed(0)
    network = generator.build(GeneratorSettings(kind="unet", size=32, width=4), 1)
    model = SkinModel(network, ("NEV",), Geometry({"NEV": ((0.5, 0.5, 0.3, 0.25),)}), {})
    before = model.to_bytes()
    model.soften()
    assert model.to_bytes() == before


def test_a_floor_below_nothing_is_refused(model: SkinModel) -> None:
    weights = load(model.to_bytes())
    weights["floors"][2] = -1
    with pytest.raises(ModelError, match="it: the weights do not fit"):
        SkinModel.from_bytes(save(weights, metadata(model.to_bytes())), "it")


def test_weights_tell_whether_they_learnt_from_masks(model: SkinModel, of_masks: SkinModel) -> None:
    assert (model.region, of_masks.region) == ("box", "mask")
    assert SkinModel.load().region == "box"
    data = of_masks.to_bytes().replace(b'\\"region\\": \\"mask\\"', b'\\"region\\": \\"disc\\"')
    with pytest.raises(ModelError, match="do not fit"):
        SkinModel.from_bytes(data, "it")


def test_of_weights_of_masks_a_masks_form_counts(of_masks: SkinModel) -> None:
    masks = list(shapes(64).values())
    requests = [Request("NEV", 3, (200, 160, 140), mask) for mask in masks]
    drawn = of_masks.draw(requests, [7] * 4)
    for one, mask in zip(drawn, masks, strict=True):
        assert np.array_equal((one.map != (200, 160, 140)).any(axis=2), mask)
        assert one.region is mask
    assert len({one.image.tobytes() for one in drawn}) == 4
    assert [one.image.tobytes() for one in reversed(of_masks.draw(requests[::-1], [7] * 4))] == [
        one.image.tobytes() for one in drawn
    ]


def test_to_weights_of_masks_a_box_is_its_ellipse(of_masks: SkinModel) -> None:
    box = Box(10, 12, 30, 40)
    masks = [box, regions.ellipse(box, (64, 64))]
    asked, same = of_masks.draw([Request("NEV", 3, (200, 160, 140), one) for one in masks], [7, 7])
    assert np.array_equal(asked.image, same.image)
    assert np.array_equal(asked.map, same.map)
    assert asked.region == box
    with pytest.raises(MapError, match="not inside the picture of 64x64 px"):
        of_masks.draw([Request("NEV", region=Box(0, 0, 65, 10))], [1])


def test_to_weights_of_boxes_a_masks_depths_are_told_and_its_box(
    model: SkinModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    region = generator.PlusNetwork.region

    def told(self: generator.PlusNetwork, masks: torch.Tensor, depths: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append((masks[0, 0].numpy() > 0, depths[0, 0].numpy()))
        return region(self, masks, depths, *rest)

    monkeypatch.setattr(generator.PlusNetwork, "region", told)
    mask = shapes(64)["corner"]
    box = regions.bounds(mask)
    drawn = model.draw([Request("NEV", 3, None, one) for one in (mask, box)], [7, 7])
    assert np.array_equal((drawn[0].map != drawn[0].skin).any(axis=2), mask)
    assert all(np.array_equal(found, semantic_map.mask((64, 64), box)) for found, _ in seen)
    assert np.array_equal(seen[0][1], regions.depth(mask))
    assert not np.array_equal(seen[0][1], seen[1][1])


def test_lesions_in_boxes_have_forms_of_their_own_where_the_weights_ask_for_them(model: SkinModel) -> None:
    box = Box(16, 16, 48, 48)
    asked = [Request("NEV", 3, (200, 160, 140), box)] * 2

    def lesions(spread: float) -> list[NDArray[np.uint8]]:
        network = generator.build(model.network.settings.model_copy(update={"forms": spread}), len(NAMES))
        network.load_state_dict(model.network.state_dict())
        told = SkinModel.from_bytes(SkinModel(network, NAMES, model.geometry, {}).to_bytes(), "test")
        return [one.image for one in told.draw(asked, [1, 2])]

    round_ones, formed = lesions(0.0), lesions(0.5)
    assert all(np.array_equal(one.image, same) for one, same in zip(model.draw(asked, [1, 2]), round_ones, strict=True))
    for one, other in zip(round_ones, formed, strict=True):
        assert not np.array_equal(one, other)
    assert np.array_equal(lesions(0.5), formed)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("WART"), "unknown condition 'WART'; known: BCC, NEV"),
        (Request("NEV", fitzpatrick=7), "fitzpatrick is 7; ask for a type from 1 to 6"),
        (Request("NEV", region=Box(0, 0, 65, 10)), "not inside the picture of 64x64 px"),
        (Request("NEV", region=np.ones((64, 32), dtype=bool)), "the mask has 32x64 px, the map 64x64"),
        (Request("NEV", region=np.zeros((64, 64), dtype=bool)), "the mask is empty; mark the lesion's place"),
        (Request("NEV", skin=(0, 300, 0)), "is not sRGB"),
        (Request("NEV", skin=(10, 20)), r"colour \(10, 20\) is not sRGB; give three numbers from 0 to 255"),
        (Request("NEV", skin=("200", 160, 140)), r"colour \('200', 160, 140\) is not sRGB"),
        (Request("NEV", skin=7), "colour 7 is not sRGB"),
        (Request("NEV", skin=()), r"colour \(\) is not sRGB"),
        (Request("NEV", skin=np.zeros((3, 3), dtype=np.uint8)), "is not sRGB"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    model: SkinModel, of_masks: SkinModel, request_: Request, message: str
) -> None:
    for one in (model, of_masks):
        with pytest.raises(MapError, match=message) as caught:
            one.draw([request_], [1])
        assert "\n" not in str(caught.value)


def test_files_that_are_no_model_are_refused(model: SkinModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        SkinModel.load(str(tmp_path / "none"))
    for data, message in (
        (b"junk", "not a safetensors file"),
        (save({"x": torch.zeros(1)}), "no skin model of this version"),
        (model.to_bytes().replace(b'\\"width\\": 8', b'\\"width\\": 4'), "do not fit the settings"),
    ):
        with pytest.raises(ModelError, match=message):
            SkinModel.from_bytes(data, "it")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("generator", ["plus"], "it: generator: expected keys and values, found a list"),
        ("generator", {"kind": "plus", "size": 48}, "it: generator.*size is 48; take a power of two"),
        ("conditions", "NE", "it: conditions is not a list of names"),
        ("conditions", [], "it: conditions is not a list of names"),
        ("conditions", [1, 2], "it: conditions is not a list of names"),
        ("geometry", [], "it: geometry is not keys and values"),
        ("geometry", {}, "it: geometry has no boxes .* for the condition 'BCC'"),
        ("geometry", {"BCC": [[0.5, 0.5, 0.3, 0.3]], "NEV": []}, "for the condition 'NEV'"),
        *(
            ("geometry", dict.fromkeys(NAMES, boxes), "it: geometry has no boxes of four numbers from 0 to 1")
            for boxes in ([["a", 0.5, 0.3, 0.3]], [[0.5, 0.3, 0.3]], [[5, 5, 5, 5]], [[float("nan")] * 4], 7)
        ),
        ("about", None, "it: about is not keys and values"),
    ],
)
def test_what_stands_beside_the_weights_is_checked(model: SkinModel, key: str, value: object, message: str) -> None:
    data = model.to_bytes()
    described = json.loads(metadata(data)["medsynth"])
    with pytest.raises(ModelError, match=message) as error:
        SkinModel.from_bytes(save(load(data), {"medsynth": json.dumps({**described, key: value})}), "it")
    assert "\n" not in str(error.value)


def test_the_shipped_weights_draw_the_tone_asked_for_and_their_card_attributes_the_photos() -> None:
    data = storage.read(DEFAULT_URI)
    assert len(data) < 60e6
    model = SkinModel.from_bytes(data, DEFAULT_URI)
    kinds = [1, 2, 3, 4, 5, 6]
    drawn = model.draw([Request("NEV", fitzpatrick=kind, region=Box(88, 88, 168, 168)) for kind in kinds], kinds)
    asked = [float(tone.ita(tone.to_lab(picture.skin))) for picture in drawn]
    found = [float(tone.ita(semantic_map.skin_colour(picture.image, picture.region))) for picture in drawn]
    assert np.median(np.abs(np.array(asked) - found)) < 3
    assert found == sorted(found, reverse=True)
    card = storage.read(DEFAULT_URI.replace(".safetensors", ".md")).decode()
    for text in ("Pacheco", "CC BY 4.0", model.about["attribution"], f"{model.about['steps']:,} steps"):
        assert text in card


_DRAWN = {("GenuineIntel", "AVX512", "2.13.0"): "f43083bfcc20e136"}
"""Digests of three pictures, by the processor's maker and instructions and by torch."""
_SHADES = (
    (150.6, 150.8, 148.8, 150.0, 150.8, 124.0, 120.9, 146.8, 145.2, 134.4, 141.1, 150.2, 149.2, 149.1, 150.2, 149.8),
    (91.2, 100.3, 102.4, 101.0, 98.9, 95.2, 85.1, 100.4, 98.5, 92.4, 90.2, 104.5, 104.6, 106.3, 104.6, 110.4),
    (144.8, 143.3, 142.6, 146.9, 133.9, 90.0, 89.4, 137.5, 140.0, 142.5, 126.6, 142.8, 137.1, 139.1, 141.4, 143.5),
)
"""Means of each picture's sixteen parts."""


def test_the_shipped_weights_draw_what_they_always_drew() -> None:
    mask = np.zeros((256, 256), dtype=bool)
    mask[60:120, 50:200] = mask[100:180, 150:170] = True
    asked = [Request("NEV", 3, None, Box(88, 80, 168, 150)), Request("MEL", 5), Request("NEV", 3, None, mask)]
    with torch_threads(1):
        drawn = SkinModel.load().draw(asked, [1, 2, 3])
    images = np.stack([one.image for one in drawn])
    shades = images.reshape(3, 4, 64, 4, 64, 3).mean(axis=(2, 4, 5)).reshape(3, 16)
    np.testing.assert_allclose(shades, _SHADES, rtol=0, atol=0.1)
    kind = processor.kind(None)
    known = _DRAWN.get((kind["maker"], kind["cpu"], kind["torch"].partition("+")[0]))
    if known is not None:  # the bytes depend on the processor, and are not known of every one
        assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == known


def test_in_bf16_the_shipped_weights_draw_nearly_the_same() -> None:
    model = SkinModel.load()
    requests = [Request(condition, kind) for condition, kind in zip(model.conditions[::2], (1, 3, 5), strict=True)]
    fine, coarse = (
        np.stack([one.image for one in model.draw(requests, range(3), bf16)]).astype(int) for bf16 in (False, True)
    )
    far = np.abs(fine - coarse)
    assert 0 < np.quantile(far, 0.9999) <= 4
    assert far.max() <= 12
    assert far.mean() < 0.25
    assert np.abs((fine - coarse).mean(axis=(1, 2))).max() < 0.25, "no shift of colour"
