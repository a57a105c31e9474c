"""The Open Inference Protocol, version 2, for platforms that speak it.

Source:
    Open Inference Protocol specification, REST API (KServe).
"""

import base64
import binascii
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

import medsynth
from medsynth import images
from medsynth.errors import Reason, Rejected
from serve import bodies, skin_protocol
from serve.generator_routes import known
from serve.http import Limits, Problem, field_problem, read
from serve.skin_protocol import Inferred
from serve.wire import FOCUS, FOCUS_NOTE, SKIN, About, Focus, Item, Judged, Refused, Skin, SkinAbout, model_headers

_INPUT = "images"
_OUTPUTS = {FOCUS: ("classes", "radius_px", "certainty"), SKIN: skin_protocol.OUTPUTS}

_CURL = (
    'curl -H \'Content-Type: application/json\' -d \'{"inputs": [{"name": "images", "shape": [1], '
    '"datatype": "BYTES", "data": ["\'$(base64 -w0 tile.png)\'"]}]}\' \'{base}/v2/models/focus/infer\''
)


Version = Annotated[str, Path(description="the one that /v2/models/{name} tells")]


class InputTensor(BaseModel):
    """Images, as files or as pixels; or what is asked of pictures to draw."""

    name: str = Field(max_length=100)
    shape: list[int] = Field(min_length=1, max_length=4)
    datatype: Literal["BYTES", "UINT8", "INT64"]
    parameters: dict[str, Any] = {}
    data: list[Any] = Field(description="BYTES: text, or files in base64; UINT8: pixels of shape (n, h, w, 3)")


class InferRequest(BaseModel):
    """What a client asks."""

    id: str | None = Field(default=None, max_length=200)
    parameters: dict[str, Any] = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=len(skin_protocol.INPUTS))
    outputs: list[dict[str, Any]] = []


def routes(focus: Focus, skin: Skin | None, limits: Limits) -> APIRouter:
    """The routes; ``/v2/health`` is the application's.

    Args:
        focus: the focus model, wherever it runs.
        skin: the generator; None where there are no weights.
        limits: of a request.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

    @read(router, "", summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "medsynth", "version": medsynth.__version__, "extensions": []}

    @read(router, "/models/{name}", summary="A model")
    async def model(name: str) -> dict[str, Any]:
        return _described(await _model(name, focus, skin).about())

    @read(router, "/models/{name}/versions/{version}", summary="A model's version")
    async def model_version(name: str, version: Version) -> dict[str, Any]:
        about = await _model(name, focus, skin).about()
        _check(version, about)
        return _described(about)

    @read(router, "/models/{name}/ready", summary="Whether a model answers")
    async def ready(name: str) -> dict[str, Any]:
        await loaded(_model(name, focus, skin))
        return {"name": name, "ready": True}

    @read(router, "/models/{name}/versions/{version}/ready", summary="Whether a model's version answers")
    async def version_ready(name: str, version: Version) -> dict[str, Any]:
        _check(version, await _model(name, focus, skin).about())
        return {"name": name, "version": version, "ready": True}

    @router.post("/models/{name}/infer", summary="Judge images, or draw some", openapi_extra={"x-curl": _CURL})
    async def infer(name: str, asked: InferRequest) -> Response:
        """Of focus: `images`, BYTES of files in base64, shape (n), or UINT8 pixels, shape (n, h, w, 3).

        Of skin: `condition`, BYTES of shape (n), and whatever else /v2/models/skin lists.
        """
        return _answer(asked, await inferred(name, asked))

    @router.post(
        "/models/{name}/versions/{version}/infer",
        summary="The same of a model's version",
        openapi_extra={"x-curl": _CURL.replace("/infer", "/versions/{version}/infer")},
    )
    async def version_infer(name: str, version: Version, asked: InferRequest) -> Response:
        """As without the version; 404 where another answers by now."""
        _check(version, await _model(name, focus, skin).about())
        found = await inferred(name, asked)
        _check(version, found.about)  # it may have been replaced meanwhile
        return _answer(asked, found)

    async def inferred(name: str, asked: InferRequest) -> Inferred:
        model = _model(name, focus, skin)
        tensors, wanted = _tensors(asked), _wanted(asked, _OUTPUTS[name])
        if model is focus:
            return await _judged_of(focus, asked.inputs, wanted, limits)
        return await skin_protocol.infer(known(skin), tensors, wanted, limits)

    return router


async def loaded(model: Focus | Skin) -> None:
    """See that a model's weights are loaded; it may be as busy as it likes.

    Raises:
        Problem: 503, they are not.
    """
    try:
        await model.about()
    except Problem as why:
        if why.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            raise


def _model(name: str, focus: Focus, skin: Skin | None) -> Focus | Skin:
    if name not in (FOCUS, SKIN):
        raise Problem(404, f"no model {name[:50]!r}; there are {FOCUS} and {SKIN}")
    return focus if name == FOCUS else known(skin)


def _check(version: str, about: About | SkinAbout) -> None:
    if version != about.version:
        raise Problem(404, f"no version {version[:50]!r} of {about.name}; there is {about.version}")


def _described(about: About | SkinAbout) -> dict[str, Any]:
    if isinstance(about, SkinAbout):
        return skin_protocol.described(about)
    return {
        "name": FOCUS,
        "versions": [about.version],
        "platform": "pytorch",
        "inputs": [{"name": _INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "classes", "datatype": "FP32", "shape": [-1, len(about.radii_px)]},
            {"name": "radius_px", "datatype": "FP32", "shape": [-1]},
            {"name": "certainty", "datatype": "FP32", "shape": [-1]},
        ],
    }


def _answer(asked: InferRequest, found: Inferred) -> Response:
    about = found.about
    body: dict[str, Any] = {"model_name": about.name, "model_version": about.version}
    if asked.id is not None:
        body["id"] = asked.id
    body["parameters"] = {"weights_sha256": about.weights_sha256, **found.parameters}
    body["outputs"] = found.outputs
    return JSONResponse(body, headers={**model_headers(about), **found.headers})


async def _judged_of(focus: Focus, inputs: list[InputTensor], wanted: set[str], limits: Limits) -> Inferred:
    for place, one in enumerate(inputs):
        if one.name != _INPUT:
            raise field_problem(f"inputs.{place}.name", f"no input {one.name[:50]!r}; known: {_INPUT}")
    found, about = await focus.score(_items(inputs[0], limits))
    judged = [_judged(place, one) for place, one in enumerate(found)]
    outputs = [
        _output("classes", [len(judged), len(about.radii_px)], [share for one in judged for share in one.classes]),
        _output("radius_px", [len(judged)], [one.radius_px for one in judged]),
        _output("certainty", [len(judged)], [one.certainty for one in judged]),
    ]
    chosen = [one for one in outputs if not wanted or one["name"] in wanted]
    return Inferred(chosen, about, {"note": FOCUS_NOTE}, {})


def _tensors(asked: InferRequest) -> dict[str, tuple[int, str, list[int], list[Any]]]:
    found: dict[str, tuple[int, str, list[int], list[Any]]] = {}
    for place, one in enumerate(asked.inputs):
        if one.name in found:
            raise field_problem(f"inputs.{place}.name", f"the input {one.name[:50]!r} is given twice")
        found[one.name] = (place, one.datatype, one.shape, one.data)
    return found


def _wanted(asked: InferRequest, known: Sequence[str]) -> set[str]:
    for place, one in enumerate(asked.outputs):
        if one.get("name") not in known:
            text = f"no output {str(one.get('name'))[:50]!r}; known: {', '.join(known)}"
            raise field_problem(f"outputs.{place}.name", text)
    return {one["name"] for one in asked.outputs}


def _items(tensor: InputTensor, limits: Limits) -> list[Item]:
    count = tensor.shape[0]
    if not 1 <= count <= limits.images:
        raise field_problem("inputs.0.shape", f"1 to {limits.images} images")
    if tensor.datatype == "BYTES":
        if len(tensor.shape) != 1 or len(tensor.data) != count:
            raise field_problem("inputs.0.data", f"shape {tensor.shape} and {len(tensor.data)} files; they must agree")
        files = [_file(place, one, limits) for place, one in enumerate(tensor.data)]
        bodies.check_pixels([one.pixels for one in files], limits)
        return files
    if tensor.datatype != "UINT8" or len(tensor.shape) != 4 or tensor.shape[3] != 3 or min(tensor.shape) < 1:
        raise field_problem("inputs.0", "images are BYTES of shape (n), or UINT8 of shape (n, h, w, 3)")
    if tensor.shape[1] * tensor.shape[2] > limits.pixels:
        raise Problem(413, f"{tensor.shape[2]}x{tensor.shape[1]} pixels; up to {limits.pixels:,} are taken")
    pixels = tensor.shape[1] * tensor.shape[2]
    bodies.check_pixels([pixels] * count, limits)
    try:
        values = np.array(tensor.data, dtype=np.float64).ravel()
    except (ValueError, TypeError, OverflowError):
        raise field_problem("inputs.0.data", "whole numbers from 0 to 255") from None
    if values.size != math.prod(tensor.shape):
        raise field_problem("inputs.0.data", f"{values.size} numbers for the shape {tensor.shape}")
    if not bool(((values >= 0) & (values <= 255) & (values == np.floor(values))).all()):
        raise field_problem("inputs.0.data", "whole numbers from 0 to 255")
    return [Item(one, pixels=pixels) for one in values.astype(np.uint8).reshape(tensor.shape)]


def _file(place: int, text: Any, limits: Limits) -> Item:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise field_problem(f"inputs.0.data.{place}", "an image file in base64") from None
    try:
        width, height = images.size(data)
        if width * height > limits.pixels:
            raise Rejected(Reason.TOO_MANY_PIXELS, f"{width}x{height} pixels; up to {limits.pixels:,} are taken")
    except Rejected as why:
        raise bodies.refusal(why, f"inputs.0.data.{place}") from why
    return Item(data, pixels=width * height)


def _judged(place: int, one: Judged | Refused) -> Judged:
    if isinstance(one, Refused):
        raise bodies.refusal(one.raised(), f"inputs.0.data.{place}")
    return one


def _output(name: str, shape: list[int], data: list[float]) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": shape, "data": data}
