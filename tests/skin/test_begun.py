from pathlib import Path
from typing import Any

import pytest
import torch

from medsynth.errors import TrainingError
from medsynth.model_file import ModelError
from medsynth.skin import begun, generator, presets
from medsynth.skin.generator import GeneratorSettings
from medsynth.skin.model import SkinModel
from medsynth.skin.presets import TrainSettings
from medsynth.skin.semantic_map import Geometry

NETWORK = {"size": 32, "width": 4, "widest": 16, "latent": 8, "embedding": 16}
BOXES = dict.fromkeys(("MEL", "NEV", "SEK"), ((0.3, 0.3, 0.6, 0.6),))


def weights(folder: Path, **changes: Any) -> tuple[str, SkinModel]:
    network = generator.build(GeneratorSettings(**{**NETWORK, **changes}), 3)
    if isinstance(network, generator.PlusNetwork):
        network.floors.fill_(0.5)
    model = SkinModel(network, tuple(BOXES), Geometry(BOXES), {})
    path = folder / "skin.safetensors"
    model.save(str(path))
    return str(path), SkinModel.load(str(path))


def settings(begin: str, **changes: Any) -> TrainSettings:
    losses = {"l1": 0, "lesion_l1": 0, "look": 0}
    return presets.settings("smoke", "cpu", None, {"begin": begin, "losses": losses, **changes})


def test_weights_are_those_of_the_file_and_of_conditions_those_asked_for_in_their_order(tmp_path: Path) -> None:
    where, model = weights(tmp_path)
    whole = begun.read(settings(where), model.conditions)
    kept = model.network.state_dict()
    assert (whole.where, whole.sha256) == (where, model.sha256)
    assert all(torch.equal(whole.state[name], kept[name]) for name in kept)
    assert set(whole.state) == set(kept)
    two = begun.read(settings(where), ("SEK", "MEL"))
    assert torch.equal(two.state["condition.weight"], kept["condition.weight"][[2, 0]])
    generator.build(GeneratorSettings(**NETWORK), 2).load_state_dict(dict(two.state))


def test_a_unet_is_begun_with_for_the_same_conditions_only(tmp_path: Path) -> None:
    where, model = weights(tmp_path, kind="unet")
    asked = settings(where, generator={"kind": "unet"})
    kept = model.network.state_dict()
    found = begun.read(asked, model.conditions).state
    assert set(found) == set(kept)
    assert all(torch.equal(found[name], kept[name]) for name in kept)
    for other in (("MEL", "NEV"), ("NEV", "MEL", "SEK")):
        with pytest.raises(TrainingError, match=r"in their order, MEL, NEV, SEK; give the setting conditions the same"):
            begun.read(asked, other)


def test_the_shipped_weights_can_be_begun_with() -> None:
    found = begun.read(presets.settings("further", "cpu", None, {}), ("NEV", "MEL"))
    assert found.sha256 == SkinModel.load().sha256
    assert len(found.state["condition.weight"]) == 2


@pytest.mark.parametrize(
    ("asked", "conditions", "message"),
    [
        ({"generator": {"width": 8}}, ("MEL",), "generator.width is 4 there and 8 in the settings; give the same"),
        ({"generator": {"kind": "unet"}}, ("MEL",), "generator.kind is plus there and unet in the settings"),
        ({"samples": {"region": "mask"}}, ("MEL",), "learnt from lesions of samples.region box, not mask"),
        ({}, ("MEL", "ACK"), "does not know the condition 'ACK', only MEL, NEV, SEK; leave it out"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(
    tmp_path: Path, asked: dict[str, Any], conditions: tuple[str, ...], message: str
) -> None:
    where, _ = weights(tmp_path)
    with pytest.raises(TrainingError) as caught:
        begun.read(settings(where, **asked), conditions)
    assert str(caught.value).startswith(f"{where}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.safetensors"):
        begun.read(settings(str(tmp_path / "nowhere.safetensors")), ("MEL",))
