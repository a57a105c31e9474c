"""Slides by URI over HTTP, with jobs on a local disk, and Ray's part stood in for."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from medsynth import storage
from medsynth.errors import NotFoundError, Reason, StorageError
from serve import slides
from serve.http import PROBLEM
from serve.slides import SlideSettings, StoredJobs
from tests.serve.local import BASE, LocalFocus, client

PLACE = "/v1/focus/slides"


@dataclass
class Actors:
    """What Ray would run."""

    running: set[str] = field(default_factory=set)
    launched: list[str] = field(default_factory=list)

    def launch(self, job: str, folder: str, weights: str | None) -> None:
        self.launched.append(job)
        self.running.add(job)


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    found = Actors()
    monkeypatch.setattr(slides, "launch", found.launch)
    monkeypatch.setattr(slides, "_alive", found.running.__contains__)
    monkeypatch.setattr(slides, "_count", lambda: len(found.running))
    return found


@pytest.fixture
def slide(tmp_path: Path) -> str:
    path = tmp_path / "slides" / "a.tif"
    path.parent.mkdir()
    path.write_bytes(b"x")
    return str(path)


@pytest.fixture
def service(tmp_path: Path, slide: str, actors: Actors, focus: LocalFocus) -> TestClient:
    settings = SlideSettings(sources=[str(Path(slide).parent), "s3://bucket/slides"], jobs=str(tmp_path / "jobs"))
    return client(focus, jobs=StoredJobs(settings, None, focus, seconds=2))


def post(service: TestClient, slide: str, **more: Any) -> dict[str, Any]:
    answer = service.post(PLACE, json={"uri": slide, **more})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == found["location"] == f"{PLACE}/{found['id']}"
    return found


def write(folder: Path, name: str, what: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(what))


def refused(service: TestClient, uri: str) -> str:
    """The detail of a 422 that names the field."""
    answer = service.post(PLACE, json={"uri": uri})
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == "body.uri"
    assert error["detail"] in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    return str(error["detail"])


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def test_the_same_slide_again_is_the_same_job_with_its_own_status(
    service: TestClient, slide: str, actors: Actors, tmp_path: Path
) -> None:
    first = post(service, slide)
    assert first["status"] == "running"
    assert post(service, slide) == first
    actors.running.clear()
    write(tmp_path / "jobs" / first["id"], "outcome.json", {"status": "scored", "files": []})
    assert post(service, slide) == {**first, "status": "scored"}
    assert actors.launched == [first["id"]]


def test_places_are_below_the_prefix_that_was_asked_at(service: TestClient, slide: str, tmp_path: Path) -> None:
    below = TestClient(service.app, BASE, root_path="/below/it")
    answer = below.post(f"/below/it{PLACE}", json={"uri": slide})
    place, job = answer.headers["location"], answer.json()["id"]
    assert place == answer.json()["location"] == f"/below/it{PLACE}/{job}"
    write(tmp_path / "jobs" / job, "outcome.json", {"status": "scored", "name": "a", "files": ["overlay.png"]})
    assert below.get(place).json()["files"] == {"overlay.png": f"{place}/overlay.png"}


@pytest.mark.parametrize(
    "outcome",
    [
        {"status": "failed", "detail": "the store does not answer"},
        {"status": "rejected", "reason": str(Reason.STORAGE), "detail": "the store does not answer"},
        {"status": "rejected", "reason": str(Reason.MISSING), "detail": "nothing there"},
    ],
)
def test_what_may_pass_is_tried_anew_when_it_is_sent_again(
    outcome: dict[str, Any], service: TestClient, slide: str, actors: Actors, tmp_path: Path
) -> None:
    job = post(service, slide)["id"]
    folder = tmp_path / "jobs" / job
    actors.running.clear()
    write(folder, "progress.json", {"attempt": slides.ATTEMPTS})
    write(folder, "outcome.json", outcome)
    assert service.get(f"{PLACE}/{job}").json()["status"] == outcome["status"]
    assert actors.launched == [job], "to ask is no new attempt"
    assert post(service, slide)["status"] == "running"
    assert actors.launched == [job, job]
    found = service.get(f"{PLACE}/{job}").json()
    assert (found["status"], found["progress"]) == ("running", None), "its attempts are counted from none"


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_MPP, Reason.UNREADABLE, Reason.TRUNCATED])
def test_what_the_slide_itself_is_refused_for_stays_until_it_changes_or_that_is_asked_for(
    service: TestClient, slide: str, actors: Actors, tmp_path: Path, reason: Reason
) -> None:
    job = post(service, slide)["id"]
    actors.running.clear()
    outcome = {"status": "rejected", "reason": str(reason), "detail": "?"}
    write(tmp_path / "jobs" / job, "outcome.json", outcome)
    assert [post(service, slide)["status"] for _ in range(3)] == ["rejected"] * 3
    assert actors.launched == [job]
    assert post(service, slide, again=True)["status"] == "running"
    assert actors.launched == [job, job]
    Path(slide).write_bytes(b"mended")
    assert post(service, slide)["id"] not in actors.launched[:2]
    assert len(actors.launched) == 3


def test_a_scored_slide_is_not_scored_again(service: TestClient, slide: str, actors: Actors, tmp_path: Path) -> None:
    job = post(service, slide)["id"]
    actors.running.clear()
    write(tmp_path / "jobs" / job, "outcome.json", {"status": "scored", "reason": None, "files": []})
    assert post(service, slide, again=True)["status"] == "scored"
    assert actors.launched == [job]


def test_a_failed_job_waits_for_its_turn_like_others(
    service: TestClient, slide: str, actors: Actors, tmp_path: Path
) -> None:
    job = post(service, slide)["id"]
    write(tmp_path / "jobs" / job, "outcome.json", {"status": "failed", "detail": "?"})
    actors.running.clear()
    actors.running.update("abcd")
    answer = service.post(PLACE, json={"uri": slide})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    assert service.get(f"{PLACE}/{job}").json()["status"] == "failed"


@pytest.mark.parametrize("broken", ["read", "put_new", "list_files"])
def test_storage_that_fails_is_503(
    broken: str, service: TestClient, slide: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, broken, raising(StorageError("s3://secret: http://10.0.0.1 does not answer")))
    answers = [service.post(PLACE, json={"uri": slide})]
    if broken == "read":
        answers += [service.get(f"{PLACE}/{32 * '0'}"), service.get(f"{PLACE}/{32 * '0'}/overlay.png")]
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == PROBLEM
        assert answer.headers["retry-after"].isdigit()
        assert "secret" not in answer.text
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == len(answers)
    assert all("10.0.0.1" in record.fields["error"] for record in told)  # type: ignore[attr-defined]


def test_storage_that_does_not_answer_is_504(
    service: TestClient, slide: str, actors: Actors, focus: LocalFocus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def read(uri: str) -> bytes:
        release.wait(20)
        raise NotFoundError(uri)

    monkeypatch.setattr(storage, "read", read)
    settings = SlideSettings(sources=[str(Path(slide).parent)], jobs=str(tmp_path / "jobs"))
    hurried = client(focus, jobs=StoredJobs(settings, None, focus, seconds=0.2))
    with hurried:
        answers = [hurried.post(PLACE, json={"uri": slide}), hurried.get(f"{PLACE}/{32 * '0'}")]
        release.set()
    for answer in answers:
        assert answer.status_code == 504, answer.text
        assert answer.headers["content-type"] == PROBLEM


def test_a_file_that_is_gone_from_storage_is_404(service: TestClient, slide: str, tmp_path: Path) -> None:
    job = post(service, slide)["id"]
    outcome = {"status": "scored", "name": "a", "files": ["overlay.png"]}
    write(tmp_path / "jobs" / job, "outcome.json", outcome)
    answer = service.get(f"{PLACE}/{job}/overlay.png")
    assert answer.status_code == 404, answer.text
    assert job in answer.json()["detail"]


def test_each_refusal_of_an_address_says_what_is_wrong_with_it(service: TestClient, slide: str, tmp_path: Path) -> None:
    inside = str(Path(slide).parent)
    (tmp_path / "slides" / "folder.tif").mkdir()
    assert ".svs" in refused(service, f"{inside}/a.txt")
    for absent in ("none.tif", "a\n.tif", "folder.tif", "*.tif"):
        assert "no slide there" in refused(service, f"{inside}/{absent}")
    for elsewhere in (
        "/etc/a.tif",
        "s3://other/a.svs",
        "az://x/a.tif",
        "package://medsynth/a.tif",
        f"{inside}/../a.tif",
    ):
        assert "none of the places" in refused(service, elsewhere)
    strange = ("a\0.tif", "http://x/a.svs", "~nobody-of-this-name/a.tif", "s3://bucket/slides/../a.svs", "s3://")
    remote = ("s3://bucket/slides//a.svs", "s3://bucket/slides/./a.svs", "s3://bucket/slides/a\n.svs")
    for odd in (*strange, *remote, f"{inside}/{300 * 'x'}.tif"):
        assert "not an address" in refused(service, odd)


@pytest.mark.parametrize("place", ["http://x", "s3://bucket/../a", "~nobody-of-this-name"])
def test_an_operator_who_names_no_place_is_told_at_the_start(place: str) -> None:
    with pytest.raises(ValidationError, match="not an address"):
        SlideSettings(sources=["s3://bucket/slides/", place], jobs="jobs")
