"""The networks that judge focus: a small dense one, the paper's patch network, and a tiny one to compare with.

All take uint8 RGB images and give logits on a grid: cell (i, j) sees the window of side ``field`` whose
first pixel is (i * stride, j * stride), and nothing else. Convolutions are never padded and there are no
batch statistics, so a cell's answer is the same in a large image, in its patch alone, and in any batch.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from medsynth.spec import Settings

_LUMA = (0.299, 0.587, 0.114)


class NetworkSettings(Settings):
    """Which network, and how large."""

    kind: Literal["small", "paper", "lite"] = "small"
    classes: int = Field(default=30, ge=2, le=1000)
    width: int = Field(default=32, ge=4, le=512)
    """Filters of the first layer; the others follow from it. The lite network has one per channel and class."""


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
    """Brightness of RGB pixels, 0 to 1.

    Args:
        images: (N, H, W, 3) uint8.

    Returns:
        (N, 1, H, W) float32.

    Source:
        ITU-R BT.601, the weights of JPEG's Y: what is lost of colour in 4:2:0 is not looked for.
    """
    weights = torch.tensor(_LUMA, dtype=torch.float32, device=images.device) / 255
    return (images.to(torch.float32) @ weights).unsqueeze(1)


class SmallNetwork(FocusNetwork):
    """Dense and fast: local filters, their mean responses over a window, and a small classifier of those.

    The classifier sees the logarithms of the means too, in which a change of contrast is a shift.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        width, pool = settings.width, 7
        super().__init__(settings, stride=32, field=32 + (pool - 1) * 16)
        self.first = nn.Conv2d(1, width, 8, stride=4)
        self.second = nn.Conv2d(width, width * 3 // 2, 3, stride=2)
        self.third = nn.Conv2d(width * 3 // 2, width * 2, 3, stride=2)
        self.hidden = nn.Conv2d(width * 4, 128, 1)
        self.last = nn.Conv2d(128, settings.classes, 1)
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        """Judge images; see :meth:`FocusNetwork.forward`."""
        return self.classify(self.local(luma(images)))

    def local(self, brightness: Tensor) -> Tensor:
        """Local features: (N, 1, H, W) from :func:`luma` to (N, C, h, w), of field 32 and stride 16."""
        features = functional.relu(self.first(brightness))
        features = functional.relu(self.second(features))
        return functional.relu(self.third(features))

    def classify(self, local: Tensor) -> Tensor:
        """Logits from local features."""
        means = functional.avg_pool2d(local, self.pool, stride=2)
        features = torch.cat([means, torch.log(means + 1e-3)], dim=1)
        logits: Tensor = self.last(functional.relu(self.hidden(features)))
        return logits


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
