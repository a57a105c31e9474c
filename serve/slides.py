"""Slides by URI: a job each, done by Ray, whose state lies in its own folder and in no replica's memory.

``job.json`` is what was asked (written first, never again), ``progress.json`` how far it is, ``outcome.json`` what it
came to (written last, once, and removed where it is done again). The work is
:func:`serve.slide_work.done` in a detached actor named after the job: it outlives the replica that started it. Where
the actor is gone before its time, whoever asks next starts another, which goes on from what is committed.
"""

import asyncio
import errno
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

import ray
from pydantic import Field, field_validator

from medsynth import storage
from medsynth.catalog import slides
from medsynth.errors import CatalogError, NotFoundError, Reason, StorageError
from medsynth.spec import Settings
from serve.http import Problem, busy
from serve.wire import Focus

FILES = {"overlay.png": "image/png", "regions.geojson": "application/geo+json", "map.ome.tif": "image/tiff"}
JOB, PROGRESS, OUTCOME = "job.json", "progress.json", "outcome.json"
RUNNING, FAILED, REJECTED = "running", "failed", "rejected"
ATTEMPTS = 3
_NAMESPACE, _PREFIX = "medsynth", "slide-"
_MAY_PASS = (Reason.MISSING, Reason.STORAGE)
"""What a slide is rejected for that has no fault of its own."""

_LOG = logging.getLogger("medsynth.serve")

T = TypeVar("T")


class SlideSettings(Settings):
    """Where slides may be read, and where jobs are kept."""

    sources: list[str] = Field(min_length=1)
    """Folders or buckets; a slide outside them is refused, or clients could read whatever the service can."""
    jobs: str
    """Folder of the jobs, which all machines of the cluster reach."""
    at_once: int = Field(default=4, ge=1)
    """Jobs running at the same time; above it 429."""

    @field_validator("sources")
    @classmethod
    def _are_addresses(cls, sources: list[str]) -> list[str]:
        for place in sources:
            try:
                _plain(place)
            except _NOT_PLAIN as error:
                raise ValueError(f"{place}: {_NO_ADDRESS}") from error
        return sources


class SlideJobs(Protocol):
    """What the ingress asks of slide jobs."""

    async def start(self, uri: str, mpp: float | None, again: bool) -> tuple[str, str]:
        """Start a job, or find the one that does this; its id and status."""

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
        seconds: for an answer.
    """

    settings: SlideSettings
    weights: str | None
    focus: Focus
    seconds: float = 20.0

    async def start(self, uri: str, mpp: float | None, again: bool) -> tuple[str, str]:
        """Start a job, or find the one that does this; its id and status.

        One that failed is started anew; one whose slide was rejected only where that is asked for.
        """
        about = await self.focus.about()
        return await self._within(lambda: self._start(uri, mpp, again, about.weights_sha256))

    async def state(self, job: str) -> dict[str, Any]:
        """What is known of a job; one whose actor is gone is started again."""
        return await self._within(lambda: self._state(job))

    async def file(self, job: str, name: str) -> bytes:
        """One of a finished job's files."""
        return await self._within(lambda: self._file(job, name))

    async def _within(self, work: Callable[[], T]) -> T:
        """Do what asks storage, in a thread, which goes on if it is given up: all of it may be done again.

        Raises:
            Problem: 503, storage fails; 504, it does not answer; what the work raises.
        """
        try:
            async with asyncio.timeout(self.seconds):
                return await asyncio.to_thread(work)
        except TimeoutError:
            raise Problem(504, f"storage did not answer within {self.seconds:g} s; ask again") from None
        except StorageError as error:
            _LOG.warning("storage fails", extra={"fields": {"error": str(error)}})
            raise busy("storage fails; ask again in a few seconds", seconds=5) from error

    def _start(self, uri: str, mpp: float | None, again: bool, weights_sha256: str) -> tuple[str, str]:
        source = self._source(uri)
        asked = {"uri": source.uri, "etag": source.etag, "mpp": mpp, "weights_sha256": weights_sha256}
        job = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        folder = self._folder(job)
        outcome = read_json(storage.join(folder, OUTCOME))
        if outcome is not None and not _worth_another(outcome, again):
            return job, outcome["status"]
        if outcome is not None or not _alive(job):
            if _count() >= self.settings.at_once:
                raise busy(f"{self.settings.at_once} slides are being scored; ask again later", 429, 10)
            if outcome is not None:
                storage.delete(storage.join(folder, PROGRESS))  # or its attempts would be counted on
                storage.delete(storage.join(folder, OUTCOME))
            storage.put_new(storage.join(folder, JOB), json.dumps({**asked, "id": job}).encode())
            launch(job, folder, self.weights)
        return job, RUNNING

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
        try:
            return storage.read(storage.join(self._folder(job), "scores", outcome["name"], name))
        except NotFoundError as error:
            raise Problem(404, f"{name} of slide job {job} was removed") from error

    def _folder(self, job: str) -> str:
        return storage.join(storage.absolute(self.settings.jobs), job)

    def _source(self, uri: str) -> slides.Source:
        try:
            wanted = _plain(uri)
        except _NOT_PLAIN as error:
            raise _refused(_NO_ADDRESS) from error
        if not any(wanted.startswith(_plain(place).rstrip("/") + "/") for place in self.settings.sources):
            raise _refused("lies in none of the places that this service may read")
        if PurePosixPath(wanted).suffix.lower() not in slides.SUFFIXES:
            raise _refused(f"no slide by its ending; known are {', '.join(sorted(slides.SUFFIXES))}")
        try:
            found = slides.find([wanted])
        except CatalogError as error:
            raise _refused("no slide there; check the address") from error
        except StorageError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG:
                raise _refused(_NO_ADDRESS) from error
            raise
        if len(found) != 1:
            raise _refused(f"{len(found)} slides; name one")
        return found[0]


_NO_ADDRESS = "not an address; write s3://, gs://, az:// or a path"
_NOT_PLAIN = (StorageError, ValueError, RuntimeError)
"""Raised by :func:`_plain`: no scheme of ours; a name that nothing can have; the home of nobody."""


def _refused(detail: str) -> Problem:
    return Problem(422, f"uri: {detail}", errors=[{"field": "body.uri", "detail": detail}])


def _plain(uri: str) -> str:
    """A URI without detours: local links followed, no way up, and nothing that object storage has no name for."""
    found = storage.absolute(uri)
    if storage.is_local(found):
        return os.path.realpath(found.removeprefix("file://"))
    parts = found.rstrip("/").partition("://")[2].split("/")
    if any(part in ("", ".", "..") for part in parts) or any(sign < " " or sign == "\x7f" for sign in found):
        raise ValueError("no object can have this name")
    return found


def _worth_another(outcome: dict[str, Any], again: bool) -> bool:
    """Whether another attempt may come to something else, or is asked for."""
    rejected = outcome["status"] == REJECTED
    return outcome["status"] == FAILED or (rejected and (again or outcome["reason"] in _MAY_PASS))


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
