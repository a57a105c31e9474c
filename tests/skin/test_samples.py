import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsynth.errors import TrainingError
from medsynth.skin import pairs, samples, semantic_map, tone
from medsynth.skin.pairs import Photo
from medsynth.skin.samples import Feed, SampleSettings
from medsynth.skin.semantic_map import Box
from tests.skin.photos import write_photos

SMALL = SampleSettings(size=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_photos(tmp_path_factory.mktemp("photos"))


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


@given(st.integers(0, 2**40))
@settings(max_examples=40)
def test_map_mask_and_photo_agree(photos: str, number: int) -> None:
    whole = pairs.read(photos)
    photo = whole.photos[number % 6]
    made = samples.make_sample(photo, SMALL, whole.conditions, number)
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
