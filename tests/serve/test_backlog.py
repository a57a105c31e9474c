"""What is taken on, and what is refused before it waits."""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from serve.backlog import Backlog
from serve.http import Limits
from serve.wire import Asked, Full, Item
from tests import skin_model
from tests.serve.local import LocalFocus, LocalSkin, encoded
from tests.slides import on_glass, stained


def test_what_is_idle_takes_anything() -> None:
    backlog = Backlog(1.0)
    backlog.paced("x", 1, 10.0)
    assert backlog.full(64) is None
    with backlog.taken(64):
        assert backlog.full(1) == Full(640)
    assert backlog.full(64) is None


def test_no_more_is_taken_than_is_done_in_time() -> None:
    backlog = Backlog(2.0)
    with backlog.taken(100):
        assert backlog.full(100) is None, "its pace is not known yet"
        backlog.paced("x", 10, 1.0)
        assert backlog.full(1) == Full(10)
    with backlog.taken(12):
        assert backlog.full(8) is None
        assert backlog.full(9) == Full(2)


def test_what_fails_is_no_longer_to_do() -> None:
    backlog = Backlog(1.0)
    backlog.paced("x", 1, 1.0)
    with pytest.raises(ValueError, match="drawn"), backlog.taken(5):
        raise ValueError("drawn")
    assert backlog.full(5) is None


def test_the_pace_follows_the_machine() -> None:
    backlog = Backlog(1.0)
    backlog.paced("x", 1, 10.0)
    for _ in range(30):
        backlog.paced("x", 4, 0.4)
    with backlog.taken(5):
        assert backlog.full(4) is None
        assert backlog.full(6) == Full(1)


def test_work_comes_as_fast_as_the_slowest_of_its_stages_lets_it() -> None:
    backlog = Backlog(1.0)
    backlog.paced("read", 10, 2.0, at_once=2)
    backlog.paced("judged", 10, 0.5)
    with backlog.taken(9):
        assert backlog.full(1) is None
        assert backlog.full(2) == Full(1)


@pytest.mark.parametrize("model", ["focus", "skin"])
def test_what_is_slow_before_or_after_the_network_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    skin, focus = LocalSkin(tmp_path), LocalFocus(Limits(), tmp_path)
    asked, item = Asked(skin_model.NAMES[0], fitzpatrick=2), Item(encoded(stained(200, 200)), pixels=40_000)
    part, name = (focus._scorer, "pixels") if model == "focus" else (skin._artist, "finish")
    quick = getattr(part, name)

    def slow(*given: Any) -> Any:
        time.sleep(0.2)  # two at once: a tenth of a second each
        return quick(*given)

    monkeypatch.setattr(part, name, slow)
    for service in (focus, skin):
        service._backlog = Backlog(0.5)

    async def flood() -> list[bool]:
        def ask() -> Awaitable[Any]:
            return focus.score([item]) if model == "focus" else skin.draw(asked, [0])

        await ask()
        return [isinstance(answer, Full) for answer, _ in await asyncio.gather(*(ask() for _ in range(9)))]

    assert asyncio.run(flood()).count(False) in (3, 4, 5), "and not all of them: the network alone is fast"


def test_models_refuse_what_they_could_not_answer_in_time(tmp_path: Path) -> None:
    skin, focus = LocalSkin(tmp_path), LocalFocus(Limits(), tmp_path)
    asked, item = Asked(skin_model.NAMES[0], fitzpatrick=2), Item(encoded(stained(200, 200)), pixels=40_000)
    mapped = Item(encoded(on_glass(700, 600, (90, 130, 500, 400))), 0.25, pixels=420_000)

    async def flood() -> None:
        await skin.draw(asked, [0])
        await focus.score([item])
        await focus.heat_map(mapped, "overlay")
        skin._backlog.paced("drawing", 1, 1000.0)
        focus._backlog.paced("judging", 1, 1.0)
        focus._maps.paced("mapping", 1, 1.0)
        for calls in (
            [skin.draw(asked, [n]) for n in range(5)],
            [focus.score([item]) for _ in range(5)],
            [focus.heat_map(mapped, "overlay") for _ in range(5)],
        ):
            found = [answer for answer, _ in await asyncio.gather(*calls)]
            assert [isinstance(one, Full) for one in found] == [False, True, True, True, True]
        assert not isinstance((await skin.draw(asked, [0]))[0], Full), "and take again what comes when that is done"
        assert not isinstance((await focus.score([item]))[0], Full)
        assert isinstance((await focus.heat_map(mapped, "overlay"))[0], bytes)

    asyncio.run(flood())
