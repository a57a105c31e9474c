"""The work of a slide's job: :func:`medsynth.distributed.scoring.score`, and a note of how far it is."""

import json
import time
from typing import Any

from medsynth import storage
from medsynth.catalog import slides
from medsynth.distributed import scoring
from medsynth.errors import UserError
from medsynth.focus import stages
from medsynth.focus.heatmap import Grades
from medsynth.focus.model import FocusModel
from serve.slides import ATTEMPTS, FAILED, FILES, JOB, OUTCOME, PROGRESS, read_json


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
        if attempt > ATTEMPTS:
            raise UserError(f"given up: {ATTEMPTS} attempts ended without a word; the cluster's log tells more")
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
    settings = stages.Settings(
        out=storage.join(folder, "scores"),
        spacing=model.stride,
        mpp=asked["mpp"],
        grades=Grades(),
        exports=tuple(stages.EXPORTS),
    )
    (found,) = scoring.score(slides.find([asked["uri"]]), model, settings, progress=note.show).outcomes
    files = sorted(FILES) if found.status == stages.SCORED else []
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
