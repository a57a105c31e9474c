"""Nothing that a client sends gives a 500: mutated images and requests, and whatever the OpenAPI document allows."""

import contextlib
import json
import re
from typing import Any

import hypothesis.strategies as st
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from starlette.testclient import TestClient

from medsynth.skin import semantic_map
from medsynth.skin.semantic_map import Box
from serve.generator_routes import SkinImages
from serve.http import PROBLEM, Limits
from tests import skin_model
from tests.serve.local import LocalFocus, LocalSkin, client, encoded
from tests.slides import stained

SEEDS = {
    kind: encoded(stained(140, 150), kind, **options)
    for kind, options in {
        "PNG": {},
        "JPEG": {"quality": 80},
        "TIFF": {"compression": "tiff_lzw"},
        "BMP": {},
        "GIF": {},
        "WEBP": {"lossless": True},
    }.items()
}
MAP = encoded(
    semantic_map.draw((32, 32), (172, 124, 100), Box(4, 4, 20, 20), semantic_map.colours(skin_model.NAMES)["NEV"])
)
FAST = settings(max_examples=60, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def http(focus: LocalFocus, skin: LocalSkin) -> Any:
    with client(focus, Limits(pixels=1_000_000, body_bytes=2_000_000), skin) as found:
        yield found


@st.composite
def mutated(draw: st.DrawFn, of: bytes | None = None) -> bytes:
    """An image with some bytes changed, cut out, doubled or cut off; headers are hit more often than the rest."""
    data = bytearray(of or SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        reach = draw(st.sampled_from([min(64, len(data)), len(data)])) - 1
        at = draw(st.integers(0, reach))
        match draw(st.integers(0, 4)):
            case 0:
                data[at] = draw(st.integers(0, 255))
            case 1:
                data[at : at + 4] = draw(
                    st.sampled_from([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\x40\x00"])
                )
            case 2:
                del data[at : at + draw(st.integers(1, 200))]
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 200))]
            case _:
                del data[at:]
    return bytes(data)


def fair(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json()["status"] == answer.status_code


@FAST
@given(data=mutated())
def test_mutated_images(http: TestClient, data: bytes) -> None:
    fair(http.post("/v1/focus/scores", content=data, headers={"Content-Type": "image/png"}))


@settings(FAST, max_examples=25)
@given(data=mutated())
def test_mutated_images_as_maps(http: TestClient, data: bytes) -> None:
    headers = {"Content-Type": "image/png", "Accept": "application/json"}
    fair(http.post("/v1/focus/heatmaps?mpp=0.25", content=data, headers=headers))


@FAST
@given(data=mutated(of=MAP))
def test_mutated_maps(http: TestClient, data: bytes) -> None:
    fair(http.post("/v1/skin/images/from-map?seed=1", content=data, headers={"Content-Type": "image/png"}))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from(["BCC", "IV", "png"]),
    st.lists(st.integers(-9, 300), max_size=5),
)  # fmt: skip


@FAST
@given(
    body=st.dictionaries(st.sampled_from(sorted(SkinImages.model_fields)), VALUES, max_size=5),
    accept=st.sampled_from(["*/*", "image/png", "application/zip", "image/jpeg;q=x", ""]),
)
def test_mutated_wishes(http: TestClient, body: dict[str, Any], accept: str) -> None:
    text = json.dumps({"condition": "BCC", **body})  # NaN and Infinity too, which are no JSON
    headers = {"Content-Type": "application/json", "Accept": accept}
    fair(http.post("/v1/skin/images", content=text, headers=headers))


@FAST
@given(
    head=st.binary(max_size=60),
    tail=st.binary(max_size=60),
    boundary=st.sampled_from(
        ["b", "", "b" * 71, '"b"', "b; charset=utf-16", "b; charset=none", "b; charset=unicode_escape"]
    ),
    disposition=st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n"), max_size=60),
)
def test_mutated_forms(http: TestClient, head: bytes, tail: bytes, boundary: str, disposition: str) -> None:
    part = b"--b\r\nContent-Disposition: " + disposition.encode("latin-1") + b"\r\n\r\n"
    named = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    body = head + b"\r\n" + part + tail + b"\r\n" + named + tail + b"\r\n--b--\r\n"
    fair(
        http.post(
            "/v1/focus/scores", content=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
        )
    )


@FAST
@given(
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"]),
    headers=st.dictionaries(
        st.sampled_from(
            ["Accept", "Content-Type", "X-Request-ID", "Authorization", "Content-Encoding", "Range", "Expect"]
        ),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40).map(lambda one: one.encode("latin-1")),
    ),
)
def test_any_path_method_and_headers(http: TestClient, path: str, method: str, headers: dict[str, bytes]) -> None:
    answer = http.request(method, "/" + re.sub("[?#]", "", path), headers=headers)
    assert answer.status_code < 500, answer.text


@pytest.mark.slow
def test_what_the_document_allows_and_what_it_does_not(focus: LocalFocus, skin: LocalSkin) -> None:
    with client(focus, Limits(pixels=1_000_000, body_bytes=2_000_000), skin) as http:
        schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
        seen: set[int] = set()
        for operation in schema.get_all_operations():
            found = operation.ok()
            for mode in schemathesis.GenerationMode:

                @settings(FAST, max_examples=6)
                @given(case=found.as_strategy(generation_mode=mode))
                def one(case: Any) -> None:
                    answer = http.request(**keywords(case))
                    fair(answer)
                    case.operation.validate_response(answer)
                    seen.add(answer.status_code)

                with contextlib.suppress(Unsatisfiable):  # there is no wrong way to ask for what takes nothing
                    one()
        assert {200, 404, 422} <= seen


def keywords(case: Any) -> dict[str, Any]:
    """A generated case as the test client takes it, put into bytes as a real client would."""
    known = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
    taken = ("method", "url", "headers", "params", "data", "json", "files", "cookies")
    known = {key: known[key] for key in taken if key in known}
    try:
        ready = requests.Request(**known).prepare()
    except (ValueError, TypeError, AttributeError):
        assume(False)  # no client could send it
    headers = {str(key): str(value).encode("latin-1", "replace") for key, value in ready.headers.items()}
    body = ready.body.encode() if isinstance(ready.body, str) else ready.body
    return {"method": ready.method, "url": ready.url, "headers": headers, "content": body}
