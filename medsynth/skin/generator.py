"""The networks that draw: the paper's U-Net, and one that modulates noise by the map's two regions.

Nothing here keeps statistics of a batch, so a picture is the same in whatever company it is drawn.
"""

from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from medsynth.skin import threads
from medsynth.skin.convolution import Convolution
from medsynth.skin.normalisation import normalised
from medsynth.skin.upsampling import UpConvolution, doubled, repeated, smoothed
from medsynth.spec import Settings

_LOWEST = 8
_EPSILON = 1e-5


class GeneratorSettings(Settings):
    """Which network, and how large."""

    kind: Literal["unet", "plus"] = "plus"
    size: int = Field(default=128, ge=16, le=1024)
    """Side of a picture in pixels, a power of two."""
    width: int = Field(default=16, ge=2, le=256)
    """Channels at the full size; twice as many at each half of it, up to ``widest``."""
    widest: int = Field(default=128, ge=2, le=2048)
    latent: int = Field(default=32, ge=1, le=512)
    """Numbers that choose a picture's look as a whole: light, mottling, the lesion's form."""
    embedding: int = Field(default=64, ge=4, le=1024)
    """Numbers that condition, type, skin colour and look are brought to."""
    dropout: bool = True
    """In the U-Net's inner blocks, while it learns."""
    look_spread: float = Field(default=0.8, gt=0, le=1)
    """Standard deviation of the look when drawing; 1 while it learns. Less of it gives fewer faults and less variety
    (truncation: Brock, Donahue and Simonyan, ICLR 2019, section 3.1)."""
    grain_spread: float = Field(default=0.6, gt=0, le=1)
    """The same of the noise by pixel and scale."""
    softness: float = Field(default=0.8, ge=0, le=4)
    """How soft the network's normalisation is when drawing, as a share of each layer's usual strength, at up to a
    quarter of the full side; it is 0 while the network learns. See :attr:`PlusNetwork.floors`."""
    fine_softness: float = Field(default=0.2, ge=0, le=4)
    """The same at half of the side and at all of it, where the grain is made."""
    hair: float = Field(default=0.0, ge=0, le=1)
    """Share of pictures on which hair grows, by rule (:mod:`medsynth.skin.hair`), once the network has drawn them: for
    one that learnt from photos without hair."""
    forms: float = Field(default=0.0, ge=0, le=0.5)
    """How far from ellipses the outlines of lesions are for which a box is asked, by rule (:mod:`medsynth.skin.form`),
    as a share of their radius: boxes tell a network of no outline. It may learn without."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.size & (self.size - 1):
            raise ValueError(f"size is {self.size}; take a power of two, such as 128 or 256")
        return self

    def channels(self, side: int) -> int:
        """Channels where pictures have ``side`` pixels on a side."""
        return min(self.widest, self.width * self.size // side)


class Asked(NamedTuple):
    """What pictures are asked for, N at a time."""

    maps: Tensor
    """(N, 3, S, S), -1 to 1."""
    masks: Tensor
    """(N, 1, S, S), 1 in the lesion's place, else 0."""
    skin: Tensor
    """(N, 3): the skin's colour, -1 to 1; a lesion may leave none of it in the map."""
    conditions: Tensor
    """(N,) int64."""
    types: Tensor
    """(N,) int64, 1 to 6; 0 where none is known."""
    depths: Tensor | None = None
    """(N, 1, S, S): how deep in the lesion each pixel lies, in the units of :func:`inside`; None where it is the
    ellipse in its box."""


class Chance(NamedTuple):
    """What differs between two pictures of one map."""

    look: Tensor
    """(N, latent), standard normal."""
    grain: tuple[Tensor, ...]
    """(N, 1, s, s), standard normal, for each side from 8 to the full one."""


def sides(size: int) -> tuple[int, ...]:
    """Sides at which noise comes in, from the smallest."""
    found = [min(_LOWEST, size)]
    while found[-1] < size:
        found.append(2 * found[-1])
    return tuple(found)


class UNet(nn.Module):
    """The paper's generator: map to picture, with skip connections; one map gives one picture.

    Source:
        Ghorbani et al., "DermGAN", ML4H 2019: pix2pix's U-Net with each transposed convolution replaced by
        resize and convolution. Widths, dropout and the innermost side follow Isola et al. 2017; instances are
        normalised in place of batches.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.settings = settings
        depth = settings.size.bit_length() - 1
        widths = [min(settings.width * 2**level, settings.width * 8) for level in range(depth)]
        self.down = nn.ModuleList(
            Convolution(3 if level == 0 else widths[level - 1], widths[level], stride=2) for level in range(depth)
        )
        self.up = nn.ModuleList(
            UpConvolution(widths[level] * (1 if level == depth - 1 else 2), 3 if level == 0 else widths[level - 1])
            for level in range(depth)
        )

    def forward(self, asked: Asked, chance: Chance | None = None) -> Tensor:
        """Draw: (N, 3, S, S), -1 to 1. Chance is not asked, but while learning, for dropout."""
        maps = asked.maps
        if self.training or torch.is_grad_enabled() or maps.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return self._drawn(maps)
        found = torch.empty_like(maps)

        def draw(images: slice) -> None:
            found[images] = self._drawn(maps[images])

        threads.in_parts(draw, len(maps))
        return found

    def _drawn(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        last = len(self.down) - 1
        for level, layer in enumerate(self.down):
            x = layer.of_rectified(x, 0.2 if level else 1.0, f"down {level}")  # type: ignore[operator]
            if 0 < level < last:  # one pixel has no spread to divide by
                x = normalised(x)
            kept.append(x)
        for level in reversed(range(last + 1)):
            parts = [x] if level == last else [x, kept[level]]
            x = self.up[level].of_rectified(parts, f"up {level}")  # type: ignore[operator]
            if level:
                x = normalised(x)
                if self.settings.dropout and last - 3 <= level < last:
                    x = functional.dropout(x, 0.5, self.training)
        return torch.tanh(x)


class PlusNetwork(nn.Module):
    """Noise at several scales, shaped by what is asked of the skin and of the lesion.

    There is little in a map to encode: two regions, a colour, a condition. So there is no encoder: from a
    8×8 grid of noise upwards, every pixel is normalised over its channels, then scaled and shifted by two sets of
    numbers, one for the skin and one for the lesion, which follow from condition, type, skin colour and look: what is
    drawn in one place does not hang on what is drawn in another, as it would over the whole picture. Every scale
    adds noise of its own, pixel by pixel, so that pores and mottling never repeat. Where the lesion ends is not
    the map's rectangle: a small head bends the ellipse inside of it, or a mask's edge, by noise and condition. The
    answer is added to the asked skin colour before the last curve, less its own middle over the skin: shades, pores
    and hair are the network's, how dark the skin is on the whole is not.

    Source:
        Modulation by regions: Tan et al., "Efficient semantic image synthesis via class-adaptive normalization",
        TPAMI 2021, a lean form of SPADE (Park et al., CVPR 2019). Noise by pixel and scale: Karras et al.,
        "A style-based generator architecture", CVPR 2019. Normalised pixels: Karras et al., "Progressive growing of
        GANs", ICLR 2018, section 4.2. The bent ellipse and the floors are our own.
    """

    floors: Tensor
    """(layers,): added to a pixel's mean square over its channels before its root is divided by; none while learning.

    Normalised in full, every pixel is equally strong, and between two regions whose channels differ it passes from one
    to the other at once, however weak it was there before: layer upon layer, that makes of a soft change a hard edge
    about a flat field. A floor leaves weak pixels weak."""

    def __init__(self, settings: GeneratorSettings, conditions: int) -> None:
        super().__init__()
        self.settings = settings
        self.sides = sides(settings.size)
        size = settings.embedding
        self.condition = nn.Embedding(conditions, size)
        self.tone = nn.Embedding(7, size)
        self.colour = nn.Linear(3, size)
        self.look = nn.Linear(settings.latent, size)
        self.mix = nn.Linear(size, size)
        bent = 16
        self.bend_by = nn.Linear(size, bent)
        self.bend_in = nn.Conv2d(2 + 3, bent, 3, padding=1)
        self.bend_out = nn.Conv2d(bent, 1, 3, padding=1)
        start = settings.channels(self.sides[0])
        self.start = nn.Conv2d(settings.latent // 4 + 3, start, 1)
        self.start_by = nn.Linear(size, start)
        self.ups = nn.ModuleList()
        self.convolutions = nn.ModuleList()
        self.styles = nn.ModuleList()
        for place, side in enumerate(self.sides):
            out = settings.channels(side)
            if place:
                self.ups.append(UpConvolution(settings.channels(self.sides[place - 1]), out))
            if side < settings.size:
                self.convolutions.append(nn.Conv2d(out, out, 3))
            # Scale, shift and noise for the skin, and what the lesion changes of them, for each layer.
            self.styles.append(nn.Linear(size, (12 if side < settings.size else 6) * out))
        self.last = nn.Conv2d(settings.channels(settings.size), 3, 3)
        self.register_buffer("floors", torch.zeros(2 * len(self.sides) - 1))
        with torch.no_grad():
            self.bend_out.weight.mul_(0.3)
            self.last.weight.mul_(0.3)
            for style in self.styles:
                style.weight.mul_(0.5)  # type: ignore[operator]

    def forward(self, asked: Asked, chance: Chance | None = None) -> Tensor:
        """Draw: (N, 3, S, S), -1 to 1."""
        if chance is None:
            raise ValueError("this network draws from noise; give chance")
        return self._drawn(asked, chance, [])

    def strengths(self, asked: Asked, chance: Chance) -> Tensor:
        """The usual mean square of a pixel before it is normalised: (layers, N), medians over each picture."""
        squares: list[Tensor] = []
        self._drawn(asked, chance, squares)
        return torch.stack([layer.flatten(1).median(dim=1).values for layer in squares])

    def soften(self, usual: Tensor) -> None:
        """Set the floors as the settings ask for.

        Args:
            usual: (layers,), what :meth:`strengths` told without floors.
        """
        own = self.settings
        shares = [own.softness if 4 * side <= own.size else own.fine_softness for side in self.sides for _ in range(2)]
        # As they will be saved.
        self.floors.copy_((usual.new_tensor(shares[: len(usual)]) * usual).half())

    def _drawn(self, asked: Asked, chance: Chance, squares: list[Tensor]) -> Tensor:
        skin = asked.skin
        summed_up = self.condition(asked.conditions) + self.tone(asked.types) + self.colour(skin)
        style = functional.leaky_relu(self.mix(functional.leaky_relu(summed_up + self.look(chance.look), 0.2)), 0.2)
        depths = inside(asked.masks) if asked.depths is None else asked.depths
        region = self.region(asked.masks, depths, chance, style)
        x = self.begin(asked, depths, chance, style)
        for place, side in enumerate(self.sides):
            here = _sized(region, side)
            numbers = self.styles[place](style).reshape(len(x), -1, 6, self.settings.channels(side))
            if place:
                x = smoothed(self.ups[place - 1](x))
            x = _modulated(x, numbers[:, 0], here, chance.grain[place], self.floors[2 * place], squares)
            if side < self.settings.size:  # at the full size, a layer costs as much as at all others together
                x = self.convolutions[place](repeated(x))
                # Turned, so that the second noise of a level is not the first.
                turned = chance.grain[place].flip(3).transpose(2, 3)
                x = _modulated(x, numbers[:, 1], here, turned, self.floors[2 * place + 1], squares)
        detail = self.last(repeated(x)).float()  # in bf16, its mean would be a little off
        base = torch.atanh(skin.clamp(-0.98, 0.98))[:, :, None, None]
        return torch.tanh(base + detail - _middle(detail, 1 - asked.masks))

    def region(self, masks: Tensor, depths: Tensor, chance: Chance, style: Tensor) -> Tensor:
        """How much of the lesion there is, place by place, at a quarter of the size: (N, 1, S / 4, S / 4)."""
        side = max(self.sides[0], self.settings.size // 4)
        grain = [_sized(chance.grain[place], side) for place in range(min(3, len(self.sides)))]
        grain += [grain[-1]] * (3 - len(grain))
        small = [_reduced(field, side) for field in (depths, masks)]
        hidden = self.bend_in(torch.cat([*small, *grain], dim=1)) + self.bend_by(style)[:, :, None, None]
        bent = self.bend_out(functional.leaky_relu(hidden, 0.2))
        return torch.sigmoid(5 * small[0] + 3 * bent)

    def begin(self, asked: Asked, depths: Tensor, chance: Chance, style: Tensor) -> Tensor:
        """The lowest level, before its first layer."""
        side = self.sides[0]
        part = chance.look[:, : self.settings.latent // 4, None, None].expand(-1, -1, side, side)
        # Only inside: the skin shall not depend on how large a lesion is beside it.
        small = [_reduced(field, side) for field in (depths.clamp(min=0), asked.masks)]
        x = self.start(torch.cat([part, *small, chance.grain[0]], dim=1))
        begun: Tensor = x + self.start_by(style)[:, :, None, None]
        return begun


def _middle(detail: Tensor, around: Tensor) -> Tensor:
    # The mean over the skin, then again with less weight for what lies far from it: shadows, shine, hair.
    def mean(weights: Tensor) -> Tensor:
        total = weights.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        return (detail * weights).sum(dim=(2, 3), keepdim=True) / total

    apart = ((detail - mean(around)) ** 2).sum(dim=1, keepdim=True)
    return mean(around / (1 + apart / 0.02))


def _reduced(field: Tensor, side: int) -> Tensor:
    return functional.avg_pool2d(field, field.shape[2] // side)


def _sized(field: Tensor, side: int) -> Tensor:
    while field.shape[2] < side:
        field = doubled(field)
    return _reduced(field, side) if field.shape[2] > side else field


def _modulated(
    x: Tensor, numbers: Tensor, region: Tensor, grain: Tensor, floor: Tensor, squares: list[Tensor]
) -> Tensor:
    # A pixel is scaled by 1 + scale + more_scale * region, and shift + noise * grain + (more_shift + more_noise *
    # grain) * region is added to it. As products of matrices that takes half the time.
    count, channels, rows, columns = x.shape
    scale, shift, noise, more_scale, more_shift, more_noise = numbers.unbind(1)
    fields = torch.stack([torch.ones_like(grain), region, grain, region * grain], dim=-1).reshape(count, -1, 4)
    factor = torch.bmm(fields[:, :, :2], torch.stack([1 + scale, more_scale], dim=1))
    added = torch.bmm(fields, torch.stack([shift, more_shift, noise, more_noise], dim=1))
    x = x.permute(0, 2, 3, 1).reshape(count, -1, channels)
    # Each pixel alone, over its channels: what is drawn here does not hang on what is drawn elsewhere.
    squares.append((x * x).mean(dim=2, keepdim=True))
    x = x * torch.rsqrt(squares[-1] + (floor + _EPSILON))
    x = functional.leaky_relu(torch.addcmul(added, x, factor), 0.2)
    return x.view(count, rows, columns, channels).permute(0, 3, 1, 2)


def inside(masks: Tensor) -> Tensor:
    """How far inside the ellipse in a mask's bounding box each pixel is.

    Args:
        masks: (N, 1, S, S), each with something in it.

    Returns:
        (N, 1, S, S): 1 in the centre, 0 on the ellipse, down to -1 well outside.
    """
    size = masks.shape[2]
    places = torch.arange(size, device=masks.device, dtype=torch.float32) + 0.5
    radii = []
    for axis in (2, 3):
        there = masks.amax(dim=5 - axis).squeeze(1) > 0
        first = there.float().argmax(dim=1)
        last = size - there.flip(1).float().argmax(dim=1)
        centre, half = (first + last) / 2, (last - first).clamp(min=1) / 2
        offset = (places - centre[:, None]) / half[:, None]
        radii.append(offset[:, None, :, None] if axis == 2 else offset[:, None, None, :])
    # MKL's root of a float may be off in its last bit, on each maker's CPUs in others; a double's, rounded, is exact.
    return (1 - (radii[0] ** 2 + radii[1] ** 2).double().sqrt().float()).clamp(min=-1)


Generator = UNet | PlusNetwork


def build(settings: GeneratorSettings, conditions: int) -> Generator:
    """Make a generator with fresh weights from torch's own generator.

    Args:
        settings: which, and how large.
        conditions: how many there are.
    """
    return UNet(settings) if settings.kind == "unet" else PlusNetwork(settings, conditions)
