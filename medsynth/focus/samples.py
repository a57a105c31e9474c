"""Training samples: a source tile, scaled, turned, recoloured and put out of focus, as a function of its number.

Sample i of a run depends on (source tiles, settings, run seed, i) alone: not on the batch that it comes in, on
the worker that makes it, or on what was made before. No Ray here.
"""

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from pydantic import Field

from medsynth import draws, seeds
from medsynth.catalog import table, tiles
from medsynth.compiled import compiled
from medsynth.defocus import chain, compression, device
from medsynth.defocus.settings import DEFAULT_RADII_PX, BokehSettings, ChainSettings, JpegSettings, SensorSettings
from medsynth.errors import CatalogError, Reason, Rejected
from medsynth.focus.kept import Kept
from medsynth.spec import Range, Settings

SLIDE, OWN_BLUR2 = "slide", "own_blur2"
"""Columns of a catalog that are read here where it has them."""

IN_FOCUS2 = 0.3
"""px²: square of the blur that a tile in focus has by its scanner's optics and pixels. Assumed; of 0, 0.3 and 0.5 it is
the one by which tiles at all scales, trained upon together, were told best on held-out slides."""

_STEPS = 4
_SUBSAMPLINGS: tuple[Literal["4:4:4", "4:2:2", "4:2:0"], ...] = ("4:2:0", "4:2:0", "4:4:4", "4:2:2")
_CACHE_BYTES = 1 << 30
_STRUCTURE = 10.0  # grey levels; an empty background's grain has two or three


class SampleSettings(Settings):
    """How training samples are made; every step can be switched off."""

    size: int = Field(default=128, ge=32, le=1024)
    """Side of a sample in pixels."""
    radii_px: tuple[float, ...] = DEFAULT_RADII_PX
    """The classes' radii; samples take radii at and between them."""
    bokeh: Literal["disc", "gaussian"] = "disc"
    noise: bool = True
    """Sensor noise in the chain, and grey noise after it."""
    jpeg: bool = True
    """Compression in the chain, and once more after it."""
    bare: float = Field(default=0.3, ge=0, le=1)
    """Share of samples without noise, without compression, or without either: a third of it each."""
    photons: Range = Range(low=100, high=50000, logarithmic=True)
    read_noise_e: Range = Range(low=1, high=20, logarithmic=True)
    jpeg_quality: Range = Range(low=40, high=95)
    scale: Range = Range(low=1, high=2.2, logarithmic=True)
    """Source pixels a pixel, for half of the samples; the others keep their tile's pixels."""
    devices: float = Field(default=0.3, ge=0, le=1)
    """Share of samples that go through a shipped device profile instead of the ranges above."""
    colour: bool = True
    """Change stain, brightness and contrast of the tile before the optics."""
    after: bool = True
    """Change brightness and contrast of half of the finished images, as display software does."""

    distinct: int | None = Field(default=None, ge=1)
    """How many samples differ: a longer run meets them again, in another order each time. None: all differ. Samples of
    a catalog's tiles are made once and kept in each machine's temporary folder until the run ends there."""

    def plain(self) -> "SampleSettings":
        """The same without what only training needs: no recolouring, no change of scale, nothing after the chain."""
        return self.model_copy(update={"colour": False, "after": False, "bare": 0.0, "scale": Range(low=1, high=1)})


@dataclass(frozen=True)
class Tile:
    """One tile that samples are made of."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    radius_px: float | None = None
    """None: in focus, to be put out of focus here; a number: the blur that it has already, as a corpus says."""


class Source:
    """Tiles by number, read when first asked for and kept up to a limit.

    Args:
        slides: the slide that each tile comes from; tiles of one slide must not be split.
        read: gives tile i.
        own_blur2: for each tile, the square of the blur that it has of its own, px² (:func:`effective_radius`).
        limit_bytes: pixels kept in memory.
    """

    def __init__(
        self,
        slides: Sequence[str],
        read: Callable[[int], Tile],
        own_blur2: Sequence[float] | None = None,
        limit_bytes: int = _CACHE_BYTES,
    ) -> None:
        self.slides = tuple(slides)
        self.own_blur2 = tuple(own_blur2) if own_blur2 is not None else (0.0,) * len(self.slides)
        self._read = read
        self._limit = limit_bytes
        self._kept: OrderedDict[int, Tile] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.slides)

    def __getitem__(self, index: int) -> Tile:
        """Tile ``index``.

        Raises:
            Rejected: it cannot be read as the catalog saw it.
        """
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        tile = self._read(index)
        self._kept[index] = tile
        self._bytes += tile.pixels.nbytes
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].pixels.nbytes
        return tile

    def subset(self, indices: Sequence[int]) -> "Source":
        """The source of some of the tiles, numbered anew."""
        chosen = [int(index) for index in indices]
        return Source(
            [self.slides[i] for i in chosen],
            lambda i: self[chosen[i]],
            [self.own_blur2[i] for i in chosen],
            0,  # the parent keeps the pixels
        )

    def with_own_blur2(self, own_blur2: Sequence[float]) -> "Source":
        """The same tiles with another estimate of their own blur."""
        return Source(self.slides, lambda i: self[i], own_blur2, 0)


def open_catalog(uri: str, limit_bytes: int = _CACHE_BYTES) -> Source:
    """The in-focus tiles of a catalog, in its order.

    Args:
        uri: a catalog's folder. Its column ``slide`` names the slide of each tile where there is one; else
            each image file is a slide of its own. Its column ``own_blur2`` tells the square of each tile's own
            blur in px², as :mod:`medsynth.focus.own_blur` finds it; without one it is taken for 0.
        limit_bytes: pixels kept in memory.

    Raises:
        CatalogError: there is no catalog, or no tile of it is in focus.
    """
    found = table.read(uri)
    found = found.filter(found["in_focus"])
    if not found.num_rows:
        raise CatalogError(f"{uri}: no tile is in focus; index sharper images")
    rows = found.to_pylist()
    pixels = functools.lru_cache(maxsize=2)(_image)

    def read(index: int) -> Tile:
        row = rows[index]
        whole = pixels(row["uri"], row["row"], row["image_column"], row["sha256"])
        window = whole[row["y"] : row["y"] + row["height"], row["x"] : row["x"] + row["width"]]
        return Tile(np.ascontiguousarray(window))

    slides = [str(row.get(SLIDE, row["uri"])) for row in rows]
    own_blur2 = [float(row.get(OWN_BLUR2, 0.0)) for row in rows]
    return Source(slides, read, own_blur2, limit_bytes)


def effective_radius(added_px: float, own_blur2: float, scale: float) -> float:
    """The blur that a sample has: what was added, and what its tile had of its own, against a tile in focus.

    Args:
        added_px: radius of the disc added, in the sample's pixels.
        own_blur2: square of the tile's own blur in its own pixels, px², beyond what tiles in focus have; less than 0
            for one that is sharper.
        scale: the tile's pixels a pixel of the sample.

    Returns:
        √(r² + r₀²) in the sample's pixels, 0 where that is not real. Blurs add as variances do. A tile scaled down is
        sharper than one in focus is, since the blur that every scanner has shrinks with it.
    """
    return math.sqrt(max(0.0, added_px**2 + (IN_FOCUS2 + own_blur2) / scale**2 - IN_FOCUS2))


def make_batch(
    source: Source, settings: SampleSettings, seed: int, indices: Sequence[int], kept: Kept | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Make samples.

    Args:
        source: the tiles.
        settings: how.
        seed: of the run.
        indices: the samples' numbers.
        kept: where samples are found that were made before, and these are kept.

    Returns:
        Images, uint8 (N, size, size, 3), and effective radii, float32 (N,), px.

    Raises:
        Rejected: a tile cannot be read, or is too small for a sample.
    """
    images = np.empty((len(indices), settings.size, settings.size, 3), dtype=np.uint8)
    radii = np.empty(len(indices), dtype=np.float32)
    for place, index in enumerate(indices):
        number = _number(settings.distinct, seed, int(index))
        found = kept.get(number) if kept else None
        if found is None:
            image, radius = make_sample(source, settings, seed, number)
            found = image, kept.put(number, image, radius) if kept else radius
        images[place], radii[place] = found
    return images, radii


def make_sample(source: Source, settings: SampleSettings, seed: int, index: int) -> tuple[NDArray[np.uint8], float]:
    """Make one sample; see :func:`make_batch`."""
    own = seeds.sample_seed(seed, index)
    u = draws.uniforms(own, "focus sample", 12).tolist()
    place = int(u[0] * len(source))
    tile = source[place]
    if tile.radius_px is not None:
        image = _window(tile.pixels, settings.size, u[1], u[2])
        return _finished(_turned(image, u[3]), settings, own), tile.radius_px
    classes = len(settings.radii_px)
    added = float(np.interp(int(u[4] * ((classes - 1) * _STEPS + 1)) / _STEPS, range(classes), settings.radii_px))
    scale = settings.scale.at(2 * u[5]) if u[5] < 0.5 else 1.0
    steps = _chain(settings, u, round(added, 4))
    scale = min(scale, _largest_scale(steps, settings.size, min(tile.pixels.shape[:2])))
    steps = steps.model_copy(update={"mpp": scale})
    side = math.ceil(settings.size * scale) + 2 * chain.crop_margin(steps, 1.0)
    window = _turned(_tissue(tile.pixels, side, u), u[3])
    if settings.colour:
        window = _recoloured(window, own)
    # The chain's pixel size is told as the scale, of a tile whose pixels are the unit.
    parameters = chain.draw(steps, 0, 1.0, own)
    image = chain.render(window, steps, parameters, settings.size, own)
    if parameters.jpeg_quality is not None and parameters.jpeg_subsampling is not None:
        image = _through_jpeg(image, parameters.jpeg_quality, parameters.jpeg_subsampling)
    return _finished(image, settings, own), effective_radius(added, source.own_blur2[place], scale)


def _number(distinct: int | None, seed: int, index: int) -> int:
    if distinct is None:
        return index
    turn, place = divmod(index, distinct)
    return int(seeds.permute(np.array([place]), distinct, seeds.digest64(seed, "turn", turn))[0])


def _chain(settings: SampleSettings, u: Sequence[float], added: float) -> ChainSettings:
    base = ChainSettings.model_construct(
        **{
            **dict(ChainSettings()),
            "radii_px": (added,),
            "bokeh": BokehSettings(kind=settings.bokeh),
            "sensor": SensorSettings(photons=settings.photons, read_noise_e=settings.read_noise_e),
            "jpeg": JpegSettings(quality=settings.jpeg_quality, subsampling=_SUBSAMPLINGS[int(u[7] * 4)]),
        }
    )
    if u[6] < settings.devices:
        names = device.scanners()
        base = chain.with_device(base, _device(names[int(u[8] * len(names))]))
    third = settings.bare / 3
    switched = {
        "bokeh": BokehSettings(kind=settings.bokeh),
        "sensor": base.sensor if settings.noise and u[9] >= 2 * third else None,
        "jpeg": base.jpeg if settings.jpeg and not third <= u[9] < 3 * third else None,
    }
    return base.model_copy(update=switched)


@functools.lru_cache(maxsize=16)
def _device(name: str) -> device.Device:
    return device.load(name)


def _largest_scale(steps: ChainSettings, size: int, side: int) -> float:
    # The margin grows with the scale, a little less than in proportion.
    margin = 2 * chain.crop_margin(steps.model_copy(update={"mpp": 1.0001}), 1.0)
    return max(1.0, (side - 18) / (size + margin))


def _window(pixels: NDArray[np.uint8], side: int, u: float, v: float) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise Rejected(Reason.TOO_SMALL, f"the tile has {width}x{height} px; a sample needs {side}")
    top, left = int(u * (height - side + 1)), int(v * (width - side + 1))
    return pixels[top : top + side, left : left + side]


def _tissue(pixels: NDArray[np.uint8], side: int, u: Sequence[float]) -> NDArray[np.uint8]:
    # Of up to four places the first with something to see; an empty one has no focus to be learnt.
    for place in range(4):
        window = _window(pixels, side, (u[1] + place * 0.618) % 1, (u[2] + place * 0.382) % 1)
        if window[::4, ::4, 1].std() >= _STRUCTURE:
            break
    return window


def _turned(image: NDArray[np.uint8], u: float) -> NDArray[np.uint8]:
    way = int(u * 8)
    image = np.rot90(image, way % 4)
    return np.ascontiguousarray(image[:, ::-1] if way >= 4 else image)


def _recoloured(image: NDArray[np.uint8], own: int) -> NDArray[np.uint8]:
    # Per channel a power (more or less stain), a gain (lamp, white balance), and a common fade to a grey.
    u = draws.uniforms(own, "colour", 9).tolist()
    codes = np.arange(256) / 255
    fade, pivot = (1 - 0.7 * u[6] if u[7] < 0.4 else 1.0), 0.3 + 0.6 * u[8]
    looks = np.empty((3, 256), dtype=np.uint8)
    for channel in range(3):
        values = (0.75 + 0.3 * u[3 + channel]) * codes ** (0.6 * (1.8 / 0.6) ** u[channel])
        looks[channel] = np.clip(255 * (pivot + fade * (values - pivot)), 0, 255).round()
    return _looked_up(image, looks)


@compiled
def _looked_up(image: NDArray[np.uint8], looks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.empty_like(image)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            for channel in range(3):
                out[row, column, channel] = looks[channel, image[row, column, channel]]
    return out


def _finished(image: NDArray[np.uint8], settings: SampleSettings, own: int) -> NDArray[np.uint8]:
    # What happens to an image after its scanner: display contrast, brightness, grain, a second JPEG.
    if not settings.after:
        return image
    u = draws.uniforms(own, "after", 8).tolist()
    if u[0] < 0.5:
        contrast, shift = 0.3 * (1.3 / 0.3) ** u[1], 80 * (u[2] - 0.5)
        values = np.arange(256.0)
        look = np.clip((values - 160) * contrast + 160 + shift, 0, 255).round().astype(np.uint8)
        image = _looked_up(image, np.stack([look] * 3))
    if settings.noise and u[3] < 0.3:
        generator = np.random.Generator(np.random.Philox(key=seeds.digest64(own, "grain")))
        grain = generator.standard_normal(image.shape, dtype=np.float32) * (12 * 12 ** (u[4] - 1))
        image = np.clip(image + grain, 0, 255).round().astype(np.uint8)
    if settings.jpeg and u[5] < 0.3:
        image = _through_jpeg(image, int(35 + 60 * u[6]), _SUBSAMPLINGS[int(u[7] * 4)])
    return image


def _through_jpeg(image: NDArray[np.uint8], quality: int, subsampling: str) -> NDArray[np.uint8]:
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(compression.encode(image, quality, subsampling))
    return decoded


def _image(uri: str, row: int | None, image_column: str | None, sha256: str) -> NDArray[np.uint8]:
    return tiles.load(tiles.fetch(uri, row, image_column), sha256)
