"""Images out of requests: what is taken, what is refused, and when."""

import struct
import threading
import zlib
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from medsynth import images
from medsynth.errors import Reason, Rejected
from serve import bodies
from serve.bodies import negotiate, refusal
from serve.http import Limits, Problem, handle_problems
from tests.serve.local import encoded
from tests.slides import stained

LIMITS = Limits(pixels=10_000, request_pixels=20_000, images=3)


@pytest.fixture(scope="module")
def http() -> TestClient:
    app = FastAPI()
    handle_problems(app)

    @app.post("/")
    async def seen(request: Request) -> dict[str, Any]:
        found, fields = await bodies.several(request, LIMITS)
        return {"sizes": [[one.width, one.height] for one in found], "names": [one.name for one in found], **fields}

    return TestClient(app)


def send(http: TestClient, data: bytes, kind: str = "image/png") -> Any:
    return http.post("/", content=data, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_every_kind_is_taken_by_what_it_is(http: TestClient, kind: str) -> None:
    answer = send(http, encoded(stained(30, 40), kind), "IMAGE/whatever; charset=x")
    assert answer.json() == {"sizes": [[40, 30]], "names": [None]}


def test_forms_hold_several_and_fields(http: TestClient) -> None:
    files = [("images", (f"{n}.png", encoded(stained(20, 20 + n)), "image/png")) for n in range(3)]
    answer = http.post("/", files=files, data={"mpp": "0.5"})
    assert answer.json() == {
        "sizes": [[20, 20], [21, 20], [22, 20]],
        "names": ["0.png", "1.png", "2.png"],
        "mpp": "0.5",
    }
    assert http.post("/", files=[*files, files[0]]).status_code == 400
    answer = http.post("/", files={"other": ("", b"x")}, data={"mpp": "1"})
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "application/octet-stream", "image", "x" * 999])
def test_other_types_are_415(http: TestClient, kind: str) -> None:
    answer = http.post("/", content=b"x", headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert "image/png" in answer.headers["accept-post"]


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more than its few bytes."""

    def part(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", body) + part(b"IEND", b"")


def test_a_bomb_is_413_by_its_header_alone(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decode", lambda *_: pytest.fail("decoded"))
    for width, height in ((100_000, 100_000), (2**31 - 1, 2**31 - 1), (101, 100)):
        answer = send(http, bomb(width, height))
        assert answer.status_code == 413
        assert answer.json()["reason"] == "too_many_pixels"
    assert send(http, bomb(100, 100)).status_code == 200


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"BM", b"GIF89a"]
)
def test_rubbish_is_400_with_a_reason(http: TestClient, data: bytes) -> None:
    answer = send(http, data)
    assert answer.status_code == 400
    assert answer.json()["reason"] in list(Reason)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 99999),
        (
            "multipart/form-data; boundary=b; charset=none",
            b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n',
        ),
        ("multipart/form-data; boundary=" + "b" * 300, b"--" + b"b" * 300),
    ],
)
def test_broken_forms_are_4xx(http: TestClient, kind: str, body: bytes) -> None:
    answer = send(http, body, kind)
    assert 400 <= answer.status_code < 500, answer.text


def form(name: str, data: bytes = b"x", kind: str = "application/octet-stream") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    return head.encode() + data + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    "charset", ["unicode_escape", "raw_unicode_escape", "utf-7", "utf-16", "punycode", "idna", "undefined", "zip", '"']
)
def test_names_in_a_charset_that_may_spell_anything_are_415(http: TestClient, charset: str) -> None:
    for name in (r"\ud800", "xn--a", "+2AA-", r"x\ny"):
        answer = send(http, form(name, encoded(stained(20, 20))), f"multipart/form-data; boundary=b; charset={charset}")
        assert answer.status_code == 415
        assert charset in answer.json()["detail"]


@pytest.mark.parametrize("charset", ["UTF-8", "us-ascii", "latin-1", '"iso-8859-1"'])
def test_usual_charsets_are_taken(http: TestClient, charset: str) -> None:
    answer = send(http, form("a.png", encoded(stained(20, 20))), f"multipart/form-data; boundary=b; charset={charset}")
    assert answer.json()["names"] == ["a.png"]


def test_names_are_one_line_and_not_endless(http: TestClient) -> None:
    kind = "multipart/form-data; boundary=b"
    assert send(http, form("a\tb\x7f\u2028c", encoded(stained(9, 9))), kind).json()["names"] == [
        "a\ufffdb\ufffd\ufffdc"
    ]
    assert send(http, form(3000 * "n", encoded(stained(9, 9))), kind).json()["names"] == [255 * "n"]
    refused = send(http, form(3000 * "n", b"\x89PNG\r\n\x1a\n", "image/png"), kind)
    assert refused.status_code == 400
    assert len(refused.json()["detail"]) < 400


@pytest.mark.parametrize("kind", ["image/heic", "image/svg+xml", "image/jp2", "image/x\x01"])
def test_kinds_that_nothing_here_reads_are_415(http: TestClient, kind: str) -> None:
    for answer in (
        send(http, b"<svg/>", kind),
        send(http, form("a", b"<svg/>", kind), "multipart/form-data; boundary=b"),
        send(http, form("a.pdf", b"%PDF-1.7", "application/pdf"), "multipart/form-data; boundary=b"),
    ):
        assert answer.status_code == 415
        assert "image/png" in answer.headers["accept-post"]
        assert answer.json()["reason"] == "unsupported"
    undeclared = send(http, form("a.pdf", b"%PDF-1.7"), "multipart/form-data; boundary=b")
    assert (undeclared.status_code, undeclared.json()["reason"]) == (400, "unreadable")


def test_pixels_of_all_images_are_counted(http: TestClient) -> None:
    files = [("images", (f"{n}.png", bomb(100, 100), "image/png")) for n in range(3)]
    assert http.post("/", files=files[:2]).status_code == 200
    answer = http.post("/", files=files)
    assert (answer.status_code, answer.json()["reason"]) == (413, "too_many_pixels")
    assert "3 images of 30,000 pixels together" in answer.json()["detail"]


def test_large_bodies_are_read_beside_the_answers_to_others(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    size = images.size
    monkeypatch.setattr(images, "size", lambda data: threads.add(threading.current_thread().name) or size(data))
    small, large = encoded(stained(20, 20)), encoded(stained(20, 20)) + bytes(1 << 18)
    assert send(http, small).status_code == 200
    inline = set(threads)
    assert send(http, large).status_code == 200
    assert len(threads - inline) == 1


def test_a_field_sent_twice_is_422(http: TestClient) -> None:
    answer = http.post("/", files={"images": encoded(stained(20, 20))}, data={"mpp": ["1", "2"]})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "body.mpp", "detail": "sent twice"}]


def test_each_reason_has_a_status() -> None:
    found = {reason: refusal(Rejected(reason, "x")).status_code for reason in Reason}
    assert set(found.values()) == {400, 413, 415, 422}
    assert found[Reason.TOO_MANY_PIXELS] == 413


OFFERED = ("image/png", "application/json", "application/geo+json")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, "image/png"),
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/*", "application/json"),
        ("image/png;q=0.5, application/json;q=0.9", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("text/html, application/geo+json;q=0.1", "application/geo+json"),
        ("image/webp,*/*;q=0.8", "image/png"),
    ],
)
def test_the_best_accepted_type_is_given(accept: str | None, wanted: str) -> None:
    assert negotiate(accept, OFFERED) == wanted


@pytest.mark.parametrize(
    "accept", ["text/html", "image/jpeg", "*/*;q=0", "application/json;q=x", "a/b;q=2", "nonsense"]
)
def test_nothing_acceptable_is_406(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        negotiate(accept, OFFERED)
    assert caught.value.status_code == 406
