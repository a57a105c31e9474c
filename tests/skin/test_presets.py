from pathlib import Path
from typing import Any

import pytest
import yaml

from medsynth.errors import SpecError
from medsynth.skin import presets
from medsynth.skin.model import SkinModel
from medsynth.skin.presets import MACHINES, PRESETS, TrainSettings


def test_every_preset_can_be_on_every_machine() -> None:
    for preset in PRESETS:
        for machine in MACHINES:
            found = presets.settings(preset, machine, None, {})
            usual = 128 if machine == "cpu" and preset != "further" else 256
            assert found.generator.size == (32 if preset == "smoke" else usual)
    paper = presets.settings("paper", "gpu", None, {})
    assert (paper.generator.kind, paper.losses.kind, paper.losses.pool, paper.augmented) == ("unet", "vanilla", 1, 0)
    assert (paper.momentum, paper.second_momentum, paper.losses.judge) == (0.5, 0.999, 0.5), "pix2pix's"
    assert presets.settings("plus", "gpu", None, {}).second_momentum == 0.99, "as the shipped weights were learnt"
    sized = {"generator": {"size": 256}, "samples": {"size": 256}}
    assert (
        presets.settings("plus", "cpu", None, sized).generator.width
        == presets.settings("plus", "cpu", None, {}).generator.width
    )


def test_flags_replace_the_file_which_replaces_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"steps": 77, "batch": 3, "losses": {"l1": 9}}))
    found = presets.settings("smoke", "cpu", str(file), {"batch": 5})
    assert (found.steps, found.batch, found.losses.l1) == (77, 5, 9)
    assert found.log_every == PRESETS["smoke"]["log_every"]


def test_the_settings_of_the_shipped_weights_are_those_of_plus_for_one_gpu_and_then_of_further() -> None:
    text = (Path(presets.__file__).parents[1] / "weights" / "skin.md").read_text()
    first, second = (TrainSettings(**yaml.safe_load(block.split("```")[0])) for block in text.split("```yaml")[1:])
    assert first.deciding() == presets.settings("plus", "gpu", None, {"validate_every": 700}).deciding()
    own = {"precision": "bf16", "validate_every": 480}
    assert second.deciding() == presets.settings("further", "cpu", None, own).deciding()
    assert SkinModel.load().network.settings == second.generator


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"stesp": 5}, "unknown key 'stesp'; did you mean 'steps'?"),
        ({"losses": {"tonne": 1}}, "unknown key 'losses.tonne'; did you mean 'tone'?"),
        ({"samples": {"size": 64}}, "samples.size is 64 and generator.size 32; give the same"),
        ({"samples": {"region": "disc"}}, "samples.region"),
        ({"losses": {"pool": 64}}, "losses.pool is 64 px, more than a picture of 32 px has"),
        ({"discriminator": {"layers": 4}}, "leave nothing of pictures of 32 px; take fewer"),
        ({"begin": "shipped", "losses": {"look": 0}}, "losses.l1 holds pictures against photos whose looks are read"),
        ({"judging_first": 24}, "judging_first is 24 of 24 steps; leave some to the generator"),
        ({"learnt": 0.5}, "learnt is 0.5 of the way from weights to begin with; name them as begin"),
        ({"generator": {"kind": "unet"}, "silenced": 0.3}, "silenced is 0.3, but a U-Net has no channels to silence"),
        ({"generator": {"kind": "unet", "forms": 0.3}}, "forms is 0.3, but a U-Net sees a box alone; leave it at 0"),
        ({"judging_first": 3}, "judging_first must be a multiple of log_every (2)"),
        ({"generator": {"size": 48}, "samples": {"size": 48}}, "take a power of two"),
    ],
)
def test_settings_that_cannot_be_are_one_line(tmp_path: Path, own: Any, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(own))
    with pytest.raises(SpecError) as caught:
        presets.settings("smoke", "cpu", str(file), {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
