"""Focus over HTTP, with the model in this process."""

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from medsynth.focus.heatmap import GRADES
from serve.wire import Item
from tests.serve.local import LocalFocus, encoded
from tests.slides import on_glass, stained, write_tiff

PNG = {"Content-Type": "image/png"}


def test_one_raw_image(http: TestClient, focus: LocalFocus, tile: bytes) -> None:
    answer = http.post("/v1/focus/scores?mpp=0.25", content=tile, headers=PNG)
    assert answer.status_code == 200, answer.text
    (score,) = answer.json()["scores"]
    assert len(score["classes"]) == 30
    assert sum(score["classes"]) == pytest.approx(1, abs=1e-4)
    assert score["radius_um"] == pytest.approx(score["radius_px"] / 4, rel=1e-4)
    assert 0 <= score["certainty"] <= 1
    assert score["grade"] in GRADES
    assert (score["width"], score["height"], score["mpp"], score["name"]) == (256, 256, 0.25, None)
    assert "not for diagnosis" in answer.json()["note"]


def test_the_model_and_its_weights_are_named(http: TestClient, focus: LocalFocus, tile: bytes) -> None:
    about = asyncio.run(focus.about())
    for path in ("/v1/focus/scores?mpp=1", "/v1/focus/heatmaps?mpp=1"):
        answer = http.post(path, content=tile, headers={**PNG, "Accept": "application/json"})
        assert answer.headers["medsynth-weights-sha256"] == about.weights_sha256
        assert answer.headers["medsynth-model"] == f"focus/{about.version}"
        named = {"name": "focus", "version": about.version, "weights_sha256": about.weights_sha256}
        assert answer.json()["model"] == named
        assert http.get("/v1/models").json()["models"][0].items() >= named.items()


def test_many_in_a_form_in_their_order(http: TestClient) -> None:
    tiles = [encoded(stained(200, 200 + n, n)) for n in range(5)]
    files = [("images", (f"{n}.png", tile, "image/png")) for n, tile in enumerate(tiles)]
    found = http.post("/v1/focus/scores", files=files, data={"mpp": "0.5"}).json()["scores"]
    assert [one["name"] for one in found] == [f"{n}.png" for n in range(5)]
    assert [one["mpp"] for one in found] == [0.5] * 5
    for one, tile in zip(found, tiles, strict=True):
        alone = http.post("/v1/focus/scores?mpp=0.5", content=tile, headers=PNG).json()["scores"][0]
        assert {**one, "name": None} == alone


def test_one_bad_file_of_a_form_is_named(http: TestClient, tile: bytes) -> None:
    for bad, status in ((b"nonsense", 400), (tile[:-200], 400), (encoded(stained(100, 100)), 422)):
        files = [("images", ("good.png", tile)), ("images", ("bad.png", bad))]
        answer = http.post("/v1/focus/scores", files=files)
        assert answer.status_code == status
        assert answer.json()["detail"].startswith("bad.png: ")


@pytest.mark.parametrize("mpp", ["x", "0", "-1", "nan", "inf", "1e9", ""])
def test_a_wrong_pixel_size_is_422_and_named(http: TestClient, tile: bytes, mpp: str) -> None:
    by_query = http.post(f"/v1/focus/scores?mpp={mpp}", content=tile, headers=PNG)
    by_field = http.post("/v1/focus/scores", files={"images": ("a.png", tile)}, data={"mpp": mpp})
    for answer, field in ((by_query, "query.mpp"), (by_field, "body.mpp")):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field


def test_an_unknown_field_is_422(http: TestClient, tile: bytes) -> None:
    answer = http.post("/v1/focus/scores", files={"images": ("a.png", tile)}, data={"mmp": "1"})
    assert answer.status_code == 422
    assert "body.mmp" in answer.json()["detail"]
    for query, field in (("?mmp=3", "query.mmp"), ("?mpp=1&mpp=2", "query.mpp"), ("?a%0Ab=", "query.a\ufffdb")):
        for path in ("scores", "heatmaps"):
            answer = http.post(f"/v1/focus/{path}{query}", content=tile, headers=PNG)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["field"] == field
    answer = http.post("/v1/focus/scores?mpp=1", files={"images": ("a.png", tile)}, data={"mpp": "1"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.mpp")


JSON_WANTED = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def on_a_slide(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    picture = on_glass(700, 600, (90, 130, 500, 400))
    return write_tiff(tmp_path_factory.mktemp("slide") / "a.tif", picture, 0.25).read_bytes()


def heat(http: TestClient, data: bytes, accept: str, query: str = "") -> Any:
    headers = {"Content-Type": "image/tiff", "Accept": accept}
    return http.post(f"/v1/focus/heatmaps{query}", content=data, headers=headers)


def test_heat_maps_in_three_forms(http: TestClient, on_a_slide: bytes, test_output: Path) -> None:
    picture = heat(http, on_a_slide, "image/*")
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["vary"] == "Accept"
    (test_output / "overlay.png").write_bytes(picture.content)
    with Image.open(io.BytesIO(picture.content)) as opened:
        assert min(opened.size) > 300
        assert "not for diagnosis" in opened.info["Description"]
    grid = heat(http, on_a_slide, "application/json").json()
    shape = grid["geometry"]
    assert np.array(grid["radius_um"], dtype=float).shape == (shape["rows"], shape["columns"])
    assert np.array(grid["certainty"], dtype=float).shape == (shape["rows"], shape["columns"])
    assert sum(grid["summary"]["shares"].values()) == pytest.approx(1, abs=1e-4)
    geo = heat(http, on_a_slide, "application/geo+json")
    assert geo.headers["content-type"] == "application/geo+json"
    assert json.loads(geo.content)["type"] == "FeatureCollection"


def test_a_heat_map_takes_the_pixel_size_of_its_form(http: TestClient, on_a_slide: bytes) -> None:
    answer = http.post("/v1/focus/heatmaps", files={"image": on_a_slide}, data={"mpp": "0.5"}, headers=JSON_WANTED)
    assert answer.json()["geometry"]["mpp"] == 0.5
    assert heat(http, on_a_slide, "application/json").json()["geometry"]["mpp"] == 0.25


def test_heat_maps_that_cannot_be(http: TestClient, on_a_slide: bytes, tile: bytes) -> None:
    assert heat(http, on_a_slide, "text/html").status_code == 406
    answer = heat(http, tile, "image/png")
    assert answer.status_code == 422
    assert "mpp" in answer.json()["detail"]
    answer = heat(http, encoded(on_glass(300, 300, (0, 0, 0, 0))), "image/png", "?mpp=0.25")
    assert (answer.status_code, answer.json()["reason"]) == (422, "no_tissue")
    two = [("images", ("a.png", tile)), ("images", ("b.png", tile))]
    assert http.post("/v1/focus/heatmaps?mpp=1", files=two).status_code == 422


def test_grey_is_judged_as_colour_of_equal_parts_and_no_tissue_is_told_in_it(http: TestClient) -> None:
    luma = np.asarray(Image.fromarray(stained(256, 256)).convert("L"))
    grey, colour = encoded(luma), encoded(np.stack([luma] * 3, axis=-1))
    by_kind = {"image/png": grey, "image/tiff": encoded(luma, "TIFF"), "image/bmp": encoded(luma, "BMP")}
    wanted = http.post("/v1/focus/scores?mpp=0.25", content=colour, headers=PNG).json()
    tensor = {"name": "images", "datatype": "BYTES", "shape": [2]}
    tensor["data"] = [base64.b64encode(one).decode() for one in (grey, colour)]
    outputs = http.post("/v2/models/focus/infer", json={"inputs": [tensor]}).json()["outputs"]
    (radii,) = [one["data"] for one in outputs if one["name"] == "radius_px"]
    assert radii == [wanted["scores"][0]["radius_px"]] * 2
    for kind, data in {**by_kind, "image/*": colour}.items():
        headers = {"Content-Type": kind}
        assert http.post("/v1/focus/scores?mpp=0.25", content=data, headers=headers).json() == wanted
        answer = http.post("/v1/focus/heatmaps?mpp=0.25", content=data, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (422, "not_bright_field")
        assert "send it in colour" in answer.json()["detail"]


def test_figures_are_shown(http: TestClient, focus: LocalFocus, tile: bytes) -> None:
    http.post("/v1/focus/scores", content=tile, headers=PNG)
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for sign in (
        'medsynth_requests_total{method="POST",route="/v1/focus/scores",status="200"}',
        'medsynth_request_seconds_bucket{le="0.1",route="/v1/focus/scores"}',
        'medsynth_batch_images_sum{model="focus"}',
        'medsynth_queue_images{model="focus"} 0.0',
        'medsynth_images_total{model="focus"}',
    ):
        assert sign in answer.text
    assert asyncio.run(focus.score([Item(tile, pixels=1)]))
