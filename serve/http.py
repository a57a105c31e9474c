"""Everything of HTTP that knows no model: who may ask, how much, and how it is told what went wrong.

A :class:`Gate` stands before the whole application as plain ASGI: it sees a request before any of its body is
read. Errors are RFC 9457 problems, whoever raises them.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette._utils import get_route_path  # nothing public tells; the router's own, so that both see the same
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medsynth.errors import UserError
from medsynth.spec import Settings
from serve.figures import Figures

PROBLEM = "application/problem+json"
TOKENS = "MEDSYNTH_API_TOKENS"
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
"""What needs no token: health, which orchestrators ask for, and pages that hold no data."""

_OPEN_PREFIX = "/page/"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOG = logging.getLogger("medsynth.serve")
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))

Handler = TypeVar("Handler", bound=Callable[..., Any])

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Of the request that is being answered."""


class Limits(Settings):
    """How much one request, and all of them together, may ask of an ingress replica."""

    body_bytes: int = Field(default=32 << 20, ge=1)
    """Of one request. 32 MiB hold an uncompressed 3000×3000 image."""
    pixels: int = Field(default=16_000_000, ge=1)
    """Of one image, by its header: half a second of the network's time."""
    request_pixels: int = Field(default=64_000_000, ge=1)
    """Of all images of one request."""
    images: int = Field(default=64, ge=1)
    """In one request."""
    pictures: int = Field(default=64, ge=1)
    """Drawn for one request: eight of the generator's batches."""
    in_flight: int = Field(default=32, ge=1)
    """Requests with a body at the same time; above it 429. Times the body's limit, it bounds the memory."""
    seconds: float = Field(default=20.0, gt=0)
    """Until an answer is given up: 504."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Until a body that trickles in is given up: 408."""


class Problem(HTTPException):
    """An answer other than success.

    Args:
        status: HTTP status, 4xx or 5xx.
        detail: one line that says what was found and what to do.
        headers: to go with the answer.
        more: further members of the problem.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.more = more


def busy(detail: str, status: int = 503, seconds: int = 1) -> Problem:
    """A refusal that passes: 429 or 503, with when to ask again."""
    return Problem(status, detail, {"Retry-After": str(seconds)})


def field_problem(field: str, detail: str, *, body: bool = True) -> Problem:
    """422, naming a field."""
    where = f"{'body' if body else 'query'}.{field}"
    return Problem(422, f"{where}: {detail}", errors=[{"field": where, "detail": detail}])


def problem_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None, more: Mapping[str, Any] | None = None
) -> Response:
    """An RFC 9457 problem.

    Source:
        RFC 9457, section 3.1; of type about:blank, whose title is the status's phrase (section 4.2.1).
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id.get(),
        **(more or {}),
    }
    return JSONResponse(body, status, dict(headers or {}), media_type=PROBLEM)


def handle_problems(app: FastAPI) -> None:
    """Make every error of an application a problem, its framework's own included."""

    async def raised(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        more = dict(error.more) if isinstance(error, Problem) else {}
        if get_route_path(request.scope).startswith("/v2"):
            more["error"] = str(error.detail)  # where clients of the Open Inference Protocol look
        return problem_response(error.status_code, str(error.detail), error.headers, more)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fields = [
            {"field": ".".join(str(part) for part in one["loc"]), "detail": str(one["msg"])} for one in error.errors()
        ]
        if not _is_json(request) and any(one["field"] == "body" for one in fields):
            return problem_response(415, "the body is no application/json", {"Accept-Post": "application/json"})
        named = "; ".join(f"{one['field']}: {one['detail']}" for one in fields)
        return problem_response(422, named or "invalid request", more={"errors": fields})

    async def unexpected(_: Request, __: Exception) -> Response:
        return problem_response(500, _OURS)  # the gate logs it: Starlette raises it again

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(HTTPException, raised)
    app.add_exception_handler(RequestValidationError, invalid)


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def read(router: APIRouter | FastAPI, path: str, **options: Any) -> Callable[[Handler], Handler]:
    """A route for GET, and one for HEAD that the document leaves out; the server sends no body with its answer.

    Args:
        router: that gets them.
        path: of both.
        options: of the route for GET.
    """

    def add(handler: Handler) -> Handler:
        router.get(path, **options)(handler)
        return router.head(path, include_in_schema=False)(handler)

    return add


def tokens_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The tokens that ``MEDSYNTH_API_TOKENS`` names, separated by commas or blanks.

    Raises:
        UserError: one is too short to be a secret.
    """
    found = tuple(re.split(r"[\s,]+", environment.get(TOKENS, "").strip()))
    tokens = tuple(token for token in found if token)
    if any(len(token) < 16 or not token.isascii() for token in tokens):
        raise UserError(f"{TOKENS}: each token needs at least 16 ASCII characters; make one with openssl rand -hex 16")
    return tokens


def check_address(host: str, tokens: Sequence[str]) -> None:
    """Refuse to be reached by others without tokens.

    Args:
        host: that the server listens on.
        tokens: that it demands.

    Raises:
        UserError: the address is not loopback, and there are no tokens.
    """
    if tokens or is_loopback(host):
        return
    raise UserError(f"{host}: reachable from other machines; set {TOKENS}, or listen on 127.0.0.1")


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """ASGI middleware: request id, token, sizes, how many at once, and one log line for each request.

    Args:
        app: the application.
        limits: how much may be asked.
        tokens: any of which lets a request in; none for loopback.
        figures: where requests are counted.
    """

    def __init__(self, app: ASGIApp, limits: Limits, tokens: Sequence[str], figures: Figures) -> None:
        self._app, self._limits, self._figures = app, limits, figures
        self._tokens = [token.encode() for token in tokens]
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        found = headers.get(b"x-request-id", b"").decode("latin-1")
        mark = request_id.set(found if _REQUEST_ID.fullmatch(found) else secrets.token_hex(16))
        answer = _Answer(send)
        started = time.monotonic()
        body = _Body(receive, self._limits)
        try:
            refused = self._refusal(scope, headers)
            if refused is not None:
                await refused(scope, receive, answer)
                return
            with self._counted(scope):
                await self._app(scope, body, answer)
        except Problem as error:  # raised by the body while the framework was not looking
            await self._fail(answer, scope, receive, error)
        except ClientDisconnect:
            pass  # nobody is there to be answered; the line below tells of it
        except Exception:
            _LOG.exception("unexpected")
            await self._fail(answer, scope, receive, Problem(500, _OURS))
        finally:
            # Without an answer it was called off: Serve does so where it sees the client go first.
            status = _HUNG_UP if body.cut else answer.status or _HUNG_UP
            self._tell(scope, status, time.monotonic() - started, body.count)
            request_id.reset(mark)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
        """What is decided before anything of the body is read."""
        if scope["root_path"] and not get_route_path(scope) and scope["method"] in ("GET", "HEAD"):
            # The page's links hang on the last slash. Relative, not an address made of the Host header.
            return Response(status_code=308, headers={"Location": scope["root_path"].rpartition("/")[2] + "/"})
        if not self._may_enter(scope, headers):
            return problem_response(
                401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer", **_CLOSE}
            )
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or len(length) > 18):
            return problem_response(400, "Content-Length is no number", _CLOSE)
        if length is not None and int(length) > self._limits.body_bytes:
            return problem_response(413, _too_large(self._limits), _CLOSE)
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
            text = "a body with a Content-Encoding is not taken; send it as it is"
            return problem_response(415, text, {"Accept-Encoding": "identity", **_CLOSE})
        if scope["method"] == "POST" and self._in_flight >= self._limits.in_flight:
            text = f"{self._in_flight} requests are being answered; ask again in a second"
            return problem_response(429, text, {"Retry-After": "1", **_CLOSE})
        return None

    def _may_enter(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        path = get_route_path(scope)
        if not self._tokens or path in OPEN_PATHS or path.startswith(_OPEN_PREFIX):
            return True
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        # All tokens are compared, each in constant time, so that the time tells nothing of them.
        equal = [hmac.compare_digest(shown.strip(), token) for token in self._tokens]
        return scheme.lower() == b"bearer" and any(equal)

    @contextlib.contextmanager
    def _counted(self, scope: Scope) -> Iterator[None]:
        if scope["method"] != "POST":
            yield
            return
        self._in_flight += 1
        self._figures.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self._figures.in_flight.set(self._in_flight)

    async def _fail(self, answer: "_Answer", scope: Scope, receive: Receive, error: Problem) -> None:
        if answer.status == 0:
            await problem_response(error.status_code, error.detail, error.headers, error.more)(scope, receive, answer)

    def _tell(self, scope: Scope, status: int, seconds: float, size: int) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._figures.requests.labels(route, method, str(status)).inc()
        self._figures.seconds.labels(route).observe(seconds)
        fields = {"method": scope["method"][:16], "path": scope["path"][:200], "route": route, "status": status}
        _LOG.info("request", extra={"fields": {**fields, "ms": round(seconds * 1e3, 2), "body_bytes": size}})


_OURS = "an error on our side; the log tells more"
_CLOSE = {"Connection": "close"}
_HUNG_UP = 499
"""Told of a client that went before its answer; no client ever sees it, so it is nginx's and no standard's."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


def _too_large(limits: Limits) -> str:
    return f"a body may have {limits.body_bytes:,} bytes; send fewer images, or compress them"


class _Body:
    """Counts what is received, and gives up where it is too much or too slow."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self.count = 0
        self.cut = False
        """Whether the client hung up before it was whole."""
        self._deadline = time.monotonic() + limits.body_seconds
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:  # from here on it waits for the client to hang up
            return await self._receive()
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "the body did not come in time", _CLOSE) from None
        except Exception:  # of Ray's own kinds, where Serve's proxy has given up a client that is gone
            message = {"type": "http.disconnect"}
        self.count += len(message.get("body", b""))
        if self.count > self._limits.body_bytes:
            raise Problem(413, _too_large(self._limits), _CLOSE)
        self.cut = message["type"] == "http.disconnect"
        self._whole = self.cut or not message.get("more_body", False)
        return message


class _Answer:
    """Sends an answer with the headers that all have, and keeps its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            named = {name.lower() for name, _ in message.get("headers", ())}
            extra = [(b"x-request-id", request_id.get().encode()), *_HEADERS]
            if b"cache-control" not in named:
                extra.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "request_id": request_id.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Send the service's log to standard error, a JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    _LOG.handlers, _LOG.propagate = [handler], False
    _LOG.setLevel(logging.INFO)
