"""What the ingress makes of its models' deployments, without Serve; and of the address it listens on."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from ray import serve
from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from starlette.testclient import TestClient

from serve import ingress
from serve.http import Problem
from serve.ingress import Remote, RemoteFocus, RemoteSkin
from serve.wire import About, Asked, Full, Item, SkinAbout
from tests.serve.local import client

ABOUT = About("focus", "1", "a" * 64, 64, 16, (0.0, 1.0), (0.5, 1.0, 2.0))
SKIN = SkinAbout("skin", "1", "b" * 64, 32, {"BCC": (1, 2, 3)}, {}, (), "box", {}, None, None)
FULL = BackPressureError(num_queued_requests=64, max_queued_requests=64)
SLOW = 30.0
READY = ("/readyz", "/v2/health/ready", "/v2/models/focus/ready", "/v2/models/skin/ready")


def lost() -> list[BaseException]:
    """What a call of a replica that is gone ends with."""
    none = grpc.aio.Metadata()
    return [
        RayActorError(),
        DeploymentUnavailableError(SimpleNamespace(name="FocusScorer", app_name="medsynth")),
        ReplicaUnavailableError("gone"),
        TaskCancelledError(),
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none),
    ]


class Response:
    """Of a call: an answer, an error, or so many seconds that nothing comes."""

    def __init__(self, outcome: Any) -> None:
        self.outcome, self.cancelled = outcome, False

    def __await__(self) -> Any:
        return self._come().__await__()

    async def _come(self) -> Any:
        if isinstance(self.outcome, float):
            await asyncio.sleep(self.outcome)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Of a deployment whose calls end as they are told to, the last way from then on."""

    app_name, deployment_name = "medsynth", "FocusScorer"

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes, self.responses = list(outcomes), list[Response]()

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=self._remote)

    def _remote(self, *_: Any) -> Response:
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        self.responses.append(Response(outcome))
        return self.responses[-1]


def test_with_haproxy_no_address_is_this_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ingress.listens_on("127.0.0.1") == ingress.listens_on(None) == "127.0.0.1"
    monkeypatch.setattr(ingress, "RAY_SERVE_ENABLE_HA_PROXY", True)
    assert ingress.listens_on("127.0.0.1") == ingress.listens_on(None) == "0.0.0.0"


@pytest.mark.parametrize("call", ["score", "map", "draw"])
def test_a_model_that_has_enough_to_do_is_429_until_it_has_less(call: str) -> None:
    handle: Any = Handle((Full(7), ABOUT))

    async def asked() -> None:
        if call == "score":
            await RemoteFocus(handle, 5).score([])
        elif call == "map":
            await RemoteFocus(handle, 5).heat_map(Item(b"", pixels=1), "grid")
        else:
            await RemoteSkin(handle, 5).draw(Asked("BCC"), [0])

    with pytest.raises(Problem) as caught:
        asyncio.run(asked())
    assert (caught.value.status_code, caught.value.headers) == (429, {"Retry-After": "7"})


class TestRemote:
    def fails(self, handle: Any, **options: Any) -> Problem:
        with pytest.raises(Problem) as caught:
            asyncio.run(Remote(handle, 0.05)("score", [], **options))
        return caught.value

    def test_a_full_queue_is_429(self) -> None:
        handle = Handle(FULL)
        problem = self.fails(handle)
        assert (problem.status_code, problem.headers) == (429, {"Retry-After": "1"})
        assert len(handle.responses) == 1

    def test_what_is_too_slow_is_504_and_given_up(self) -> None:
        handle = Handle(SLOW)
        assert self.fails(handle).status_code == 504
        assert [one.cancelled for one in handle.responses] == [True]
        problem = self.fails(handle, seconds=0.01)
        assert (problem.status_code, problem.headers) == (503, {"Retry-After": "1"})

    @pytest.mark.parametrize(
        ("outcome", "told"), [(SLOW, "did not answer within 0.01 s"), (RayActorError(), "'s replica was lost")]
    )
    def test_whoever_gets_no_answer_is_told_from_whom(self, outcome: Any, told: str) -> None:
        handle: Any = Handle(outcome)
        with pytest.raises(Problem) as caught:
            asyncio.run(Remote(handle, 5, "the gatherer")("text", seconds=0.01))
        assert caught.value.detail.startswith("the gatherer"), "figures are no model's"
        assert told in caught.value.detail

    @pytest.mark.parametrize("error", lost(), ids=lambda error: type(error).__name__)
    def test_a_lost_call_is_sent_once_more(self, error: BaseException) -> None:
        handle: Any = Handle(error, "found")
        assert asyncio.run(Remote(handle, 5)("score", [])) == "found"
        handle = Handle(error)
        problem = self.fails(handle)
        assert (problem.status_code, problem.headers) == (503, {"Retry-After": "1"})
        assert len(handle.responses) == 2

    def test_the_second_attempt_has_what_time_the_first_left(self) -> None:
        handle = Handle(RayActorError(), SLOW)
        started = time.monotonic()
        assert self.fails(handle).status_code == 504
        assert time.monotonic() - started < 5

    def test_whoever_no_longer_waits_ends_the_call(self) -> None:
        handle: Any = Handle(SLOW)

        async def given_up() -> None:
            asking = asyncio.create_task(Remote(handle, 20)("score", []))
            await asyncio.sleep(0.01)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking

        asyncio.run(given_up())
        assert [one.cancelled for one in handle.responses] == [True]


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many the controller says there are of each state."""
    states = {"RUNNING": 1}
    deployment = SimpleNamespace(replica_states=states)
    application = SimpleNamespace(deployments={"FocusScorer": deployment})
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={"medsynth": application}))
    monkeypatch.setattr(ingress, "_FRESH_SECONDS", 0.05)
    for name in ("_FIRST_SECONDS", "_ABOUT_SECONDS"):
        monkeypatch.setattr(ingress, name, 0.1)
    return states


@contextlib.contextmanager
def service(focus: Any, skin: Any = None) -> Iterator[TestClient]:
    skin = Handle(SKIN) if skin is None else skin
    with client(RemoteFocus(focus, 20.0), skin=RemoteSkin(skin, 20.0)) as found:
        yield found


@pytest.mark.usefixtures("replicas")
class TestBusy:
    @pytest.mark.parametrize("outcome", [FULL, SLOW])
    def test_a_model_that_is_busy_is_ready(self, outcome: Any) -> None:
        with service(Handle(outcome), Handle(outcome)) as http:
            for path in READY:
                assert http.get(path).json()["ready"] is True

    @pytest.mark.parametrize("outcome", [FULL, SLOW, *lost()])
    @pytest.mark.parametrize("states", [{}, {"STARTING": 1, "STOPPING": 1}])
    def test_without_a_loaded_replica_it_is_not(
        self, replicas: dict[str, int], outcome: Any, states: dict[str, int]
    ) -> None:
        with service(Handle(ABOUT, outcome), Handle(SKIN, outcome)) as http:
            assert http.get("/readyz").status_code == 200
            replicas.clear()
            replicas.update(states)
            time.sleep(0.06)
            for path in READY:
                answer = http.get(path)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")

    @pytest.mark.parametrize("trouble", ["dead", "silent", "without the application"])
    def test_where_nobody_can_say_it_is_not(self, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
        def status() -> Any:
            if trouble == "dead":
                raise RayActorError
            if trouble == "silent":
                time.sleep(0.3)
            return SimpleNamespace(applications={})

        monkeypatch.setattr(serve, "status", status)
        monkeypatch.setattr(ingress, "_CONTROLLER_SECONDS", 0.1)
        with service(Handle(FULL)) as http:
            assert http.get("/readyz").status_code == 503

    @pytest.mark.parametrize("outcome", [FULL, SLOW])
    def test_what_it_said_last_is_told(self, outcome: Any) -> None:
        with service(Handle(ABOUT, outcome), Handle(SKIN, outcome)) as http:
            known = http.get("/v1/models").json()
            time.sleep(0.06)
            assert http.get("/v1/models").json() == known
            assert http.get("/v2/models/focus").json()["versions"] == ["1"]
            assert "BCC" in http.get("/docs").text
        with service(Handle(outcome), Handle(outcome)) as http:
            answer = http.get("/v1/models")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert "CONDITION" in http.get("/docs").text

    def test_a_new_version_is_told_soon(self) -> None:
        new = replace(ABOUT, version="2")
        with service(Handle(ABOUT, new)) as http:
            assert http.get("/v2/models/focus").json()["versions"] == ["1"]
            time.sleep(0.06)
            assert http.get("/v2/models/focus").json()["versions"] == ["2"]

    def test_answers_of_its_work_say_which_it_is(self) -> None:
        async def told() -> tuple[Any, Any, Any]:
            focus: Any = Handle(([], ABOUT), FULL)
            maps: Any = Handle((b"", ABOUT), FULL)
            skin: Any = Handle(([], SKIN), FULL)
            models = RemoteFocus(focus, 20.0), RemoteFocus(maps, 20.0), RemoteSkin(skin, 20.0)
            await models[0].score([])
            await models[1].heat_map(Item(b"", pixels=1), "grid")
            await models[2].draw(None, [])  # type: ignore[arg-type]
            return await models[0].about(), await models[1].about(), await models[2].about()

        assert asyncio.run(told()) == (ABOUT, ABOUT, SKIN)

    def test_however_many_want_to_know_it_is_asked_once(self) -> None:
        handle: Any = Handle(SLOW)

        async def asked() -> list[Any]:
            focus = RemoteFocus(handle, 20.0)
            return await asyncio.gather(*(focus.about() for _ in range(100)), return_exceptions=True)

        assert {one.status_code for one in asyncio.run(asked())} == {429}
        assert len(handle.responses) == 1
