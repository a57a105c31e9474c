"""Whether the OpenAPI document says what is answered."""

import base64
from typing import Any, get_args

import pytest
import schemathesis
from starlette.testclient import TestClient

from medsynth.distributed import scoring
from medsynth.focus import stages
from medsynth.skin import semantic_map
from medsynth.skin.semantic_map import Box
from serve import docs, slide_routes, slides
from tests import skin_model
from tests.serve.local import LocalFocus, LocalSkin, client, encoded

JOB = "0123456789abcdef" * 2
ASKED = {"id": JOB, "uri": "s3://bucket/a.svs", "etag": "x", "mpp": None, "weights_sha256": 64 * "0"}
STATES: dict[str, dict[str, Any]] = {
    "1" * 32: {"status": "running", "progress": None},
    "2" * 32: {"status": "running", "progress": {"stage": "scoring", "done": 1, "total": 2, "attempt": 1}},
    "3" * 32: {"status": "failed", "detail": "given up"},
    "4" * 32: {
        **{"status": "rejected", "reason": "unreadable", "detail": "cut off", "name": "a"},
        **{"focus": {}, "files": []},
    },
    JOB: {
        **{"status": "scored", "reason": None, "detail": None, "name": "a"},
        **{"focus": {"tissue_mm2": 1.0}, "files": sorted(slides.FILES)},
    },
}
DRAWN = {"condition": "BCC", "seed": 7}
CONDITION = {"name": "condition", "datatype": "BYTES", "shape": [1], "data": ["BCC"]}


class Jobs:
    """Slide jobs that were done before."""

    async def start(self, uri: str, mpp: float | None, again: bool) -> tuple[str, str]:
        return JOB, "running"

    async def state(self, job: str) -> dict[str, Any]:
        return {**ASKED, **STATES[job]}

    async def file(self, job: str, name: str) -> bytes:
        return b"{}"


@pytest.fixture(scope="module")
def http(focus: LocalFocus, skin: LocalSkin) -> Any:
    with client(focus, skin=skin, jobs=Jobs()) as found:
        yield found


def check(http: TestClient, method: str, path: str, answer: Any) -> None:
    """An answer is a documented one, to its headers and the names in its body."""
    openapi = http.get("/openapi.json").json()
    told = openapi["paths"][path][method]["responses"][str(answer.status_code)]
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in told["content"], f"{method} {path}: {kind}"
    sent = {name for name in answer.headers if name.startswith("medsynth-")} | {"x-request-id"}
    sent |= {"vary", "location", "retry-after"} & set(answer.headers)
    assert sent <= {name.lower() for name in told["headers"]}, f"{method} {path}"
    assert {name.lower() for name, one in told["headers"].items() if one["required"]} <= sent, f"{method} {path}"
    schemathesis.openapi.from_dict(openapi)[path][method.upper()].validate_response(answer)
    named = told["content"][kind]["schema"].get("$ref", "").removeprefix("#/components/schemas/")
    if named:
        assert answer.json().keys() <= openapi["components"]["schemas"][named]["properties"].keys(), named


def test_every_answer_is_documented(http: TestClient, tile: bytes) -> None:
    png = {"Content-Type": "image/png"}
    drawn = semantic_map.draw(
        (32, 32), (172, 124, 100), Box(4, 4, 20, 20), semantic_map.colours(skin_model.NAMES)["NEV"]
    )
    seen = set()

    def got(path: str, **names: str) -> None:
        check(http, "get", path, http.get(path.format(**names)))
        seen.add(path)

    def posted(path: str, accept: str = "*/*", query: str = "", **body: Any) -> None:
        headers = {**body.pop("headers", {}), "Accept": accept}
        names = {name: body.pop(name, "") for name in ("name", "version")}
        check(http, "post", path, http.post(path.format(**names) + query, headers=headers, **body))
        seen.add(path)

    for path in ("/v1/models", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics", "/v2"):
        got(path)
    versions = {name: http.get(f"/v2/models/{name}").json()["versions"][0] for name in ("focus", "skin")}
    for name, version in versions.items():
        got("/v2/models/{name}", name=name)
        got("/v2/models/{name}/ready", name=name)
        got("/v2/models/{name}/versions/{version}", name=name, version=version)
        got("/v2/models/{name}/versions/{version}/ready", name=name, version=version)
    for job in STATES:
        got("/v1/focus/slides/{job}", job=job)
    for file in slides.FILES:
        got("/v1/focus/slides/{job}/{name}", job=JOB, name=file)
    posted("/v1/focus/slides", json={"uri": "s3://bucket/a.svs"})
    posted("/v1/focus/scores", content=tile, headers=png)
    for accept in ("image/png", "application/json", "application/geo+json"):
        posted("/v1/focus/heatmaps", accept, "?mpp=0.25", content=tile, headers=png)
    for accept in ("image/png", "image/jpeg", "application/json", "application/zip"):
        posted("/v1/skin/images", accept, json=DRAWN)
        posted("/v1/skin/images/from-map", accept, "?seed=7", content=encoded(drawn), headers=png)
    images = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(tile).decode()]}
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        posted(path, name="focus", version=versions["focus"], json={"id": "7", "inputs": [images]})
        for outputs in ([], [{"name": "pixels"}]):
            asked = {"inputs": [CONDITION], "outputs": outputs}
            posted(path, name="skin", version=versions["skin"], json=asked)
    assert seen == set(http.get("/openapi.json").json()["paths"])


def test_answers_of_slides_and_of_the_inference_protocol_have_schemas(http: TestClient) -> None:
    openapi = http.get("/openapi.json").json()
    for path, methods in openapi["paths"].items():
        if path.startswith(("/v1/focus/slides", "/v2")) and not path.startswith("/v2/health"):
            for about in methods.values():
                (answer,) = (one for status, one in about["responses"].items() if status != "default")
                for kind, one in answer["content"].items():
                    assert ("$ref" in one["schema"]) == (kind == "application/json"), f"{path} {kind}"


def test_each_route_has_a_summary_and_its_errors(http: TestClient) -> None:
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for about in methods.values():
            assert about["summary"], path
            assert "application/problem+json" in about["responses"]["default"]["content"]


def test_a_slides_status_is_one_of_those_documented() -> None:
    known = {slides.RUNNING, slides.FAILED, slides.REJECTED, stages.SCORED, stages.NOTHING}
    assert slides.REJECTED == scoring.REJECTED
    assert set(get_args(slide_routes.Status)) == known


@pytest.mark.parametrize("tokens", [(), ("a-token-of-16-letters",)])
def test_tokens_are_documented_where_they_are_demanded(focus: LocalFocus, tokens: tuple[str, ...]) -> None:
    http = client(focus, tokens=tokens)
    openapi = http.get("/openapi.json").json()
    ((scheme, told),) = openapi["components"]["securitySchemes"].items()
    assert (told["type"], told["scheme"]) == ("http", "bearer")
    demanded = 0
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            answer = http.request(method, docs._filled(path))
            assert (answer.status_code == 401) == (about["security"] == [{scheme: []}]), path
            demanded += answer.status_code == 401
            assert path not in ("/healthz", "/v2/health/ready") or about["security"] == []
    assert (demanded > 0) == bool(tokens)
