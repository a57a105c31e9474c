"""What every model shares, and the Open Inference Protocol."""

import asyncio
import base64
import dataclasses
import re
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from serve import docs, skin_protocol
from serve.http import PROBLEM, Limits, busy
from serve.wire import FOCUS_NOTE, SKIN_NOTE, About
from tests import skin_model
from tests.serve.local import BASE, LocalFocus, LocalSkin, client, encoded, server
from tests.slides import stained

PNG = {"Content-Type": "image/png"}


class Absent:
    """A model whose replicas are not there."""

    async def about(self) -> About:
        raise busy("the model is not ready")


def test_ready_only_when_the_weights_are_loaded(http: TestClient) -> None:
    absent = client(Absent(), skin=Absent())
    for path in ("/readyz", "/v2/health/ready", "/v2/models/focus/ready", "/v2/models/skin/ready"):
        assert http.get(path).json()["ready"] is True
        answer = absent.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    for path in ("/healthz", "/v2/health/live"):
        assert http.get(path).json() == absent.get(path).json() == {"live": True}


def test_models_are_listed(http: TestClient) -> None:
    model, skin = http.get("/v1/models").json()["models"]
    assert (model["name"], skin["name"]) == ("focus", "skin")
    assert set(skin["conditions"]) == set(skin_model.NAMES)
    assert "phone-flagship" in skin["devices"]
    assert skin["attribution"] == "Photos of nobody, CC0"
    assert len(model["radii_px"]) == 30
    assert model["grades_um"] == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("prefix", ["", "/medsynth", "/a/b"])
def test_what_needs_no_token(focus: LocalFocus, tile: bytes, prefix: str) -> None:
    guarded = TestClient(client(focus, tokens=("a-token-of-16-letters",)).app, BASE, root_path=prefix)
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/page/focus.js", "/docs"):
        assert guarded.get(prefix + path).status_code == 200
    closed = ("/v1/models", "/metrics", "/v2", "/v2/models/focus", "/v1/focus/slides/" + 32 * "0", "/x/healthz", "x")
    for path in closed:
        assert guarded.get(prefix + path).status_code == 401
    assert guarded.post(f"{prefix}/v1/focus/scores", content=tile, headers=PNG).status_code == 401


@pytest.mark.parametrize("prefix", ["/medsynth", "/a/b"])
def test_a_prefix_without_its_slash_leads_to_the_page(focus: LocalFocus, prefix: str) -> None:
    http = TestClient(
        client(focus, tokens=("a-token-of-16-letters",)).app, "http://elsewhere.example", root_path=prefix
    )
    moved = http.get(prefix, follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (308, prefix.rpartition("/")[2] + "/")
    assert http.get(prefix).url.path == prefix + "/"
    assert http.get(prefix).text == http.get(prefix + "/").text
    assert http.head(prefix).status_code == 200
    assert http.post(prefix).status_code == 401


def test_errors_of_the_open_protocol_are_its_own_below_a_prefix(focus: LocalFocus) -> None:
    http = TestClient(client(focus).app, BASE, root_path="/medsynth")
    assert http.get("/medsynth/v2/models/other").json()["error"].startswith("no model 'other'")
    assert "error" not in http.get("/medsynth/v1/other").json()


def test_head_is_answered_as_get_is(focus: LocalFocus) -> None:
    http = client(focus)
    told = http.get("/openapi.json").json()["paths"]
    version = asyncio.run(focus.about()).version
    documented = [docs._filled(path).replace("{version}", version) for path in told if "get" in told[path]]
    with server(http.app) as address, httpx2.Client(base_url=address) as real:
        for path in ("/", "/page/page.css", "/docs", "/openapi.json", *documented):
            head, get = real.head(path), real.get(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers["content-type"] == get.headers["content-type"]
            assert get.status_code == (404 if path.startswith("/v1/focus/slides") else 200)  # it was given no place
    assert all("head" not in methods for methods in told.values())
    assert client(Absent()).head("/readyz").status_code == 503
    assert http.post("/healthz").headers["allow"] == "GET"


def test_a_slash_too_many_leads_nowhere(http: TestClient) -> None:
    for path in ("/v1/models/", "/healthz/", "/v2/", "/v2/models/focus/"):
        answer = http.get(path, headers={"Host": "evil.example"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
        assert "location" not in answer.headers
    assert http.post("/v1/skin/images/", json={}, follow_redirects=False).status_code == 404


def test_no_page_needs_another_host(http: TestClient) -> None:
    for path in ("/", "/docs", "/page/page.js", "/page/focus.js", "/page/skin.js", "/page/page.css"):
        answer = http.get(path)
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", answer.text)) - {
            "http://127.0.0.1",
            "//bucket",
        }  # s3://bucket
        assert not addresses, f"{path} names {addresses}"
    assert "default-src 'none'" in http.get("/").headers["content-security-policy"]
    assert http.get("/page/../app.py").status_code == 404
    assert http.get("/page/%2e%2e%2fapp.py").status_code == 404


class TestProtocol:
    def infer(self, http: TestClient, **tensor: Any) -> Any:
        body = {"id": "7", "inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", **tensor}]}
        return http.post("/v2/models/focus/infer", json=body)

    def test_files_and_pixels_give_what_scores_gives(self, http: TestClient) -> None:
        picture = stained(150, 140)
        data = encoded(picture)
        score = http.post("/v1/focus/scores", content=data, headers=PNG).json()["scores"][0]
        files = self.infer(http, data=[base64.b64encode(data).decode()])
        pixels = self.infer(http, datatype="UINT8", shape=[1, 150, 140, 3], data=picture.ravel().tolist())
        nested = self.infer(http, datatype="UINT8", shape=[1, 150, 140, 3], data=[picture.tolist()])
        assert files.json() == pixels.json() == nested.json()
        found = files.json()
        assert (found["id"], found["model_name"]) == ("7", "focus")
        outputs = {one["name"]: one for one in found["outputs"]}
        assert outputs["classes"]["shape"] == [1, 30]
        assert outputs["classes"]["data"] == score["classes"]
        assert outputs["radius_px"]["data"] == [score["radius_px"]]
        assert found["model_version"] == http.get("/v2/models/focus").json()["versions"][0]

    def test_outputs_can_be_chosen(self, http: TestClient, tile: bytes) -> None:
        text = base64.b64encode(tile).decode()
        inputs = [{"name": "images", "shape": [2], "datatype": "BYTES", "data": [text, text]}]
        answer = http.post("/v2/models/focus/infer", json={"inputs": inputs, "outputs": [{"name": "radius_px"}]})
        (output,) = answer.json()["outputs"]
        assert (output["name"], output["shape"]) == ("radius_px", [2])

    def test_each_output_of_a_model_can_be_asked_for(self, http: TestClient, tile: bytes) -> None:
        image = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(tile).decode()]}
        condition = {"name": "condition", "shape": [1], "datatype": "BYTES", "data": ["BCC"]}
        for model, tensor in (("focus", image), ("skin", condition)):
            for one in http.get(f"/v2/models/{model}").json()["outputs"]:
                body = {"inputs": [tensor], "outputs": [{"name": one["name"]}]}
                (output,) = http.post(f"/v2/models/{model}/infer", json=body).json()["outputs"]
                assert (output["name"], output["datatype"]) == (one["name"], one["datatype"])

    @pytest.mark.parametrize(("model", "call"), [("focus", "score"), ("skin", "draw")])
    @pytest.mark.parametrize("unknown", [{"name": "x"}, {"name": ["x"]}, {}])
    def test_an_unknown_output_is_refused_before_any_work(
        self, focus: LocalFocus, skin: LocalSkin, tile: bytes, model: str, call: str, unknown: dict[str, Any]
    ) -> None:
        async def called(*_: Any) -> None:
            raise AssertionError("the work was begun")

        image = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(tile).decode()]}
        condition = {"name": "condition", "shape": [1], "datatype": "BYTES", "data": ["BCC"]}
        known = {"name": "radius_px" if model == "focus" else "seed"}
        body = {"inputs": [image if model == "focus" else condition], "outputs": [known, unknown]}
        with client(focus, skin=skin) as http, pytest.MonkeyPatch.context() as patch:
            patch.setattr(focus if model == "focus" else skin, call, called)
            answer = http.post(f"/v2/models/{model}/infer", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "body.outputs.1.name"
        assert f"known: {'classes' if model == 'focus' else 'images'}" in answer.json()["error"]

    @pytest.mark.parametrize(
        "tensor",
        [
            {"data": ["***"]},
            {"data": [7]},
            {"data": [None]},
            {"data": []},
            {"data": ["AAAA"]},
            {"shape": [0], "data": []},
            {"shape": [1000], "data": []},
            {"datatype": "FP32", "data": [1.0]},
            {"datatype": "UINT8", "shape": [1, 200, 200, 3], "data": [0] * 9},
            {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, 256]},
            {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, "x"]},
            {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [[0], [0, 1]]},
            {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, 10**400]},
            {"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]},
            {"datatype": "UINT8", "shape": [1, -5, 1, 3], "data": [1, 2, 3]},
            {"datatype": "UINT8", "shape": [1, 10**9, 10**9, 3], "data": [1, 2, 3]},
        ],
    )
    def test_wrong_tensors_are_4xx(self, http: TestClient, tensor: dict[str, Any]) -> None:
        answer = self.infer(http, **tensor)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json().get("error", answer.json()["detail"]) == answer.json()["detail"]

    def draw(self, http: TestClient, outputs: list[str] | None = None, **tensors: Any) -> Any:
        kinds = {name: kind for name, (kind, _) in skin_protocol.INPUTS.items()}
        inputs = [
            {"name": name, "datatype": kinds[name], "shape": list(np.shape(data)), "data": data}
            for name, data in tensors.items()
        ]
        wanted = {} if outputs is None else {"outputs": [{"name": one} for one in outputs]}
        return http.post("/v2/models/skin/infer", json={"inputs": inputs, **wanted})

    def test_pictures_are_those_of_v1(self, http: TestClient) -> None:
        told = http.get("/v2/models/skin").json()
        assert {one["name"] for one in told["inputs"]} == set(skin_protocol.INPUTS)
        tensors: dict[str, Any] = {"condition": ["BCC", "NEV"], "fitzpatrick": ["I", "6"], "seed": [3, 2**62]}
        found = self.draw(http, **tensors).json()
        outputs = {one["name"]: one for one in found["outputs"]}
        assert outputs.keys() == {"images", "seed", "skin_rgb", "lesion_box"}
        assert outputs["seed"]["data"] == [3, 2**62]
        for at in range(2):
            body = {name: column[at] for name, column in tensors.items()}
            alone = http.post("/v1/skin/images", json=body, headers={"Accept": "image/png"})
            assert base64.b64decode(outputs["images"]["data"][at]) == alone.content
        first = outputs["skin_rgb"]["data"]
        tensors |= {"skin_rgb": [first[:3], first[3:]], "lesion_box": [[1, 1, 9, 9]] * 2}
        (pixels,) = self.draw(http, ["pixels"], **tensors).json()["outputs"]
        assert pixels["shape"] == [2, 32, 32, 3]
        assert len(pixels["data"]) == 2 * 32 * 32 * 3
        assert self.draw(http, condition=["BCC"]).status_code == 200

    @pytest.mark.parametrize(
        "tensors",
        [
            {"seed": [1]},
            {"condition": []},
            {"condition": ["BCC"] * 65},
            {"condition": ["WART"]},
            {"condition": [7]},
            {"condition": ["BCC"], "seed": [1, 2]},
            {"condition": ["BCC"], "seed": [-1]},
            {"condition": ["BCC"], "seed": [10**400]},
            {"condition": ["BCC"], "seed": [True]},
            {"condition": ["BCC"], "fitzpatrick": ["7"]},
            {"condition": ["BCC"], "skin_rgb": [[1, 2]]},
            {"condition": ["BCC"], "skin_rgb": [[1, 2, 300]]},
            {"condition": ["BCC"], "lesion_box": [[0, 0, 99, 9]]},
            {"condition": ["BCC"], "device": ["x" * 1000]},
        ],
    )
    def test_what_cannot_be_drawn_is_422(self, http: TestClient, tensors: dict[str, Any]) -> None:
        answer = self.draw(http, **tensors)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"] == answer.json()["detail"]

    def test_an_answer_says_what_v1_says_of_it(self, http: TestClient, tile: bytes) -> None:
        answer = self.draw(http, ["images"], condition=["BCC", "NEV"], seed=[3, 2**62])
        (skin,) = [one for one in http.get("/v1/models").json()["models"] if one["name"] == "skin"]
        seeds = f"3, {2**62}"
        assert answer.headers["medsynth-seed"] == seeds
        assert answer.headers["medsynth-synthetic"] == "true"
        assert answer.headers["medsynth-weights-sha256"] == skin["weights_sha256"]
        told = {"weights_sha256": skin["weights_sha256"], "synthetic": True, "seeds": seeds, "note": SKIN_NOTE}
        assert answer.json()["parameters"] == told
        judged = self.infer(http, data=[base64.b64encode(tile).decode()])
        digest = judged.headers["medsynth-weights-sha256"]
        assert judged.json()["parameters"] == {"weights_sha256": digest, "note": FOCUS_NOTE}

    def test_an_input_is_known_and_given_once(self, http: TestClient, tile: bytes) -> None:
        text = base64.b64encode(tile).decode()
        unknown = self.infer(http, name="pictures", data=[text])
        assert unknown.json()["detail"] == "body.inputs.0.name: no input 'pictures'; known: images"
        images = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text]}
        condition = {"name": "condition", "datatype": "BYTES", "shape": [1], "data": ["BCC"]}
        twice = [
            http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor, {**tensor}]})
            for model, tensor in (("focus", images), ("skin", condition))
        ]
        assert [answer.json()["errors"][0]["field"] for answer in twice] == ["body.inputs.1.name"] * 2
        assert all("given twice" in answer.json()["error"] for answer in twice)
        second = http.post("/v2/models/focus/infer", json={"inputs": [images, {**images, "name": "masks"}]})
        assert second.json()["errors"][0]["field"] == "body.inputs.1.name"
        assert {answer.status_code for answer in (unknown, *twice, second)} == {422}

    @pytest.mark.parametrize("model", ["focus", "skin"])
    def test_versions_are_served_and_others_are_404(self, http: TestClient, tile: bytes, model: str) -> None:
        place = f"/v2/models/{model}"
        (version,) = http.get(place).json()["versions"]
        ready = {"name": model, "version": version, "ready": True}
        assert http.get(f"{place}/versions/{version}").json() == http.get(place).json()
        assert http.get(f"{place}/versions/{version}/ready").json() == ready
        image = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(tile).decode()]}
        seed = {"name": "seed", "datatype": "INT64", "shape": [1], "data": [3]}
        condition = {"name": "condition", "datatype": "BYTES", "shape": [1], "data": ["BCC"]}
        body = {"inputs": [image] if model == "focus" else [condition, seed]}
        answer = http.post(f"{place}/versions/{version}/infer", json=body)
        assert answer.status_code == 200
        assert answer.json() == http.post(f"{place}/infer", json=body).json()
        others = [http.get(f"{place}/versions/1{end}") for end in ("", "/ready")]
        for other in (*others, http.post(f"{place}/versions/1/infer", json=body)):
            assert other.status_code == 404
            assert other.headers["content-type"] == PROBLEM
            assert other.json()["error"] == f"no version '1' of {model}; there is {version}"
        assert http.get("/v2/models/other/versions/1").status_code == 404

    def test_a_version_that_was_replaced_meanwhile_is_404(self, focus: LocalFocus, tile: bytes) -> None:
        version = asyncio.run(focus.about()).version

        class Replaced:
            async def about(self) -> About:
                return await focus.about()

            async def score(self, items: list[Any]) -> Any:
                found, about = await focus.score(items)
                return found, dataclasses.replace(about, version="2")

        image = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(tile).decode()]}
        with client(Replaced()) as http:
            answer = http.post(f"/v2/models/focus/versions/{version}/infer", json={"inputs": [image]})
        assert answer.status_code == 404

    def test_another_model_is_404(self, http: TestClient) -> None:
        for path in ("/v2/models/other", "/v2/models/other/ready"):
            assert http.get(path).status_code == 404
        assert http.post("/v2/models/other/infer", json={"inputs": []}).status_code in (404, 422)


def test_too_many_at_once_are_told_to_wait(focus: LocalFocus, tile: bytes) -> None:

    limits = Limits(in_flight=3)

    async def all_at_once() -> list[Any]:
        transport = httpx2.ASGITransport(client(focus, limits).app)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
            return await asyncio.gather(*(http.post("/v1/focus/scores", content=tile, headers=PNG) for _ in range(20)))

    answers = asyncio.run(all_at_once())
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)
    good = [answer.json()["scores"] for answer in answers if answer.status_code == 200]
    assert len(good) >= 3
    assert all(one == good[0] for one in good)
