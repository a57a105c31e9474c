"""Device profiles: found by name or URI, and overriding what they name."""

from pathlib import Path

import pytest

from medsynth.defocus import chain, device
from medsynth.defocus.chain import ChainSettings
from medsynth.defocus.device import Device
from medsynth.errors import SpecError
from medsynth.spec import Range, parse


def profile(**sections: object) -> Device:
    return parse(Device, {"name": "mine", **sections}, "mine.yaml")


@pytest.mark.parametrize("name", device.known())
def test_every_shipped_profile_loads_and_explains_itself(name: str) -> None:
    found = device.load(name)
    assert found.name == name
    assert found.name.endswith("-like") or found.name.startswith("phone-")
    assert chain.class_count(chain.with_device(ChainSettings(), found)) == 30
    text = (Path(device.__file__).parent / "devices" / f"{name}.yaml").read_text()
    values = [line for line in text.splitlines() if ":" in line and not line.startswith(("#", "name"))]
    unexplained = [line for line in values if "#" not in line and line.rstrip()[-1] != ":"]
    assert not unexplained, "each value has its reason, or says that it is assumed"


def test_there_are_at_least_three_scanners_of_different_pixels() -> None:
    assert len(device.known()) >= 3
    assert len({device.load(name).mpp for name in device.known()} - {None}) >= 3


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'aperio-at2-like'"):
        device.load("aperio-at2-lik")
    with pytest.raises(SpecError, match=r"known devices: .*hamamatsu"):
        device.load("xyz")


def test_a_profile_is_read_from_a_path_and_its_keys_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("name: lab\nmpp: 0.5\nsensor: {photons: 300, read_noise_e: 0}\n")
    assert device.load(str(path)).mpp == 0.5
    path.write_text("name: lab\nsensor: {photon: 300}\n")
    with pytest.raises(SpecError, match=r"unknown key 'sensor\.photon'; did you mean 'photons'"):
        device.load(str(path))
    with pytest.raises(SpecError, match="no such file"):
        device.load(str(tmp_path / "none.yaml"))


def test_a_profile_overrides_the_keys_it_names_and_no_others() -> None:
    own = ChainSettings.model_validate(
        {"bokeh": {"kind": "gaussian", "na": 0.5}, "jpeg": {"quality": 77, "subsampling": "4:4:4"}}
    )
    merged = chain.with_device(own, profile(mpp=0.3, bokeh={"na": 0.8}, jpeg={"quality": 60}))
    assert merged.bokeh is not None
    assert (merged.bokeh.kind, merged.bokeh.na) == ("gaussian", 0.8)
    assert merged.jpeg is not None
    assert (merged.jpeg.quality, merged.jpeg.subsampling) == (Range(low=60, high=60), "4:4:4")
    assert (merged.mpp, merged.sensor, merged.light) == (0.3, own.sensor, own.light)


def test_what_the_spec_switches_off_stays_off() -> None:
    sections = {"sensor": {"photons": 300}, "sharpening": {"amount": 0.4}}
    merged = chain.with_device(ChainSettings(sensor=None), profile(**sections))
    assert merged.sensor is None
    assert merged.sharpening is not None, "off by default is not switched off"
    assert chain.with_device(ChainSettings(sharpening=None), profile(**sections)).sharpening is None


def test_a_profile_can_switch_a_step_off() -> None:
    assert chain.with_device(ChainSettings(), profile(sensor=None)).sensor is None


def test_contradictions_are_refused() -> None:
    with pytest.raises(SpecError, match="fast"):
        chain.with_device(ChainSettings(fast=True), profile(bokeh={"kind": "wave"}))
    with pytest.raises(SpecError, match="na 1 must lie below refractive_index 1"):
        profile(bokeh={"na": 1.0})
    glycerol = ChainSettings.model_validate({"bokeh": {"na": 1.2, "refractive_index": 1.47}})
    with pytest.raises(SpecError, match=r"device mine: bokeh: na 1\.2 must lie below"):
        chain.with_device(glycerol, profile(bokeh={"refractive_index": 1.0}))


def test_scanners_are_the_profiles_that_know_their_pixels() -> None:
    assert set(device.scanners()) < set(device.known())
    assert not any(name.startswith("phone-") for name in device.scanners())
    assert all(device.load(name).mpp for name in device.scanners())
