"""What the ingress and the models tell one another. Nothing here imports a model, so that the ingress starts fast."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medsynth.errors import Reason, Rejected

FOCUS, SKIN = "focus", "skin"
"""The models' names."""

FOCUS_NOTE = "from a network trained on synthetically defocused tiles; for research, not for diagnosis"
SKIN_NOTE = "synthetic: drawn by a network, shows no person; for training other models, not for validation or diagnosis"

Form = Literal["overlay", "grid", "geojson"]
FORMS: dict[str, Form] = {"image/png": "overlay", "application/json": "grid", "application/geo+json": "geojson"}
"""What a heat map is answered as, by media type; the first is the default."""

Format = Literal["png", "jpeg"]
"""Of a picture's file."""


@dataclass(frozen=True)
class Item:
    """One image to judge."""

    data: bytes | NDArray[np.uint8]
    """A file, or (H, W, 3) RGB."""
    mpp: float | None = None
    """µm a pixel; None for what the file says."""
    pixels: int = field(kw_only=True)
    """How many it has, by its header."""


@dataclass(frozen=True)
class Judged:
    """What is said of one image."""

    width: int
    height: int
    mpp: float | None
    classes: list[float]
    """Probability of each class."""
    focus_class: int
    radius_px: float
    radius_um: float | None
    certainty: float
    grade: str | None
    """None where the pixel size is not known."""


@dataclass(frozen=True)
class Refused:
    """An image that cannot be judged, and why."""

    reason: Reason
    detail: str

    @classmethod
    def of(cls, why: Rejected) -> "Refused":
        """From the exception, which would lose its kind on its way through Ray."""
        return cls(why.reason, why.detail)

    def raised(self) -> Rejected:
        """The exception again."""
        return Rejected(self.reason, self.detail)


@dataclass(frozen=True)
class About:
    """The focus model that answers."""

    name: str
    version: str
    weights_sha256: str
    field: int
    """Side of the smallest image in pixels."""
    stride: int
    radii_px: tuple[float, ...]
    """Blur radius of each class."""
    grades_um: tuple[float, float, float]
    """Blur radii from which it is slight, moderate and severe."""


class Focus(Protocol):
    """What the ingress asks of the focus model, wherever that runs."""

    async def about(self) -> About:
        """Which model answers.

        Raises:
            Problem: 429, one is there and has no time to say; 503, none is there.
        """

    async def score(self, items: list[Item]) -> tuple[list[Judged | Refused], About]:
        """Judge images, each by itself."""

    async def heat_map(self, item: Item, form: Form) -> tuple[bytes | Refused, About]:
        """Draw an image's focus map."""


@dataclass(frozen=True)
class Asked:
    """What pictures shall show; what is left open follows from each one's seed, as in a corpus."""

    condition: str | None = None
    """None with a map, which says it."""
    fitzpatrick: int | None = None
    """Type, 1 to 6."""
    skin: tuple[int, int, int] | None = None
    """The skin's colour, sRGB."""
    box: tuple[int, int, int, int] | None = None
    """The lesion's, in pixels of the model's own picture."""
    place: tuple[float, float, float] | None = None
    """Instead of the box: the root of its share of the picture, and its centre as fractions of the side."""
    size: str | None = None
    """Instead of both: a size class of the corpus recipe."""
    map: bytes | None = None
    """Instead of condition, skin and box: a PNG file."""
    device: str | None = None
    """Camera; None for the picture as it is drawn."""
    side: int | None = None
    """Pixels of the answer on a side; None for the model's own."""
    format: Format = "png"


@dataclass(frozen=True)
class Picture:
    """One picture made. All but the first two are columns of a corpus's row, and as a request give it again."""

    data: bytes
    """The file."""
    side: int
    seed: int
    condition: str
    fitzpatrick: str
    """I to VI."""
    skin_rgb: tuple[int, int, int]
    lesion_box: tuple[int, int, int, int]
    """In pixels of the model's own picture; of a map's region, what bounds it."""
    ita_deg: float
    """Angle of the asked colour."""
    device: str | None


BACKLOG_SECONDS = 4.0
"""Of work that a replica takes on: under the 5 s after which a flood must be forgotten."""


@dataclass(frozen=True)
class Full:
    """The model has more to do than it could answer in time."""

    seconds: int
    """Until what it has is done."""


@dataclass(frozen=True)
class Misfit:
    """What was asked for cannot be drawn, and which field says so."""

    field: str
    detail: str


@dataclass(frozen=True)
class SkinAbout:
    """The skin generator that answers."""

    name: str
    version: str
    weights_sha256: str
    size: int
    """Side of its pictures in pixels."""
    colours: dict[str, tuple[int, int, int]]
    """Each condition with its colour in a map."""
    sizes: dict[str, tuple[float, float]]
    """Each size class with its lowest and highest share of the picture."""
    devices: tuple[str, ...]
    region: str
    """What a rectangle in a map stands for: a lesion of that form by weights that learnt from each ``mask``, one of a
    form of its own in that ``box`` by others. Any other form is followed."""
    processor: dict[str, str]
    """The kind on which alone the pixels are these."""
    attribution: Any
    cautions: Any


class Skin(Protocol):
    """What the ingress asks of the skin generator, wherever that runs."""

    async def about(self) -> SkinAbout:
        """Which model answers.

        Raises:
            Problem: 429, one is there and has no time to say; 503, none is there.
        """

    async def draw(self, asked: Asked, seeds: list[int]) -> tuple[list[Picture] | Misfit, SkinAbout]:
        """Draw a picture for each seed."""


def model_name(about: About | SkinAbout) -> dict[str, str]:
    """Which model answered, for a body."""
    return {"name": about.name, "version": about.version, "weights_sha256": about.weights_sha256}


def model_headers(about: About | SkinAbout) -> dict[str, str]:
    """Which model answered, for the headers."""
    return {"Medsynth-Model": f"{about.name}/{about.version}", "Medsynth-Weights-SHA256": about.weights_sha256}
