"""A trained model as one safetensors file: its weights, and beside them in JSON what they are."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from medsynth import storage
from medsynth.errors import NotFoundError, SpecError, UserError

_KEY = "medsynth"


class ModelError(UserError):
    """A file is not a model of the kind that is wanted, or cannot be had."""


@dataclass(frozen=True)
class Kind:
    """One kind of model."""

    format: str
    """Name and version of what stands in its files."""
    name: str
    """For messages."""
    job: str
    """What makes them, for messages."""

    def read(self, uri: str) -> bytes:
        """The bytes of a file.

        Raises:
            ModelError: there is none.
            StorageError: it cannot be read.
        """
        try:
            return storage.read(uri)
        except NotFoundError as error:
            raise ModelError(f"{uri}: no such file; name the weights that {self.job} made") from error

    def unpack(self, data: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights in a file's bytes, and what stands beside them.

        Args:
            data: the file.
            where: its name, for messages.

        Raises:
            ModelError: it holds no model of this kind, or numbers that no training leaves.
        """
        try:
            weights, described = safetensors.torch.load(data), json.loads(metadata(data).get(_KEY, "{}"))
        except (safetensors.SafetensorError, ValueError, RecursionError) as error:
            raise ModelError(f"{where}: not a safetensors file; name weights that {self.job} made") from error
        if not isinstance(described, dict) or described.get("format") != self.format:
            raise ModelError(f"{where}: no {self.name} model of this version; name weights that {self.job} made")
        for name, value in weights.items():
            wrong = _wrong(value)
            if wrong:
                raise ModelError(f"{where}: the weights {name!r} {wrong}; name weights that {self.job} made")
        return weights, described

    @contextmanager
    def fitting(self, where: str) -> Iterator[None]:
        """Where a network is made of what was unpacked.

        Raises:
            ModelError: a setting is none, or the parts do not fit together.
        """
        try:
            yield
        except SpecError as error:
            raise ModelError(f"{error}; name weights that {self.job} made") from error
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{where}: the weights do not fit the settings beside them; train it anew") from error

    def pack(self, weights: Mapping[str, Tensor], described: Mapping[str, Any]) -> bytes:
        """The file's bytes, the same for the same model."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        return safetensors.torch.save(tensors, {_KEY: json.dumps({"format": self.format, **described}, sort_keys=True)})


class Filed(ABC):
    """A trained model that is kept in one file."""

    _sha256: str | None = None
    """Of the file that it came from, if it came from one."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The file's bytes, the same for the same model."""

    def save(self, uri: str) -> None:
        """Write the model, over whatever is there.

        Raises:
            StorageError: it cannot be written.
        """
        storage.put(uri, self.to_bytes())

    @property
    def sha256(self) -> str:
        """Digest of the model's file."""
        if self._sha256 is None:
            self._sha256 = hashlib.sha256(self.to_bytes()).hexdigest()
        return self._sha256


def _wrong(value: Tensor) -> str | None:
    # A normalisation counts its batches in one whole number; all else is learnt.
    if not value.is_floating_point():
        return f"are {value.dtype}, not floating" if value.dim() else None
    # A sum is no number where one of its terms is none, and takes a third of the time of a look at each.
    if not math.isfinite(value.float().sum(dtype=torch.float64)):
        return "are not all finite"
    return None


def metadata(data: bytes) -> dict[str, str]:
    """What stands beside the tensors of a safetensors file.

    Raises:
        ValueError: it is no such file.
    """
    found: dict[str, str] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    return found
