"""The recipe ``out_of_focus``: in-focus tiles, put out of focus by the physics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from medsynth.catalog import tiles
from medsynth.defocus import chain, device
from medsynth.defocus.chain import ChainParameters, ChainSettings
from medsynth.draws import uniforms
from medsynth.errors import Reason, Rejected, SpecError
from medsynth.images import Pixels
from medsynth.recipes import camera
from medsynth.recipes.base import Output, Refusal, Sample, Stopwatch, prefetch
from medsynth.recipes.camera import DEVICE
from medsynth.spec import Axis, Spec, parse

FOCUS_AXIS = "focus_class"


class OutOfFocusSettings(ChainSettings):
    """The spec's section ``out_of_focus``: the chain's settings and the geometry."""

    size: int = Field(default=176, ge=16, le=4096)
    """Side of the images made, px; a tile of 256 px leaves that much with every shipped device."""
    device: str | None = None
    """Profile for all images where ``device`` is no axis: a shipped name, or one of ``devices``."""
    devices: dict[str, str] = {}
    """Profiles of the user's own: a name, and the URI of its YAML file."""


class OutOfFocus:
    """In-focus tiles in, tiles of a known focus class out.

    Args:
        settings: the spec's section.
        chains: the chain of each device; the key None for the settings as they stand.
        image_format: jpeg, or png to keep the chain's own JPEG step apart from the file format.
    """

    name = "out_of_focus"
    needs_sources = True
    gpus = 0.0

    def __init__(
        self,
        settings: OutOfFocusSettings,
        chains: Mapping[str | None, ChainSettings],
        image_format: Literal["jpeg", "png"],
    ) -> None:
        self._settings = settings
        self._chains = dict(chains)
        self._used = {name: item for name, item in chains.items() if name is not None} or self._chains
        self._png = image_format == "png"
        self._classes = chain.class_count(settings)
        self.suffix = "png" if self._png else "jpg"
        self.parameters = (
            pa.field(FOCUS_AXIS, pa.int64()),
            pa.field(DEVICE, pa.string()),
            *camera.columns(),
        )

    @classmethod
    def from_spec(cls, spec: Spec) -> "OutOfFocus":
        """Build the recipe that a spec asks for.

        Raises:
            SpecError: a setting is wrong, a device unknown, or two settings contradict each other.
        """
        settings = parse(OutOfFocusSettings, spec.out_of_focus, "out_of_focus")
        wanted = camera.devices(spec, settings.device)
        chains: dict[str | None, ChainSettings] = {None: settings}
        for name in wanted:
            chains[name] = chain.with_device(settings, device.load(settings.devices.get(name, name)))
        used = [chains[name] for name in wanted] or [settings]
        if spec.output.image_format == "jpeg" and any(item.jpeg is None for item in used):
            raise SpecError("out_of_focus.jpeg: switched off, but output.image_format is jpeg; set it to png")
        return cls(settings, chains, spec.output.image_format)

    def made_axes(self, axes: Mapping[str, Axis]) -> list[str]:
        """The axes made here: focus_class, whose classes the radius table must have, and device."""
        for value in axes[FOCUS_AXIS].values if FOCUS_AXIS in axes else ():
            if value not in map(str, range(self._classes)):
                raise SpecError(
                    f"balance.axes.{FOCUS_AXIS}: no class {value!r}; the radius table has 0 to {self._classes - 1}"
                )
        return [axis for axis in axes if axis in (FOCUS_AXIS, DEVICE)]

    def identity(self) -> dict[str, Any]:
        """The section with all defaults filled in, every device's chain in full, and the file format."""
        return {
            "settings": self._settings.model_dump(mode="json"),
            "chains": {
                name: chain_.model_dump(mode="json") for name, chain_ in self._chains.items() if name is not None
            },
            "image_format": "png" if self._png else "jpeg",
        }

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> "OutOfFocus":
        """Build the recipe again from what :meth:`identity` said, without the devices' files."""
        settings = parse(OutOfFocusSettings, identity["settings"], "out_of_focus")
        chains: dict[str | None, ChainSettings] = {None: settings}
        for name, item in identity["chains"].items():
            chains[name] = parse(OutOfFocusSettings, item, f"device {name}")
        return cls(settings, chains, identity["image_format"])

    def notes(self) -> list[str]:
        """Nothing besides."""
        return []

    def as_real(self, uri: str, table: pa.Table, axes: Mapping[str, Axis]) -> tuple[pa.Table, list[str]]:
        """The table as it is."""
        return table, []

    def refuses(self, width: int, height: int, mpp: float | None) -> Rejected | None:
        """Why no tile of this size can be a source, whatever the class: the margin must hold the largest radius."""
        for settings in self._used.values():
            try:
                most = chain.output_size(settings, min(width, height), mpp)
            except Rejected as why:
                return why
            if most < self._settings.size:
                given = f"{width}x{height} px give at most {most} px with the margin"
                return Rejected(Reason.TOO_SMALL, f"{given}, and out_of_focus.size is {self._settings.size}")
        return None

    def make(self, samples: Sequence[Sample], clock: Stopwatch) -> Iterator[Output | Refusal]:
        """Make samples, decoding each source image once."""
        by_image = [(key, list(group)) for key, group in groupby(samples, key=_image)]
        for (key, members), (_, future) in zip(by_image, prefetch([key for key, _ in by_image], _fetch), strict=True):
            try:
                with clock("read"):
                    data = future.result()
                with clock("render"):
                    picture = tiles.load(data, key[3])
            except Rejected as why:
                yield from (Refusal(sample, why) for sample in members)
                continue
            for sample in members:
                with clock("render"):
                    yield self._make_one(sample, picture)

    def remake(self, row: Mapping[str, Any]) -> bytes:
        """Make one image again from its row."""
        data = tiles.fetch(row["source_uri"], row["source_row"], row["source_column"])
        picture = tiles.load(data, row["source_sha256"])
        window = picture[
            row["source_y"] : row["source_y"] + row["source_height"],
            row["source_x"] : row["source_x"] + row["source_width"],
        ]
        parameters = ChainParameters(**{item.name: row[item.name] for item in fields(ChainParameters)})
        image = chain.render(window, self._chains[row[DEVICE]], parameters, self._settings.size, row["seed"])
        return camera.encode(image, parameters, self._png)

    def _make_one(self, sample: Sample, picture: Pixels) -> Output | Refusal:
        source = sample.source
        assert source is not None
        name = sample.values.get(DEVICE, self._settings.device)
        settings = self._chains[name]
        focus_class = (
            int(sample.values[FOCUS_AXIS])
            if FOCUS_AXIS in sample.values
            else int(uniforms(sample.seed, FOCUS_AXIS, 1)[0] * self._classes)
        )
        window = picture[source.y : source.y + source.height, source.x : source.x + source.width]
        try:
            parameters = chain.draw(settings, focus_class, source.mpp, sample.seed)
            image = chain.render(window, settings, parameters, self._settings.size, sample.seed)
        except Rejected as why:
            return Refusal(sample, why)
        values = {FOCUS_AXIS: focus_class, DEVICE: name, **asdict(parameters)}
        return Output(sample, camera.encode(image, parameters, self._png), values)


_Key = tuple[str, int | None, str | None, str]


def _image(sample: Sample) -> _Key:
    source = sample.source
    assert source is not None
    return (source.uri, source.row, source.image_column, source.sha256)


def _fetch(key: _Key) -> bytes:
    return tiles.fetch(key[0], key[1], key[2])
