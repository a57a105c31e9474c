"""What HTTP itself guarantees, on an application that has no model."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.testclient import TestClient

from medsynth.errors import UserError
from serve.figures import Figures
from serve.http import (
    PROBLEM,
    Gate,
    JsonLines,
    Limits,
    Problem,
    busy,
    check_address,
    handle_problems,
    is_loopback,
    tokens_of,
)

TOKEN = "0123456789abcdef-secret"
LIMITS = Limits(body_bytes=1000, in_flight=2, body_seconds=0.3)


class Numbers(BaseModel):
    x: int
    y: float


def application(figures: Figures | None = None, tokens: tuple[str, ...] = ()) -> Gate:
    app = FastAPI()
    handle_problems(app)
    app.state.read = 0

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, int]:
        count = 0
        async for part in request.stream():
            count += len(part)
            app.state.read = count
        return {"count": count}

    @app.post("/numbers")
    async def numbers(found: Numbers) -> dict[str, float]:
        return {"sum": found.x + found.y}

    @app.get("/raise/{kind}")
    async def broken(kind: str) -> None:
        if kind == "busy":
            raise busy("wait")
        if kind == "problem":
            raise Problem(415, "no such type", {"Accept-Post": "image/png"}, reason="unsupported")
        raise RuntimeError("the password is hunter2")

    gate = Gate(app, LIMITS, tokens, figures or Figures())
    gate.inner = app  # type: ignore[attr-defined]
    return gate


@pytest.fixture
def plain() -> TestClient:
    return TestClient(application())


def check(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert "\n" not in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def test_the_frameworks_own_errors_are_problems(plain: TestClient) -> None:
    check(plain.get("/nowhere"), 404)
    answer = plain.put("/echo")
    check(answer, 405)
    assert answer.headers["allow"] == "POST"
    check(plain.post("/numbers", content=b"{", headers={"content-type": "application/json"}), 422)


def test_fields_are_named(plain: TestClient) -> None:
    problem = check(plain.post("/numbers", json={"x": "one"}), 422)
    assert {one["field"] for one in problem["errors"]} == {"body.x", "body.y"}
    assert "body.y" in problem["detail"]


def test_a_problem_keeps_its_headers_and_members(plain: TestClient) -> None:
    answer = plain.get("/raise/problem")
    assert check(answer, 415)["reason"] == "unsupported"
    assert answer.headers["accept-post"] == "image/png"
    answer = plain.get("/raise/busy")
    check(answer, 503)
    assert answer.headers["retry-after"] == "1"


def test_an_error_of_ours_says_nothing_of_its_inside(plain: TestClient) -> None:
    problem = check(TestClient(application(), raise_server_exceptions=False).get("/raise/other"), 500)
    assert "hunter2" not in json.dumps(problem)


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    gate = application()
    reads = []

    async def receive() -> dict[str, Any]:
        reads.append(1)
        return {"type": "http.request", "body": b"x" * 500, "more_body": True}

    answer = run(gate, receive, [(b"content-length", b"1001")])
    assert answer[0] == 413
    assert not reads
    assert run(gate, receive, [(b"content-length", b"-5")])[0] == 400
    assert run(gate, receive, [(b"content-encoding", b"gzip")])[0] == 415
    assert not reads


def test_a_body_without_a_length_is_stopped_at_the_limit() -> None:
    gate = application()
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 300
        assert sent <= 1200, "read beyond the limit"
        return {"type": "http.request", "body": b"x" * 300, "more_body": True}

    status, body = run(gate, receive, [])
    assert status == 413
    assert json.loads(body)["status"] == 413
    assert gate.inner.state.read <= 1000  # type: ignore[attr-defined]


def test_the_limit_itself_is_allowed(plain: TestClient) -> None:
    assert plain.post("/echo", content=b"x" * 1000).json() == {"count": 1000}
    assert plain.post("/echo", content=iter([b"x" * 999, b"y"])).json() == {"count": 1000}
    check(plain.post("/echo", content=b"x" * 1001), 413)
    check(plain.post("/echo", content=iter([b"x" * 999, b"yz"])), 413)


def test_a_body_that_trickles_in_is_given_up() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.11)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert run(application(), receive, [])[0] == 408


def test_more_at_once_than_allowed_is_429() -> None:
    gate = application()
    release = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await release.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def all_of_them() -> list[int]:
        first = [asyncio.create_task(call(gate, receive, [])) for _ in range(2)]
        await asyncio.sleep(0.02)
        third = await call(gate, receive, [])
        release.set()
        done = [await one for one in first]
        return [third[0], *(one[0] for one in done), (await call(gate, receive, []))[0]]

    assert asyncio.run(all_of_them()) == [429, 200, 200, 200]


class TestTokens:
    @pytest.fixture
    def guarded(self) -> TestClient:
        return TestClient(application(tokens=(TOKEN, "another-token-of-some-length")))

    def test_right_and_wrong_ones(self, guarded: TestClient) -> None:
        for shown in (None, "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, "Bearer é"):
            headers = {} if shown is None else {"Authorization": shown.encode("latin-1")}
            answer = guarded.post("/echo", content=b"x", headers=headers)
            check(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        for token in (TOKEN, "another-token-of-some-length"):
            for scheme in ("Bearer", "bearer"):
                assert guarded.post("/echo", headers={"Authorization": f"{scheme} {token}"}).status_code == 200

    def test_health_needs_none_and_nothing_else_is_told(self, guarded: TestClient) -> None:
        check(guarded.get("/healthz"), 404)  # this application has none; the gate let it through
        check(guarded.get("/nowhere"), 401)
        check(guarded.get("/metrics"), 401)

    def test_where_they_come_from(self) -> None:
        assert tokens_of({}) == ()
        assert tokens_of({"MEDSYNTH_API_TOKENS": f" {TOKEN},{TOKEN}2 \n{TOKEN}3"}) == (TOKEN, TOKEN + "2", TOKEN + "3")
        with pytest.raises(UserError, match="at least 16"):
            tokens_of({"MEDSYNTH_API_TOKENS": f"{TOKEN},short"})

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "example.org", "", "127.0.0.1.example.org"])
    def test_other_addresses_demand_them(self, host: str) -> None:
        with pytest.raises(UserError, match="MEDSYNTH_API_TOKENS") as caught:
            check_address(host, ())
        assert "\n" not in str(caught.value)
        check_address(host, (TOKEN,))

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
    def test_loopback_does_not(self, host: str) -> None:
        assert is_loopback(host)
        check_address(host, ())


def test_a_request_id_is_kept_or_made(plain: TestClient) -> None:
    assert plain.get("/nowhere", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    bad = ("", "a b", "x" * 65)
    made = {plain.get("/nowhere", headers={"X-Request-ID": one}).headers["x-request-id"] for one in bad}
    assert len(made) == 3
    assert all(len(one) == 32 for one in made)


def test_each_request_is_one_line_of_json(plain: TestClient, log_lines: list[dict[str, Any]]) -> None:
    plain.post("/echo?secret=1", content=b"abc", headers={"X-Request-ID": "mine"})
    plain.get("/nowhere/at/all")
    first, second = log_lines
    assert first["event"] == "request"
    assert (first["request_id"], first["status"], first["route"], first["body_bytes"]) == ("mine", 200, "/echo", 3)
    assert "secret" not in json.dumps(first)
    assert (second["status"], second["route"], second["path"]) == (404, "other", "/nowhere/at/all")


def test_an_error_of_ours_is_logged_with_its_request(log_lines: list[dict[str, Any]]) -> None:
    TestClient(application()).get("/raise/other", headers={"X-Request-ID": "mine"})
    assert log_lines[0]["request_id"] == "mine"
    assert "hunter2" in log_lines[0]["error"]
    assert log_lines[1]["status"] == 500


@pytest.mark.parametrize("path", ["/echo", "/numbers"])
def test_a_client_that_hangs_up_while_it_sends_is_no_error_of_ours(path: str, log_lines: list[dict[str, Any]]) -> None:
    figures = Figures()
    messages = [{"type": "http.request", "body": b'{"x"', "more_body": True}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    asyncio.run(call(application(figures), receive, [(b"content-type", b"application/json")], path))
    (line,) = log_lines
    assert (line["level"], line["event"], line["status"], line["body_bytes"]) == ("info", "request", 499, 4)
    assert counted(figures) == {(path, "499"): 1}


def test_a_server_that_has_lost_the_client_is_no_error_of_ours(log_lines: list[dict[str, Any]]) -> None:
    async def receive() -> dict[str, Any]:
        raise RuntimeError("task was cancelled")  # as Serve's may, of a kind of Ray's own

    run(application(), receive, [])
    assert [(line["event"], line["status"]) for line in log_lines] == [("request", 499)]


def test_a_request_that_is_called_off_is_told_as_one_hung_up(log_lines: list[dict[str, Any]]) -> None:
    figures = Figures()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def called_off() -> None:  # as Serve does when its proxy sees the client go
        task = asyncio.create_task(call(application(figures), receive, []))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(called_off())
    assert [line["status"] for line in log_lines] == [499]
    assert counted(figures) == {("/echo", "499"): 1}


def test_requests_are_counted() -> None:
    figures = Figures()
    http = TestClient(application(figures))
    for _ in range(3):
        http.post("/echo")
    http.request("BREW", "/echo")
    samples = {(name, labels): value for family in figures.snapshot() for name, labels, value in family.samples}
    labels = (("method", "POST"), ("route", "/echo"), ("status", "200"))
    assert samples["medsynth_requests_total", labels] == 3
    assert any(("method", "other") in labels for _, labels in samples), "a made-up method is no label of its own"
    assert samples["medsynth_requests_in_flight", ()] == 0
    assert samples["medsynth_request_seconds_count", (("route", "/echo"),)] >= 3


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    logger, handler = logging.getLogger("medsynth.serve"), Keep()
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.INFO
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def counted(figures: Figures) -> dict[tuple[str, str], float]:
    """Requests by route and status."""
    return {
        (dict(labels)["route"], dict(labels)["status"]): value
        for family in figures.snapshot()
        for name, labels, value in family.samples
        if name == "medsynth_requests_total"
    }


def run(gate: Gate, receive: Any, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    return asyncio.run(call(gate, receive, headers))


async def call(gate: Gate, receive: Any, headers: list[tuple[bytes, bytes]], path: str = "/echo") -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await gate(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
