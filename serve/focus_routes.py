"""The focus model's routes under /v1/focus."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from serve import bodies, openapi
from serve.bodies import Upload
from serve.http import Limits, field_problem
from serve.wire import FOCUS, FOCUS_NOTE, FORMS, Focus, Item, Judged, Refused, model_headers, model_name

Mpp = Annotated[
    float | None,
    Query(ge=0.01, le=20, allow_inf_nan=False, description="µm per pixel of the images; else what each file says"),
]
_BINARY = {"type": "string", "format": "binary"}
_RAW = {kind: {"schema": _BINARY} for kind in bodies.KINDS.split(", ")}


class ModelName(BaseModel):
    """Which model answered."""

    name: str = Field(examples=[FOCUS])
    version: str
    weights_sha256: str


class FocusScore(BaseModel):
    """How far out of focus one image is."""

    name: str | None = Field(description="of the file in the form")
    width: int
    height: int
    mpp: float | None = Field(description="µm per pixel that was used")
    classes: list[float] = Field(description="probability of each focus class, sharpest first")
    focus_class: int = Field(description="the class nearest to the expected radius")
    radius_px: float = Field(description="expected blur radius in pixels")
    radius_um: float | None = Field(description="the same in µm; null where the pixel size is not known")
    certainty: float = Field(ge=0, le=1)
    grade: str | None = Field(
        description="in focus, slight, moderate or severe; null where the pixel size is not known"
    )


class FocusScores(BaseModel):
    """What is said of the images of a request, in their order."""

    model: ModelName
    note: str
    scores: list[FocusScore]


def routes(focus: Focus, limits: Limits) -> APIRouter:
    """The routes.

    Args:
        focus: the model, wherever it runs.
        limits: of a request.
    """
    router = APIRouter(prefix="/v1/focus", tags=["focus"])

    @router.post(
        "/scores",
        dependencies=[bodies.only_query("mpp")],
        response_model=FocusScores,
        responses={200: {"headers": openapi.MODEL_HEADERS}},
        summary="How far out of focus images are",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    **_RAW,
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "properties": {
                                "images": {"type": "array", "items": _BINARY, "maxItems": limits.images},
                                "mpp": {"type": "number"},
                            },
                            "required": ["images"],
                        }
                    },
                },
            },
            "x-curl": "curl -H 'Content-Type: image/png' --data-binary @tile.png '{base}/v1/focus/scores?mpp=0.25'",
        },
    )
    async def scores(request: Request, mpp: Mpp = None) -> Response:
        """One raw `image/*` body, or many in a form. Each image is judged by itself.

        Greyscale is taken as colour of equal parts: the network looks at the luma.
        """
        uploads, fields = await bodies.several(request, limits)
        scale = _mpp(fields, mpp)
        judged, about = await focus.score([Item(upload.data, scale, pixels=upload.pixels) for upload in uploads])
        answers = [_score(upload, one) for upload, one in zip(uploads, judged, strict=True)]
        body = {"model": model_name(about), "note": FOCUS_NOTE, "scores": answers}
        return JSONResponse(body, headers=model_headers(about))

    @router.post(
        "/heatmaps",
        dependencies=[bodies.only_query("mpp")],
        response_class=Response,
        responses={
            200: {
                "description": "The map, as the Accept header asks: a picture, a grid of cells, or QuPath's regions",
                "headers": {**openapi.VARY, **openapi.MODEL_HEADERS},
                "content": {
                    "image/png": {"schema": _BINARY},
                    "application/json": {"schema": {"type": "object"}},
                    "application/geo+json": {"schema": {"type": "object"}},
                },
            }
        },
        summary="Where an image is out of focus",
        openapi_extra={
            "requestBody": {"required": True, "content": _RAW},
            "x-curl": "curl -H 'Content-Type: image/png' -H 'Accept: image/png' --data-binary @tile.png "
            "'{base}/v1/focus/heatmaps?mpp=0.25'",
        },
    )
    async def heatmaps(request: Request, mpp: Mpp = None) -> Response:
        """Only tissue is judged, as on a slide. Needs the pixel size: `mpp`, or what a TIFF says.

        Tissue is told by its stain: a greyscale image is refused with 422; /v1/focus/scores takes it.
        """
        kind = bodies.negotiate(request.headers.get("accept"), list(FORMS))
        upload, fields = await bodies.one(request, limits)
        drawn, about = await focus.heat_map(Item(upload.data, _mpp(fields, mpp), pixels=upload.pixels), FORMS[kind])
        if isinstance(drawn, Refused):
            raise bodies.refusal(drawn.raised(), upload.name)
        return Response(drawn, media_type=kind, headers={"Vary": "Accept", **model_headers(about)})

    return router


def _score(upload: Upload, judged: Judged | Refused) -> dict[str, Any]:
    if isinstance(judged, Refused):
        raise bodies.refusal(judged.raised(), upload.name)
    return {"name": upload.name, **asdict(judged)}


def _mpp(fields: dict[str, str], query: float | None) -> float | None:
    unknown = sorted(set(fields) - {"mpp"})
    if unknown:
        raise field_problem(unknown[0][:100], "unknown; the form takes files and mpp")
    if "mpp" not in fields:
        return query
    if query is not None:
        raise field_problem("mpp", "sent twice, in the query too")
    try:
        found = float(fields["mpp"])
    except ValueError:
        raise field_problem("mpp", "not a number") from None
    if not 0.01 <= found <= 20:
        raise field_problem("mpp", "µm per pixel lie between 0.01 and 20")
    return found
