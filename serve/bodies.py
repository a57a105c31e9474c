"""Images out of a request: raw or multipart, checked by their headers before a pixel is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile

from medsynth import images
from medsynth.errors import Reason, Rejected
from serve.http import Limits, Problem

KINDS = "image/jpeg, image/png, image/tiff, image/bmp, image/gif, image/webp"
_STATUS = {
    Reason.TOO_MANY_PIXELS: 413,
    Reason.UNSUPPORTED: 415,
    Reason.SEVERAL_FRAMES: 415,
    Reason.TOO_SMALL: 422,
    Reason.NO_TISSUE: 422,
    Reason.UNKNOWN_MPP: 422,
}


@dataclass(frozen=True)
class Upload:
    """An image as it was sent; its header was read, its pixels were not."""

    name: str | None
    data: bytes
    width: int
    height: int


def refusal(why: Rejected, name: str | None = None) -> Problem:
    """What a rejected image is answered with: 413, 415, 422, and 400 for what is damaged."""
    where = f"{name}: " if name else ""
    return Problem(_STATUS.get(why.reason, 400), f"{where}{why.detail}", reason=str(why.reason))


async def one(request: Request, limits: Limits) -> Upload:
    """The one image of a request.

    Raises:
        Problem: there is none or there are several, or it is not an image.
    """
    found, _ = await several(request, limits)
    if len(found) != 1:
        raise Problem(422, f"{len(found)} images; send one", errors=[{"field": "body", "detail": "one image"}])
    return found[0]


async def several(request: Request, limits: Limits) -> tuple[list[Upload], dict[str, str]]:
    """The images of a request, and a form's other fields.

    Args:
        request: a raw ``image/*`` body, or ``multipart/form-data`` with any number of files.
        limits: of bytes, pixels and images.

    Raises:
        Problem: 415 for another type, 413 for too many pixels, 4xx for whatever else is wrong with it.
    """
    kind = media_type(request.headers.get("content-type", ""))
    fields: dict[str, str] = {}
    parts: list[tuple[str | None, bytes]] = []
    if kind.startswith("image/"):
        parts.append((None, await request.body()))
    elif kind == "multipart/form-data":
        async with request.form(max_files=limits.images, max_fields=16, max_part_size=1 << 16) as form:
            for key, value in form.multi_items():
                if isinstance(value, UploadFile):
                    parts.append((value.filename or key, await value.read()))
                else:
                    fields[key] = value
    else:
        text = f"{kind or 'a body without Content-Type'} is not taken; send {KINDS}, or multipart/form-data of them"
        raise Problem(415, text, {"Accept-Post": f"{KINDS}, multipart/form-data"})
    if not parts:
        raise Problem(422, "no image in the form", errors=[{"field": "body", "detail": "a file is needed"}])
    return [_upload(name, data, limits) for name, data in parts], fields


def _upload(name: str | None, data: bytes, limits: Limits) -> Upload:
    try:
        width, height = images.size(data)
        if width * height > limits.pixels:
            raise Rejected(Reason.TOO_MANY_PIXELS, f"{width}x{height} pixels; up to {limits.pixels:,} are taken")
    except Rejected as why:
        raise refusal(why, name) from why
    return Upload(name, data, width, height)


def media_type(header: str) -> str:
    """The type that a Content-Type header names, in lower case and without parameters."""
    return header.partition(";")[0].strip().lower()


def negotiate(accept: str | None, offered: Sequence[str]) -> str:
    """The offered type that a client likes best.

    Args:
        accept: its Accept header.
        offered: what there is, the default first.

    Raises:
        Problem: 406, none of it is acceptable.

    Source:
        RFC 9110, section 12.5.1: the most specific range that matches a type gives its weight.
    """
    ranges = [_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    weights = [_weight(kind, ranges) for kind in offered]
    best = max(range(len(offered)), key=lambda at: (weights[at], -at))
    if weights[best] <= 0:
        raise Problem(406, f"none of {', '.join(offered)} is acceptable to the request's Accept header")
    return offered[best]


def _range(text: str) -> tuple[str, float]:
    kind, _, rest = text.strip().lower().partition(";")
    for parameter in rest.split(";"):
        key, _, value = parameter.strip().partition("=")
        if key == "q":
            try:
                weight = float(value)
            except ValueError:
                return kind.strip(), 0.0
            return kind.strip(), weight if 0 <= weight <= 1 else 0.0
    return kind.strip(), 1.0


def _weight(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    for wanted in (kind, kind.partition("/")[0] + "/*", "*/*"):
        found = [weight for name, weight in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0
