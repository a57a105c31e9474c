"""The peer: plain pix2pix, written after its published layer table, and its training.

U-Net of transposed convolutions (``unet_256``, at 128 px ``unet_128``), batch normalisation, dropout 0.5 in the inner
up blocks, a PatchGAN of three halvings (70 px patches), vanilla GAN loss + 100 L1, Adam 2e-4 with 0.5/0.999, weights
of N(0, 0.02), learning rate constant for the first half and falling to nothing in the second. When it draws it
normalises by the picture's own statistics and keeps its dropout, as published: that is its only chance.

Source:
    Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017, sections 3 and 6.1.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medsynth import learning
from medsynth.model_file import Kind
from medsynth.seeds import digest64
from medsynth.skin.generator import Asked, Chance, GeneratorSettings
from medsynth.skin.model import SkinModel
from medsynth.skin.semantic_map import Geometry

KIND = Kind("medsynth.bench.pix2pix/1", "pix2pix", "tests/benchmarks/bench_gan_quality.py train")


@dataclass(frozen=True)
class Pix2pixSettings:
    """What a run is, but for its photos and its seed."""

    size: int = 256
    width: int = 64
    """Channels of the first layer, of both networks; 64 as published."""
    batch: int = 4
    steps: int = 12000
    l1: float = 100.0
    rate: float = 2e-4
    precision: str = "auto"
    """As our own networks': bf16 on a GPU, float32 on CPUs."""


class UNet(nn.Module):
    """Map to picture."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        depth = size.bit_length() - 1
        widths = [width * min(2**level, 8) for level in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level in range(depth):
            into, out = (3 if level == 0 else widths[level - 1]), widths[level]
            # Before a normalisation, a bias would be taken away again. One pixel is not normalised.
            normed = 0 < level < depth - 1
            layers: list[nn.Module] = [nn.Conv2d(into, out, 4, 2, 1, bias=not normed)]
            self.down.append(nn.Sequential(*layers, *([nn.BatchNorm2d(out)] if normed else [])))
            joined = out if level == depth - 1 else 2 * out
            layers = [nn.ConvTranspose2d(joined, into if level else 3, 4, 2, 1, bias=level == 0)]
            layers += [nn.BatchNorm2d(into)] if level else []
            layers += [nn.Dropout(0.5)] if depth - 4 <= level < depth - 1 else []
            self.up.append(nn.Sequential(*layers))
        self.apply(_begin)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, 3, S, S), -1 to 1."""
        kept: list[Tensor] = []
        x = maps
        for level, layer in enumerate(self.down):
            x = layer(functional.leaky_relu(x, 0.2) if level else x)
            kept.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](functional.relu(x if level == len(self.up) - 1 else torch.cat([kept[level], x], dim=1)))
        return torch.tanh(x)


class PatchGan(nn.Module):
    """Judges 70 px patches of a picture with its map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for level in (1, 2, 3):
            into, out = width * 2 ** (level - 1), width * 2**level
            layers += [nn.Conv2d(into, out, 4, 2 if level < 3 else 1, 1, bias=False), nn.BatchNorm2d(out)]
            layers += [nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, 1, 1))
        self.apply(_begin)

    def forward(self, maps: Tensor, pictures: Tensor) -> Tensor:
        """Scores (N, 1, h, w), a high one for a real patch."""
        scores: Tensor = self.layers(torch.cat([maps, pictures], dim=1))
        return scores


def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Pix2pix:
    """Both networks in training; its state is all that it needs to go on exactly."""

    def __init__(self, settings: Pix2pixSettings, seed: int, device: torch.device) -> None:
        self.settings, self._seed, self._device, self.steps = settings, seed, device, 0
        learning.made_repeatable(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(digest64(seed, "weights") >> 1)
            self.generator = UNet(settings.size, settings.width)
            self.judge = PatchGan(settings.width)
        self._modules: dict[str, nn.Module] = {"generator": self.generator, "judge": self.judge}
        for module in self._modules.values():
            module.to(device)
        self._optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=settings.rate, betas=(0.5, 0.999))
            for name, module in self._modules.items()
        }

    def step(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Learn from a batch of :class:`medsynth.skin.samples.Feed`; the losses before the step."""
        photos, maps = (
            learning.on_device(batch[name], self._device).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
            for name in ("photos", "maps")
        )
        half = self.settings.steps / 2
        for optimizer in self._optimizers.values():
            optimizer.param_groups[0]["lr"] = self.settings.rate * min(1.0, (self.settings.steps - self.steps) / half)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(digest64(self._seed, "step", self.steps) >> 1)
            told = self._learn(photos, maps)
        self.steps += 1
        return {name: value.detach() for name, value in told.items()}

    def _learn(self, photos: Tensor, maps: Tensor) -> dict[str, Tensor]:
        with learning.precision(self._device, self.settings.precision):
            drawn = self.generator(maps).float()
            real, fake = self.judge(maps, photos), self.judge(maps, drawn.detach())
        judged = 0.5 * (_vanilla(fake.float(), False) + _vanilla(real.float(), True))
        self._descend("judge", judged)
        self.judge.requires_grad_(False)
        with learning.precision(self._device, self.settings.precision):
            scores = self.judge(maps, drawn)
        adversarial = _vanilla(scores.float(), True)
        self.judge.requires_grad_(True)
        l1 = self.settings.l1 * functional.l1_loss(drawn, photos)
        self._descend("generator", adversarial + l1)
        return {"judge": judged, "adversarial": adversarial, "l1": l1}

    def _descend(self, name: str, loss: Tensor) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self._optimizers[name].step()

    def state(self) -> dict[str, Tensor]:
        found = {"steps": torch.tensor(self.steps), **learning.state_of(self._modules)}
        for name, module in self._modules.items():
            found |= learning.moments_of(f"adam.{name}", dict(module.named_parameters()), self._optimizers[name])
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        learning.load_state(self._modules, state)
        for name, module in self._modules.items():
            learning.load_moments(f"adam.{name}", dict(module.named_parameters()), self._optimizers[name], state)

    def save(self, conditions: tuple[str, ...], geometry: Geometry, about: Mapping[str, Any]) -> bytes:
        """What draws, as a file of its own kind, with weights of 16 bits as ours."""
        described = {"settings": asdict(self.settings), "conditions": conditions, "geometry": geometry.boxes}
        weights = {
            name: value.half() if value.is_floating_point() else value
            for name, value in self.generator.state_dict().items()
        }
        return KIND.pack(weights, {**described, "about": {**about, "steps": self.steps}})


class Drawing(nn.Module):
    """The network as :class:`SkinModel` draws with it: each picture alone, its dropout chosen by its own noise."""

    def __init__(self, network: UNet, size: int) -> None:
        super().__init__()
        self.network = network
        self.settings = GeneratorSettings(size=size, kind="unet", latent=1)

    def forward(self, asked: Asked, chance: Chance) -> Tensor:
        self.network.train()
        pictures = []
        with torch.random.fork_rng(devices=[]):
            for place in range(len(asked.maps)):
                torch.manual_seed(int(chance.look[place, :1].view(torch.int32)) & 0x7FFFFFFF)
                pictures.append(self.network(asked.maps[place : place + 1].contiguous()))
        return torch.cat(pictures)


def load(uri: str) -> SkinModel:
    """Read what :meth:`Pix2pix.save` gave, as a model to draw with."""
    weights, described = KIND.unpack(KIND.read(uri), uri)
    settings = Pix2pixSettings(**described["settings"])
    network = UNet(settings.size, settings.width)
    network.load_state_dict(weights)
    geometry = Geometry({name: tuple(map(tuple, boxes)) for name, boxes in described["geometry"].items()})
    about = described["about"]
    return SkinModel(Drawing(network, settings.size), described["conditions"], geometry, about)  # type: ignore[arg-type]


def _vanilla(scores: Tensor, real: bool) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))
