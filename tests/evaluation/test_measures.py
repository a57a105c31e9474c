"""What is measured of pictures: whether they show what was asked for, vary, and are no copies."""

from pathlib import Path

import numpy as np
import pytest

from medsynth.evaluation import conditioning, encoder, memorization, pictures, turing
from medsynth.evaluation.encoder import Encoder
from medsynth.evaluation.pictures import Pictures
from medsynth.model_file import ModelError
from medsynth.skin import pairs, tone
from medsynth.skin.model import SkinModel
from medsynth.skin.semantic_map import Box
from tests import skin_model
from tests.skin.photos import write_photos


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SkinModel:
    return SkinModel.load(skin_model.save(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pairs.Pairs:
    return pairs.read(write_photos(tmp_path_factory.mktemp("photos")))


def made(angles: list[float], *, size: int = 48, lesion: bool = True, seed: int = 0) -> Pictures:
    random = np.random.default_rng(seed)
    images, boxes = [], []
    for angle in angles:
        image = np.tile(tone.to_rgb(tone.skin_of(angle)).astype(np.int64), (size, size, 1))
        x, y = (int(v) for v in random.integers(4, size // 2, 2))
        if lesion:
            image[y : y + 14, x : x + 14] //= 2
        images.append(np.clip(image + random.integers(-3, 4, image.shape), 0, 255).astype(np.uint8))
        boxes.append(Box(x, y, x + 14, y + 14))
    kinds = tone.fitzpatrick(angles)
    names = tuple(str(number) for number in range(len(angles)))
    return Pictures(np.stack(images), ("BCC",) * len(angles), kinds, tuple(boxes), names, np.array(angles))


def test_tones_that_are_as_asked_are_told_so() -> None:
    angles = [64.0, 50.0, 35.0, 20.0, 0.0, -20.0, -45.0, -55.0]
    given = made(angles)
    found = conditioning.tones(given.asked, pictures.measured(given), given.types)
    assert found["measured"] == 8
    assert found["spearman"] == pytest.approx(1)
    assert found["median_error"] < 1.5
    assert found["types"]["VI"]["pictures"] == 2
    wrong = conditioning.tones(given.asked, pictures.measured(given)[::-1], given.types)
    assert wrong["spearman"] == pytest.approx(-1)
    assert wrong["types"]["VI"]["as_type"] == 0
    none = conditioning.tones(given.asked, np.full(8, np.nan), given.types)
    assert (none["measured"], none["spearman"], none["median_error"]) == (0, None, None)


def test_a_lesion_stands_out_and_plain_skin_does_not() -> None:
    assert conditioning.contrasts(made([50.0, 20.0])).min() > 10
    assert conditioning.contrasts(made([50.0, 20.0], lesion=False)).max() < 2


def test_sweeps_of_a_model(model: SkinModel) -> None:
    swept = conditioning.tone_sweep(model, 2, 0)
    assert len(swept) == 2 * 6 * 2
    assert (tone.fitzpatrick(swept.asked) == swept.types).all()
    rows, told = conditioning.growing(model, 0)
    assert [len(row) for row in rows] == [conditioning.SIZES] * 2
    assert told["asked"] == sorted(told["asked"])
    assert set(told["spearman"]) == set(skin_model.NAMES)
    moved = conditioning.moved(model, 2, 0)
    assert moved["inside"] > moved["outside"] > 0
    assert moved == conditioning.moved(model, 2, 0), "the seed decides"


def test_one_picture_again_and_again_has_no_variety() -> None:
    random = np.random.default_rng(0)
    real = random.standard_normal((12, 5))
    names = ["a"] * 6 + ["b"] * 6
    alike = conditioning.variety(np.repeat(random.standard_normal((2, 1, 5)), 4, axis=1), real, names)
    assert alike["ratio"] == alike["nearest"] == 0
    as_real = conditioning.variety(random.standard_normal((4, 20, 5)), real, names)
    assert as_real["ratio"] == pytest.approx(1, abs=0.3)
    assert as_real["nearest"] > 0


def test_a_turned_and_retoned_copy_is_flagged_and_strangers_are_not() -> None:
    def blobs(seed: int, count: int) -> Pictures:
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
        images = np.stack([pictures.resized(image, 48) for image in coarse])
        boxes = (Box(8, 8, 40, 40),) * count
        names = tuple(str(number) for number in range(count))
        return Pictures(images, ("BCC",) * count, np.ones(count, np.int64), boxes, names, np.zeros(count))

    training, held, fresh = blobs(0, 20), blobs(1, 60), blobs(2, 10)
    copy = np.rot90(training.images[7])[:, ::-1]
    stolen = (copy.astype(np.float64) * 0.6 + 20).astype(np.uint8)
    images = np.concatenate([fresh.images, stolen[None]])
    boxes = (*fresh.boxes, Box(8, 8, 40, 40))
    suspects = Pictures(images, ("BCC",) * 11, np.ones(11, np.int64), boxes, tuple(map(str, range(11))), np.zeros(11))
    known = memorization.known(training)
    near = memorization.nearest(suspects, known)
    found = memorization.audit(near, memorization.nearest(held, known))
    assert 10 in found["flagged"]
    assert len(found["flagged"]) <= 2
    assert near.place[10] == 7
    assert found["nearest"][0] == 10


def test_pictures_of_held_out_maps(model: SkinModel, table: pairs.Pairs) -> None:
    small = pairs.Pairs(table.uri, tuple(p for p in table.photos if p.condition == "NEV")[:3])
    found = pictures.drawn(model, small, 7, 0)
    assert len(found) == 7
    assert found.groups == ("P0", "P1", "P2", "P0", "P1", "P2", "P0")
    assert np.unique(found.images.reshape(7, -1), axis=0).shape[0] == 7
    real = pictures.real(small, model.size, model.conditions)
    assert real.images.shape == (3, 32, 32, 3)
    assert found.asked[:3] == pytest.approx(real.asked)


def test_a_match_has_the_mix_of_the_real() -> None:
    among, of = made([float(angle) for angle in range(-50, 60, 2)]), made([50.0, 48.0, 20.0])
    found = pictures.matched(of, among, 2)
    assert sorted(found.asked.tolist()) == [18, 20, 46, 48, 50, 52]
    assert len(pictures.matched(of, among, 100)) == len(among), "none twice"


def test_an_encoder_is_learnt_kept_and_read(table: pairs.Pairs, tmp_path: Path) -> None:
    made_encoder = encoder.train(table, table, ("MEL", "NEV"), steps=2)
    real = pictures.real(table, 32, ("MEL", "NEV"))
    features = made_encoder.features(real.images)
    uri = str(tmp_path / "encoder.safetensors")
    made_encoder.save(uri)
    again = Encoder.load(uri)
    assert (again.features(real.images) == features).all()
    assert again.sha256 == made_encoder.sha256
    alone = np.concatenate([made_encoder.features(image[None]) for image in real.images])
    assert alone == pytest.approx(features, abs=1e-3), "whatever a picture is looked at beside"
    assert set(encoder.accuracy(again, real)) >= {"condition", "balanced", "tone", "chance"}
    (tmp_path / "bad").write_bytes(b"none")
    with pytest.raises(ModelError, match="not a safetensors file"):
        Encoder.load(str(tmp_path / "bad"))


def test_the_interval_of_a_share() -> None:
    assert turing.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert turing.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
