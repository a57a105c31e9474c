"""Features of pictures: a small classifier of condition, tone and faults, learnt from real training photos.

No network of another's is shipped or fetched. What stands here is small and knows skin alone: figures by its
features compare generators judged by the same encoder, and are no numbers to hold against those of papers.
Its file is safetensors of our own format; whoever names it again gets the same features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medsynth import seeds
from medsynth.evaluation.pictures import Pictures, resized
from medsynth.model_file import Filed, Kind
from medsynth.skin import tone
from medsynth.skin.pairs import Pairs
from medsynth.skin.samples import Feed, SampleSettings

SIDE = 128
"""Pixels on a side to which every picture is brought."""

_KIND = Kind("medsynth.encoder/1", "encoder", "jobs/evaluate.py")
_WIDTHS = (16, 32, 64, 96)
_FAULTS = 5
_BATCH, _RATE, _AT_ONCE = 24, 4e-3, 64


class Network(nn.Module):
    """Four halvings. Statistics of batches are fixed once it is trained: features never depend on company."""

    def __init__(self, conditions: int) -> None:
        super().__init__()
        into = (3, *_WIDTHS[:-1])
        self.first = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(into, _WIDTHS, strict=True))
        self.second = nn.ModuleList(nn.Conv2d(b, b, 3, 1, 1) for b in _WIDTHS)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in _WIDTHS for _ in range(2))
        self.condition = nn.Linear(2 * _WIDTHS[-1], conditions)
        self.tone = nn.Linear(2 * _WIDTHS[-1], 6)
        self.fault = nn.Linear(2 * sum(_WIDTHS), _FAULTS)

    def levels(self, x: Tensor) -> list[Tensor]:
        """Mean and spread of each channel over the picture, level by level: (N, 2 C) each."""
        found = []
        for level, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            x = functional.leaky_relu(self.norms[2 * level](first(x)), 0.1)
            x = functional.leaky_relu(self.norms[2 * level + 1](second(x)) + x, 0.1)
            found.append(torch.cat([x.mean(dim=(2, 3)), (x.var(dim=(2, 3), correction=0) + 1e-6).sqrt()], dim=1))
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the condition, the bin of tone and the fault of the picture are: (N, K), (N, 6) and (N, 5)."""
        levels = self.levels(x)
        return self.condition(levels[-1]), self.tone(levels[-1]), self.fault(torch.cat(levels, dim=1))


class Encoder(Filed):
    """A network, and how its answers to real training photos spread, which gives features their scale.

    Features are standardised and then whitened on real training photos with a ridge: every direction's variance
    plus the mean variance of all. Without it, how light a picture is would outweigh all else; whitened without
    a ridge, what hardly varies would.

    Args:
        network: trained.
        mean: (d,) of its answers to real training photos.
        basis: (d, d), from answers less their mean to features.
        conditions: that it tells apart.
        about: how it was made, and how well it does.
    """

    def __init__(
        self, network: Network, mean: Tensor, basis: Tensor, conditions: Sequence[str], about: dict[str, Any]
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        # One layout, whatever they come from: the order in which products are added follows it.
        self._mean, self._basis = mean.contiguous(), basis.contiguous()
        self.conditions, self.about = tuple(conditions), about

    @classmethod
    def load(cls, uri: str) -> "Encoder":
        """Read one.

        Raises:
            ModelError: there is none, or it is no encoder.
            StorageError: it cannot be read.
        """
        weights, described = _KIND.unpack(_KIND.read(uri), uri)
        with _KIND.fitting(uri):
            network = Network(len(described["conditions"]))
            mean, basis = weights.pop("features.mean"), weights.pop("features.basis")
            network.load_state_dict(weights)
            return cls(network, mean, basis, described["conditions"], described["about"])

    def to_bytes(self) -> bytes:
        """Its file, the same bytes for the same encoder."""
        statistics = {"features.mean": self._mean, "features.basis": self._basis}
        described = {"conditions": self.conditions, "about": self.about}
        return _KIND.pack({**self.network.state_dict(), **statistics}, described)

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Features of pictures, from every level's means and spreads.

        Args:
            images: (N, S, S, 3) sRGB.

        Returns:
            (N, d).
        """
        found: NDArray[np.float64] = ((_raw(self.network, images) - self._mean) @ self._basis).double().numpy()
        return found

    def told(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What it takes pictures for: places in ``conditions`` and bins of tone 0 to 5, each (N,)."""
        with torch.inference_mode():
            answers = [[a.argmax(dim=1) for a in self.network(part)[:2]] for part in _parts(images)]
        condition, bins = (torch.cat(column).numpy() for column in zip(*answers, strict=True))
        return condition, bins


def train(
    training: Pairs,
    held: Pairs,
    conditions: tuple[str, ...],
    *,
    steps: int = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Encoder:
    """Learn to tell conditions, tones and faults from real training photos, turned, mirrored, cut and retoned.

    The faults (soft, noisy, checkered, without contrast) are what generators get wrong and photos do not show.

    Args:
        training: photos to learn from.
        held: photos of other patients, to tell how well it does; may be empty.
        conditions: all that are known, in order.
        steps: of 32 samples; 400 take about two minutes on one core.
        seed: of weights and samples.
        progress: called with steps done and all of them.

    Raises:
        TrainingError: a photo cannot be used.
    """
    settings = SampleSettings(size=SIDE, retoned=0.7, balance=1.0)
    feed = Feed(training, held, conditions, settings, seeds.digest64(seed, "encoder") >> 1, _BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.digest64(seed, "encoder weights") >> 1)
        network = Network(len(conditions))
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for step in range(steps):
        batch = feed.batch(step, 0, 1)
        faults = step % _FAULTS + np.arange(_BATCH)
        shown = _with_faults(_scaled(batch["photos"]), faults % _FAULTS, seeds.digest64(seed, "faults", step) >> 1)
        by_condition, by_tone, by_fault = network(shown)
        bins = torch.from_numpy(_bins(batch["skins"]))
        # A soft target: with 200 photos the network would soon be sure of every one.
        loss = functional.cross_entropy(by_condition, torch.from_numpy(batch["conditions"]), label_smoothing=0.1)
        loss = loss + functional.cross_entropy(by_tone, bins, label_smoothing=0.1)
        loss = loss + functional.cross_entropy(by_fault, torch.from_numpy(faults % _FAULTS))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(step + 1, steps)
    network.eval().requires_grad_(False)
    plain = Feed(training, training, conditions, settings, seed, _BATCH)
    batches = -(-len(training.photos) // 16)
    photos = np.concatenate([plain.held_out(number)["photos"] for number in range(batches)])
    raw = _raw(network, photos)
    about: dict[str, Any] = {"steps": steps, "seed": seed, "photos": len(training.photos), "table": training.digest}
    return Encoder(network, raw.mean(dim=0), _whitening(raw), conditions, about)


def accuracy(encoder: Encoder, pictures: Pictures) -> dict[str, Any]:
    """How often the encoder is right about pictures.

    Args:
        encoder: which.
        pictures: with their conditions and the angles of their skin.

    Returns:
        ``condition``: share of right answers; ``balanced``: mean of that share over the conditions there are;
        ``tone``: share in the right bin; ``tone_near``: in it or one beside it; ``chance``: 1 / conditions.
    """
    condition, bins = encoder.told(pictures.images)
    right = np.array([encoder.conditions[a] == b for a, b in zip(condition, pictures.conditions, strict=True)])
    names = np.array(pictures.conditions)
    apart = np.abs(bins - (tone.fitzpatrick(pictures.asked) - 1))
    return {
        "pictures": len(pictures),
        "condition": float(right.mean()),
        "balanced": float(np.mean([right[names == name].mean() for name in sorted(set(names))])),
        "chance": 1 / len(encoder.conditions),
        "tone": float((apart == 0).mean()),
        "tone_near": float((apart <= 1).mean()),
    }


def _with_faults(photos: Tensor, kinds: NDArray[np.int64], seed: int) -> Tensor:
    # As they are (kind 0), or soft, noisy, checkered or without contrast, each as strongly as chance has it.
    u = np.random.Generator(np.random.Philox(key=seed)).random((len(photos), 2)).tolist()
    generator = torch.Generator().manual_seed(seed)
    y, x = np.mgrid[: photos.shape[2], : photos.shape[3]]
    found = []
    for photo, kind, (strength, way) in zip(photos, kinds, u, strict=True):
        if kind == 1:
            sigma = 0.5 + 2 * strength
            taps = torch.exp(-(torch.arange(-6.0, 7.0) ** 2) / (2 * sigma**2))
            rows = (taps / taps.sum())[None, None, :, None].expand(3, 1, 13, 1)
            photo = functional.pad(photo[None], (6, 6, 6, 6), "reflect")
            photo = functional.conv2d(functional.conv2d(photo, rows, groups=3), rows.transpose(2, 3), groups=3)[0]
        elif kind == 2:
            photo = photo + (0.02 + 0.08 * strength) * torch.randn(photo.shape, generator=generator)
        elif kind == 3:
            period = 2 ** int(1 + 3 * way)
            squares = ((x // (period // 2) + y // (period // 2)) % 2 * 2.0 - 1).astype(np.float32)
            photo = photo + (0.02 + 0.06 * strength) * torch.from_numpy(squares)
        elif kind == 4:
            middle = functional.avg_pool2d(functional.pad(photo[None], (8, 8, 8, 8), "reflect"), 17, 1)[0]
            photo = middle + (0.2 + 0.5 * strength) * (photo - middle)
        found.append(photo)
    return torch.stack(found).clamp(-1, 1)


def _whitening(raw: Tensor) -> Tensor:
    spread = raw.std(dim=0).clamp(min=1e-3).double()
    scaled = (raw - raw.mean(dim=0)) / spread
    variances, directions = torch.linalg.eigh(scaled.T @ scaled / max(1, len(raw) - 1))
    variances = variances.clamp(min=0)
    basis: Tensor = directions / (variances + variances.mean()).sqrt() / spread[:, None]
    return basis.float()


def _bins(skins: NDArray[np.uint8]) -> NDArray[np.int64]:
    return tone.fitzpatrick(tone.ita(tone.to_lab(skins))) - 1


def _scaled(images: NDArray[np.uint8]) -> Tensor:
    small = np.stack([resized(image, SIDE) for image in images])
    return torch.from_numpy(small).permute(0, 3, 1, 2).float() / 127.5 - 1


def _parts(images: NDArray[np.uint8]) -> list[Tensor]:
    return [_scaled(images[first : first + _AT_ONCE]) for first in range(0, len(images), _AT_ONCE)]


def _raw(network: Network, images: NDArray[np.uint8]) -> Tensor:
    with torch.inference_mode():
        return torch.cat([torch.cat(network.levels(part), dim=1) for part in _parts(images)]).clone()
