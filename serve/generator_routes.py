"""The skin generator's routes under /v1/skin."""

import base64
import io
import json
import secrets
import zipfile
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medsynth import seeds
from medsynth.skin import tone
from serve import bodies, openapi
from serve.http import Limits, Problem, field_problem
from serve.wire import SKIN_NOTE, Asked, Format, Misfit, Picture, Skin, SkinAbout, model_headers, model_name

JSON, ZIP = "application/json", "application/zip"
KINDS: dict[str, Format] = {"image/png": "png", "image/jpeg": "jpeg"}

_BINARY = {"type": "string", "format": "binary"}
_SAFE_BITS = 53  # of a seed that the service chooses: what JavaScript's numbers hold
_ZIP_TIME = (2020, 1, 1, 0, 0, 0)
_WHERE = ("lesion_box", "lesion_size", "size")


class Wanted(BaseModel):
    """What is asked of a picture however it is described."""

    model_config = ConfigDict(extra="forbid")

    device: str | None = Field(None, max_length=100, description="camera that sees it, one of /v1/models; else none")
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="of the first picture; else one is chosen, and told")
    count: int = Field(1, ge=1, le=1000, description="pictures with seeds of their own")
    side: int | None = Field(None, ge=16, le=1024, description="pixels of the answer on a side; else the model's own")
    format: Format | None = Field(None, description="of the files; else what Accept says, else png")


class SkinImages(Wanted):
    """A picture in words. A corpus row's condition, type, skin_rgb, lesion_box, device and seed give its pixels."""

    condition: str = Field(max_length=200, description="one of /v1/models", examples=["nevus"])
    fitzpatrick: Literal["I", "II", "III", "IV", "V", "VI"] | None = Field(
        None, description="skin type, I to VI or 1 to 6; with no skin_rgb, the colour follows from type and seed"
    )
    skin_rgb: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] | None = Field(
        None, description="the skin's colour instead of a type"
    )
    lesion_box: Annotated[list[int], Field(min_length=4, max_length=4)] | None = Field(
        None, description="x0, y0, x1, y1 in pixels of the model's own picture"
    )
    lesion_size: float | None = Field(
        None, gt=0, le=1, allow_inf_nan=False, description="side of a square box as a share of the picture's side"
    )
    lesion_x: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="its centre, from the left")
    lesion_y: float = Field(0.5, ge=0, le=1, allow_inf_nan=False, description="its centre, from the top")
    size: Literal["small", "medium", "large"] | None = Field(
        None, description="size class of the corpus recipe: form and place follow from the seed"
    )

    @field_validator("fitzpatrick", mode="before")
    @classmethod
    def _a_type(cls, value: Any) -> Any:
        kind = tone.parse_type(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
        return value if kind is None else tone.TYPES[kind - 1]

    @model_validator(mode="after")
    def _one_place(self) -> "SkinImages":
        told = self.model_fields_set
        if self.lesion_size is None and {"lesion_x", "lesion_y"} & told:
            raise ValueError("lesion_x and lesion_y are the centre of a lesion_size; send that too")
        places = [name for name in _WHERE if getattr(self, name) is not None]
        if len(places) > 1:
            raise ValueError(f"{' and '.join(places)} each say how large the lesion is; send one")
        return self


class Model(BaseModel):
    """Which model answered."""

    name: str
    version: str
    weights_sha256: str


class SkinImage(BaseModel):
    """One picture: seed, condition, fitzpatrick, skin_rgb, lesion_box, device and side, sent again, give it again."""

    seed: int
    condition: str
    fitzpatrick: str
    skin_rgb: list[int]
    ita_deg: float = Field(description="individual typology angle of the asked colour")
    lesion_box: list[int] = Field(description="in pixels of the model's own picture")
    device: str | None
    side: int
    synthetic: Literal[True]
    media_type: str
    data: str = Field(description="the file in base64")


class SkinAnswer(BaseModel):
    """Several pictures, or one, as JSON."""

    model: Model
    note: str
    images: list[SkinImage]


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One picture as its file; one or several as JSON, or as a zip of files with images.json",
        "headers": {
            **openapi.VARY,
            **openapi.MODEL_HEADERS,
            **openapi.PICTURE_HEADERS,
        },
        "content": {**{kind: {"schema": _BINARY} for kind in KINDS}, ZIP: {"schema": _BINARY}},
    }
}


def routes(skin: Skin | None, limits: Limits) -> APIRouter:
    """The routes.

    Args:
        skin: the model, wherever it runs; None where there are no weights.
        limits: of a request.
    """
    router = APIRouter(prefix="/v1/skin", tags=["skin"])

    async def answered(request: Request, asked: Asked, wanted: Wanted) -> Response:
        if wanted.count > limits.pictures:
            raise field_problem("count", f"up to {limits.pictures} pictures in a request", body=asked.map is None)
        kind = bodies.negotiate(request.headers.get("accept"), _offered(wanted))
        chosen = secrets.randbits(_SAFE_BITS) if wanted.seed is None else wanted.seed
        made, about = await known(skin).draw(asked, seeds_from(chosen, wanted.count))
        if isinstance(made, Misfit):
            raise field_problem(made.field, made.detail, body=asked.map is None or made.field == "map")
        headers = {
            "Vary": "Accept",
            "Medsynth-Seed": ", ".join(str(one.seed) for one in made),
            "Medsynth-Synthetic": "true",
            **model_headers(about),
        }
        if kind == JSON:
            return JSONResponse(_as_json(made, about, asked.format), headers=headers)
        if kind == ZIP:
            return Response(_as_zip(made, about, asked.format), media_type=ZIP, headers=headers)
        return Response(made[0].data, media_type=kind, headers=headers)

    @router.post(
        "/images",
        dependencies=[bodies.only_query()],
        response_model=SkinAnswer,
        responses=_ANSWERS,
        summary="Draw skin photos",
        openapi_extra={
            "x-curl": "curl -H 'Content-Type: application/json' -H 'Accept: image/png' -d "
            '\'{"condition": "{condition}", "fitzpatrick": "IV", "lesion_size": 0.3, "seed": 7}\' '
            "'{base}/v1/skin/images'"
        },
    )
    async def drawn(request: Request, wanted: SkinImages) -> Response:
        """One picture as a file, several as JSON or zip, as the Accept header asks. The same seed, the same pixels."""
        place = None if wanted.lesion_size is None else (wanted.lesion_size, wanted.lesion_x, wanted.lesion_y)
        asked = Asked(
            condition=wanted.condition,
            fitzpatrick=None if wanted.fitzpatrick is None else tone.TYPES.index(wanted.fitzpatrick) + 1,
            skin=None if wanted.skin_rgb is None else (wanted.skin_rgb[0], wanted.skin_rgb[1], wanted.skin_rgb[2]),
            box=None if wanted.lesion_box is None else _four(wanted.lesion_box),
            place=place,
            size=wanted.size,
            device=wanted.device,
            side=wanted.side,
            format=_format(request, wanted),
        )
        return await answered(request, asked, wanted)

    @router.post(
        "/images/from-map",
        dependencies=[bodies.only_query(*Wanted.model_fields)],
        response_model=SkinAnswer,
        responses=_ANSWERS,
        summary="Draw skin photos from a map",
        openapi_extra={
            "requestBody": {"required": True, "content": {"image/png": {"schema": _BINARY}}},
            "x-curl": "curl -H 'Content-Type: image/png' -H 'Accept: image/png' --data-binary @map.png "
            "'{base}/v1/skin/images/from-map?seed=7'",
        },
    )
    async def from_map(request: Request, wanted: Annotated[Wanted, Query()]) -> Response:
        """A PNG of the model's size in two colours: the skin's, and where the lesion is, one condition's.

        The lesion's form is followed. A rectangle alone stands, to weights whose `region` in /v1/models is `box` as the
        shipped ones' is, for a lesion of a form of its own in it. Size and colours are told there, too.
        """
        upload, fields = await bodies.one(request, limits)
        if fields:
            raise field_problem(next(iter(fields))[:100], "unknown; the form takes the map, the query all else")
        if upload.data[:8] != b"\x89PNG\r\n\x1a\n":
            raise Problem(415, "a map is a PNG: other kinds change its colours", {"Accept-Post": "image/png"})
        asked = Asked(map=upload.data, device=wanted.device, side=wanted.side, format=_format(request, wanted))
        return await answered(request, asked, wanted)

    return router


def known(skin: Skin | None) -> Skin:
    """The generator.

    Raises:
        Problem: 404, this service has none.
    """
    if skin is None:
        raise Problem(404, ABSENT)
    return skin


ABSENT = "this service has no skin generator: no weights are shipped; its operator can set skin_weights"


def seeds_from(first: int, count: int) -> list[int]:
    """Seeds of a request's pictures: its own, then others that follow from it."""
    shift = 64 - _SAFE_BITS
    return [first, *(seeds.digest64(first, "further picture", place) >> shift for place in range(1, count))]


def as_row(one: Picture) -> dict[str, Any]:
    """A picture without its file, by the names of a corpus's columns."""
    return {
        "seed": one.seed,
        "condition": one.condition,
        "fitzpatrick": one.fitzpatrick,
        "skin_rgb": list(one.skin_rgb),
        "ita_deg": one.ita_deg,
        "lesion_box": list(one.lesion_box),
        "device": one.device,
        "side": one.side,
        "synthetic": True,
    }


def _offered(wanted: Wanted) -> list[str]:
    if wanted.count > 1:
        return [JSON, ZIP]
    return [kind for kind, form in KINDS.items() if wanted.format in (None, form)] + [JSON, ZIP]


def _format(request: Request, wanted: Wanted) -> Format:
    if wanted.format is not None:
        return wanted.format
    return KINDS.get(bodies.negotiate(request.headers.get("accept"), _offered(wanted)), "png")


def _four(box: list[int]) -> tuple[int, int, int, int]:
    return box[0], box[1], box[2], box[3]


def _as_json(made: list[Picture], about: SkinAbout, form: Format) -> dict[str, Any]:
    files = [
        {**as_row(one), "media_type": f"image/{form}", "data": base64.b64encode(one.data).decode()} for one in made
    ]
    return {"model": model_name(about), "note": SKIN_NOTE, "images": files}


def _as_zip(made: list[Picture], about: SkinAbout, form: Format) -> bytes:
    sink = io.BytesIO()
    names = [f"{place:03d}-{one.seed}.{'jpg' if form == 'jpeg' else 'png'}" for place, one in enumerate(made)]
    rows = [{"file": name, **as_row(one)} for name, one in zip(names, made, strict=True)]
    told = {"model": model_name(about), "note": SKIN_NOTE, "images": rows}
    with zipfile.ZipFile(sink, "w") as archive:
        for name, one in zip(names, made, strict=True):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), one.data)
        archive.writestr(zipfile.ZipInfo("images.json", _ZIP_TIME), json.dumps(told))
    return sink.getvalue()
