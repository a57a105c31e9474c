"""The Open Inference Protocol, version 2, for platforms that speak it.

Source:
    Open Inference Protocol specification, REST API (KServe).
"""

import base64
import binascii
import math
from http import HTTPStatus
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

import medsynth
from medsynth import images
from medsynth.errors import Reason, Rejected
from serve import bodies, skin_protocol
from serve.generator_routes import known
from serve.http import Limits, Problem, field_problem
from serve.wire import FOCUS, SKIN, About, Focus, Item, Judged, Refused, Skin, SkinAbout, model_headers

_CURL = (
    'curl -H \'Content-Type: application/json\' -d \'{"inputs": [{"name": "images", "shape": [1], '
    '"datatype": "BYTES", "data": ["\'$(base64 -w0 tile.png)\'"]}]}\' \'{base}/v2/models/focus/infer\''
)


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

    @router.get("", summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "medsynth", "version": medsynth.__version__, "extensions": []}

    @router.get("/models/{name}", summary="A model")
    async def model(name: str) -> dict[str, Any]:
        if name == SKIN:
            return skin_protocol.described(await known(skin).about())
        _known(name)
        about = await focus.about()
        classes = len(about.radii_px)
        return {
            "name": FOCUS,
            "versions": [about.version],
            "platform": "pytorch",
            "inputs": [{"name": "images", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "classes", "datatype": "FP32", "shape": [-1, classes]},
                {"name": "radius_px", "datatype": "FP32", "shape": [-1]},
                {"name": "certainty", "datatype": "FP32", "shape": [-1]},
            ],
        }

    @router.get("/models/{name}/ready", summary="Whether a model answers")
    async def ready(name: str) -> dict[str, Any]:
        if name == SKIN:
            await loaded(known(skin))
        else:
            _known(name)
            await loaded(focus)
        return {"name": name, "ready": True}

    @router.post("/models/{name}/infer", summary="Judge images, or draw some", openapi_extra={"x-curl": _CURL})
    async def infer(name: str, asked: InferRequest) -> Response:
        """Of focus: `images`, BYTES of files in base64, shape (n), or UINT8 pixels, shape (n, h, w, 3).

        Of skin: `condition`, BYTES of shape (n), and whatever else /v2/models/skin lists.
        """
        wanted = {str(one.get("name")) for one in asked.outputs}
        about: About | SkinAbout
        if name == SKIN:
            outputs, about = await skin_protocol.infer(known(skin), _tensors(asked), wanted, limits)
        else:
            _known(name)
            outputs, about = await _judged_of(focus, asked, wanted, limits)
        body: dict[str, Any] = {"model_name": name, "model_version": about.version}
        if asked.id is not None:
            body["id"] = asked.id
        body["outputs"] = outputs
        return JSONResponse(body, headers=model_headers(about))

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


def _known(name: str) -> None:
    if name != FOCUS:
        raise Problem(404, f"no model {name[:50]!r}; there are {FOCUS} and {SKIN}")


async def _judged_of(
    focus: Focus, asked: InferRequest, wanted: set[str], limits: Limits
) -> tuple[list[dict[str, Any]], About]:
    if len(asked.inputs) != 1:
        raise field_problem("inputs", "one input, images")
    found, about = await focus.score(_items(asked.inputs[0], limits))
    judged = [_judged(place, one) for place, one in enumerate(found)]
    outputs = [
        _output("classes", [len(judged), len(about.radii_px)], [share for one in judged for share in one.classes]),
        _output("radius_px", [len(judged)], [one.radius_px for one in judged]),
        _output("certainty", [len(judged)], [one.certainty for one in judged]),
    ]
    unknown = wanted - {one["name"] for one in outputs}
    if unknown:
        raise field_problem("outputs", f"no output {sorted(unknown)[0][:50]!r}")
    return [one for one in outputs if not wanted or one["name"] in wanted], about


def _tensors(asked: InferRequest) -> dict[str, tuple[int, str, list[int], list[Any]]]:
    return {one.name: (place, one.datatype, one.shape, one.data) for place, one in enumerate(asked.inputs)}


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
