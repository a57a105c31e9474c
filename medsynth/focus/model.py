"""A trained focus network: loading and saving it, and judging images with it."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medsynth import spec
from medsynth.errors import Reason, Rejected
from medsynth.focus import _dense, ordinal
from medsynth.focus.network import FocusNetwork, NetworkSettings, SmallNetwork, build
from medsynth.model_file import Filed, Kind

DEFAULT_URI = "package://medsynth/weights/focus.safetensors"

_KIND = Kind("medsynth.focus/2", "focus", "jobs/train_focus.py")
_BAND, _SMALL_BAND = 512, 1024
"""Rows of pixels judged at a time; the small network, which looks after the cache itself, takes more."""


@dataclass(frozen=True)
class Scores:
    """What the network says of each cell of an image; cell (i, j) is the window from (i * stride, j * stride)."""

    probabilities: NDArray[np.float32]
    """(h, w, K), summing to 1 over the classes."""
    radius_px: NDArray[np.float32]
    """(h, w), the expected blur radius."""
    certainty: NDArray[np.float32]
    """(h, w), 0 to 1."""


@dataclass(frozen=True)
class Score:
    """What the network says of one image."""

    probabilities: NDArray[np.float32]
    """(K,), the certainty-weighted mean of its cells."""
    focus_class: int
    """The class nearest to the expected radius."""
    radius_px: float
    """Expected blur radius in pixels."""
    radius_um: float | None
    """The same in micrometres; None where the pixel size is not known."""
    certainty: float
    """Mean certainty of the cells, 0 to 1."""


class FocusModel(Filed):
    """A focus network with what it needs to be used.

    Args:
        network: the network, trained.
        radii_px: the blur radius of each of its classes.
        about: what else is known of it, kept as JSON beside the weights: data, settings, figures.
        sha256: of the file that it came from, if it came from one.

    Raises:
        ValueError: the table has another number of classes than the network.
    """

    def __init__(
        self, network: FocusNetwork, radii_px: tuple[float, ...], about: dict[str, Any], sha256: str | None = None
    ) -> None:
        if len(radii_px) != network.settings.classes:
            raise ValueError(f"{len(radii_px)} radii for {network.settings.classes} classes")
        self.network = network.eval()
        self.radii_px = radii_px
        self.about = about
        self._sha256 = sha256

    @classmethod
    def load(cls, uri: str | None = None) -> "FocusModel":
        """Read a model.

        Args:
            uri: a safetensors file; the shipped one by default.

        Raises:
            ModelError: there is none, or it is not a focus model.
            StorageError: it cannot be read.
        """
        where = uri or DEFAULT_URI
        return cls.from_bytes(_KIND.read(where), where)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "FocusModel":
        """Read a model from the bytes of its file.

        Args:
            data: the safetensors file.
            where: its name, for messages.

        Raises:
            ModelError: it is not a focus model, or its weights do not fit what stands beside them.
        """
        weights, described = _KIND.unpack(data, where)
        with _KIND.fitting(where):
            network = build(spec.parse(NetworkSettings, described.get("network"), f"{where}: network"))
            network.load_state_dict(weights)
            radii, about = described["radii_px"], described["about"]
            if not (isinstance(about, dict) and all(type(r) in (int, float) and 0 <= r < math.inf for r in radii)):
                raise ValueError("radii_px or about")
            return cls(network, tuple(radii), about, hashlib.sha256(data).hexdigest())

    def to_bytes(self) -> bytes:
        """The model as a safetensors file, the same bytes for the same model."""
        described = {
            "network": self.network.settings.model_dump(mode="json"),
            "radii_px": self.radii_px,
            "about": self.about,
        }
        return _KIND.pack(self.network.state_dict(), described)

    @property
    def stride(self) -> int:
        """Pixels from cell to cell."""
        return self.network.stride

    @property
    def field(self) -> int:
        """Side of a cell's window in pixels."""
        return self.network.field

    def score_map(self, image: NDArray[np.uint8]) -> Scores:
        """Judge an image cell by cell.

        Args:
            image: (H, W, 3) uint8 RGB. A large image may be given in bands: bands whose first row is a
                multiple of ``stride`` give the rows of cells that the whole gives.

        Returns:
            h = (H - field) // stride + 1 rows of cells and w likewise.

        Raises:
            Rejected: the image is smaller than one cell.
        """
        if min(image.shape[:2]) < self.field:
            found = f"{image.shape[1]}x{image.shape[0]} px"
            raise Rejected(Reason.TOO_SMALL, f"{found}; the focus network needs {self.field} a side")
        rows = (image.shape[0] - self.field) // self.stride + 1
        band = _SMALL_BAND if isinstance(self.network, SmallNetwork) else _BAND
        step = max(1, (band - self.field) // self.stride + 1)
        with torch.inference_mode():
            bands = []
            for first in range(0, rows, step):
                last = min(first + step, rows) - 1
                rows_of_pixels = image[first * self.stride : last * self.stride + self.field]
                bands.append(torch.softmax(self._logits(rows_of_pixels), dim=1))
            probabilities = torch.cat(bands, dim=2)
            return Scores(
                probabilities[0].permute(1, 2, 0).contiguous().numpy(),
                ordinal.expected_radius(probabilities, self.radii_px)[0].numpy(),
                ordinal.certainty(probabilities)[0].numpy(),
            )

    def _logits(self, image: NDArray[np.uint8]) -> Tensor:
        if isinstance(self.network, SmallNetwork):
            return _dense.logits(self.network, image)
        pixels = torch.from_numpy(np.require(image, requirements=["C", "W"]))
        logits: Tensor = self.network(pixels[None])
        return logits

    def score(self, image: NDArray[np.uint8], mpp: float | None = None) -> Score:
        """Judge an image as a whole.

        Args:
            image: (H, W, 3) uint8 RGB.
            mpp: micrometres a pixel, None where unknown.

        Raises:
            Rejected: the image is smaller than one cell.

        Source:
            Yang et al. 2018: the certainty-weighted mean over an image's patches.
        """
        cells = self.score_map(image)
        weights = cells.certainty[:, :, None].astype(np.float64) + 1e-6
        mean = (cells.probabilities * weights).sum(axis=(0, 1)) / weights.sum()
        radius = float(mean @ np.array(self.radii_px))
        return Score(
            mean.astype(np.float32),
            int(ordinal.nearest_class(radius, self.radii_px)),
            radius,
            None if mpp is None else radius * mpp,
            float(cells.certainty.mean()),
        )
