"""The networks that judge focus: a small dense one, the paper's patch network, and a tiny one to compare with.

All take uint8 RGB images and give logits on a grid: cell (i, j) sees the window of side ``field`` whose
first pixel is (i * stride, j * stride), and nothing else. Convolutions are never padded and there are no
batch statistics, so a cell's answer is the same in a large image, in its patch alone, and in any batch.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medsynth.spec import Settings

BLOCK, STEP, FILTERS, LEVELS = 8, 4, 64, 3
"""The small network's bank: side of a block, distance from block to block, cosines, and times halved plus one."""
BIN, BINS = 16, 7
"""Side of a bin in pixels, and bins along a cell."""

_LUMA = (0.299, 0.587, 0.114)
_FLOOR = 0.05  # squared grey levels: below the rounding to 8 bits there is nothing to see


class NetworkSettings(Settings):
    """Which network, and how large."""

    kind: Literal["small", "paper", "lite"] = "small"
    classes: int = Field(default=30, ge=2, le=1000)
    width: int = Field(default=32, ge=4, le=512)
    """What the layers' sizes follow from; the lite network has but one size."""


class FocusNetwork(nn.Module):
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

    def forward(self, images: Tensor) -> Tensor:
        """Judge images.

        Args:
            images: (N, H, W, 3) uint8 RGB, H and W at least ``field``.

        Returns:
            (N, classes, h, w) float logits, h = (H - field) // stride + 1 and w likewise.
        """
        raise NotImplementedError


def luma(images: Tensor) -> Tensor:
    """Brightness of RGB pixels, 0 to 255.

    Args:
        images: (N, H, W, 3) uint8.

    Returns:
        (N, 1, H, W) float32.

    Source:
        ITU-R BT.601, the weights of JPEG's Y: what is lost of colour in 4:2:0 is not looked for.
    """
    weights = torch.tensor(_LUMA, dtype=torch.float32, device=images.device)
    return (images.to(torch.float32) @ weights).unsqueeze(1)


class SmallNetwork(FocusNetwork):
    """Dense and fast: how much structure an image has at each frequency, and what that says of the blur.

    A fixed bank of 64 windowed cosines looks at blocks of 8×8 pixels, every 4 pixels, in the image and in its
    halves and quarters, which is to say at blocks of 16 and 32. Of each answer the mean square and the mean
    size are taken over the cell: the first is a power spectrum, in which a disc leaves its rings, and the two
    together tell edges, which are few and strong, from noise, which is everywhere alike. Their logarithms, in
    which contrast is a mere shift, go to a perceptron that is learnt.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings, stride=2 * BIN, field=(BINS + 1) * BIN)
        centre, spread = _usual_statistics()
        # Fixed by formulas, so they are no part of the weights.
        self.register_buffer("filters", filter_bank(), persistent=False)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        self.first = nn.Conv2d(len(centre), settings.width * 6, 1)
        self.second = nn.Conv2d(settings.width * 6, settings.width * 4, 1)
        self.last = nn.Conv2d(settings.width * 4, settings.classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images; see :meth:`FocusNetwork.forward`."""
        grey = luma(images)
        return self.classify(torch.cat([self.statistics(level) for level in levels(grey)], dim=1))

    def statistics(self, level: tuple[Tensor, int]) -> Tensor:
        """Mean square and mean size of the bank's answers over bins of 16×16 pixels.

        Args:
            level: from :func:`levels`.

        Returns:
            (N, 128, h, w) with h = H // 16 - 1 of the image's height and w likewise.
        """
        grey, step = level
        # A block of 8 by 8 is 2 by 2 squares of 4 by 4: with a square's pixels as channels, and these side by
        # side in memory, torch is five times as fast.
        squares = functional.pixel_unshuffle(grey, STEP).contiguous(memory_format=torch.channels_last)
        answers = functional.conv2d(squares, self.get_buffer("filters"))
        return torch.cat([functional.avg_pool2d(answers**2, step), functional.avg_pool2d(answers.abs(), step)], dim=1)

    def classify(self, bins: Tensor) -> Tensor:
        """Logits from the three levels' :meth:`statistics`, side by side along dimension 1."""
        return self.judge(functional.avg_pool2d(bins, BINS, stride=2))

    def judge(self, means: Tensor) -> Tensor:
        """Logits from the means of the bins over each cell, (N, 384, h, w)."""
        squares, sizes = means.reshape(len(means), LEVELS, 2, FILTERS, *means.shape[2:]).unbind(2)
        power = torch.log(squares + _FLOOR)
        shape = torch.log((sizes**2 + _FLOOR) / (squares + _FLOOR))
        features = torch.cat([power, shape], dim=2).flatten(1, 2)
        features = (features - self.get_buffer("centre")) / self.get_buffer("spread")
        hidden = functional.relu(self.second(functional.relu(self.first(features))))
        logits: Tensor = self.last(hidden)
        return logits


def levels(grey: Tensor) -> list[tuple[Tensor, int]]:
    """An image, its half and its quarter, cut so that all three have as many bins.

    Args:
        grey: (N, 1, H, W) from :func:`luma`.

    Returns:
        Each level with the number of the bank's places along a bin there.
    """
    high, wide = grey.shape[2] // BIN * BIN, grey.shape[3] // BIN * BIN
    found = []
    for level in range(LEVELS):
        step = BIN // STEP // 2**level
        # A block that begins in a bin may end in the next; what no bin counts is cut off.
        reach = BLOCK - STEP
        rows, columns = ((side // BIN - 1) * BIN // 2**level + reach for side in (high, wide))
        found.append((grey[:, :, :rows, :columns], step))
        grey = functional.avg_pool2d(grey, 2)
    return found


def filter_bank() -> Tensor:
    """The cosines of the 8×8 discrete cosine transform under a sine window, of length 1 and (but the first) mean 0.

    Returns:
        (64, 16, 2, 2) float32, filter 8 u + v of u half waves down and v along, its 8×8 numbers as those of
        2×2 squares of 4×4; rounded to 6 digits, since the C library's cosine may differ in its last bit from
        machine to machine.
    """
    places = (np.arange(BLOCK) + 0.5) * np.pi / BLOCK
    waves = np.cos(np.arange(BLOCK)[:, None] * places) * np.sin(places)
    bank = np.einsum("ui,vj->uvij", waves, waves).reshape(FILTERS, BLOCK, BLOCK)
    bank[1:] -= bank[1:].mean(axis=(1, 2), keepdims=True)
    bank /= np.sqrt((bank**2).sum(axis=(1, 2), keepdims=True))
    squares = functional.pixel_unshuffle(torch.from_numpy(bank.round(6).astype(np.float32)[:, None]), STEP)
    return squares.contiguous(memory_format=torch.channels_last)


def _usual_statistics() -> tuple[Tensor, Tensor]:
    # About where the features lie and how far they spread, so that the perceptron starts well. Read off
    # samples of real tiles: power falls with the frequency to the power of 3.2.
    waves = np.hypot(*np.divmod(np.arange(FILTERS), BLOCK))
    centre, spread = [], []
    for level in range(LEVELS):
        power = 6.6 + 0.85 * level - 3.2 * np.log(np.maximum(waves, 1))
        centre += [np.where(waves > 0, power, 13.8), np.where(waves > 0, -0.62, -0.03)]
        spread += [np.where(waves > 0, 2.0, 0.6), np.where(waves > 0, 0.33, 0.05)]
    first, second = (np.concatenate(values).astype(np.float32).reshape(-1, 1, 1) for values in (centre, spread))
    return torch.from_numpy(first), torch.from_numpy(second)


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
