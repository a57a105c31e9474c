"""The Python client against a real socket."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medsynth.skin import semantic_map
from medsynth.skin.semantic_map import Box
from serve.client import Client, ServiceError
from serve.generator_routes import SkinImages, Wanted
from serve.http import busy
from serve.wire import About, Item
from tests.serve.local import LocalFocus, LocalSkin, client, encoded, server
from tests.slides import stained

TOKEN = "a-token-of-16-letters"


@pytest.fixture(scope="module")
def address(focus: LocalFocus, skin: LocalSkin) -> Iterator[str]:
    with server(client(focus, skin=skin, tokens=(TOKEN,)).app) as found:
        yield found


@pytest.fixture(scope="module")
def service(address: str) -> Client:
    return Client(address, TOKEN)


def test_scores_come_typed(service: Client, tile: bytes) -> None:
    assert service.ready()
    score = service.score(tile, mpp=0.25)
    assert (score.width, score.height, score.mpp) == (256, 256, 0.25)
    assert score.radius_um == pytest.approx(score.radius_px / 4, rel=1e-4)
    assert score.model.startswith("focus ")
    assert len(score.weights_sha256) == 64
    many = service.scores([tile, encoded(stained(200, 300)), tile], mpp=0.25)
    assert many[0] == many[2] == score
    assert (many[1].width, many[1].height) == (300, 200)


def test_heat_maps_in_the_form_asked_for(service: Client, tile: bytes) -> None:
    assert service.heat_map(tile, 0.25)[:4] == b"\x89PNG"
    assert json.loads(service.heat_map(tile, 0.25, "application/json"))["legend"]
    assert json.loads(service.heat_map(tile, 0.25, "application/geo+json"))["features"] is not None


def test_refusals_are_told(service: Client, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match="400 Bad Request: 0: starts with") as caught:
        service.score(b"rubbish")
    assert caught.value.problem["reason"] == "unreadable"
    with pytest.raises(ServiceError, match="401"):
        Client(address).heat_map(b"x")
    monkeypatch.setenv("MEDSYNTH_API_TOKENS", TOKEN)
    with pytest.raises(ServiceError, match="400"):
        Client(address).heat_map(b"x")
    with pytest.raises(ServiceError, match="404"):
        service.slide(32 * "0")
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        Client("127.0.0.1:8000")


def test_pictures_come_typed(service: Client) -> None:
    (skin,) = [one for one in service.models() if one["name"] == "skin"]
    condition = next(iter(skin["conditions"]))
    one = service.skin_image(condition, fitzpatrick="VI", lesion_size=0.4, seed=3)
    assert (one.condition, one.fitzpatrick, one.seed, one.media_type) == (condition, "VI", 3, "image/png")
    assert one.data[:4] == b"\x89PNG"
    assert one.weights_sha256 == skin["weights_sha256"]
    many = service.skin_images(condition, 3, fitzpatrick="VI", lesion_size=0.4, seed=3, format="jpeg")
    assert len({one.seed for one in many}) == 3
    assert many[0].data[:2] == b"\xff\xd8"
    drawn = semantic_map.draw((32, 32), one.skin_rgb, Box(*one.lesion_box), skin["conditions"][condition])
    (same,) = service.skin_images_from_map(encoded(drawn), seed=3)
    assert same.data == one.data
    with pytest.raises(ServiceError, match=r"422 .*body.condition: no condition 'x'"):
        service.skin_image("x")


def test_every_wish_of_the_service_is_a_keyword(service: Client) -> None:
    known = set(inspect.signature(service.skin_images).parameters)
    assert known == set(SkinImages.model_fields)
    assert set(inspect.signature(service.skin_image).parameters) == known - {"count"}
    assert set(inspect.signature(service.skin_images_from_map).parameters) == {"drawn", *Wanted.model_fields}
    for method in (service.skin_image, service.skin_images, service.skin_images_from_map):
        for name in inspect.signature(method).parameters:
            assert f"{name}: " in str(method.__doc__), f"{method.__name__}: {name}"


def test_wishes_are_sent_and_others_are_not(service: Client) -> None:
    (skin,) = [one for one in service.models() if one["name"] == "skin"]
    device = skin["devices"][0]
    one = service.skin_image(
        "BCC", skin_rgb=(172, 124, 100), lesion_box=(4, 4, 20, 20), device=device, seed=3, side=16, format="jpeg"
    )
    assert (one.skin_rgb, one.lesion_box, one.device) == ([172, 124, 100], [4, 4, 20, 20], device)
    assert (one.seed, one.side, one.media_type) == (3, 16, "image/jpeg")
    placed = service.skin_image("BCC", fitzpatrick=4, lesion_size=0.25, lesion_x=0.25, lesion_y=0.75, seed=3)
    assert (placed.fitzpatrick, placed.lesion_box) == ("IV", [4, 20, 12, 28])
    assert service.skin_image("BCC", size="large", seed=3).data != service.skin_image("BCC", size="small", seed=3).data
    drawn = encoded(semantic_map.draw((32, 32), (172, 124, 100), Box(4, 4, 20, 20), skin["conditions"]["BCC"]))
    (same,) = service.skin_images_from_map(drawn, device=device, seed=3, side=16, format="jpeg")
    assert same.data == one.data
    wrong: dict[str, Any] = {"lesion_sise": 0.3}
    with pytest.raises(TypeError, match="lesion_sise"):
        service.skin_image("BCC", **wrong)


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_a_redirect_is_no_answer(status: int) -> None:
    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {} if status == 304 else {"Location": "https://medsynth.example/"}
        await Response(status_code=status, headers=headers)(scope, receive, send)

    with server(elsewhere) as address:
        moved = Client(address)
        assert not moved.ready()
        for ask in (lambda: moved.heat_map(b"x"), lambda: moved.slide_file("0" * 32, "overlay.png"), moved.models):
            with pytest.raises(
                ServiceError, match=f"{status} .*{'' if status == 304 else 'medsynth.example'}"
            ) as caught:
                ask()
            assert caught.value.status == status


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'["down"]', '503 Service Unavailable: ["down"]'),
        (b'"down"', '503 Service Unavailable: "down"'),
        (b"null", "503 Service Unavailable: null"),
        (b"<h1>\n\n down</h1>", "503 Service Unavailable: <h1> down</h1>"),
        (b"\xff\xfe", "503 Service Unavailable: ÿþ"),
        (b"[" * 100_000, "503 Service Unavailable: " + 200 * "["),
        (b"", "503 Service Unavailable: "),
        (
            b'{"error": "down", "retry_after": "soon"}',
            '503 Service Unavailable: {"error": "down", "retry_after": "soon"}',
        ),
        (b'{"title": "Down", "detail": "for an hour"}', "503 Down: for an hour"),
    ],
)
def test_whatever_an_error_brings_it_is_told(monkeypatch: pytest.MonkeyPatch, body: bytes, told: str) -> None:
    later, slept = [{"Retry-After": "7"}, {}, {"Retry-After": "soon"}, {"Retry-After": "\u00b2"}], list[float]()

    async def down(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Response(body, 503, later.pop(0))(scope, receive, send)

    with server(down) as address:
        monkeypatch.setattr("serve.client.time.sleep", slept.append)
        with pytest.raises(ServiceError) as caught:
            Client(address, attempts=4).models()
    assert (str(caught.value), caught.value.status, slept) == (told, 503, [7, 1, 1])


@pytest.mark.parametrize("body", [b"<h1>welcome</h1>", b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_success_of_another_server_is_no_answer(body: bytes) -> None:
    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Response(body)(scope, receive, send)

    with server(other) as address:
        elsewhere = Client(address + "/other")
        asked = [
            elsewhere.models,
            lambda: elsewhere.score(b"x"),
            lambda: elsewhere.slide("0"),
            lambda: elsewhere.skin_image("BCC"),
        ]
        for ask in asked:
            with pytest.raises(ServiceError, match=r"127\.0\.0\.1/other is not the service; check") as caught:
                ask()
            assert caught.value.status == 200


class Busy(LocalFocus):
    """Says twice that it is busy."""

    def __init__(self, inner: LocalFocus) -> None:
        self.inner, self.left, self.figures = inner, 2, inner.figures

    async def about(self) -> About:
        return await self.inner.about()

    async def score(self, items: list[Item]) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise busy("wait", 429, seconds=0)
        return await self.inner.score(items)


def test_it_comes_back_when_told_to(focus: LocalFocus, tile: bytes) -> None:
    with server(client(Busy(focus)).app) as address:
        assert Client(address).score(tile).width == 256
    with server(client(Busy(focus)).app) as address, pytest.raises(ServiceError, match="429"):
        Client(address, attempts=2).score(tile)


def test_no_service_is_an_error_and_not_ready() -> None:
    nobody = Client("http://127.0.0.1:9", attempts=1)
    assert not nobody.ready()
    with pytest.raises(ServiceError) as caught:
        nobody.slide("0" * 32)
    assert caught.value.status == 0
