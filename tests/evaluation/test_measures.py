"""What is measured of pictures: whether they show what was asked for, vary, and are no copies."""

import itertools
from dataclasses import replace
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


def test_a_sweep_has_several_seeds_and_every_cell_a_tone_of_its_own(model: SkinModel) -> None:
    swept = conditioning.tone_sweep(model, 2, 3, 0)
    assert len(swept) == 2 * 6 * 2 * 3
    assert (tone.fitzpatrick(swept.asked) == swept.types).all()
    assert sorted(set(swept.groups)) == ["0", "1", "2"]
    assert len(set(swept.boxes)) > 18
    ends = []
    for kind in range(1, 7):
        for name in skin_model.NAMES:
            cell = swept.asked[(swept.types == kind) & (np.array(swept.conditions) == name)]
            assert len(cell) == 6
            ends.append((cell.min(), cell.max()))
    ends.sort()
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(ends)), "no two cells overlap"
    told = conditioning.swept_tones(swept, swept.asked)
    assert told["spearman"] == told["cells"]["spearman"] == pytest.approx(1)
    assert told["cells"]["count"] == told["cells"]["measured"] == 12


def test_a_sweep_tells_of_single_pictures_of_seeds_and_of_cells() -> None:
    random = np.random.default_rng(0)
    angles = np.tile(np.repeat(np.linspace(-50.0, 60.0, 12), 8), 2)
    given = made(angles.tolist(), size=32)
    groups = ("a",) * 96 + ("b",) * 96
    swept = replace(given, conditions=tuple(map(str, angles)), groups=groups)
    # The second seed's pictures are measured far worse than the first's.
    measured = angles + random.normal(0, 1, 192) * np.repeat([1.0, 12.0], 96)
    told = conditioning.swept_tones(swept, measured)
    alone = [conditioning.tones(angles[:96], part, given.types[:96]) for part in (measured[:96], measured[96:])]
    assert told["seeds"]["count"] == 2
    assert told["seeds"]["spearman"] == [alone[1]["spearman"], alone[0]["spearman"]]
    assert told["seeds"]["median_error"] == [alone[0]["median_error"], alone[1]["median_error"]]
    assert alone[1]["spearman"] < told["spearman"] < told["cells"]["spearman"]
    assert told["cells"]["median_error"] < told["median_error"]
    measured[angles == angles[0]] = np.nan
    told = conditioning.swept_tones(swept, measured)
    assert (told["cells"]["count"], told["cells"]["measured"]) == (12, 11)
    none = conditioning.swept_tones(swept, np.full(192, np.nan))
    assert none["cells"]["spearman"] is none["seeds"]["spearman"] is None


def test_a_lesion_is_grown_on_the_skin_of_every_type(model: SkinModel) -> None:
    rows, told = conditioning.growing(model, 2, 0)
    assert [len(row) for row in rows] == [conditioning.SIZES] * 2
    assert told["asked"] == sorted(told["asked"])
    assert told["lesions"] == 2 * 6 * 2
    for name in skin_model.NAMES:
        assert set(told["changed"][name]) == set(tone.TYPES)
        assert np.shape(list(told["changed"][name].values())) == (6, 2, conditioning.SIZES)
        assert told["conditions"][name]["spearman"]["least"] <= told["conditions"][name]["spearman"]["median"]
    alone = conditioning.growing(model, 1, 1)[1]["changed"]
    again = {name: {kind: of[1:] for kind, of in types.items()} for name, types in told["changed"].items()}
    assert again == alone, "the seed decides, and the next is the next run's first"


def test_a_rank_that_falls_on_one_type_and_an_area_that_is_too_small_are_told() -> None:
    asked = [0.1, 0.2, 0.4]
    half, same = [0.05, 0.1, 0.2], [0.3, 0.3, 0.3]
    changed = {
        "MEL": {"III": [half, half], "V": [half, [0.05, 0.2, 0.01]]},
        "NEV": {"III": [asked, asked], "V": [asked, same]},
    }
    told = conditioning.followed(asked, changed)
    mel, nev = (told["conditions"][name] for name in ("MEL", "NEV"))
    assert mel["spearman"] == {"median": pytest.approx(1), "least": pytest.approx(-0.5), "type": "V"}
    assert mel["ratio"] == {"median": 0.5, "worst": pytest.approx(0.025), "type": "V", "asked": 0.4}
    assert nev["spearman"]["least"] == 0, "what never changes follows nothing"
    assert nev["ratio"] == {"median": 1, "worst": pytest.approx(3), "type": "V", "asked": 0.1}
    assert (told["spearman"]["least"], told["spearman"]["type"]) == (pytest.approx(-0.5), "V")
    assert told["ratio"]["worst"] == mel["ratio"]["worst"]
    none = conditioning.followed(asked, {"MEL": {"VI": [[0.0] * 3]}})
    assert none["ratio"] == {"median": 0, "worst": 0, "type": "VI", "asked": 0.1}


def test_what_changes_when_the_box_is_moved(model: SkinModel) -> None:
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


@pytest.mark.slow
def test_the_shipped_weights_follow_the_tone_and_the_size_that_are_asked_for() -> None:
    shipped = SkinModel.load()
    swept = conditioning.tone_sweep(shipped, 2, 1, 0)
    told = conditioning.swept_tones(swept, pictures.measured(swept))
    assert told["spearman"] >= 0.99
    assert told["median_error"] <= 3
    assert conditioning.growing(shipped, 1, 0)[1]["spearman"]["least"] >= 0.95
