"""Models on disk and what they say of images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from skimage import data
from skimage.io import imread

from medsynth.defocus import chain
from medsynth.defocus.settings import DEFAULT_RADII_PX, ChainSettings
from medsynth.errors import Reason, Rejected
from medsynth.focus.model import FocusModel
from medsynth.focus.network import NetworkSettings, build
from medsynth.model_file import ModelError, metadata


@pytest.fixture(scope="module")
def model() -> FocusModel:
    torch.manual_seed(2)
    return FocusModel(build(NetworkSettings(width=8)), DEFAULT_RADII_PX, {"data": "none"})


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (700, 330, 3), dtype=np.uint8)


def test_a_saved_model_says_the_same(model: FocusModel, image: np.ndarray, tmp_path: Path) -> None:
    uri = str(tmp_path / "m.safetensors")
    model.save(uri)
    again = FocusModel.load(uri)
    assert again.sha256 == model.sha256
    assert again.about == {"data": "none"}
    assert again.radii_px == DEFAULT_RADII_PX
    np.testing.assert_array_equal(again.score_map(image).probabilities, model.score_map(image).probabilities)


def test_maps_have_the_cells_and_ranges_said(model: FocusModel, image: np.ndarray) -> None:
    scores = model.score_map(image)
    rows, columns = ((side - model.field) // model.stride + 1 for side in image.shape[:2])
    assert scores.probabilities.shape == (rows, columns, 30)
    np.testing.assert_allclose(scores.probabilities.sum(axis=2), 1, atol=1e-5)
    assert scores.radius_px.shape == scores.certainty.shape == (rows, columns)
    assert 0 <= scores.certainty.min() <= scores.certainty.max() <= 1
    assert 0 <= scores.radius_px.min() <= scores.radius_px.max() <= DEFAULT_RADII_PX[-1]


@pytest.mark.parametrize("height", [128, 143, 144, 159, 160, 500])
def test_the_fast_way_gives_what_the_network_gives(model: FocusModel, image: np.ndarray, height: int) -> None:
    part = image[:height, : height + 21]
    with torch.inference_mode():
        plain = torch.softmax(model.network(torch.from_numpy(part.copy())[None]), dim=1)[0].permute(1, 2, 0).numpy()
    fast = model.score_map(part).probabilities
    assert fast.shape == plain.shape
    np.testing.assert_allclose(fast, plain, atol=1e-5)


def test_bands_give_the_map_of_the_whole(model: FocusModel, image: np.ndarray) -> None:
    whole = model.score_map(image).probabilities
    first = 0
    for rows in (1, 3, len(whole) - 4):
        band = image[first * model.stride : (first + rows - 1) * model.stride + model.field]
        np.testing.assert_allclose(model.score_map(band).probabilities, whole[first : first + rows], atol=1e-5)
        first += rows
    assert first == len(whole)


def test_a_view_into_a_larger_image_is_judged_as_its_copy(model: FocusModel, image: np.ndarray) -> None:
    view = image[5:405, 7:300]
    np.testing.assert_array_equal(model.score_map(view).radius_px, model.score_map(view.copy()).radius_px)


def test_the_score_is_the_weighted_mean(model: FocusModel, image: np.ndarray) -> None:
    score = model.score(image, mpp=0.25)
    assert score.probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert score.radius_um == pytest.approx(score.radius_px / 4)
    assert model.score(image).radius_um is None
    cells = model.score_map(image)
    assert cells.radius_px.min() <= score.radius_px <= cells.radius_px.max()


def test_an_empty_image_has_a_finite_answer(model: FocusModel) -> None:
    for code in (0, 255):
        assert np.isfinite(model.score(np.full((200, 200, 3), code, dtype=np.uint8)).probabilities).all()


def test_the_shipped_weights_tell_discs_on_real_tissue() -> None:
    shipped = FocusModel.load()
    assert shipped.radii_px == DEFAULT_RADII_PX
    tile = imread(Path(data.__file__).parent / "ihc.png")[100:420, 100:420]
    settings = ChainSettings(sensor=None, jpeg=None, radii_px=(0.0, 3.5, 5.0, 8.0))
    found = []
    for focus_class in range(4):
        parameters = chain.draw(settings, focus_class, 0.5, 1)
        score = shipped.score(chain.render(tile, settings, parameters, 256, 1), mpp=0.5)
        found.append(score.radius_px)
        assert score.radius_um == pytest.approx(score.radius_px / 2)
    assert found[0] < 2
    assert found[1:] == pytest.approx([3.5, 5.0, 8.0], rel=0.2)


def test_images_smaller_than_a_cell_are_rejected(model: FocusModel) -> None:
    with pytest.raises(Rejected) as why:
        model.score(np.zeros((model.field - 1, 500, 3), dtype=np.uint8))
    assert why.value.reason is Reason.TOO_SMALL


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x00" * 100, b"PK\x03\x04" + b"\x00" * 200])
def test_other_files_are_no_models(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ModelError, match="train_focus"):
        FocusModel.load(str(tmp_path / "x"))


def test_foreign_safetensors_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(save({"a": torch.zeros(3)}))
    with pytest.raises(ModelError, match="no focus model"):
        FocusModel.load(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network", None, "it: network: expected keys and values, found nothing; name weights that jobs/train_focus"),
        ("network", {"widht": 8}, "it: network: unknown key 'widht'; did you mean 'width'"),
        ("network", {"width": "wide"}, "it: network: width"),
        ("network", {"width": 16}, "it: the weights do not fit the settings beside them; train it anew"),
        ("radii_px", None, "it: the weights do not fit the settings beside them"),
        ("radii_px", ["1"] * 30, "it: the weights do not fit the settings beside them"),
        ("radii_px", [float("nan")] * 30, "it: the weights do not fit the settings beside them"),
        ("about", None, "it: the weights do not fit the settings beside them"),
    ],
)
def test_what_stands_beside_the_weights_is_checked(model: FocusModel, key: str, value: object, message: str) -> None:
    data = model.to_bytes()
    described = json.loads(metadata(data)["medsynth"])
    for changed in ({**described, key: value}, {name: own for name, own in described.items() if name != key}):
        with pytest.raises(ModelError) as error:
            FocusModel.from_bytes(save(load(data), {"medsynth": json.dumps(changed)}), "it")
        assert "\n" not in str(error.value)
        if key in changed:
            assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        FocusModel.load(str(tmp_path / "none.safetensors"))
