"""The recipe ``skin``: clinical photos that a trained generator draws from maps, seen by a camera.

What is retry-safe and why: a picture follows from its request and its seed alone, whatever is drawn beside it in
a micro-batch of fixed size; a picture that is refused is drawn again here, by a seed that follows from the sample's
own. So a shard's bytes follow from its samples, the weights and the kind of processor that the fingerprint names.
"""

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import torch
from pydantic import model_validator

from medsynth import seeds, storage
from medsynth.corpus.schema import INTEGERS
from medsynth.errors import Reason, Rejected, SpecError, UserError
from medsynth.recipes import camera, photo, processor, real_photos
from medsynth.recipes.base import Output, Refusal, Sample, Stopwatch
from medsynth.recipes.camera import DEVICE, CameraSettings
from medsynth.recipes.photo import SIZES
from medsynth.recipes.real_photos import CONDITION, SIZE, TYPE
from medsynth.skin import likeness, pairs, quality, tone
from medsynth.skin.likeness import Known
from medsynth.skin.model import DEFAULT_URI, Drawn, Request, SkinModel
from medsynth.skin.quality import Found, Thresholds
from medsynth.skin.semantic_map import Box
from medsynth.spec import Axis, Range, Settings, Spec, parse

_DRAWS = 9  # of one sample, before it is given up
_GPU_SHARE = 0.125  # of a GPU for each worker: measuring and encoding take a CPU longer than drawing takes it


class SkinSettings(Settings):
    """The spec's section ``skin``."""

    weights: str = DEFAULT_URI
    """URI of the generator; the shipped one by default."""
    gpu: str | None = None
    """Name of the GPU to draw on, as PyTorch tells it; null for CPUs. Another kind of GPU gives other bytes."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of products within the network. bf16 draws faster where a CPU has AMX, and gives other bytes: a grey level or
    two of difference, the same again only on CPUs with the same instructions for it. The services draw in float32."""
    sizes: dict[str, Range] = SIZES
    """Values of the axis ``size``: the share of the picture that the lesion's box takes."""
    device: str | None = None
    """Camera of all pictures where ``device`` is no axis: a shipped name, or one of ``devices``; null for none."""
    devices: dict[str, str] = {}
    """Cameras of the user's own: a name, and the URI of its YAML file."""
    real: str | None = None
    """Table of real photos that no picture may be a copy of; as for jobs/train_gan.py."""
    reject: Thresholds = Thresholds()
    """What a picture is refused for."""

    @model_validator(mode="after")
    def _possible(self) -> "SkinSettings":
        for name, share in self.sizes.items():
            if not 0.001 <= share.low <= share.high <= 0.8:
                raise ValueError(f"sizes.{name}: a share of the picture lies between 0.001 and 0.8")
        return self


class Skin:
    """A condition, a skin type, a size and a camera in, a clinical photo out.

    Args:
        settings: the spec's section.
        cameras: the chain of each device; the key None for the picture as it was drawn.
        conditions: what the weights can draw.
        about: what the model's file tells of itself that a reader of the corpus should know.
        weights_sha256: digest of the model's file.
        image_format: jpeg, or png.
        kind: of processor, on which alone the bytes are these.
        real: the photos that no picture may be a copy of.
    """

    name = "skin"
    needs_sources = False

    def __init__(
        self,
        settings: SkinSettings,
        cameras: Mapping[str | None, CameraSettings],
        conditions: tuple[str, ...],
        about: Mapping[str, Any],
        weights_sha256: str,
        image_format: Literal["jpeg", "png"],
        kind: Mapping[str, str],
        real: Known | None,
    ) -> None:
        self._settings = settings
        self._cameras = dict(cameras)
        self._conditions = conditions
        self._about = dict(about)
        self._sha256 = weights_sha256
        self._png = image_format == "png"
        self._kind = dict(kind)
        self._real = real
        self.suffix = "png" if self._png else "jpg"
        self._bf16 = settings.precision == "bf16"
        self.gpus = 0.0 if settings.gpu is None else _GPU_SHARE
        self.parameters = (
            *(pa.field(name, pa.string()) for name in (CONDITION, TYPE, SIZE, DEVICE)),
            pa.field("ita_deg", pa.float64()),
            pa.field("ita_measured_deg", pa.float64()),
            pa.field("skin_rgb", INTEGERS),
            pa.field("lesion_box", INTEGERS),
            pa.field("lesion_share", pa.float64()),
            pa.field("lesion_change", pa.float64()),
            pa.field("likeness", pa.float64()),
            pa.field("hairs", pa.int64()),
            *camera.columns(camera.COLUMNS),
            pa.field("weights_sha256", pa.string()),
        )

    @classmethod
    def from_spec(cls, spec: Spec) -> "Skin":
        """Build the recipe that a spec asks for.

        Raises:
            SpecError: a setting is wrong or a device unknown.
            UserError: the weights are no skin model, or the table of real photos cannot be used.
        """
        settings = parse(SkinSettings, spec.skin, "skin")
        cameras: dict[str | None, CameraSettings] = {None: CameraSettings()}
        for name in camera.devices(spec, settings.device):
            cameras[name] = photo.camera_of(settings.devices.get(name, name), f"device {name}")
            if spec.output.image_format == "jpeg" and cameras[name].jpeg is None:
                raise SpecError(f"device {name}: jpeg is switched off, but output.image_format is jpeg; set it to png")
        places = {"weights": storage.absolute(settings.weights)}
        if settings.real is not None:
            places["real"] = storage.absolute(settings.real)
        settings = settings.model_copy(update=places)
        model = SkinModel.load(settings.weights)
        return cls(
            settings,
            cameras,
            model.conditions,
            {key: model.about[key] for key in ("attribution", "cautions") if key in model.about},
            model.sha256,
            spec.output.image_format,
            processor.kind(settings.gpu, settings.precision == "bf16"),
            likeness.know(pairs.read(settings.real)) if settings.real is not None else None,
        )

    def made_axes(self, axes: Mapping[str, Axis]) -> list[str]:
        """The axes made here: condition, fitzpatrick, size and device."""
        known = {CONDITION: self._conditions, TYPE: tone.TYPES, SIZE: tuple(self._settings.sizes)}
        for axis, values in known.items():
            for value in axes[axis].values if axis in axes else ():
                if value not in values:
                    nearest = difflib.get_close_matches(value, values, n=1, cutoff=0.5)
                    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(values)}"
                    raise SpecError(f"balance.axes.{axis}: no {axis} {value!r}; {hint}")
        return [axis for axis in axes if axis in (*known, DEVICE)]

    def identity(self) -> dict[str, Any]:
        """The section in full, every camera's chain, the weights, the real photos and the kind of processor."""
        return {
            "settings": self._settings.model_dump(mode="json"),
            "chains": {name: item.model_dump(mode="json") for name, item in self._cameras.items() if name is not None},
            "image_format": "png" if self._png else "jpeg",
            "model": {"sha256": self._sha256, "conditions": list(self._conditions), **self._about},
            "real": None
            if self._real is None
            else {"photos": len(self._real.descriptors), "sha256": self._real.digest},
            "processor": self._kind,
        }

    @classmethod
    def from_identity(cls, identity: Mapping[str, Any]) -> "Skin":
        """Build the recipe again from what :meth:`identity` said; it makes rows again and judges none.

        Raises:
            UserError: this machine's processor is of another kind, so its bytes would be others.
        """
        settings = parse(SkinSettings, identity["settings"], "skin")
        cameras: dict[str | None, CameraSettings] = {None: CameraSettings()}
        for name, item in identity["chains"].items():
            cameras[name] = parse(CameraSettings, item, f"device {name}")
        model = dict(identity["model"])
        sha256, conditions = model.pop("sha256"), tuple(model.pop("conditions"))
        processor.check(identity["processor"], settings.gpu)
        kind = identity["processor"]
        return cls(settings, cameras, conditions, model, sha256, identity["image_format"], kind, None)

    def notes(self) -> list[str]:
        """What a reader of the corpus should know besides."""
        off = [name for name, value in self._settings.reject.model_dump().items() if value is None]
        found = [f"pictures are not refused for {', '.join(off)}: switched off in skin.reject"] if off else []
        if self._real is None and self._settings.reject.likeness is not None:
            found.append("pictures were not compared with training photos: skin.real names no table")
        return found

    def refuses(self, width: int, height: int, mpp: float | None) -> Rejected | None:
        """No tile is asked for."""
        return None

    def as_real(self, uri: str, table: pa.Table, axes: Mapping[str, Axis]) -> tuple[pa.Table, list[str]]:
        """The values of a top-up's real photos: types I to VI, and the size from the lesion's box."""
        return real_photos.named(uri, table, axes, self._settings.sizes)

    def make(self, samples: Sequence[Sample], clock: Stopwatch) -> Iterator[Output | Refusal]:
        """Make samples, in order; one that is refused is drawn again, and each refusal is told."""
        with clock("read"):
            processor.check(self._kind, self._settings.gpu)
            model = _model(self._settings.weights, self._sha256, self._settings.gpu)
        results: dict[int, list[Output | Refusal]] = {sample.index: [] for sample in samples}
        waiting, size = list(samples), model.micro_batch
        with clock("render"), processor.settled():
            for turn in range(_DRAWS):
                again = []
                for first in range(0, len(waiting), size):
                    members = [_redrawn(sample, turn) for sample in waiting[first : first + size]]
                    for original, result in zip(waiting[first:], self._draw(model, members), strict=False):
                        results[original.index].append(result)
                        if isinstance(result, Refusal):
                            again.append(original)
                waiting = again
        for sample in samples:
            yield from results[sample.index]

    def remake(self, row: Mapping[str, Any]) -> bytes:
        """Make one image again from its row."""
        model = _model(self._settings.weights, self._sha256, self._settings.gpu)
        request = Request(
            row[CONDITION], tone.TYPES.index(row[TYPE]) + 1, tuple(row["skin_rgb"]), Box(*row["lesion_box"])
        )
        with processor.settled():
            (drawn,) = model.draw([request], [row["seed"]], self._bf16)
        parameters = camera.from_row(row)
        picture = camera.photograph(drawn.image, self._cameras[row[DEVICE]], parameters, row["seed"])
        return camera.encode(picture, parameters, self._png)

    def _draw(self, model: SkinModel, samples: Sequence[Sample]) -> Iterator[Output | Refusal]:
        requests = [self._request(model, sample) for sample in samples]
        drawn_all = model.draw(requests, [sample.seed for sample in samples], self._bf16)
        for sample, request, drawn in zip(samples, requests, drawn_all, strict=True):
            try:
                yield self._seen(sample, request, drawn)
            except Rejected as why:
                detail = f"seed {sample.seed}: {why.detail}"
                yield Refusal(sample, Rejected(why.reason, detail))

    def _request(self, model: SkinModel, sample: Sample) -> Request:
        values = sample.values
        kind = tone.TYPES.index(values[TYPE]) + 1 if TYPE in values else None
        size = self._settings.sizes[values[SIZE]] if SIZE in values else None
        return photo.request(model, values.get(CONDITION), kind, size, sample.seed)

    def _seen(self, sample: Sample, request: Request, drawn: Drawn) -> Output:
        assert isinstance(request.region, Box)
        box, asked = request.region, float(tone.ita(tone.to_lab(drawn.skin)))
        found = quality.judge(drawn.image, box, asked, self._settings.reject)
        near = self._likeness(drawn, box)
        name = sample.values.get(DEVICE, self._settings.device)
        picture, parameters = photo.taken(drawn.image, self._cameras[name], sample.seed)
        kind = request.fitzpatrick or int(tone.fitzpatrick(asked))
        values = {
            CONDITION: request.condition,
            TYPE: tone.TYPES[kind - 1],
            SIZE: sample.values.get(SIZE),
            DEVICE: name,
            **_told(found, asked, near),
            "hairs": drawn.hairs,
            "skin_rgb": list(drawn.skin),
            "lesion_box": [box.x0, box.y0, box.x1, box.y1],
            "lesion_share": round((box.x1 - box.x0) * (box.y1 - box.y0) / drawn.image.shape[0] ** 2, 4),
            "weights_sha256": self._sha256,
            **camera.to_row(parameters),
        }
        return Output(sample, camera.encode(picture, parameters, self._png), values)

    def _likeness(self, drawn: Drawn, box: Box) -> float | None:
        if self._real is None:
            return None
        near, place = self._real.nearest(drawn.image, box)
        most = self._settings.reject.likeness
        if most is not None and near > most:
            raise Rejected(Reason.COPY, f"a correlation of {near:g} with photo {place + 1} of skin.real, over {most:g}")
        return near


def _told(found: Found, asked: float, near: float | None) -> dict[str, float | None]:
    return {
        "ita_deg": asked,
        "ita_measured_deg": found.ita_deg,
        "lesion_change": found.change,
        "likeness": near,
    }


def _redrawn(sample: Sample, turn: int) -> Sample:
    if turn == 0:
        return sample
    return dataclasses.replace(sample, seed=seeds.digest64(sample.seed, "drawn again", turn) >> 1)


@functools.lru_cache(maxsize=2)
def _model(uri: str, sha256: str, gpu: str | None) -> SkinModel:
    model = SkinModel.load(uri)
    if model.sha256 != sha256:
        raise UserError(f"{uri}: not the weights that the corpus was begun with ({sha256[:12]}); put them back")
    if gpu is not None:
        model.network.to(torch.device("cuda"))
    return model
