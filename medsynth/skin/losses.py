"""What a generator is asked to make small; each a function of tensors, each weight a setting."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from medsynth.skin.upsampling import doubled
from medsynth.spec import Settings

Kind = Literal["vanilla", "hinge"]

_SHADES = 16
"""Squares a side whose means are the skin's shades."""
_FINE_SHADES = 64
"""The same, of which the distribution is compared."""
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, -1.0, 0.0), (0.5, 0.5, -1.0))
"""Brightness, red less green, yellow less blue, of red, green and blue."""


class LossSettings(Settings):
    """The weight of each term; 0 leaves it out. Where no source is named, weight and term are ours."""

    kind: Kind = "hinge"
    judge: float = Field(default=0.5, gt=0)
    """Of the discriminator's own loss: half, as in pix2pix (Isola et al. 2017, section 3.3)."""
    adversarial: float = Field(default=1.0, ge=0)
    min_patch: float = Field(default=0.2, ge=0)
    """The worst patch counts once more."""
    l1: float = Field(default=10.0, ge=0)
    """Over the whole picture."""
    lesion_l1: float = Field(default=5.0, ge=0)
    """Inside the lesion's place."""
    feature_matching: float = Field(default=2.0, ge=0)
    pool: int = Field(default=4, ge=1, le=64)
    """Side of the squares whose means the L1 terms compare, in pixels; 1 for pixels, as in the paper."""
    texture: float = Field(default=5.0, ge=0)
    """How strong the detail is at each scale and place."""
    texture_colour: float = Field(default=0.0, ge=0)
    """Detail is compared in brightness and two differences of colour, which count so many times as much; at 0, in red,
    green and blue, which cannot tell a green speck from a grey one."""
    texture_strong: float = Field(default=0.0, ge=0)
    """So many times as much as its mean, the root of its mean square counts, which tells of few strong specks."""
    tone: float = Field(default=10.0, ge=0)
    """The skin's mean colour, and how far its shades lie apart."""
    tone_spread: float = Field(default=1.0, ge=0)
    """The second of these two counts so many times as much as the first."""
    lesion_tone: float = Field(default=0.0, ge=0)
    """The same inside the lesion's place, for where no photo is there to be compared with by pixel."""
    shades: float = Field(default=0.0, ge=0)
    """How shades are distributed, in the lesion's place and beside it: mean and spread alone are right of two flat
    fields, too."""
    guessed: bool = True
    """Whether lesions of pictures whose looks are chance are held against those of photos, too, in tones and shades.
    These their looks are free to choose: held, all come out alike, as the middle of all."""
    look: float = Field(default=0.02, ge=0)
    """Divergence of the looks read from photos from those that are drawn."""


def judged(scores: Sequence[Tensor], real: bool, kind: Kind) -> Tensor:
    """The discriminator's loss on pictures that are real, or are not.

    Args:
        scores: (N, 1, h, w) of each judge.
        real: what they are.
        kind: vanilla, cross-entropy; or hinge.

    Source:
        Goodfellow et al. 2014; Lim and Ye, "Geometric GAN", 2017.
    """
    sign = -1.0 if real else 1.0
    kinds = {"vanilla": functional.softplus, "hinge": lambda x: functional.relu(1 + x)}
    return torch.stack([kinds[kind](sign * score).mean() for score in scores]).mean()


def fooled(scores: Sequence[Tensor], kind: Kind) -> Tensor:
    """The generator's loss: its pictures shall be taken for real; arguments as in :func:`judged`."""
    return torch.stack([_missed(score, kind).mean() for score in scores]).mean()


def min_patch(scores: Sequence[Tensor], kind: Kind) -> Tensor:
    """The same of the worst patch of each picture alone.

    Source:
        DermGAN names the term; that it is :func:`fooled` of the lowest score is our reading.
    """
    return torch.stack([_missed(score.flatten(1).amin(dim=1), kind).mean() for score in scores]).mean()


def _missed(scores: Tensor, kind: Kind) -> Tensor:
    return functional.softplus(-scores) if kind == "vanilla" else -scores


def l1(drawn: Tensor, photos: Tensor, pool: int) -> Tensor:
    """Mean distance of pixels, or of the means of squares of ``pool`` pixels.

    Source:
        Isola et al. 2017, section 3.1, for pixels. The squares are ours: they let grain lie where it likes.
    """
    return (_pooled(drawn, pool) - _pooled(photos, pool)).abs().mean()


def lesion_l1(drawn: Tensor, photos: Tensor, masks: Tensor, pool: int) -> Tensor:
    """The same inside the lesions' places, each picture's counting alike.

    Args:
        drawn: (N, 3, S, S).
        photos: as ``drawn``.
        masks: (N, 1, S, S).
        pool: as in :func:`l1`.

    Source:
        DermGAN names a loss inside the lesion's box; that each picture's counts alike is our reading.
    """
    weights = _pooled(masks, pool)
    apart = (_pooled(drawn, pool) - _pooled(photos, pool)).abs().mean(dim=1, keepdim=True)
    return ((apart * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp(min=1e-6)).mean()


def feature_matching(drawn: Sequence[Tensor], photos: Sequence[Tensor]) -> Tensor:
    """Mean distance of the discriminator's answers, layer by layer.

    Source:
        Wang et al., "High-resolution image synthesis ... with conditional GANs" (pix2pixHD), CVPR 2018, section 3.2.
    """
    apart = [(one - other.detach()).abs().mean() for one, other in zip(drawn, photos, strict=True)]
    return torch.stack(apart).mean()


def statistics_matching(drawn: Sequence[Tensor], photos: Sequence[Tensor]) -> Tensor:
    """The same of each answer's mean over a picture alone: what is seen, wherever it is.

    For a generator that draws from noise: which pore lies where is chance, and not to be matched.

    Source:
        Salimans et al., "Improved techniques for training GANs", NeurIPS 2016, section 3.1, picture by picture.
    """
    apart = [
        (one.mean(dim=(2, 3)) - other.detach().mean(dim=(2, 3))).abs().mean()
        for one, other in zip(drawn, photos, strict=True)
    ]
    return torch.stack(apart).mean()


def texture(drawn: Tensor, photos: Tensor, colour: float = 0.0, strong: float = 0.0, cells: int = 4) -> Tensor:
    """Distance of how strong the detail is, by scale and by place.

    Args:
        drawn: (N, 3, S, S), 32 pixels a side or more. At 128 pixels the Laplacian pyramid has three levels, and
            another one each time that they are doubled, so that the coarsest is the same.
        photos: as ``drawn``.
        colour: the weight of two differences of colour beside brightness; 0 to compare red, green and blue.
        strong: the weight of a band's root mean square beside its mean size.
        cells: places a side over which a band's size is averaged.

    Source:
        Heeger and Bergen, "Pyramid-based texture analysis/synthesis", SIGGRAPH 1995: the size of each band, of
        all its statistics the first; in decorrelated colours (their section 3.5), of which brightness, red less green
        and yellow less blue are a fixed stand-in.
    """
    total = drawn.new_zeros(())
    levels = max(3, drawn.shape[2].bit_length() - 5)
    if colour:
        weights = drawn.new_tensor([[1.0], [colour], [colour]])
        mixed = (drawn.new_tensor(_OPPONENT) * weights)[:, :, None, None]
    for _ in range(levels):
        sizes = []
        halves = []
        for image in (drawn, photos):
            half = functional.avg_pool2d(image, 2)
            band = image - doubled(half)
            if colour:
                band = functional.conv2d(band, mixed)
            cell = max(1, image.shape[2] // cells)
            told = [functional.avg_pool2d(band.abs(), cell)]
            if strong:
                told.append(strong * (functional.avg_pool2d(band**2, cell) + 1e-6).sqrt())
            sizes.append(told)
            halves.append(half)
        for one, other in zip(*sizes, strict=True):
            total = total + (one - other).abs().mean()
        drawn, photos = halves
    return total / levels


def tone(drawn: Tensor, photos: Tensor, masks: Tensor, spread: float = 1.0) -> Tensor:
    """Distance of the skin's mean colours, and of the spread of its shades.

    For pictures that are drawn from a look of chance, too: where a shade lies is theirs to choose, how dark
    the skin is and how mottled is not.

    Args:
        drawn: (N, 3, S, S).
        photos: as ``drawn``.
        masks: (N, 1, S, S), 1 in the lesion's place, which does not count; or 0 there, for the lesion's colours.
        spread: how many times as much as the mean the spread counts.

    Source:
        None: the term is ours.
    """
    pool = max(1, drawn.shape[2] // _SHADES)
    weights = functional.avg_pool2d(1 - masks, pool)
    weights = weights / weights.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    told = []
    for image in (drawn, photos):
        shades = functional.avg_pool2d(image, pool)
        mean = (shades * weights).sum(dim=(2, 3), keepdim=True)
        told.append((mean, (((shades - mean) ** 2 * weights).sum(dim=(2, 3), keepdim=True) + 1e-6).sqrt()))
    means, spreads = ((one - other).abs().mean() for one, other in zip(*told, strict=True))
    total: Tensor = means + spread * spreads
    return total


def shades(drawn: Tensor, photos: Tensor, masks: Tensor, lesions: int | None = None) -> Tensor:
    """Distance of the distributions of shades, of the lesion's place and of all beside it, wherever each shade lies.

    Args:
        drawn: (N, 3, S, S).
        photos: as ``drawn``.
        masks: (N, 1, S, S), 1 in the lesion's place.
        lesions: of so many of the first pictures the lesion's place counts; of all by default.

    Returns:
        The mean of both places' Wasserstein distances, in brightness, red less green and yellow less blue.

    Source:
        In one dimension that distance is the mean distance of sorted values: Rabin, Peyre, Delon and Bernot,
        "Wasserstein barycenter and its application to texture mixing", SSVM 2011, section 2. That these three axes
        stand for all directions of colour is ours.
    """
    pool = max(1, drawn.shape[2] // _FINE_SHADES)
    inside = functional.avg_pool2d(masks, pool) > 0.5
    axes = drawn.new_tensor(_OPPONENT)[:, :, None, None]
    both = [functional.conv2d(functional.avg_pool2d(image, pool), axes) for image in (drawn, photos)]
    total = drawn.new_zeros(())
    for there, some in ((inside, slice(lesions)), (~inside, slice(None))):
        # Elsewhere all have the same shade, the lightest: sorted, these lie side by side.
        one, other = (image[some].masked_fill(~there[some], 9.0).flatten(2).sort(dim=2).values for image in both)
        counts = there[some].flatten(1).sum(dim=1).clamp(min=1)
        total = total + ((one - other).abs().sum(dim=2).mean(dim=1) / counts).mean()
    return total / 2


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of normal distributions from the standard one, nats a picture.

    Source:
        Kingma and Welling 2014, appendix B.
    """
    return (0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)).sum(dim=1).mean()


def _pooled(image: Tensor, pool: int) -> Tensor:
    return functional.avg_pool2d(image, pool) if pool > 1 else image
