"""The networks that judge focus: a small dense one, the paper's patch network, and a tiny one to compare with.

All take uint8 RGB images and give logits on a grid: cell (i, j) sees the window of side ``field`` whose
first pixel is (i * stride, j * stride), and nothing else. Convolutions are never padded and there are no
batch statistics, so a cell's answer is the same in a large image, in its patch alone, and in any batch.
"""

import abc
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medsynth.spec import Settings

BLOCK, STEP, LEVELS = 16, 8, 2
"""The small network's cosines: side of a block and distance from block to block in pixels of a level; levels."""
KINDS = BLOCK * (BLOCK + 1) // 2
"""Pairs of cosines, one down and one along, without regard to which is which."""
CELL, CELL_STEP = 128, 32
"""Side of the small network's cell, and distance from cell to cell, in pixels of the image."""

_LUMA = (0.299, 0.587, 0.114)
_FLOOR = 0.05  # squared grey levels: below the rounding to 8 bits there is nothing to see


class NetworkSettings(Settings):
    """Which network, and how large."""

    kind: Literal["small", "paper", "lite"] = "small"
    classes: int = Field(default=30, ge=2, le=1000)
    width: int = Field(default=32, ge=4, le=512)
    """What the layers' sizes follow from; the lite network has but one size."""


class FocusNetwork(nn.Module, abc.ABC):
    """What the three networks share: geometry, and uint8 pixels in.

    Args:
        settings: which network.
        stride: pixels from cell to cell.
        field: side of a cell's window in pixels.
    """

    def __init__(self, settings: NetworkSettings, stride: int, field: int) -> None:
        super().__init__()
        self.settings = settings
        self.stride = stride
        self.field = field

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Judge images.

        Args:
            images: (N, H, W, 3) uint8 RGB, H and W at least ``field``.

        Returns:
            (N, classes, h, w) float logits, h = (H - field) // stride + 1 and w likewise.
        """


class SmallNetwork(FocusNetwork):
    """Dense and fast: how much structure an image has at each frequency, and what that says of the blur.

    The luma is halved, and halved again. In both levels windowed cosines, 16 each way, look at blocks of 16×16
    pixels, every 8 pixels. Of each answer the mean square and the mean size are taken over the cell: the first is a
    power spectrum, in which a disc leaves dark rings, the closer together the larger it is; the two together tell
    edges, which are few and strong, from noise, which is everywhere alike. A disc has no direction, so a cosine and
    its transpose count as one. The logarithms, in which contrast is a mere shift, go to a perceptron that is learnt.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, stride=CELL_STEP, field=CELL)
        kinds = np.array([BLOCK * low + high for low in range(BLOCK) for high in range(low, BLOCK)])
        centre, spread = _usual_statistics(kinds)
        # Fixed by formulas, so they are no part of the weights.
        self.register_buffer("waves", windowed_cosines(), persistent=False)
        self.register_buffer("kinds", torch.from_numpy(kinds), persistent=False)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        self.first = nn.Linear(len(centre), settings.width * 6)
        self.second = nn.Linear(settings.width * 6, settings.width * 4)
        self.last = nn.Linear(settings.width * 4, settings.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images; see :meth:`FocusNetwork.forward`."""
        return self.judge(self.spectra(images))

    @torch.no_grad()
    def spectra(self, images: Tensor) -> Tensor:
        """What the cosines see in each cell; nothing of it is learnt.

        Args:
            images: (N, H, W, 3) uint8 RGB, H and W at least 128.

        Returns:
            (N, h, w, 2 levels, 2, 136) float32: mean squares, then mean sizes.
        """
        high, wide = ((side - CELL) // CELL_STEP * CELL_STEP + CELL for side in images.shape[1:3])
        cells = []
        with torch.autocast(images.device.type, enabled=False):
            grey = halved_luma(images[:, :high, :wide])
            for level in range(LEVELS):
                answers = self._answers(grey)
                blocks, step = blocks_of_cell(level)
                for sizes in (answers.square(), answers.abs()):
                    means = functional.avg_pool2d(sizes, blocks, stride=step).permute(0, 2, 3, 1)
                    both = means.reshape(*means.shape[:3], BLOCK, BLOCK)
                    cells.append((both + both.transpose(3, 4)).flatten(3)[..., self.get_buffer("kinds")] / 2)
                grey = functional.avg_pool2d(grey, 2)
        spectra = torch.stack(cells, dim=3)
        return spectra.view(*spectra.shape[:3], LEVELS, 2, KINDS)

    def _answers(self, grey: Tensor) -> Tensor:
        # Along the rows, then down the columns: (N, h, w) to (N, 256, blocks down, blocks along), cosines innermost
        # in memory.
        waves = self.get_buffer("waves").T
        along = grey.unfold(2, BLOCK, STEP)
        rows = (along.reshape(-1, BLOCK) @ waves).view(*along.shape[:2], -1)
        down = rows.unfold(1, BLOCK, STEP)
        answers = (down.reshape(-1, BLOCK) @ waves).view(*down.shape[:2], along.shape[2], BLOCK * BLOCK)
        return answers.permute(0, 3, 1, 2)

    def judge(self, spectra: Tensor) -> Tensor:
        """Logits (N, classes, h, w) from :meth:`spectra`."""
        squares, sizes = spectra.unbind(4)
        power = torch.log(squares + _FLOOR)
        shape = torch.log((sizes**2 + _FLOOR) / (squares + _FLOOR))
        features = (torch.stack([power, shape], dim=4).flatten(3) - self.get_buffer("centre")) / self.get_buffer(
            "spread"
        )
        hidden = functional.relu(self.second(functional.relu(self.first(features))))
        logits: Tensor = self.last(hidden)
        return logits.permute(0, 3, 1, 2)


def halved_luma(images: Tensor) -> Tensor:
    """Brightness of the squares of 2×2 pixels, 0 to 255.

    Args:
        images: (N, H, W, 3) uint8 RGB, H and W even.

    Returns:
        (N, H / 2, W / 2) float32.

    Source:
        ITU-R BT.601, the weights of JPEG's Y: what is lost of colour in 4:2:0 is not looked for.
    """
    count, high, wide, _ = images.shape
    pairs = images.reshape(count, high // 2, 2, wide * 3)
    # Whole numbers are summed while they are small, which is four times as fast as on floating-point pixels.
    rows = (pairs[:, :, 0].to(torch.int16) + pairs[:, :, 1]).view(count, high // 2, wide // 2, 6)
    weights = torch.tensor(_LUMA * 2, dtype=torch.float32, device=images.device) / 4
    return rows.to(torch.float32) @ weights


def windowed_cosines() -> Tensor:
    """The cosines of the discrete cosine transform of 16 points under a sine window, of length 1.

    Returns:
        (16, 16) float32, row k of k half waves, and but for the first of mean 0; rounded to 6 digits, since the C
        library's cosine may differ in its last bit from machine to machine.
    """
    places = (np.arange(BLOCK) + 0.5) * np.pi / BLOCK
    waves = np.cos(np.arange(BLOCK)[:, None] * places) * np.sin(places)
    waves[1:] -= waves[1:].mean(axis=1, keepdims=True)
    waves /= np.sqrt((waves**2).sum(axis=1, keepdims=True))
    return torch.from_numpy(waves.round(6).astype(np.float32))


def blocks_of_cell(level: int) -> tuple[int, int]:
    """Blocks within a cell along one side, and from one cell to the next, in a level."""
    return (CELL >> level) // (2 * STEP) - 1, (CELL_STEP >> level) // (2 * STEP)


def _usual_statistics(kinds: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    # About where the features lie and how far they spread, so that the perceptron starts well. Read off
    # samples of real tiles: power falls with the frequency to the power of 3.2.
    waves = np.hypot(*np.divmod(kinds, BLOCK))
    centre, spread = [], []
    for level in range(LEVELS):
        power = 9.2 + 0.9 * level - 3.2 * np.log(np.maximum(waves, 1))
        centre += [np.where(waves > 0, power, 15.0), np.where(waves > 0, -0.5, -0.01)]
        spread += [np.where(waves > 0, 2.0, 0.6), np.where(waves > 0, 0.2, 0.02)]
    return tuple(torch.from_numpy(np.concatenate(values).astype(np.float32)) for values in (centre, spread))  # type: ignore[return-value]


class PaperNetwork(FocusNetwork):
    """A patch network after ConvFocus: 139×139 pixels of RGB in, one answer out; dense by the same weights.

    Source:
        Kohlberger et al., "Whole-slide image focus quality", J Pathol Inform 2019: patch size, classes and
        the kind of network; its layers are not published in full, so their numbers here are our own.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, stride=16, field=139)
        width = settings.width
        # Side: 139 -> 68 -> 64 -> 32 -> 28 -> 14 -> 12 -> 6 -> 1, no pixel left over; cells lie 16 px apart.
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width * 2, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width * 2, width * 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width * 4, width * 16, 6),
            nn.ReLU(),
            nn.Conv2d(width * 16, width * 16, 1),
            nn.ReLU(),
            nn.Conv2d(width * 16, settings.classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Judge images; see :meth:`FocusNetwork.forward`."""
        logits: Tensor = self.layers(images.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5)
        return logits


class LiteNetwork(FocusNetwork):
    """FocusLiteNN with one kernel: a 7×7 convolution of stride 5 and the least of its answers, 148 parameters.

    Its one number is a radius; as logits it is the closeness to each class, of a fixed sharpness, so that it
    is trained by the same losses.

    Source:
        Wang et al., "FocusLiteNN: High Efficiency Focus Quality Assessment for Digital Pathology", MICCAI 2020,
        section 2.2, equation 4, with N = 1.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, stride=20, field=7 + 24 * 5)
        self.filter = nn.Conv2d(3, 1, 7, stride=5)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images; see :meth:`FocusNetwork.forward`."""
        answers = self.filter(images.permute(0, 3, 1, 2).to(torch.float32) / 255)
        least = -functional.max_pool2d(-answers, 25, stride=4)
        places = torch.linspace(0, 1, self.settings.classes, device=images.device).reshape(1, -1, 1, 1)
        return -(((least - places) * (self.settings.classes / 2)) ** 2)


def build(settings: NetworkSettings) -> FocusNetwork:
    """Make a network with fresh weights from torch's own generator.

    Args:
        settings: which network, and how large.
    """
    match settings.kind:
        case "small":
            return SmallNetwork(settings)
        case "paper":
            return PaperNetwork(settings)
        case "lite":
            return LiteNetwork(settings)
