"""Slides by URI: a job each, done by Ray, whose state lies in its own folder and in no replica's memory.

``job.json`` is what was asked (written first, never again), ``progress.json`` how far it is, ``outcome.json`` what it
came to (written last, once). The work is :func:`serve.slide_work.done` in a detached actor named after the job: it
outlives the replica that started it. Where the actor is gone before its time, whoever asks next starts another, which
goes on from what is committed.
"""

import asyncio
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import ray
from pydantic import Field

from medsynth import storage
from medsynth.catalog import slides
from medsynth.errors import NotFoundError, UserError
from medsynth.spec import Settings
from serve.http import Problem, busy
from serve.wire import Focus

FILES = {"overlay.png": "image/png", "regions.geojson": "application/geo+json", "map.ome.tif": "image/tiff"}
JOB, PROGRESS, OUTCOME = "job.json", "progress.json", "outcome.json"
RUNNING, FAILED = "running", "failed"
ATTEMPTS = 3
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
    actor: Any = ray.remote(num_cpus=0, max_restarts=ATTEMPTS - 1)(Runner)
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
        from serve.slide_work import done  # here, since torch takes seconds to import, and the ingress needs none

        try:
            done(self._folder, self._weights)
        finally:
            ray.kill(self._itself)
