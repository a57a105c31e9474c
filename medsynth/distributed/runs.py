"""What a training run keeps at its output: what it is, its last checkpoint, and its curve.

Everything goes through :mod:`medsynth.storage`, not through Ray Train's checkpoints: those need a
place that pyarrow and every node can write, are uploaded as folders that may stay half written, and
are found again through a snapshot on the driver's disk. Here a checkpoint is one object, put whole over
the last one with the same credentials and retries as everything else, so whatever is there is whole.
The curve is written before the checkpoint and cut to the checkpoint's step when a run goes on, so the
two agree after a kill at any moment.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load, save

from medsynth import model_file, storage
from medsynth.errors import NotFoundError, TrainingError

HEADER = "training.json"
CHECKPOINT = "checkpoints/last.safetensors"
METRICS = "metrics.csv"

Row = dict[str, str]
"""A line of the curve: step, losses, rates and, where it was validated, figures."""


def claim(out: str, header: Mapping[str, Any]) -> None:
    """Claim a place for a training run, or find that it is this run's already.

    Args:
        out: URI of the output folder.
        header: all that decides the result, JSON-able.

    Raises:
        TrainingError: another run is there; the message names what differs.
        StorageError: the place cannot be written.
    """
    text = json.dumps(header, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    uri = storage.join(out, HEADER)
    if not storage.put_new(uri, text.encode(), conditional=storage.honours_put_new(out)):
        check(out, header)


def check(out: str, header: Mapping[str, Any]) -> None:
    """Refuse a place that holds another training run.

    Args:
        out: URI of the output folder.
        header: all that decides the result, or what is known of it so far.

    Raises:
        TrainingError: another run is there; the message names what differs.
        StorageError: the place cannot be read.
    """
    uri = storage.join(out, HEADER)
    if storage.head(uri) is None:
        return
    try:
        found = json.loads(storage.read(uri))
        there = {name: found.get(name) for name in header}
    except (ValueError, AttributeError) as error:
        raise TrainingError(f"{uri}: damaged; choose another --out, or remove the folder") from error
    differing = _differences(there, json.loads(json.dumps(header)), "")
    if differing:
        shown = "; ".join(differing[:4]) + (f"; and {len(differing) - 4} more" if len(differing) > 4 else "")
        raise TrainingError(f"{out}: holds another training run ({shown}); choose another --out, or remove it")


def _differences(there: Any, here: Any, path: str) -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        keys = sorted({*there, *here})
        return [
            found
            for key in keys
            for found in _differences(there.get(key), here.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if there == here else [f"{path}: {_short(there)} there, {_short(here)} now"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def save_checkpoint(out: str, step: int, state: Mapping[str, torch.Tensor], rows: list[Row]) -> None:
    """Write the curve and then the checkpoint, each whole over the last.

    Args:
        out: URI of the output folder.
        step: steps done.
        state: all that is needed to go on exactly, by name.
        rows: the curve up to this step.

    Raises:
        StorageError: they cannot be written.
    """
    storage.put(storage.join(out, METRICS), _csv(rows))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    storage.put(storage.join(out, CHECKPOINT), save(tensors, {"step": str(step)}))


def load_checkpoint(out: str) -> tuple[int, dict[str, torch.Tensor]] | None:
    """The steps done and the state of the last checkpoint; None where there is none yet.

    Raises:
        TrainingError: the file there is no checkpoint.
        StorageError: it cannot be read.
    """
    uri = storage.join(out, CHECKPOINT)
    try:
        data = storage.read(uri)
    except NotFoundError:
        return None
    try:
        return int(model_file.metadata(data)["step"]), load(data)
    except Exception as error:  # the reader's own kinds of error are not public
        raise TrainingError(f"{uri}: damaged; remove it, and the training starts again") from error


def resume(out: str, load: Callable[[Mapping[str, torch.Tensor]], None]) -> tuple[int, list[Row]]:
    """Go on from the last checkpoint, where there is one.

    Args:
        out: URI of the output folder.
        load: takes the state.

    Returns:
        The steps done, and the curve up to there.

    Raises:
        TrainingError: what is there is no checkpoint, no curve, or of other networks.
        StorageError: it cannot be read.
    """
    found = load_checkpoint(out)
    if found is None:
        return 0, []
    step, state = found
    try:
        load(state)
    except (RuntimeError, KeyError, ValueError) as error:
        where = storage.join(out, CHECKPOINT)
        raise TrainingError(f"{where}: does not fit the settings; remove it, and the training starts again") from error
    return step, load_rows(out, step)


def load_rows(out: str, step: int) -> list[Row]:
    """The curve up to a checkpoint's step; what a killed run wrote beyond it is left out.

    Raises:
        TrainingError: it is no curve.
        StorageError: it cannot be read.
    """
    uri = storage.join(out, METRICS)
    try:
        lines = list(csv.DictReader(io.StringIO(storage.read(uri).decode())))
        return [{k: v for k, v in line.items() if v} for line in lines if int(line["step"]) <= step]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{uri}: damaged; remove the folder and train again") from error


def row(step: int, values: Mapping[str, float]) -> Row:
    """A line of the curve; nine digits name a float32 exactly.

    Example:
        >>> row(7, {"loss": 0.25})
        {'step': '7', 'loss': '0.25'}
    """
    return {"step": str(step), **{name: f"{value:.9g}" for name, value in values.items()}}


def _csv(rows: list[Row]) -> bytes:
    columns = dict.fromkeys(name for one in rows for name in one) or {"step": None}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
