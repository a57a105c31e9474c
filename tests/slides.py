"""Slides that tests make: tissue on glass, as files of several kinds, and a small network to score them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medsynth.focus.model import FocusModel
from medsynth.focus.network import NetworkSettings, build

GLASS = (244, 243, 246)
RADII = tuple(np.linspace(0.0, 14.5, 30).tolist())


def network(width: int | None = 8) -> FocusModel:
    """A network with fresh weights: it knows nothing, and says the same of the same pixels."""
    settings = NetworkSettings() if width is None else NetworkSettings(width=width)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return FocusModel(build(settings), RADII, {})


def stained(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Something like haematoxylin and eosin: dark blue blobs in pink, with texture down to the pixel."""
    rng = np.random.default_rng(seed)
    nuclei = ndimage.gaussian_filter(rng.standard_normal((height, width)).astype(np.float32), 6)
    nuclei = np.clip((nuclei / nuclei.std() - 0.6) * 2, 0, 1)[:, :, None]
    grain = rng.integers(-12, 13, (height, width, 1))
    colour = nuclei * np.array([88, 62, 140]) + (1 - nuclei) * np.array([222, 150, 196])
    return np.clip(colour + grain, 0, 255).astype(np.uint8)


def on_glass(height: int, width: int, box: tuple[int, int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Glass with a rectangle of tissue: its first row and column, its height and width."""
    rng = np.random.default_rng(seed + 1)
    picture = np.clip(np.array(GLASS) + rng.integers(-2, 3, (height, width, 3)), 0, 255).astype(np.uint8)
    top, left, tall, wide = box
    if tall and wide:
        picture[top : top + tall, left : left + wide] = stained(tall, wide, seed)
    return picture


def write_tiff(path: Path, picture: NDArray[Any], mpp: float | None = 0.25, levels: int = 1, **options: Any) -> Path:
    """A tiled TIFF, with a pyramid where more levels are asked for."""
    known: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate", **options}
    if mpp is not None:
        known |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, subifds=levels - 1, **known)
        for level in range(1, levels):
            writer.write(picture[:: 2**level, :: 2**level], subfiletype=1, **known)
    return path


def write_huge(path: Path, side: int, tile: int = 256) -> Path:
    """A tiled JPEG TIFF with a disc of tissue, made of a few tiles that repeat, so that it is quick to write."""
    tissue = stained(4 * tile, 4 * tile)
    parts = [[_jpeg(tissue[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]) for x in range(4)] for y in range(4)]
    glass = _jpeg(np.full((tile, tile, 3), GLASS, np.uint8))
    across = -(-side // tile)

    def tiles() -> Iterator[bytes]:
        for row in range(across):
            for column in range(across):
                inside = (row - across / 2) ** 2 + (column - across / 2) ** 2 < (0.4 * across) ** 2
                yield parts[row % 4][column % 4] if inside else glass

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(
            tiles(),
            shape=(side, side, 3),
            dtype=np.uint8,
            tile=(tile, tile),
            photometric="rgb",
            compression="jpeg",
            resolution=(40000, 40000),
            resolutionunit="CENTIMETER",
        )
    return path


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    found: bytes = imagecodecs.jpeg_encode(
        np.ascontiguousarray(picture), level=80, colorspace="RGB", outcolorspace="RGB"
    )
    return found
