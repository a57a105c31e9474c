"""Slides on Ray Data: surveyed, scored band by band, and finished; only small records come back.

Every task is a stage of one slide (:mod:`medsynth.focus.stages`), which may be run again anywhere; a run that was
killed finds what is there.
"""

import functools
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import ray
import torch
from ray.data import TaskPoolStrategy

from medsynth import storage
from medsynth.catalog.slides import Source
from medsynth.distributed.exchange import answered, answers, numbers
from medsynth.distributed.session import session
from medsynth.errors import Reason, Rejected, ScoringError
from medsynth.focus import export, stages
from medsynth.focus import slide as scoring
from medsynth.focus.model import FocusModel
from medsynth.focus.stages import EXPORTS, NOTHING, SLIDE, SUMMARY, Settings

FORMAT = "medsynth-scores-1"
HEADER = "scores.json"
REJECTED = "rejected"
_WAVE = 2048
_READERS = 16


@dataclass(frozen=True)
class Outcome:
    """What became of one slide."""

    source: Source
    name: str
    """Of its folder."""
    status: str
    reason: str | None = None
    detail: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    """Of a scored slide."""
    fresh: bool = True
    """Whether this run did anything for it."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    stage: str
    """What is counted, in the plural."""
    done: int
    total: int
    fresh: int
    tissue_px: int = 0
    """Pixels of tissue scored by this run."""


@dataclass(frozen=True)
class Summary:
    """What a run came to."""

    outcomes: list[Outcome]
    seconds: float
    tissue_px: int
    """Pixels of tissue scored by this run."""


@dataclass
class _Item:
    source: Source
    name: str
    folder: str
    outcome: Outcome | None = None
    missing: tuple[str, ...] = ()
    """Exports that are wanted and not there."""


@dataclass(frozen=True)
class _Shared:
    """All that tasks know."""

    settings: Settings
    model: FocusModel
    items: list[tuple[Source, str]]
    """Each slide and its folder."""
    units: list[tuple[int, tuple[Any, ...]]]
    """Each task: place of its slide, and which bands or exports."""


def score(
    sources: Sequence[Source],
    model: FocusModel,
    settings: Settings,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Summary:
    """Score slides, or what is missing of it. A session is started where there is none and something to do.

    Args:
        sources: the slides.
        model: the network.
        settings: what is asked for.
        workers: tasks at the same time; by default as many as the session has CPUs.
        progress: called as tasks finish.

    Raises:
        ScoringError: the output holds scores made otherwise.
        UserError: the output cannot be written.
    """
    started = time.monotonic()
    _claim(settings, model)
    items = _known(_named(sources, settings.out), settings)
    todo = [item for item in items if item.outcome is None]
    pixels = 0
    if todo:
        with session(workers, environments=False):
            pixels = _Run(todo, model, settings, workers, progress).run()
    storage.remove_staging(settings.out)
    outcomes = [item.outcome for item in items if item.outcome is not None]
    return Summary(outcomes, time.monotonic() - started, pixels)


def _claim(settings: Settings, model: FocusModel) -> None:
    here = {
        "format": FORMAT,
        "weights_sha256": model.sha256,
        "stride": settings.spacing,
        "mpp": settings.mpp,
        "grades": settings.grades.model_dump(mode="json"),
        "piece_cells": scoring.PIECE_CELLS,
        "least_tissue": scoring.LEAST_TISSUE,
        "note": f"{export.NOTE}; the network was trained on synthetically defocused tiles",
    }
    uri = storage.join(settings.out, HEADER)
    text = json.dumps(here, indent=1, ensure_ascii=False) + "\n"
    if storage.put_new(uri, text.encode(), conditional=settings.conditional):
        return
    try:
        there = json.loads(storage.read(uri))
    except ValueError as error:
        raise ScoringError(f"{uri}: damaged; choose another --out, or remove it") from error
    differing = [
        f"{key}: {there.get(key)} there, {here.get(key)} here"
        for key in sorted({*there, *here} - {"note"})
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise ScoringError(
            f"{settings.out}: holds scores made otherwise ({'; '.join(differing)}); choose another --out, or remove it"
        )


def _named(sources: Sequence[Source], out: str) -> list[_Item]:
    """Give each slide a folder; slides of one name get their URI's digest behind it."""
    alike = Counter(source.stem.lower() for source in sources)

    def item(source: Source) -> _Item:
        plain, long = source.stem, f"{source.stem}-{hashlib.sha256(source.uri.encode()).hexdigest()[:8]}"
        name = plain if alike[plain.lower()] == 1 else long
        there = stages.read_json(storage.join(out, name, SLIDE))
        if there is not None and there["uri"] != source.uri:
            name = long
        return _Item(source, name, storage.join(out, name))

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(item, sources))


def _known(items: list[_Item], settings: Settings) -> list[_Item]:
    """Note what earlier runs finished."""

    def look(item: _Item) -> None:
        there = stages.read_json(storage.join(item.folder, SLIDE))
        if there is None:
            item.missing = settings.exports
            return
        if there["etag"] != item.source.etag:
            why = Rejected(Reason.CHANGED, f"scored before with other bytes; remove {item.folder} to score it anew")
            item.outcome = _rejected(item, why)
            return
        summary = stages.read_json(storage.join(item.folder, SUMMARY))
        item.missing = tuple(
            name for name in settings.exports if storage.head(storage.join(item.folder, EXPORTS[name])) is None
        )
        if summary is not None and (not item.missing or summary["status"] == NOTHING):
            item.outcome = replace(_finished(item, summary), fresh=False)

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(look, items))
    return items


def _rejected(item: _Item, why: Rejected) -> Outcome:
    return Outcome(item.source, item.name, REJECTED, str(why.reason), why.detail)


def _finished(item: _Item, summary: dict[str, Any]) -> Outcome:
    return Outcome(
        item.source, item.name, summary["status"], summary.get("reason"), summary.get("detail"), summary["focus"]
    )


class _Run:
    """One run over the slides that are not done."""

    def __init__(
        self,
        items: list[_Item],
        model: FocusModel,
        settings: Settings,
        workers: int | None,
        progress: Callable[[Progress], None],
    ) -> None:
        self.items, self.model, self.settings = items, model, settings
        self.workers, self.progress = workers, progress
        self.bands: dict[int, list[int]] = {}
        self.pixels = 0

    def run(self) -> int:
        """Survey, score and finish; the pixels of tissue scored."""
        for place, answer in self._stage("surveys", _survey, [(at, ()) for at in range(len(self.items))]):
            self.bands[place] = answer["bands"]
        self._score()
        units = [(at, item.missing) for at, item in enumerate(self.items) if item.outcome is None]
        for place, answer in self._stage("maps", _finish, units):
            self.items[place].outcome = _finished(self.items[place], answer)
        return self.pixels

    def _score(self) -> None:
        units: list[tuple[int, tuple[int, ...]]] = []
        for place, wanted in self.bands.items():
            # A remote slide is copied once, and the copy serves all of its bands.
            local = storage.is_local(self.items[place].source.uri)
            units += [(place, (band,)) for band in wanted] if local else [(place, tuple(wanted))] if wanted else []
        for _, answer in self._stage("bands", _score, units):
            self.pixels += answer["pixels"]

    def _stage(
        self, name: str, work: Any, units: Sequence[tuple[int, tuple[Any, ...]]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Run one task a unit; a rejected slide is noted, and what it still had to do is let go."""
        items = [(item.source, item.folder) for item in self.items]
        shared = ray.put(_Shared(self.settings, self.model, items, list(units)))
        done = 0
        if units:
            self.progress(Progress(name, 0, len(units), 0, self.pixels))
        for start in range(0, len(units), _WAVE):
            count = min(_WAVE, len(units) - start)
            made = numbers(count).map_batches(
                _work,  # type: ignore[arg-type]  # Ray's types do not know fn_kwargs
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"shared": [shared], "work": work, "start": start},
                compute=TaskPoolStrategy(size=self.workers),
                num_cpus=1,
            )
            for answer in answers(made):
                item = self.items[answer["slide"]]
                found = json.loads(answer["answer"])
                if "reason" in found and "status" not in found:
                    why = Rejected(Reason(found["reason"]), found["detail"])
                    item.outcome = item.outcome or _rejected(item, why)
                elif found.get("status") == NOTHING:
                    item.outcome = _finished(item, found)
                else:
                    yield answer["slide"], found
                done += 1
                self.progress(Progress(name, done, len(units), done, self.pixels))


_ANSWER = pa.schema([("slide", pa.int64()), ("answer", pa.string()), ("error", pa.string())])


def _work(batch: pa.Table, shared: list[Any], work: Any, start: int) -> pa.Table:
    known = _fetched(shared[0])
    torch.set_num_threads(1)

    def answer(number: int) -> dict[str, Any]:
        place, what = known.units[start + number]
        try:
            found = work(known, *known.items[place], what)
        except Rejected as why:
            found = {"reason": str(why.reason), "detail": why.detail}
        return {"slide": place, "answer": json.dumps(found)}

    return answered(batch, answer, _ANSWER)


@functools.lru_cache(maxsize=2)
def _fetched(reference: Any) -> _Shared:
    shared: _Shared = ray.get(reference)
    return shared


def _survey(shared: _Shared, source: Source, folder: str, _: tuple[()]) -> dict[str, Any]:
    return stages.survey(shared.settings, shared.model, source, folder)


def _score(shared: _Shared, source: Source, folder: str, bands: tuple[int, ...]) -> dict[str, Any]:
    return stages.score(shared.settings, shared.model, source, folder, bands)


def _finish(shared: _Shared, source: Source, folder: str, exports: tuple[str, ...]) -> dict[str, Any]:
    return stages.finish(shared.settings, source, folder, exports)
