"""What the OpenAPI document says that the routes do not, and the page at /docs, made of it without outside hosts."""

import copy
import html as escape
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from serve.http import OPEN_PATHS


def header(description: str, kind: str = "string", *, always: bool = True) -> dict[str, Any]:
    """A documented header of an answer.

    Args:
        description: of its value.
        kind: JSON type of its value.
        always: whether every such answer has it.
    """
    return {"description": description, "required": always, "schema": {"type": kind}}


MODEL_HEADERS = {
    "Medsynth-Model": header("NAME/VERSION of the model that answered"),
    "Medsynth-Weights-SHA256": header("digest of its weights"),
}
PICTURE_HEADERS = {
    "Medsynth-Seed": header("seeds of the pictures, with commas between them"),
    "Medsynth-Synthetic": header("true"),
}
VARY = {"Vary": header("Accept, which chooses the kind of answer")}

_REQUEST_ID = {"X-Request-ID": header("of the request: as it was sent, else one of our own")}
_TOKEN = {"token": {"type": "http", "scheme": "bearer", "description": "one of the operator's MEDSYNTH_API_TOKENS"}}
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
PROBLEM: dict[str, Any] = {
    "description": "An RFC 9457 problem: 400 damaged, 401 no token, 404, 405, 406, 408, 413 too large, 415 wrong type, "
    "422 wrong fields, 429 and 503 with Retry-After, 504 too slow",
    "headers": {
        "Retry-After": header("with 429 and 503: seconds until it is worth asking again", "integer", always=False),
        "WWW-Authenticate": header("with 401: Bearer", always=False),
        "Accept-Post": header("with 415: what is taken", always=False),
        "Allow": header("with 405: the methods that there are", always=False),
    },
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "request_id": {"type": "string"},
                    "reason": {"type": "string"},
                    "error": {"type": "string", "description": "under /v2, the detail again"},
                    "errors": {"type": "array", "items": {"type": "object"}},
                },
            }
        }
    },
}


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 where any length is taken")
    parameters: dict[str, Any] = {}


class ModelMetadata(BaseModel):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """A model that answers; one that does not is a 503."""

    name: str
    ready: bool


class OutputTensor(BaseModel):
    """What a model made of the inputs."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] = Field(description="numbers, row after row; of BYTES files in base64")


class InferResponse(BaseModel):
    """What a model answers."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="that of the request, if it had one")
    parameters: dict[str, str | bool] = Field(description="weights_sha256 and note; of pictures, synthetic and seeds")
    outputs: list[OutputTensor]


_PROTOCOL: dict[str, type[BaseModel]] = {
    "/v2": ServerMetadata,
    "/v2/models/{name}": ModelMetadata,
    "/v2/models/{name}/ready": ModelReady,
    "/v2/models/{name}/infer": InferResponse,
}
"""What the Open Inference Protocol prescribes as answers."""


def completed(openapi: Mapping[str, Any], *, guarded: bool) -> dict[str, Any]:
    """The document with what holds for more than one route: tokens, a request's id, the inference protocol's answers.

    Args:
        openapi: as the framework made it of the routes.
        guarded: whether tokens are demanded.
    """
    found = copy.deepcopy(dict(openapi))
    components = found["components"]
    components["securitySchemes"] = _TOKEN
    _, made = models_json_schema(
        [(model, "serialization") for model in _PROTOCOL.values()], ref_template="#/components/schemas/{model}"
    )
    components["schemas"].update(made["$defs"])
    needed: list[dict[str, list[str]]] = [{"token": []}] if guarded else [{}, {"token": []}]
    for path, methods in found["paths"].items():
        for about in methods.values():
            about["security"] = [] if path in OPEN_PATHS else needed
            for answer in about["responses"].values():
                answer["headers"] = {**answer.get("headers", {}), **_REQUEST_ID}
            if path in _PROTOCOL:
                schema = {"$ref": f"#/components/schemas/{_PROTOCOL[path].__name__}"}
                about["responses"]["200"]["content"]["application/json"]["schema"] = schema
            if _PROTOCOL.get(path) is InferResponse:
                of_skin = {name: {**told, "required": False} for name, told in PICTURE_HEADERS.items()}
                about["responses"]["200"]["headers"].update(MODEL_HEADERS | of_skin)
    return found


def commands(
    openapi: Mapping[str, Any], base: str, condition: str
) -> Iterator[tuple[str, str, Mapping[str, Any], str]]:
    """Method, path, description and a curl command for each route.

    Args:
        openapi: the document.
        base: address of the service.
        condition: that its generator draws.
    """
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            command = about.get("x-curl", f"curl '{{base}}{_filled(path)}'")
            yield method.upper(), path, about, command.replace("{base}", base).replace("{condition}", condition)


def _filled(path: str) -> str:
    model = path.replace("/v2/models/{name}", "/v2/models/focus")
    return model.replace("{job}", "0123456789abcdef" * 2).replace("{name}", "overlay.png")


def base_of(request: Request) -> str:
    """The address at which the service was asked, fit for a command; a Host that is no plain one is not repeated."""
    host = request.headers.get("host", "")
    known = f"{request.url.scheme}://{host}" if _HOST.fullmatch(host) else "http://127.0.0.1:8000"
    return known + str(request.scope.get("root_path", "")).rstrip("/")


def html(openapi: Mapping[str, Any], condition: str, base: str) -> str:
    """The page.

    Args:
        openapi: the document.
        condition: that the generator draws.
        base: address of the service in the commands.
    """
    parts = []
    for method, path, about, command in commands(openapi, base, condition):
        rows = [
            f"<li><code>{_text(one['name'])}</code> ({one['in']}) {_text(one.get('description', ''))}</li>"
            for one in about.get("parameters", ())
        ]
        kinds = ", ".join(about.get("requestBody", {}).get("content", {}))
        parts.append(
            f"<section><h2><code>{method} {_text(path)}</code></h2><p>{_text(about.get('summary', ''))}. "
            f"{_text(about.get('description', ''))}</p>"
            + (f"<p>Body: {_text(kinds)}</p>" if kinds else "")
            + (f"<ul>{''.join(rows)}</ul>" if rows else "")
            + f"<pre tabindex=0>{_text(command)}</pre></section>"
        )
    info = openapi["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>medsynth: HTTP</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/page/page.css"></head>'
        f"<body><main><h1>medsynth {_text(info['version'])}: HTTP</h1><p>{_text(info['description'])}</p>"
        '<p>Machine-readable: <a href="/openapi.json">/openapi.json</a>. Try it: <a href="/">the page</a>. Where '
        "tokens are demanded, add <code>-H 'Authorization: Bearer TOKEN'</code>. Errors are "
        "<code>application/problem+json</code>.</p>" + "".join(parts) + "</main></body></html>"
    )


def _text(value: object) -> str:
    return escape.escape(str(value))
