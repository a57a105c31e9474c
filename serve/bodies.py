"""Images out of a request: raw or multipart, checked by their headers before a pixel is decoded."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from medsynth import images
from medsynth.errors import Reason, Rejected
from serve.http import Limits, Problem, field_problem

KINDS = "image/jpeg, image/png, image/tiff, image/bmp, image/gif, image/webp"
_CHARSETS = ("utf-8", "us-ascii", "ascii", "iso-8859-1", "latin-1")
"""Of a form's names; Python knows others that make of a name what cannot be written down."""
_LONGEST_NAME = 255
_SAYS_NOTHING = ("", "image/*", "application/octet-stream")
"""Types that leave it to the bytes."""
_LARGE = 1 << 18
"""Bytes from which on reading the headers is not done between the answers to others."""
_STATUS = {
    Reason.TOO_MANY_PIXELS: 413,
    Reason.UNSUPPORTED: 415,
    Reason.SEVERAL_FRAMES: 415,
    Reason.TOO_SMALL: 422,
    Reason.NOT_BRIGHT_FIELD: 422,
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

    @property
    def pixels(self) -> int:
        """How many it has."""
        return self.width * self.height


def refusal(why: Rejected, name: str | None = None) -> Problem:
    """What a rejected image is answered with: 413, 415, 422, and 400 for what is damaged."""
    where = f"{name}: " if name else ""
    return Problem(_STATUS.get(why.reason, 400), f"{where}{why.detail}", reason=str(why.reason))


async def one(request: Request, limits: Limits) -> tuple[Upload, dict[str, str]]:
    """The one image of a request, and a form's other fields.

    Raises:
        Problem: there is none or there are several, or it is not an image.
    """
    found, fields = await several(request, limits)
    if len(found) != 1:
        raise Problem(422, f"{len(found)} images; send one", errors=[{"field": "body", "detail": "one image"}])
    return found[0], fields


async def several(request: Request, limits: Limits) -> tuple[list[Upload], dict[str, str]]:
    """The images of a request, and a form's other fields.

    Args:
        request: a raw ``image/*`` body, or ``multipart/form-data`` with any number of files.
        limits: of bytes, pixels and images.

    Raises:
        Problem: 415 for another type, 413 for too many pixels, 4xx for whatever else is wrong with it.
    """
    header = request.headers.get("content-type", "")
    kind = media_type(header)
    fields: dict[str, str] = {}
    parts: list[_Part] = []
    if kind.startswith("image/"):
        parts.append(_Part(None, kind, await request.body()))
    elif kind == "multipart/form-data":
        _check_charset(header)
        async with request.form(max_files=limits.images, max_fields=16, max_part_size=1 << 16) as form:
            for key, value in form.multi_items():
                name = _shown(key)
                if isinstance(value, UploadFile):
                    declared = media_type(value.content_type or "")
                    parts.append(_Part(_shown(value.filename or key), declared, await value.read()))
                elif name in fields:
                    raise field_problem(name[:100], "sent twice")
                else:
                    fields[name] = value
    else:
        text = f"{kind or 'a body without Content-Type'} is not taken; send {KINDS}, or multipart/form-data of them"
        raise Problem(415, text, {"Accept-Post": f"{KINDS}, multipart/form-data"})
    if not parts:
        raise Problem(422, "no image in the form", errors=[{"field": "body", "detail": "a file is needed"}])
    if sum(len(part.data) for part in parts) < _LARGE:
        return _uploads(parts, limits), fields
    return await asyncio.to_thread(_uploads, parts, limits), fields


@dataclass(frozen=True)
class _Part:
    name: str | None
    kind: str
    """As it says itself."""
    data: bytes


def _check_charset(header: str) -> None:
    charset = parse_options_header(header)[1].get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _CHARSETS:
        raise Problem(415, f"charset {_shown(charset)!r} is not taken; send the form in utf-8")


def _shown(name: str) -> str:
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in name[:_LONGEST_NAME])


def _uploads(parts: list[_Part], limits: Limits) -> list[Upload]:
    found = [_upload(part, limits) for part in parts]
    check_pixels([one.pixels for one in found], limits)
    return found


def check_pixels(counts: Sequence[int], limits: Limits) -> None:
    """Refuse images that have too many pixels together.

    Args:
        counts: pixels of each image of a request.
        limits: of a request.

    Raises:
        Problem: 413.
    """
    if sum(counts) > limits.request_pixels:
        text = f"{len(counts)} images of {sum(counts):,} pixels together; up to {limits.request_pixels:,} are taken"
        raise Problem(413, f"{text}: send fewer at a time", reason=str(Reason.TOO_MANY_PIXELS))


def _upload(part: _Part, limits: Limits) -> Upload:
    named = part.kind in KINDS.split(", ") or part.kind in _SAYS_NOTHING
    if not named and not images.recognised(part.data):
        where = f"{part.name}: " if part.name else ""
        text = f"{where}{_shown(part.kind)} is not taken, nor does it look like {KINDS}"
        raise Problem(415, text, {"Accept-Post": KINDS}, reason=str(Reason.UNSUPPORTED))
    try:
        width, height = images.size(part.data)
        if width * height > limits.pixels:
            raise Rejected(Reason.TOO_MANY_PIXELS, f"{width}x{height} pixels; up to {limits.pixels:,} are taken")
    except Rejected as why:
        raise refusal(why, part.name) from why
    return Upload(part.name, part.data, width, height)


def only_query(*names: str) -> Any:
    """A dependency of a route: what else stands in the query, or stands there twice, is refused with 422.

    Args:
        names: that the route takes.
    """

    async def checked(request: Request) -> None:
        for name, count in Counter(key for key, _ in request.query_params.multi_items()).items():
            if name not in names:
                known = ", ".join(names) or "nothing"
                raise field_problem(_shown(name)[:100], f"unknown; the query takes {known}", body=False)
            if count > 1:
                raise field_problem(name, "sent twice", body=False)

    return Depends(checked)


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
