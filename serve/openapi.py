"""What the OpenAPI document says that the routes do not."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

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


class VersionReady(ModelReady):
    """A model's version that answers."""

    version: str


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
    "/v2/models/{name}/versions/{version}": ModelMetadata,
    "/v2/models/{name}/versions/{version}/ready": VersionReady,
    "/v2/models/{name}/versions/{version}/infer": InferResponse,
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
