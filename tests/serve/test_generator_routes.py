"""Skin photos over HTTP, with the model in this process."""

import asyncio
import base64
import io
import json
import re
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from medsynth import images
from medsynth.recipes import build
from medsynth.recipes.base import Output, Sample, Stopwatch
from medsynth.seeds import sample_seed
from medsynth.skin import semantic_map
from medsynth.skin.semantic_map import Box
from serve.http import Limits
from tests import skin_model
from tests.serve.local import LocalFocus, LocalSkin, client

PLACE = "/v1/skin/images"
NEVUS = {"condition": "NEV", "fitzpatrick": "IV", "seed": 7}


def ask(http: TestClient, body: Any, accept: str = "image/png") -> Any:
    return http.post(PLACE, json=body, headers={"Accept": accept})


def pixels(data: bytes) -> Any:
    return images.decode(data).tolist()


def test_a_picture_comes_as_a_file_that_says_what_it_is(http: TestClient, skin: LocalSkin) -> None:
    about = asyncio.run(skin.about())
    for kind, form in (("image/png", "PNG"), ("image/jpeg", "JPEG")):
        answer = ask(http, NEVUS, kind)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == kind
        assert answer.headers["medsynth-seed"] == "7"
        assert answer.headers["medsynth-synthetic"] == "true"
        assert answer.headers["medsynth-model"] == f"skin/{about.version}"
        assert answer.headers["medsynth-weights-sha256"] == about.weights_sha256
        with Image.open(io.BytesIO(answer.content)) as opened:
            assert (opened.format, opened.size) == (form, (32, 32))
            said = opened.info["Description"] if form == "PNG" else opened.getexif()[0x010E]
            assert said.startswith("synthetic: ")
            assert "NEV, Fitzpatrick type IV, seed 7" in said
        assert ask(http, NEVUS, kind).content == answer.content
    assert pixels(ask(http, NEVUS, "image/png").content) == pixels(ask(http, NEVUS, "image/jpeg").content)


def test_the_row_of_a_corpus_gives_its_pixels(http: TestClient, skin: LocalSkin) -> None:
    recipe = build(skin_model.spec(skin.uri))
    choice = {"condition": "BCC", "fitzpatrick": "VI", "device": "phone-flagship"}
    (result,) = recipe.make([Sample(0, sample_seed(1, 0), choice, None)], Stopwatch())
    assert isinstance(result, Output)
    row = json.loads(json.dumps({**result.parameters, "seed": result.sample.seed}))
    sent = ("condition", "fitzpatrick", "skin_rgb", "lesion_box", "device", "seed")
    found = ask(http, {name: row[name] for name in sent}, "application/json").json()
    (image,) = found["images"]
    assert pixels(base64.b64decode(image["data"])) == pixels(result.image)
    assert {name: image[name] for name in (*sent, "ita_deg")} == {name: row[name] for name in (*sent, "ita_deg")}
    assert found["model"]["weights_sha256"] == row["weights_sha256"]
    assert image["synthetic"] is True
    in_short = ask(http, {**choice, "seed": row["seed"]}, "image/png")
    assert pixels(in_short.content) == pixels(result.image)


def test_several_have_seeds_of_their_own(http: TestClient) -> None:
    answer = ask(http, {**NEVUS, "count": 3}, "*/*")
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()["images"]
    seeds = [one["seed"] for one in found]
    assert answer.headers["medsynth-seed"] == ", ".join(map(str, seeds))
    assert seeds[0] == 7
    assert len(set(seeds)) == 3
    for one in found:
        alone = ask(http, {**NEVUS, "seed": one["seed"]})
        assert alone.content == base64.b64decode(one["data"])
        assert one["media_type"] == "image/png"
    archive = ask(http, {**NEVUS, "count": 3, "format": "jpeg"}, "application/zip")
    assert archive.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        told = json.loads(opened.read("images.json"))
        assert [one["seed"] for one in told["images"]] == seeds
        for one, same in zip(told["images"], found, strict=True):
            assert pixels(opened.read(one["file"])) == pixels(base64.b64decode(same["data"]))
    assert ask(http, {**NEVUS, "count": 3}, "application/zip").content != archive.content


def test_without_a_seed_one_is_chosen_and_told(http: TestClient) -> None:
    body = {"condition": "BCC"}
    answers = [ask(http, body) for _ in range(2)]
    seeds = [int(one.headers["medsynth-seed"]) for one in answers]
    assert seeds[0] != seeds[1]
    assert max(seeds) < 2**53, "JavaScript can hold it"
    assert ask(http, {**body, "seed": seeds[0]}).content == answers[0].content


def test_a_lesion_lies_where_it_is_asked_for(http: TestClient) -> None:
    def box(**place: Any) -> list[int]:
        answer = ask(http, {**NEVUS, **place}, "application/json")
        found: list[int] = answer.json()["images"][0]["lesion_box"]
        return found

    assert box(lesion_size=0.5) == [8, 8, 24, 24]
    assert box(lesion_size=0.25, lesion_x=1, lesion_y=0) == [24, 0, 32, 8]
    assert box(lesion_box=[1, 2, 30, 9]) == [1, 2, 30, 9]
    small, large = box(size="small"), box(size="large")
    assert (large[2] - large[0]) > (small[2] - small[0])


def test_types_are_taken_as_people_write_them(http: TestClient) -> None:
    answers = {ask(http, {**NEVUS, "fitzpatrick": one}).content for one in ("IV", "iv", 4, "4")}
    assert len(answers) == 1
    assert ask(http, {**NEVUS, "fitzpatrick": "V"}).content not in answers


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"condition": "WART"}, "body.condition"),
        ({"condition": None}, "body.condition"),
        ({"fitzpatrick": "VII"}, "body.fitzpatrick"),
        ({"fitzpatrick": True}, "body.fitzpatrick"),
        ({"skin_rgb": [1, 2]}, "body.skin_rgb"),
        ({"skin_rgb": [1, 2, 256]}, "body.skin_rgb.2"),
        ({"skin_rgb": [0, 0, 255]}, "body.skin_rgb"),
        ({"skin_rgb": [60, 40, 30]}, "body.skin_rgb"),
        ({"lesion_box": [0, 0, 40, 4]}, "body.lesion_box"),
        ({"lesion_box": [0, 0, 4, 4], "lesion_size": 0.5}, "body"),
        ({"lesion_box": [0, 0, 20, 20], "size": "small"}, "body"),
        ({"lesion_size": 0.5, "size": "small"}, "body"),
        ({"lesion_x": 0.3}, "body"),
        ({"lesion_size": 0}, "body.lesion_size"),
        ({"lesion_size": 0.2, "lesion_y": 1.5}, "body.lesion_y"),
        ({"size": "big"}, "body.size"),
        ({"device": "phone"}, "body.device"),
        ({"seed": -1}, "body.seed"),
        ({"seed": 2**63}, "body.seed"),
        ({"count": 0}, "body.count"),
        ({"count": 5}, "body.count"),
        ({"side": 5000}, "body.side"),
        ({"format": "gif"}, "body.format"),
        ({"conditions": "x"}, "body.conditions"),
    ],
)
def test_wrong_fields_are_422_and_named(focus: LocalFocus, skin: LocalSkin, change: dict[str, Any], field: str) -> None:
    answer = ask(client(focus, Limits(pictures=4), skin), {**NEVUS, **change}, "*/*")
    assert answer.status_code == 422, answer.text
    assert [one["field"] for one in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("change", "accept", "status"),
    [
        ({}, "text/html", 406),
        ({"count": 2}, "image/png", 406),
        ({"format": "png"}, "image/jpeg", 406),
        ({"format": "jpeg"}, "image/*", 200),
        ({"count": 2}, "image/png, application/json;q=0.5", 200),
    ],
)
def test_what_accept_allows(http: TestClient, change: dict[str, Any], accept: str, status: int) -> None:
    assert ask(http, {**NEVUS, **change}, accept).status_code == status


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_another_type_is_415(http: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = http.post(PLACE, content=json.dumps(NEVUS), headers=headers)
    assert (answer.status_code, answer.headers["accept-post"]) == (415, "application/json")


def from_map(http: TestClient, data: bytes, query: str = "", kind: str = "image/png") -> Any:
    headers = {"Content-Type": kind, "Accept": "image/png, application/json;q=0.5"}
    return http.post(f"{PLACE}/from-map{query}", content=data, headers=headers)


def a_map() -> bytes:
    box = Box(5, 6, 25, 20)
    colour = semantic_map.colour_of("BCC", skin_model.NAMES)
    return images.encode_png(semantic_map.draw((32, 32), (172, 124, 100), box, colour))


def test_a_map_is_drawn(http: TestClient) -> None:
    known = http.get("/v1/models").json()["models"][1]
    assert known["conditions"]["BCC"] == list(semantic_map.colour_of("BCC", skin_model.NAMES))
    assert (known["size_px"], known["region"]) == (32, "box")
    answer = from_map(http, a_map(), "?seed=3&device=phone-budget")
    assert answer.status_code == 200, answer.text
    body = {"condition": "BCC", "skin_rgb": [172, 124, 100], "lesion_box": [5, 6, 25, 20]}
    assert ask(http, {**body, "seed": 3, "device": "phone-budget"}).content == answer.content
    several = from_map(http, a_map(), "?seed=3&count=2&side=64&format=jpeg")
    assert [one["side"] for one in several.json()["images"]] == [64, 64]


def test_what_is_no_map_is_told(http: TestClient) -> None:
    sink = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(sink, "JPEG")
    grey = images.encode_png(np.full((32, 32, 3), 90, np.uint8))
    for data, query, status, field in (
        (grey, "", 422, "body.map"),
        (a_map(), "?count=0", 422, "query.count"),
        (a_map(), "?cuont=2", 422, "query.cuont"),
        (a_map(), "?device=x", 422, "query.device"),
        (a_map(), "?seed=1&seed=2", 422, "query.seed"),
        (a_map()[:-30], "", 422, "body.map"),
        (sink.getvalue(), "", 415, None),
        (b"rubbish", "", 400, None),
    ):
        answer = from_map(http, data, query)
        assert answer.status_code == status, answer.text
        if field:
            assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert from_map(http, a_map(), kind="application/json").status_code == 415
    answer = http.post(f"{PLACE}/from-map", files={"map": a_map()}, data={"seed": "7"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.seed")
    answer = http.post(f"{PLACE}?seed=5", json=NEVUS)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.seed")


def test_without_weights_there_is_no_generator(focus: LocalFocus) -> None:
    http = client(focus)
    assert "skin_weights" in http.get("/v1/models").json()["absent"]["skin"]
    assert [one["name"] for one in http.get("/v1/models").json()["models"]] == ["focus"]
    assert http.get("/readyz").json().keys() == {"ready", "absent"}
    for answer in (ask(http, NEVUS), from_map(http, a_map()), http.get("/v2/models/skin/ready")):
        assert answer.status_code == 404
        assert "skin_weights" in answer.json()["detail"]
    assert http.get("/docs").status_code == 200


def test_pictures_are_counted_by_subgroup(http: TestClient) -> None:
    def made(text: str) -> float:
        found = re.search(r'^medsynth_made_total\{condition="NEV",fitzpatrick="II"\} (.*)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = made(http.get("/metrics").text)
    ask(http, {**NEVUS, "fitzpatrick": "II", "count": 2}, "application/json")
    text = http.get("/metrics").text
    assert made(text) == before + 2
    for sign in ('medsynth_batch_images_sum{model="skin"}', 'medsynth_queue_images{model="skin"} 0.0'):
        assert sign in text
