"""A small client of the service.

Example:
    >>> service = Client("http://127.0.0.1:8000")  # doctest: +SKIP
    >>> service.score(open("tile.png", "rb").read(), mpp=0.25).grade  # doctest: +SKIP
    'in focus'
"""

import base64
import contextlib
import http.client
import json
import os
import secrets
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

_JSON_BOTH = {"Content-Type": "application/json", "Accept": "application/json"}
TOKENS = "MEDSYNTH_API_TOKENS"
Form = Literal["image/png", "application/json", "application/geo+json"]
Format = Literal["png", "jpeg"]
Size = Literal["small", "medium", "large"]


class ServiceError(Exception):
    """The service refused, or could not.

    Args:
        status: of HTTP; 0 where no answer came.
        problem: the members of its RFC 9457 answer, and ``retry_after``, in seconds.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('title', '')}: {problem.get('detail', '')}")
        self.status = status
        self.problem = dict(problem)


@dataclass(frozen=True)
class Score:
    """How far out of focus an image is."""

    width: int
    height: int
    mpp: float | None
    """µm per pixel."""
    classes: list[float]
    """Probability of each focus class, sharpest first."""
    focus_class: int
    radius_px: float
    radius_um: float | None
    """None where the pixel size is not known."""
    certainty: float
    grade: str | None
    model: str
    """Name and version of the model."""
    weights_sha256: str


@dataclass(frozen=True)
class SkinImage:
    """A synthetic skin photo, for training alone."""

    data: bytes
    """The file."""
    media_type: str
    side: int
    seed: int
    condition: str
    fitzpatrick: str
    """I to VI."""
    skin_rgb: list[int]
    ita_deg: float
    """Angle of that colour."""
    lesion_box: list[int]
    """x0, y0, x1, y1 in pixels of the model's own picture."""
    device: str | None
    model: str
    """Name and version of the model."""
    weights_sha256: str


class Client:
    """Asks the service, and asks again where it says that it is busy. Not to be shared by threads.

    Args:
        address: such as ``http://127.0.0.1:8000``.
        token: the first of ``MEDSYNTH_API_TOKENS`` by default.
        seconds: to wait for an answer.
        attempts: for answers of 429 and 503, which say when to come back.
    """

    def __init__(self, address: str, token: str | None = None, seconds: float = 60.0, attempts: int = 5) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{address}: write http://HOST:PORT or https://HOST")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=seconds)
        known = os.environ.get(TOKENS, "").replace(",", " ").split()
        self._token = token or (known[0] if known else None)
        self._attempts = attempts
        self._base = parts.path.rstrip("/")

    def score(self, image: bytes, mpp: float | None = None) -> Score:
        """Judge one image.

        Args:
            image: a file's bytes.
            mpp: µm per pixel; what the file says by default.

        Raises:
            ServiceError: the image is refused, or there is no answer.
        """
        return self.scores([image], mpp)[0]

    def scores(self, images: Sequence[bytes], mpp: float | None = None) -> list[Score]:
        """Judge images in one request.

        Args:
            images: files' bytes.
            mpp: µm per pixel of all; what each file says by default.

        Raises:
            ServiceError: one of them is refused, or there is no answer.
        """
        edge = secrets.token_hex(16)
        parts = [
            b'--%s\r\nContent-Disposition: form-data; name="images"; filename="%d"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n%s\r\n" % (edge.encode(), place, image)
            for place, image in enumerate(images)
        ]
        body = b"".join(parts) + b"--%s--\r\n" % edge.encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        found = self._json("POST", "/v1/focus/scores" + _query(mpp), body, headers)
        model = f"{found['model']['name']} {found['model']['version']}"
        known = {one.name for one in fields(Score)}
        return [
            Score(
                **{key: value for key, value in one.items() if key in known},
                model=model,
                weights_sha256=found["model"]["weights_sha256"],
            )
            for one in found["scores"]
        ]

    def heat_map(self, image: bytes, mpp: float | None = None, form: Form = "image/png") -> bytes:
        """Map an image's focus.

        Args:
            image: a file's bytes.
            mpp: µm per pixel; what the file says by default.
            form: a picture, a grid of cells as JSON, or regions as GeoJSON.

        Raises:
            ServiceError: the image is refused, or there is no answer.
        """
        headers = {"Content-Type": "image/*", "Accept": form}
        return self._ask("POST", "/v1/focus/heatmaps" + _query(mpp), image, headers)

    def skin_image(
        self,
        condition: str,
        *,
        fitzpatrick: str | int | None = None,
        skin_rgb: Sequence[int] | None = None,
        lesion_box: Sequence[int] | None = None,
        lesion_size: float | None = None,
        lesion_x: float | None = None,
        lesion_y: float | None = None,
        size: Size | None = None,
        device: str | None = None,
        seed: int | None = None,
        side: int | None = None,
        format: Format | None = None,
    ) -> SkinImage:
        """Draw one skin photo. What is None is left to the service, which tells what it chose.

        Args:
            condition: one of :meth:`models`.
            fitzpatrick: skin type, I to VI or 1 to 6.
            skin_rgb: the skin's colour instead of a type, each part from 0 to 255.
            lesion_box: x0, y0, x1, y1 in pixels of the model's own picture.
            lesion_size: instead of the box: side of a square one as a share of the picture's side.
            lesion_x: its centre from the left, 0 to 1; 0.5 by default.
            lesion_y: its centre from the top, 0 to 1; 0.5 by default.
            size: instead of both: a size class, whose form and place follow from the seed.
            device: camera that sees it, one of :meth:`models`; none by default.
            seed: the same gives the same pixels.
            side: pixels of the answer on a side; the model's own by default.
            format: of the file; png by default.

        Raises:
            ServiceError: it cannot be drawn, or there is no answer.
        """
        return self.skin_images(
            condition,
            1,
            fitzpatrick=fitzpatrick,
            skin_rgb=skin_rgb,
            lesion_box=lesion_box,
            lesion_size=lesion_size,
            lesion_x=lesion_x,
            lesion_y=lesion_y,
            size=size,
            device=device,
            seed=seed,
            side=side,
            format=format,
        )[0]

    def skin_images(
        self,
        condition: str,
        count: int,
        *,
        fitzpatrick: str | int | None = None,
        skin_rgb: Sequence[int] | None = None,
        lesion_box: Sequence[int] | None = None,
        lesion_size: float | None = None,
        lesion_x: float | None = None,
        lesion_y: float | None = None,
        size: Size | None = None,
        device: str | None = None,
        seed: int | None = None,
        side: int | None = None,
        format: Format | None = None,
    ) -> list[SkinImage]:
        """Draw skin photos in one request. What is None is left to the service, which tells what it chose.

        Args:
            condition: one of :meth:`models`.
            count: of photos, each with a seed of its own.
            fitzpatrick: skin type, I to VI or 1 to 6.
            skin_rgb: the skin's colour instead of a type, each part from 0 to 255.
            lesion_box: x0, y0, x1, y1 in pixels of the model's own picture.
            lesion_size: instead of the box: side of a square one as a share of the picture's side.
            lesion_x: its centre from the left, 0 to 1; 0.5 by default.
            lesion_y: its centre from the top, 0 to 1; 0.5 by default.
            size: instead of both: a size class, whose form and place follow from the seed.
            device: camera that sees them, one of :meth:`models`; none by default.
            seed: of the first; the others' follow from it.
            side: pixels of each photo on a side; the model's own by default.
            format: of the files; png by default.

        Raises:
            ServiceError: they cannot be drawn, or there is no answer.
        """
        wanted = {
            "condition": condition,
            "count": count,
            "fitzpatrick": fitzpatrick,
            "skin_rgb": skin_rgb,
            "lesion_box": lesion_box,
            "lesion_size": lesion_size,
            "lesion_x": lesion_x,
            "lesion_y": lesion_y,
            "size": size,
            "device": device,
            "seed": seed,
            "side": side,
            "format": format,
        }
        return _skin_images(self._json("POST", "/v1/skin/images", json.dumps(_told(wanted)).encode(), _JSON_BOTH))

    def skin_images_from_map(
        self,
        drawn: bytes,
        count: int = 1,
        *,
        device: str | None = None,
        seed: int | None = None,
        side: int | None = None,
        format: Format | None = None,
    ) -> list[SkinImage]:
        """Draw skin photos of a map.

        Args:
            drawn: a PNG of the model's size: the skin's colour, and a region in a condition's colour.
            count: of photos, each with a seed of its own.
            device: camera that sees them, one of :meth:`models`; none by default.
            seed: of the first; the others' follow from it. The service chooses one by default.
            side: pixels of each photo on a side; the model's own by default.
            format: of the files; png by default.

        Raises:
            ServiceError: it is no map, or there is no answer.
        """
        wanted = {"count": count, "device": device, "seed": seed, "side": side, "format": format}
        query = urllib.parse.urlencode(_told(wanted))
        headers = {"Content-Type": "image/png", "Accept": "application/json"}
        return _skin_images(self._json("POST", f"/v1/skin/images/from-map?{query}", drawn, headers))

    def models(self) -> list[dict[str, Any]]:
        """The models that answer, with all that they can be asked for."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/models")["models"]
        return found

    def start_slide(self, uri: str, mpp: float | None = None, again: bool = False) -> str:
        """Have a slide scored; the job's id.

        Args:
            uri: where the service reads the slide.
            mpp: µm per pixel; what the file says by default.
            again: whether it is looked at once more if it was rejected.

        Raises:
            ServiceError: the slide is refused.
        """
        body = json.dumps({"uri": uri, "mpp": mpp, "again": again}).encode()
        return str(self._json("POST", "/v1/focus/slides", body, {"Content-Type": "application/json"})["id"])

    def slide(self, job: str) -> dict[str, Any]:
        """How far a slide's job is, or what it came to.

        Raises:
            ServiceError: there is no such job.
        """
        return self._json("GET", f"/v1/focus/slides/{job}")

    def slide_file(self, job: str, name: str) -> bytes:
        """A scored slide's overlay.png, regions.geojson or map.ome.tif.

        Raises:
            ServiceError: there is none.
        """
        return self._ask("GET", f"/v1/focus/slides/{job}/{name}")

    def ready(self) -> bool:
        """Whether the weights are loaded."""
        try:
            self._once("GET", "/readyz", None, {})
        except ServiceError:
            return False
        return True

    def _json(self, *asked: Any) -> dict[str, Any]:
        answer = self._ask(*asked)
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(found := json.loads(answer), dict):
                return found
        where = f"{self._connection.host}{self._base} is not the service; check the address"
        raise ServiceError(200, {"title": "no JSON object", "detail": where})

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._once(method, path, body, headers or {})
            except ServiceError as error:
                if error.status not in (0, 429, 503) or attempt == self._attempts:
                    raise
                time.sleep(error.problem["retry_after"])
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        known = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: it says why
                self._connection.request(method, self._base + path, body, {**headers, **known})
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ServiceError(0, {"title": "no answer", "detail": str(error), "retry_after": 1}) from error
        if 200 <= answer.status < 300:
            return data
        place, told = answer.headers.get("Location"), None
        text = " ".join(data[:200].decode("latin-1").split()) if place is None else f"redirected to {place}; use that"
        with contextlib.suppress(ValueError, RecursionError):  # of whoever stands between: anything may come
            told = json.loads(data)
        problem = {"title": answer.reason, "detail": text, **(told if isinstance(told, dict) else {})}
        later = answer.headers.get("Retry-After", "")
        raise ServiceError(answer.status, {**problem, "retry_after": int(later) if later.isdecimal() else 1})


def _skin_images(found: Mapping[str, Any]) -> list[SkinImage]:
    model = f"{found['model']['name']} {found['model']['version']}"
    weights = found["model"]["weights_sha256"]
    known = {one.name for one in fields(SkinImage)} - {"data"}
    return [
        SkinImage(
            **{key: value for key, value in one.items() if key in known},
            data=base64.b64decode(one["data"]),
            model=model,
            weights_sha256=weights,
        )
        for one in found["images"]
    ]


def _told(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wanted.items() if value is not None}


def _query(mpp: float | None) -> str:
    return "" if mpp is None else f"?mpp={mpp:g}"
