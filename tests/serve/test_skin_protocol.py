"""How the Open Inference Protocol's pictures are asked of the generator."""

import asyncio
import base64
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.wire import Asked, Misfit, Picture, SkinAbout
from tests.serve.local import LocalFocus, client

ABOUT = SkinAbout("skin", "1", "a" * 64, 32, {"BCC": (1, 2, 3)}, {}, (), "box", {}, None, None)


class Artist:
    """Counts how it is asked; a picture's file says what was asked of it."""

    def __init__(self, misfit: str = "", versions: bool = False) -> None:
        self.misfit, self.versions = misfit, versions
        self.calls: list[tuple[Asked, list[int]]] = []
        self.now = self.most = 0

    async def draw(self, asked: Asked, seeds: list[int]) -> tuple[list[Picture] | Misfit, SkinAbout]:
        self.calls.append((asked, seeds))
        about = replace(ABOUT, weights_sha256=f"{len(self.calls):064}") if self.versions else ABOUT
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.01)
        finally:
            self.now -= 1
        if asked.condition == self.misfit:
            return Misfit("condition", "none such"), about
        condition = str(asked.condition)
        return [
            Picture(f"{condition} {seed}".encode(), 32, seed, condition, "I", (1, 2, 3), (0, 0, 1, 1), 0.0, None)
            for seed in seeds
        ], about


def infer(http: TestClient, conditions: list[str], seeds: list[int]) -> Any:
    tensors = {"condition": ("BYTES", conditions), "seed": ("INT64", seeds)}
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(data)], "data": data} for name, (kind, data) in tensors.items()
    ]
    return http.post("/v2/models/skin/infer", json={"inputs": inputs})


def test_what_is_asked_alike_goes_in_one_call_and_comes_in_the_order_asked(focus: LocalFocus) -> None:
    artist = Artist()
    conditions, seeds = ["BCC", "NEV"] * 32, list(range(64))
    answer = infer(client(focus, skin=artist), conditions, seeds)
    assert [asked.condition for asked, _ in artist.calls] == ["BCC", "NEV"]
    assert [given for _, given in artist.calls] == [seeds[::2], seeds[1::2]]
    outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
    said = [base64.b64decode(one).decode() for one in outputs["images"]]
    assert said == [f"{condition} {seed}" for condition, seed in zip(conditions, seeds, strict=True)]
    assert outputs["seed"] == seeds


def test_few_calls_wait_at_a_time(focus: LocalFocus) -> None:
    artist = Artist()
    assert infer(client(focus, skin=artist), [f"C{at}" for at in range(64)], [7] * 64).status_code == 200
    assert len(artist.calls) == 64
    assert artist.most <= 8


def test_one_that_fails_ends_the_others(focus: LocalFocus) -> None:
    artist = Artist(misfit="C3")
    answer = infer(client(focus, skin=artist), [f"C{at}" for at in range(64)], [7] * 64)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "body.inputs.0.data: condition: none such"
    assert len(artist.calls) < 20


@pytest.mark.parametrize(("conditions", "status"), [(["BCC", "BCC"], 200), (["BCC", "NEV"], 503)])
def test_an_answer_names_the_one_model_that_drew_all_of_it(
    focus: LocalFocus, conditions: list[str], status: int
) -> None:
    answer = infer(client(focus, skin=Artist(versions=True)), conditions, [1, 2])
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == (None if status == 200 else "1")
