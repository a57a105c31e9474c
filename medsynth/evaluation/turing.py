"""A page on which people tell real photos from synthetic ones, and their answers counted. One file, offline.

Nothing but the pictures may give the answer away: all have one size, go through one encoder at one quality, are
filled up to the same number of bytes, have no names, and come in an order that follows from a key alone.
"""

import base64
import json
import math
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from medsynth import seeds
from medsynth.defocus import compression
from medsynth.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"

_QUALITY = 92


def page(real: NDArray[np.uint8], synthetic: NDArray[np.uint8], count: int, seed: int, title: str) -> str:
    """Make the page.

    Args:
        real: (N, S, S, 3) sRGB.
        synthetic: (M, S, S, 3) of the same size.
        count: pictures to show; half of them are real.
        seed: of choice and order.
        title: of the page.

    Returns:
        HTML.

    Raises:
        UserError: there are fewer pictures than asked for, or they differ in size.
    """
    if real.shape[1:] != synthetic.shape[1:]:
        raise UserError(f"real pictures have {real.shape[1]} px on a side, synthetic ones {synthetic.shape[1]}")
    check(count, len(real), len(synthetic))
    half = count // 2
    shown = [
        *((image, 1) for image in real[_order(len(real), seed, "real")[:half]]),
        *((image, 0) for image in synthetic[_order(len(synthetic), seed, "synthetic")[:half]]),
    ]
    ordered = [shown[place] for place in _order(len(shown), seed, "shown")]
    encoded = same_length([compression.encode(image, _QUALITY, "4:4:4") for image, _ in ordered])
    # Not readable at a glance in the page's source; whoever wants to cheat can.
    mask = [seeds.digest64(seed, "mask", place) & 255 for place in range(len(ordered))]
    sealed = [(answer + 2 * (byte >> 1)) ^ (byte & 1) for (_, answer), byte in zip(ordered, mask, strict=True)]
    keys = [byte & 1 for byte in mask]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("turing.html.j2").render(
        title=title,
        side=real.shape[1],
        pictures=[base64.b64encode(data).decode() for data in encoded],
        sealed=base64.b64encode(json.dumps([sealed, keys]).encode()).decode(),
        run=f"{seeds.digest64(seed, 'turing', *(len(data) for data in encoded)):016x}",
    )


def check(count: int, real: int, synthetic: int) -> None:
    """Refuse a page of more pictures than there are.

    Args:
        count: pictures to show; half of them are real.
        real: how many there are.
        synthetic: how many there are.

    Raises:
        UserError: one line with the counts.
    """
    half = count // 2
    if half < 1 or half > min(real, synthetic):
        raise UserError(
            f"--turing {count} needs {max(half, 1)} pictures of each kind; there are {real} real and "
            f"{synthetic} synthetic ones; ask for fewer"
        )


def same_length(files: list[bytes]) -> list[bytes]:
    """JPEG files filled up to the longest one's length by bytes after their end, which no reader looks at."""
    longest = max(len(data) for data in files)
    return [data + bytes(longest - len(data)) for data in files]


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """A 95 % interval of a share.

    Args:
        right: how many.
        count: of how many, at least 1.
        z: of the normal distribution.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Example:
        >>> [round(end, 3) for end in wilson(5, 10)]
        [0.237, 0.763]
    """
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _order(count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    return seeds.permute(np.arange(count), count, seeds.digest64(seed, "turing", purpose))
