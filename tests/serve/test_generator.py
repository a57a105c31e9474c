"""The generator: alone, and in its threads and batches."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medsynth import images
from medsynth.model_file import ModelError
from medsynth.recipes import build
from medsynth.recipes.base import Output, Sample, Stopwatch
from medsynth.seeds import sample_seed
from medsynth.skin import semantic_map
from medsynth.skin.model import SkinModel, micro_batch
from medsynth.skin.semantic_map import Box
from serve.deployments import SKIN_BATCH
from serve.generator import Artist, GeneratorService
from serve.wire import Asked, Misfit, Picture, SkinAbout
from tests import skin_model
from tests.serve.local import LocalSkin


def draw(skin: LocalSkin, asked: Asked, *seeds: int) -> list[Picture]:
    made, _ = asyncio.run(skin.draw(asked, list(seeds)))
    assert isinstance(made, list), made
    return made


def test_the_batch_is_the_models_own() -> None:
    assert micro_batch(torch.device("cuda")) == SKIN_BATCH
    assert micro_batch(torch.device("cpu")) == 1


def test_a_picture_does_not_depend_on_its_company(skin: LocalSkin) -> None:
    model = SkinModel.load(skin.uri)
    artist = Artist(model)
    seeds = list(range(SKIN_BATCH + 3))
    whole = [one.data for one in draw(skin, Asked("BCC", fitzpatrick=5), *seeds)]
    assert len(set(whole)) == len(whole)
    ones = [
        (request, seed)
        for seed, request in zip(seeds, artist.requests(Asked("BCC", fitzpatrick=5), seeds), strict=True)
    ]
    for order in (list(reversed(ones)), [ones[4], ones[9], ones[0]], [ones[10]]):
        drawn = asyncio.run(skin.together(order))
        finished = [artist.finish(Asked("BCC"), one, found) for one, found in zip(order, drawn, strict=True)]
        assert [one.data for one in finished] == [whole[one[1]] for one in order]


def row_of(result: Output) -> dict[str, Any]:
    return {**result.parameters, "seed": result.sample.seed}


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_a_corpus_row_asked_for_again_is_that_row(skin: LocalSkin, form: str) -> None:
    axes = {"condition": ["BCC", "NEV"], "fitzpatrick": ["I", "VI"], "size": ["small", "large"],
            "device": ["phone-flagship", "phone-lowlight"]}  # fmt: skip
    changes: dict[str, Any] = {"balance": {"axes": axes, "per_subgroup": 1}, "output": {"image_format": form}}
    recipe = build(skin_model.spec(skin.uri, **changes))
    values = [dict(zip(axes, (c, t, s, d), strict=True)) for c, t, s, d in
              (("BCC", "I", "small", "phone-lowlight"), ("NEV", "VI", "large", "phone-flagship"))]  # fmt: skip
    samples = [Sample(n, sample_seed(9, n), value, None) for n, value in enumerate(values)]
    for result in recipe.make(samples, Stopwatch()):
        assert isinstance(result, Output)
        row, told = row_of(result), result.sample.values
        kind = ["I", "II", "III", "IV", "V", "VI"].index(row["fitzpatrick"]) + 1
        in_full = Asked(row["condition"], kind, tuple(row["skin_rgb"]), tuple(row["lesion_box"]), device=row["device"],
                        format=form)  # type: ignore[arg-type]  # fmt: skip
        in_short = Asked(told["condition"], kind, size=told["size"], device=told["device"], format=form)  # type: ignore[arg-type]
        for asked in (in_full, in_short):
            (made,) = draw(skin, asked, row["seed"])
            assert np.array_equal(images.decode(made.data), images.decode(result.image))
            assert {key: row[key] for key in ("condition", "fitzpatrick", "device", "ita_deg", "seed")} == {
                key: getattr(made, key) for key in ("condition", "fitzpatrick", "device", "ita_deg", "seed")
            }
            assert (list(made.skin_rgb), list(made.lesion_box)) == (row["skin_rgb"], row["lesion_box"])


def test_a_map_gives_what_its_words_give(skin: LocalSkin) -> None:
    model = SkinModel.load(skin.uri)
    colour, box = (172, 124, 100), Box(4, 6, 20, 30)
    shape = (model.size, model.size)
    (in_words,) = draw(skin, Asked("NEV", skin=colour, box=(4, 6, 20, 30)), 5)
    drawn = semantic_map.draw(shape, colour, box, semantic_map.colour_of("NEV", model.conditions))
    (by_map,) = draw(skin, Asked(map=images.encode_png(drawn)), 5)
    assert by_map.data == in_words.data
    assert (by_map.condition, by_map.lesion_box, by_map.fitzpatrick) == ("NEV", (4, 6, 20, 30), in_words.fitzpatrick)
    disc = np.hypot(*(np.mgrid[:32, :32] - 16)) < 9
    drawn = semantic_map.draw(shape, colour, disc, semantic_map.colour_of("NEV", model.conditions))
    (of_a_disc,) = draw(skin, Asked(map=images.encode_png(drawn)), 5)
    assert of_a_disc.lesion_box == (8, 8, 25, 25)
    assert of_a_disc.data != by_map.data


def a_map(*colours: tuple[int, int, int], side: int = 32) -> bytes:
    """Stripes of these colours."""
    rows = np.linspace(0, len(colours), side, endpoint=False).astype(int)
    return images.encode_png(np.array(colours, np.uint8)[rows][:, None].repeat(side, axis=1))


SKIN, LESION = (172, 124, 100), semantic_map.colours(skin_model.NAMES)["BCC"]


@pytest.mark.parametrize(
    ("asked", "field", "named"),
    [
        (Asked("WART"), "condition", "no condition 'WART'; known: BCC, NEV"),
        (Asked("BCC", device="phone"), "device", "no device 'phone'; known: "),
        (Asked("BCC", skin=(0, 0, 255)), "skin_rgb", "#0000ff is no colour that skin has"),
        (Asked("BCC", 1, (60, 40, 30)), "skin_rgb", "stands for type VI"),
        (Asked("BCC", box=(0, 0, 33, 10)), "lesion_box", "not inside the picture of 32x32 px"),
        (Asked("BCC", box=(9, 9, 9, 10)), "lesion_box", "not inside"),
        (Asked("BCC", place=(0, 0.5, 0.5)), "lesion_size", "size must be above 0"),
        (Asked(map=b"rubbish"), "map", "starts with"),
        (Asked(map=a_map(SKIN, LESION, side=16)), "map", "16x16 px; a map has 32 a side"),
        (Asked(map=a_map(SKIN)), "map", "1 colours (#ac7c64); a map has two"),
        (Asked(map=a_map(LESION)), "map", "a map has two, the skin's and one condition's: BCC #00ff40, NEV "),
        (Asked(map=a_map(SKIN, LESION, (9, 9, 9))), "map", "3 colours"),
        (Asked(map=a_map(SKIN, (170, 120, 100))), "map", "2 colours (#aa7864, #ac7c64)"),
        (Asked(map=a_map((0, 0, 250), LESION)), "map", "#0000fa is no colour that skin has"),
    ],
)
def test_what_cannot_be_drawn_is_told(skin: LocalSkin, asked: Asked, field: str, named: str) -> None:
    made, about = asyncio.run(skin.draw(asked, [1]))
    assert isinstance(made, Misfit)
    assert made.field == field
    assert named in made.detail
    assert "\n" not in made.detail
    assert isinstance(about, SkinAbout)


def test_another_size_is_the_same_picture_resized(skin: LocalSkin) -> None:
    own, twice = (draw(skin, Asked("BCC", side=side), 3)[0] for side in (None, 64))
    assert (own.side, twice.side) == (32, 64)
    small, large = (images.decode(one.data).astype(int) for one in (own, twice))
    assert large.shape == (64, 64, 3)
    assert abs(large.reshape(32, 2, 32, 2, 3).mean((1, 3)) - small).mean() < 12


def test_weights_that_are_none_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        GeneratorService(f"{tmp_path}/none.safetensors")
