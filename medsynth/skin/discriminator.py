"""What judges pictures while a generator learns, and what reads a photo's look for it; neither is shipped."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from medsynth.skin.convolution import Convolution
from medsynth.skin.generator import Asked
from medsynth.skin.normalisation import normalised
from medsynth.spec import Settings


class DiscriminatorSettings(Settings):
    """How pictures are judged."""

    width: int = Field(default=32, ge=2, le=512)
    layers: int = Field(default=3, ge=1, le=6)
    """Halvings; three give the 70 px patches of pix2pix."""
    scales: int = Field(default=2, ge=1, le=4)
    """Judges, each of pictures half as large as the one before it."""
    spectral: bool = True
    """Spectral normalisation of its weights, in place of normalised instances."""
    projection: bool = True
    """Whether the condition is held against what is seen, beside the map."""


class PatchDiscriminator(nn.Module):
    """Judges each patch of a picture with its map.

    Source:
        Isola et al. 2017 (patches); Miyato et al., ICLR 2018 (spectral normalisation); Miyato and Koyama,
        "cGANs with projection discriminator", ICLR 2018.
    """

    def __init__(self, settings: DiscriminatorSettings, conditions: int) -> None:
        super().__init__()
        self.settings = settings
        widths = [min(settings.width * 2**level, settings.width * 8) for level in range(settings.layers + 1)]
        made = []
        for level, width in enumerate(widths):
            layer = Convolution(7 if level == 0 else widths[level - 1], width, 2 if level < settings.layers else 1)
            made.append(spectral_norm(layer) if settings.spectral else layer)
        self.layers = nn.ModuleList(made)
        last = Convolution(widths[-1], 1, 1)
        self.last = spectral_norm(last) if settings.spectral else last
        self.condition = nn.Embedding(conditions, widths[-1]) if settings.projection else None
        if self.condition is not None:
            nn.init.zeros_(self.condition.weight)

    def forward(self, images: Tensor, asked: Asked) -> tuple[Tensor, list[Tensor]]:
        """Judge.

        Args:
            images: (N, 3, S, S), -1 to 1.
            asked: what was asked for.

        Returns:
            Scores (N, 1, h, w), a high one for a real patch; and the layers' answers.
        """
        x = torch.cat([images, asked.maps, asked.masks], dim=1)
        features = []
        for level, layer in enumerate(self.layers):
            x = layer(x)
            x = functional.leaky_relu(x, 0.2) if self.settings.spectral or not level else normalised(x, 0.2)
            features.append(x)
        scores: Tensor = self.last(x)
        if self.condition is not None:
            held = (self.condition(asked.conditions)[:, :, None, None] * x).sum(dim=1, keepdim=True)
            scores = scores + functional.avg_pool2d(held, 2, 1)  # as the last layer's answers lie
        return scores, features


class Discriminators(nn.Module):
    """Several of them, on ever smaller pictures.

    Source:
        Wang et al., "High-resolution image synthesis ... with conditional GANs" (pix2pixHD), CVPR 2018, section 3.2.
    """

    def __init__(self, settings: DiscriminatorSettings, conditions: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(PatchDiscriminator(settings, conditions) for _ in range(settings.scales))

    def forward(self, images: Tensor, asked: Asked) -> tuple[list[Tensor], list[Tensor]]:
        """Scores of each judge, and all of their layers' answers."""
        scores, features = [], []
        for place, judge in enumerate(self.judges):
            if place:
                images = functional.avg_pool2d(images, 2)
                maps, masks = (functional.avg_pool2d(field, 2) for field in (asked.maps, asked.masks))
                asked = Asked(maps, masks, asked.skin, asked.conditions, asked.types)
            score, answers = judge(images, asked)
            scores.append(score)
            features += answers
        return scores, features


class LookEncoder(nn.Module):
    """Reads from a photo the numbers that its look is, as a normal distribution.

    With it, the losses that hold a picture against its photo ask for what can be known; without it they
    would ask the generator to guess, and a guess of many looks is a blur.

    Source:
        Kingma and Welling, ICLR 2014; as an encoder beside a generator, Zhu et al., "Toward multimodal
        image-to-image translation", NeurIPS 2017 (cVAE-GAN).
    """

    def __init__(self, width: int, latent: int, size: int) -> None:
        super().__init__()
        levels = max(1, (size // 4).bit_length() - 1)
        widths = [min(width * 2**level, width * 4) for level in range(levels)]
        self.layers = nn.ModuleList(
            nn.Conv2d(4 if level == 0 else widths[level - 1], out, 4, stride=2, padding=1)
            for level, out in enumerate(widths)
        )
        self.answer = nn.Linear(widths[-1] * (size >> levels) ** 2, 2 * latent)

    def forward(self, photos: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance, each (N, latent)."""
        x = torch.cat([photos, masks], dim=1)
        for level, layer in enumerate(self.layers):
            x = layer(x)
            x = normalised(x, 0.2) if level else functional.leaky_relu(x, 0.2)
        mean, spread = self.answer(x.flatten(1)).chunk(2, dim=1)
        return mean, spread.clamp(-8, 4)
