"""The settings of a training run, and the presets that they begin from, for each kind of machine."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from medsynth import spec
from medsynth.skin.samples import SampleSettings
from medsynth.skin.training import LearningSettings

_SMALLEST_PATCHES = 3


class TrainSettings(LearningSettings):
    """Everything about a run but where it reads and writes, and its seed."""

    samples: SampleSettings = SampleSettings()
    """How training pairs are made of photos."""
    conditions: tuple[str, ...] = ()
    """Those to learn, in the order that gives them their colours; by default all of the table."""
    hold_out: float = Field(default=0.25, ge=0, lt=1)
    """Share of the patients that is held out to validate on, at least one; 0 for none."""
    split_seed: int = Field(default=0, ge=0)
    """Another one holds out other patients. Not the run's: runs of other seeds are compared on the same photos."""
    validation_photos: int = Field(default=256, ge=1, le=10**6)
    """Held-out photos that are looked at, at the most."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        size = self.generator.size
        if self.samples.size != size:
            raise ValueError(f"samples.size is {self.samples.size} and generator.size {size}; give the same")
        if self.losses.pool > size:
            raise ValueError(f"losses.pool is {self.losses.pool} px, more than a picture of {size} px has")
        if self.generator.forms and self.generator.kind == "unet" and self.samples.region == "box":
            raise ValueError(f"generator.forms is {self.generator.forms}, but a U-Net sees a box alone; leave it at 0")
        judges = self.discriminator
        if size >> (judges.scales - 1 + judges.layers) < _SMALLEST_PATCHES:
            raise ValueError(
                f"discriminator: {judges.scales} scale(s) of {judges.layers} layers leave nothing of pictures of "
                f"{size} px; take fewer"
            )
        return self


_PAPER: dict[str, Any] = {
    "generator": {"kind": "unet", "dropout": True},
    "discriminator": {"layers": 3, "scales": 1, "spectral": False, "projection": False},
    "losses": {
        "kind": "vanilla",
        "adversarial": 1.0,
        "min_patch": 1.0,
        "l1": 100.0,
        "lesion_l1": 100.0,
        "feature_matching": 10.0,
        "pool": 1,
        "texture": 0.0,
        "tone": 0.0,
    },
    "learning_rate": 2e-4,
    "judging_rate": 2e-4,
    "momentum": 0.5,
    "second_momentum": 0.999,
    "constant": 0.5,
    "ema": 0.0,
    "augmented": 0.0,
    "samples": {"retoned": 0.0, "balance": 0.0},
}

_FURTHER: dict[str, Any] = {
    "begin": "shipped",
    "judging_first": 400,
    "losses": {
        "l1": 0.0,
        "lesion_l1": 0.0,
        "look": 0.0,
        "tone": 20.0,
        "lesion_tone": 3.0,
        "texture_colour": 2.0,
        "texture_strong": 2.0,
        "shades": 10.0,
    },
    "learning_rate": 2e-4,
    "constant": 0.8,
    "samples": {"foreign": 0.02, "warp": 0.12, "gloss_kept": True},
    "generator": {"look_spread": 1.0, "hair": 0.2, "forms": 0.4},
    "learnt": 0.7,
    "silenced": 0.25,
}

_SMOKE: dict[str, Any] = {
    "generator": {"size": 32, "width": 4, "widest": 16, "latent": 8, "embedding": 16},
    "discriminator": {"width": 4, "layers": 2},
    "samples": {"size": 32},
    "steps": 24,
    "batch": 4,
    "augmented_images": 400,
    "validate_every": 8,
    "log_every": 2,
    "checkpoint_seconds": 0,
}

PRESETS: dict[str, dict[str, Any]] = {"paper": _PAPER, "plus": {}, "further": _FURTHER, "smoke": _SMOKE}
"""Settings by the name of the preset: the paper's, the default, one that learns on from weights, and one for tests.

Of the paper's, these are known: the U-Net with resize and convolution, the patch judge, and the four terms beside
the adversarial one. From pix2pix: vanilla loss, half of the judge's, ``l1`` 100, the rates and their fall, Adam's 0.5
and 0.999, dropout, widths. (The others keep 0.99 for the second, which the shipped weights were learnt with.)
Assumed, since neither tells them: ``min_patch`` 1, ``lesion_l1`` 100, ``feature_matching`` 10 (pix2pixHD's), that
no average of the weights is kept, and that photos keep their own tone.
"""


def _sized(size: int, width: int, widest: int, judge: int, **others: Any) -> dict[str, Any]:
    network = {"size": size, "width": width, "widest": widest}
    sized = {"generator": network, "samples": {"size": size}, "discriminator": {"width": judge}}
    return spec.merged(sized, others)


_LARGE: dict[str, Any] = {"discriminator": {"scales": 3}, "losses": {"pool": 8}}
"""At 256 px, for judges and squares to see as much of a picture as at 128."""

MACHINES: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "paper": _sized(128, 24, 192, 24, batch=4, steps=10000),
        "plus": _sized(128, 16, 128, 32, batch=8, steps=1000),
        "further": _sized(256, 24, 256, 32, batch=8, steps=960, **_LARGE),
    },
    "gpu": {
        "paper": _sized(256, 64, 512, 64, batch=16, steps=8000),
        "plus": _sized(256, 24, 256, 64, batch=32, steps=3500, **_LARGE),
        "further": _sized(256, 24, 256, 64, batch=32, steps=2000, **_LARGE),
    },
    "cluster": {
        "paper": _sized(256, 64, 512, 64, batch=64, steps=30000),
        "plus": _sized(256, 32, 512, 96, batch=256, steps=30000, **_LARGE),
        "further": _sized(256, 24, 256, 96, batch=128, steps=2000, **_LARGE),
    },
}
"""What a preset is on a machine: two CPU cores for an hour at the most, one GPU for a quarter of one, or many.

Of further, only what it is on CPUs was tried: the shipped weights' second step is its, from those of their first, on
photos that these had learnt from already. A step of all takes 1.5 s with bf16 and two threads, by the job 2.7 s, in
float32 4.4 s, and one of judges alone half of that. So an hour needs bf16. Within 1,300 steps melanomas turned green,
in two runs of two; the card of the shipped weights has the figures.

On a CPU a worker reckons with one of two cores, and the other makes its samples. A step of plus takes 0.7 to 1.2 s,
the more the busier the machine is, a step of paper 0.33 s: so a quarter of an hour, and 55 minutes. (2 cores of AMD
EPYCs.) Whole runs of plus were looked at: with 1,000 steps, skin with a lesion of its own in each of six conditions,
tone within 1.2 degrees, KID 0.023. With 2,000, bars and grey blotches, 0.040; with 3,000, in 38 minutes, sharper
lesions, but violet and yellow blotches on ACK and SCC, 0.011. A small encoder does not see what eyes do.
"""


def settings(preset: str, machine: str, uri: str | None, flags: Mapping[str, Any]) -> TrainSettings:
    """The settings of a preset, with those of a file and then of flags in place of its own.

    Args:
        preset: a name in ``PRESETS``.
        machine: a name in ``MACHINES``; the smoke preset is the same on all.
        uri: of a YAML file, or None.
        flags: settings by name.

    Raises:
        SpecError: a setting is wrong; the message names it.
    """
    base = spec.merged(PRESETS[preset], MACHINES[machine].get(preset, {}))
    return spec.layered(TrainSettings, base, uri, flags, f"preset {preset}")
