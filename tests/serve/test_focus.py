"""The focus scorer: alone, and in its threads and batches."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from medsynth.catalog import slides
from medsynth.errors import Reason, Rejected
from medsynth.focus import export, heatmap
from medsynth.focus import slide as scoring
from medsynth.focus.heatmap import Grades
from medsynth.focus.model import FocusModel
from medsynth.model_file import ModelError
from serve.deployments import FOCUS_BATCH
from serve.focus import FocusService, Room, Scorer
from serve.wire import About, Item, Judged, Refused
from tests.serve.local import LocalFocus, encoded
from tests.slides import network, on_glass, stained, write_tiff


@pytest.fixture(scope="module")
def model() -> FocusModel:
    return network()


@pytest.fixture(scope="module")
def scorer(model: FocusModel) -> Scorer:
    return Scorer(model, 4_000_000)


def test_it_says_what_the_model_says(scorer: Scorer, model: FocusModel) -> None:
    picture = stained(300, 200)
    judged = scorer.judge(*scorer.pixels(encoded(picture), 0.25))
    score = model.score(picture, 0.25)
    assert (judged.width, judged.height, judged.focus_class) == (200, 300, score.focus_class)
    np.testing.assert_allclose(judged.classes, score.probabilities, rtol=1e-5)
    assert judged.radius_px == pytest.approx(score.radius_px, rel=1e-5)
    assert judged.radius_um == pytest.approx(score.radius_px / 4, rel=1e-5)


def test_the_pixel_size_is_asked_for_or_the_files(scorer: Scorer, tmp_path: Path) -> None:
    data = write_tiff(tmp_path / "a.tif", stained(200, 200), 0.5).read_bytes()
    assert scorer.pixels(data, None)[1] == 0.5
    assert scorer.pixels(data, 0.3)[1] == 0.3
    without = scorer.judge(*scorer.pixels(encoded(stained(200, 200)), None))
    assert (without.mpp, without.radius_um, without.grade) == (None, None, None)


def test_grades_part_where_the_maps_grades_do(scorer: Scorer, model: FocusModel) -> None:
    picture = stained(200, 200)
    radius = model.score(picture).radius_px
    for limit, below, above in ((0.5, "in focus", "slight"), (1.0, "slight", "moderate"), (2.0, "moderate", "severe")):
        assert scorer.judge(picture, 0.99 * limit / radius).grade == below
        assert scorer.judge(picture, 1.01 * limit / radius).grade == above


def test_bad_images_are_rejected_with_a_reason(scorer: Scorer) -> None:
    for data, reason in (
        (encoded(stained(127, 300)), Reason.TOO_SMALL),
        (encoded(np.zeros((2001, 2000, 3), np.uint8)), Reason.TOO_MANY_PIXELS),
        (encoded(stained(200, 200))[:-500], Reason.TRUNCATED),
        (stained(100, 300), Reason.TOO_SMALL),
    ):
        with pytest.raises(Rejected) as caught:
            scorer.pixels(data, None)
        assert caught.value.reason is reason


def test_a_heat_map_is_that_of_the_batch_job(scorer: Scorer, model: FocusModel, tmp_path: Path) -> None:
    picture = on_glass(900, 700, (90, 130, 600, 400))
    path = write_tiff(tmp_path / "a.tif", picture, 0.25)
    with slides.opened(str(path)) as slide:
        survey = scoring.survey(slide, scoring.geometry(slide, model, model.stride))
        bands = [(at, scoring.score_band(slide, survey, model, at)) for at in survey.bands_with_tissue()]
    heat = heatmap.assemble(survey, bands)
    data = path.read_bytes()
    grid = json.loads(scorer.heat_map(data, None, "grid"))
    served = np.array([[np.nan if cell is None else cell for cell in row] for row in grid["radius_um"]], np.float32)
    assert np.isnan(served).any(), "glass is not judged"
    np.testing.assert_allclose(served, heat.radius_um, rtol=1e-3)
    assert grid["summary"] == json.loads(json.dumps(heatmap.summary(heat, Grades()).as_dict()))
    assert scorer.heat_map(data, None, "geojson") == export.geojson(heat, Grades())
    assert scorer.heat_map(data, None, "overlay")[:8] == b"\x89PNG\r\n\x1a\n"
    assert grid["legend"][0] == {"radius_um": 0.0, "rgb": [38, 84, 196]}
    assert grid["legend"][-1]["rgb"] == [200, 30, 30]


def test_a_heat_map_needs_tissue_and_a_pixel_size(scorer: Scorer) -> None:
    for picture, mpp, reason in (
        (stained(300, 300), None, Reason.UNKNOWN_MPP),
        (on_glass(300, 300, (0, 0, 0, 0)), 0.25, Reason.NO_TISSUE),
        (stained(100, 300), 0.25, Reason.TOO_SMALL),
    ):
        with pytest.raises(Rejected) as caught:
            scorer.heat_map(encoded(picture), mpp, "grid")
        assert caught.value.reason is reason


def test_an_answer_does_not_depend_on_its_company(focus: LocalFocus) -> None:
    pictures = [stained(150 + 16 * (n % 5), 170 + 32 * (n % 3), n) for n in range(FOCUS_BATCH + 3)]
    items = [Item(encoded(picture), 0.25, pixels=picture[..., 0].size) for picture in pictures]

    pixels = [focus._scorer.pixels(item.data, item.mpp) for item in items]

    async def all_ways() -> list[list[Judged | Refused]]:
        alone = [(await focus.score([item]))[0][0] for item in items]
        in_one_request, _ = await focus.score(items)
        together = await focus.together(pixels)
        backwards = await focus.together(pixels[::-1])
        return [alone, in_one_request, [*together], [*backwards[::-1]]]

    alone, *others = asyncio.run(all_ways())
    assert all(isinstance(one, Judged) for one in alone)
    for other in others:
        assert other == alone, "to the last digit"


def test_a_bad_image_harms_only_itself(focus: LocalFocus) -> None:
    files = (encoded(stained(200, 200)), b"rubbish", encoded(stained(200, 200, 1)))
    items = [Item(data, pixels=40_000) for data in files]
    found, about = asyncio.run(focus.score(items))
    assert [type(one) for one in found] == [Judged, Refused, Judged]
    assert isinstance(found[1], Refused)
    assert found[1].raised().reason is Reason.UNREADABLE
    assert isinstance(about, About)
    assert about.weights_sha256[:12] in about.version


def test_no_more_is_held_at_once_than_there_is_room_for_and_none_waits_for_ever() -> None:
    order: list[tuple[str, int]] = []

    async def all_of(sizes: dict[str, int]) -> None:
        room, held = Room(10), 0

        async def hold(name: str, size: int) -> None:
            nonlocal held
            async with room.taken(size):
                held += min(size, 10)
                assert held <= 10
                order.append((name, held))
                await asyncio.sleep(0.01)
                held -= min(size, 10)

        await asyncio.gather(*(hold(name, size) for name, size in sizes.items()))

    asyncio.run(all_of({"a": 4, "b": 5, "large": 99, "c": 1, "d": 9, "e": 0}))
    assert order == [("a", 4), ("b", 9), ("large", 10), ("c", 1), ("d", 10), ("e", 10)]


def test_room_is_given_back_whatever_happens() -> None:
    async def fail(room: Room) -> None:
        async with room.taken(10):
            raise ValueError("inside")

    async def both() -> None:
        room = Room(10)
        with pytest.raises(ValueError, match="inside"):
            await fail(room)
        waiting = asyncio.create_task(fail(room))
        async with room.taken(10):
            await asyncio.sleep(0)
            waiting.cancel()
        async with asyncio.timeout(5), room.taken(10):
            pass

    asyncio.run(both())


def test_weights_that_are_none_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        FocusService(f"{tmp_path}/none.safetensors", 1000)
