import hashlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from medsynth import images
from medsynth.errors import TrainingError
from medsynth.skin import pairs, regions, samples, semantic_map, tone
from medsynth.skin.pairs import Photo
from medsynth.skin.samples import Feed, SampleSettings
from medsynth.skin.semantic_map import Box
from tests.skin.photos import write_mask, write_photos

SMALL = SampleSettings(size=32)
BENT = SampleSettings(size=64, warp=0.12)
MASKED = SMALL.model_copy(update={"region": "mask"})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_photos(tmp_path_factory.mktemp("masked"), masks=True)


def feed(uri: str, own: SampleSettings = SMALL, seed: int = 1) -> Feed:
    whole = pairs.read(uri)
    training, held = pairs.split(whole, 0.2, 0)
    return Feed(training, held, whole.conditions, own, seed, 8)


def test_a_sample_is_a_function_of_its_number_however_shared_out(photos: str) -> None:
    one = feed(photos)
    whole = one.batch(3, 0, 1)
    halves = [one.batch(3, rank, 2) for rank in (0, 1)]
    for name, array in whole.items():
        assert np.array_equal(array, np.concatenate([half[name] for half in halves])), name
    assert not np.array_equal(whole["photos"], feed(photos, seed=2).batch(3, 0, 1)["photos"])


@given(st.integers(0, 2**40), st.sampled_from((SMALL, BENT)))
@settings(max_examples=60)
def test_map_mask_and_photo_agree(photos: str, number: int, own: SampleSettings) -> None:
    whole = pairs.read(photos)
    photo = whole.photos[number % 6]
    made = samples.make_sample(photo, own, whole.conditions, number)
    colour = semantic_map.colour_of(photo.condition, whole.conditions)
    assert np.array_equal((made["maps"] == colour).all(axis=2), made["masks"] == 1)
    outside = made["masks"] == 0
    assert (made["maps"][outside] == made["skins"]).all()
    # The skin has the map's colour, and the dark disc lies in the mask.
    assert np.abs(np.median(made["photos"][outside], axis=0) - made["skins"]).max() <= 3
    light = made["photos"].astype(float).sum(axis=2)
    dark = light < 0.8 * made["skins"].astype(float).sum()
    assert dark.any()
    assert (dark & outside).sum() <= 0.15 * dark.sum()


def test_samples_of_boxes_have_the_bytes_that_they_always_had(photos: str) -> None:
    whole = pairs.read(photos)
    own = SMALL.model_copy(update={"retoned": 0.0})
    one = Feed(whole, whole, whole.conditions, own, 1, 8)
    batches = [one.batch(0, 0, 1), one.batch(1, 0, 1), one.held_out(0)]
    data = b"".join(name.encode() + batch[name].tobytes() for batch in batches for name in sorted(batch))
    assert hashlib.sha256(data).hexdigest()[:16] == "349ad4d7294319d4"


def test_photos_are_bent_to_learn_from_and_held_out_as_they_are(photos: str) -> None:
    plain, bent = feed(photos), feed(photos, SMALL.model_copy(update={"warp": 0.12}))
    assert not np.array_equal(plain.batch(0, 0, 1)["photos"], bent.batch(0, 0, 1)["photos"])
    for name, array in plain.held_out(0).items():
        assert np.array_equal(array, bent.held_out(0)[name]), name


def test_types_follow_the_tone_that_was_given(photos: str) -> None:
    always = feed(photos, SMALL.model_copy(update={"retoned": 1.0}))
    for number in range(4):
        made = always.batch(number, 0, 1)
        angles = tone.ita(tone.to_lab(made["skins"]))
        apart = np.min(np.abs(angles[:, None] - np.array(tone.EDGES)), axis=1)
        sure = apart > 2  # rounding to 8 bits moves the angle
        assert np.array_equal(tone.fitzpatrick(angles)[sure], made["types"][sure])


def test_held_out_photos_are_shown_as_they_are(photos: str) -> None:
    one = feed(photos)
    made = one.held_out(0)
    assert len(made["photos"]) == len(one.validation.photos) == 1
    assert made["types"].tolist() == [photo.fitzpatrick for photo in one.validation.photos]


def test_rare_conditions_are_drawn_more_often_where_that_is_asked(photos: str) -> None:
    shares = []
    for balance in (0.0, 1.0):
        one = feed(photos, SMALL.model_copy(update={"balance": balance}))
        whole = Feed(pairs.read(photos), one.validation, one.conditions, one.settings, 1, 8)
        shares.append(np.mean([whole.batch(n, 0, 1)["conditions"] == 0 for n in range(30)]))
    assert shares[0] == pytest.approx(1 / 6, abs=0.08)
    assert shares[1] == pytest.approx(1 / 2, abs=0.1)


def test_a_photo_that_cannot_be_used_is_named(photos: str, tmp_path: Path) -> None:
    good = pairs.read(photos).photos[0]
    with pytest.raises(TrainingError, match="not inside the picture of 140x120 px"):
        samples.load(Photo(good.uri, "NEV", None, Box(0, 0, 200, 10), "P"), 32)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff junk")
    with pytest.raises(TrainingError, match="mend the photo"):
        samples.load(Photo(str(tmp_path / "broken.jpg"), "NEV", None, Box(0, 0, 2, 2), "P"), 32)


@given(st.integers(0, 2**40))
@settings(max_examples=40)
def test_a_mask_moves_with_its_photo(masked: str, number: int) -> None:
    whole = pairs.read(masked)
    photo = whole.photos[number % 6]
    own = MASKED.model_copy(update={"size": 64})
    made = samples.make_sample(photo, own, whole.conditions, number)
    mask = made["masks"] == 1
    colour = semantic_map.colour_of(photo.condition, whole.conditions)
    assert np.array_equal((made["maps"] == colour).all(axis=2), mask)
    assert np.array_equal(made["depths"], regions.depth(mask))
    light = made["photos"].astype(float).sum(axis=2)
    dark = light < (light.max() + light.min()) / 2
    assert (dark & mask).sum() >= 0.85 * (dark | mask).sum()
    boxed = samples.make_sample(photo, own.model_copy(update={"region": "box"}), whole.conditions, number)
    assert np.array_equal(boxed["photos"], made["photos"])
    assert (mask & (boxed["masks"] == 0)).sum() <= 0.1 * mask.sum()


def test_masks_that_are_not_asked_for_change_nothing(photos: str, masked: str) -> None:
    one, other = (feed(uri).batch(3, 0, 1) for uri in (photos, masked))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_masks_own_bounds_are_the_lesions_box_and_its_pixels_count(tmp_path: Path) -> None:
    table = write_photos(tmp_path, masks=True)
    photo = pairs.read(table).photos[0]
    mask = np.zeros((120, 140), dtype=bool)
    mask[80:90, 15:31] = True
    before = samples.load(photo, 32, "mask").facts
    write_mask(tmp_path / "0-mask.png", mask)
    after = samples.load(photo, 32, "mask").facts
    assert after.box == Box(15, 80, 31, 90)
    assert before.mask_sha256 != after.mask_sha256
    boxed = samples.load(photo, 32).facts
    assert (boxed.box, boxed.sha256, boxed.mask_sha256) == (photo.box, after.sha256, None)


def test_any_colour_but_black_marks_a_lesion(tmp_path: Path) -> None:
    photo = pairs.read(write_photos(tmp_path, masks=True)).photos[0]
    labels = np.zeros((120, 140, 3), dtype=np.uint8)
    labels[80:90, 15:20, 2] = 1
    labels[80:90, 20:31] = 200
    (tmp_path / "0-mask.png").write_bytes(images.encode_png(labels))
    assert samples.load(photo, 32, "mask").facts.box == Box(15, 80, 31, 90)


def test_of_a_lesion_that_no_window_holds_a_part_is_seen(tmp_path: Path) -> None:
    skin = tone.to_rgb(tone.skin_of(45))
    photo, mask = np.tile(skin, (100, 300, 1)), np.zeros((100, 300), dtype=bool)
    y, x = np.mgrid[:100, :300]
    for left in (20, 270):
        mask |= np.hypot(y - 50, x - left) < 12
    photo[mask] = (60, 30, 20)
    (tmp_path / "wide.png").write_bytes(images.encode_png(photo))
    write_mask(tmp_path / "mask.png", mask)
    wide = Photo(str(tmp_path / "wide.png"), "NEV", None, Box(0, 0, 300, 100), "P", mask=str(tmp_path / "mask.png"))
    for number in range(8):
        made = samples.make_sample(wide, MASKED.model_copy(update={"retoned": 0.0}), ("NEV",), number)
        assert made["masks"].sum() > 20
        assert made["photos"][made["masks"] == 1].mean() < 70


def test_a_mask_of_one_pixel_is_never_lost(tmp_path: Path) -> None:
    photo = pairs.read(write_photos(tmp_path, masks=True)).photos[0]
    mask = np.zeros((120, 140), dtype=bool)
    mask[84, 25] = True
    write_mask(tmp_path / "0-mask.png", mask)
    small = MASKED.model_copy(update={"size": 16})
    assert min(samples.make_sample(photo, small, ("NEV",), number)["masks"].sum() for number in range(30)) >= 1


def _mask_of(width: int, height: int, value: int) -> bytes:
    return images.encode_png(np.full((height, width, 3), value, dtype=np.uint8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_mask_of(140, 120, 0), "0-mask.png: empty; mark the lesion's place in white"),
        (_mask_of(140, 120, 255), "marks the whole photo; make the skin black"),
        (_mask_of(120, 140, 255), "120x140 px, its photo 140x120; give it the photo's size"),
        (b"rubbish", "save it anew, as PNG"),
        (simplejpeg.encode_jpeg(np.zeros((120, 140, 3), np.uint8)), "a JPEG, which blurs where the lesion ends"),
        (None, "0-mask.png: no such file; check the column mask"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(tmp_path: Path, data: bytes | None, message: str) -> None:
    photo = pairs.read(write_photos(tmp_path, masks=True)).photos[0]
    path = tmp_path / "0-mask.png"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(TrainingError) as caught:
        samples.load(photo, 32, "mask")
    told = str(caught.value)
    assert message in told
    assert "0.png: mask " in told
    assert "\n" not in told
    assert samples.load(photo, 32).facts.box == photo.box, "where the box is asked for, nobody looks"
