"""Slides by URI: a job each, done by Ray, whose state lies in its own folder and in no replica's memory.

``job.json`` is what was asked (written first, never again), ``progress.json`` how far it is, ``outcome.json`` what it
came to (written last, once). The work is :func:`medsynth.distributed.scoring.score` in a detached actor named after
the job: it outlives the replica that started it. Where the actor is gone before its time, whoever asks next
starts another, which goes on from what is committed.
"""

import asyncio
import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import ray
from pydantic import Field

from medsynth import storage
from medsynth.catalog import slides
from medsynth.distributed import scoring
from medsynth.errors import NotFoundError, UserError
from medsynth.focus.heatmap import Grades
from medsynth.focus.model import FocusModel
from medsynth.spec import Settings
from serve.focus import Focus
from serve.http import Problem, busy

FILES = {"overlay.png": "image/png", "regions.geojson": "application/geo+json", "map.ome.tif": "image/tiff"}
JOB, PROGRESS, OUTCOME = "job.json", "progress.json", "outcome.json"
RUNNING, FAILED = "running", "failed"
_ATTEMPTS = 3
_NAMESPACE, _PREFIX = "medsynth", "slide-"


class SlideSettings(Settings):
    """Where slides may be read, and where jobs are kept."""

    sources: list[str] = Field(min_length=1)
    """Folders or buckets; a slide outside them is refused, or clients could read whatever the service can."""
    jobs: str
    """Folder of the jobs, which all machines of the cluster reach."""
    at_once: int = Field(default=4, ge=1)
    """Jobs running at the same time; above it 429."""


class SlideJobs(Protocol):
    """What the ingress asks of slide jobs."""

    async def start(self, uri: str, mpp: float | None) -> str:
        """Start a job, or find the one that does this; its id."""

    async def state(self, job: str) -> dict[str, Any]:
        """What is known of a job."""

    async def file(self, job: str, name: str) -> bytes:
        """One of a finished job's files."""


@dataclass(frozen=True)
class StoredJobs:
    """Slide jobs on storage, run by detached actors.

    Args:
        settings: where.
        weights: URI of the network; None for the shipped one.
        focus: tells which weights answer now.
    """

    settings: SlideSettings
    weights: str | None
    focus: Focus

    async def start(self, uri: str, mpp: float | None) -> str:
        """Start a job, or find the one that does this; its id."""
        about = await self.focus.about()
        return await asyncio.to_thread(self._start, uri, mpp, about.weights_sha256)

    async def state(self, job: str) -> dict[str, Any]:
        """What is known of a job; one whose actor is gone is started again."""
        return await asyncio.to_thread(self._state, job)

    async def file(self, job: str, name: str) -> bytes:
        """One of a finished job's files."""
        return await asyncio.to_thread(self._file, job, name)

    def _start(self, uri: str, mpp: float | None, weights_sha256: str) -> str:
        source = self._source(uri)
        asked = {"uri": source.uri, "etag": source.etag, "mpp": mpp, "weights_sha256": weights_sha256}
        job = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        folder = self._folder(job)
        if read_json(storage.join(folder, OUTCOME)) is None and not _alive(job):
            if _count() >= self.settings.at_once:
                raise busy(f"{self.settings.at_once} slides are being scored; ask again later", 429, 10)
            storage.put_new(storage.join(folder, JOB), json.dumps({**asked, "id": job}).encode())
            launch(job, folder, self.weights)
        return job

    def _state(self, job: str) -> dict[str, Any]:
        folder = self._folder(job)
        asked = read_json(storage.join(folder, JOB))
        if asked is None:
            raise Problem(404, f"no slide job {job}")
        outcome = read_json(storage.join(folder, OUTCOME))
        if outcome is not None:
            return {**asked, **outcome}
        if not _alive(job) and read_json(storage.join(folder, OUTCOME)) is None and _count() < self.settings.at_once:
            launch(job, folder, self.weights)
        return {**asked, "status": RUNNING, "progress": read_json(storage.join(folder, PROGRESS))}

    def _file(self, job: str, name: str) -> bytes:
        outcome = self._state(job)
        if "files" not in outcome or name not in outcome["files"]:
            raise Problem(404, f"slide job {job} has no {name}; its status is {outcome['status']!r}")
        return storage.read(storage.join(self._folder(job), "scores", outcome["name"], name))

    def _folder(self, job: str) -> str:
        return storage.join(storage.absolute(self.settings.jobs), job)

    def _source(self, uri: str) -> slides.Source:
        refused = Problem(422, "uri: lies in none of the places that this service may read", errors=_AT_URI)
        try:
            wanted = _plain(uri)
            if not any(wanted.startswith(_plain(place).rstrip("/") + "/") for place in self.settings.sources):
                raise refused
            if PurePosixPath(wanted).suffix.lower() not in slides.SUFFIXES:
                raise Problem(422, f"uri: no slide by its ending; known are {', '.join(sorted(slides.SUFFIXES))}")
            found = slides.find([wanted])
        except UserError as error:
            raise Problem(422, f"uri: {error}", errors=_AT_URI) from error
        except ValueError as error:  # a path with a zero byte, a port that is no number
            raise Problem(422, "uri: not an address", errors=_AT_URI) from error
        if len(found) != 1:
            raise Problem(422, f"uri: {len(found)} slides; name one", errors=_AT_URI)
        return found[0]


_AT_URI = [{"field": "body.uri", "detail": "see detail"}]


def _plain(uri: str) -> str:
    """A URI without detours: local links followed, and no way up."""
    found = storage.absolute(uri)
    if storage.is_local(found):
        return os.path.realpath(found.removeprefix("file://"))
    if ".." in found.split("/"):
        raise ValueError("a way up")
    return found


def read_json(uri: str) -> dict[str, Any] | None:
    """A JSON object, or None where nothing is."""
    try:
        found: dict[str, Any] = json.loads(storage.read(uri))
    except NotFoundError:
        return None
    return found


def _count() -> int:
    named: list[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)
    return sum(one["namespace"] == _NAMESPACE and one["name"].startswith(_PREFIX) for one in named)


def _alive(job: str) -> bool:
    try:
        ray.get_actor(_PREFIX + job, _NAMESPACE)
    except ValueError:
        return False
    return True


def launch(job: str, folder: str, weights: str | None) -> None:
    """Start a job's actor, unless it runs.

    Args:
        job: its id.
        folder: URI of its folder.
        weights: URI of the network.
    """
    actor: Any = ray.remote(num_cpus=0, max_restarts=_ATTEMPTS - 1)(Runner)
    named = {"name": _PREFIX + job, "namespace": _NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    actor.options(**named).remote(folder, weights)


class Runner:
    """Does one job, and ends. An actor's arguments outlive whoever started it; a call to it would not.

    Args:
        folder: URI of the job's folder.
        weights: URI of the network.
    """

    def __init__(self, folder: str, weights: str | None) -> None:
        self._folder, self._weights = folder, weights
        self._itself = ray.get_runtime_context().current_actor
        threading.Thread(target=self._run, name="job").start()

    def _run(self) -> None:
        try:
            done(self._folder, self._weights)
        finally:
            ray.kill(self._itself)


def done(folder: str, weights: str | None) -> None:
    """Do a job to its outcome; an error ends it after some attempts.

    Args:
        folder: URI of the job's folder.
        weights: URI of the network.
    """
    before = read_json(storage.join(folder, PROGRESS)) or {}
    attempt = before.get("attempt", 0) + 1
    note = _Note(folder, attempt)
    try:
        if attempt > _ATTEMPTS:
            raise UserError(f"given up: {_ATTEMPTS} attempts ended without a word; the cluster's log tells more")
        note.write({"stage": "starting", "done": 0, "total": 0})
        outcome = _scored(folder, weights, note)
    except UserError as error:
        outcome = {"status": FAILED, "detail": str(error)}
    storage.put_new(storage.join(folder, OUTCOME), json.dumps(outcome).encode())


def _scored(folder: str, weights: str | None, note: "_Note") -> dict[str, Any]:
    asked = read_json(storage.join(folder, JOB)) or {}
    model = FocusModel.load(weights)
    if model.sha256 != asked["weights_sha256"]:
        raise UserError("the service has other weights now than when the job was sent; send it again")
    settings = scoring.Settings(
        out=storage.join(folder, "scores"),
        spacing=model.stride,
        mpp=asked["mpp"],
        grades=Grades(),
        exports=tuple(scoring.EXPORTS),
    )
    (found,) = scoring.score(slides.find([asked["uri"]]), model, settings, progress=note.show).outcomes
    files = sorted(FILES) if found.status == scoring.SCORED else []
    return {
        "status": found.status,
        "reason": found.reason,
        "detail": found.detail,
        "name": found.name,
        "focus": found.summary,
        "files": files,
    }


class _Note:
    """Writes how far a job is, at most twice a second."""

    def __init__(self, folder: str, attempt: int) -> None:
        self._uri, self._attempt, self._last = storage.join(folder, PROGRESS), attempt, 0.0

    def show(self, progress: scoring.Progress) -> None:
        now = time.monotonic()
        if now - self._last >= 0.5:
            self._last = now
            self.write({"stage": progress.stage, "done": progress.done, "total": progress.total})

    def write(self, what: dict[str, Any]) -> None:
        storage.put(self._uri, json.dumps({**what, "attempt": self._attempt}).encode())
