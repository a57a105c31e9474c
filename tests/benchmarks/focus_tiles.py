"""Tiles with a known class for the focus benchmarks, other measures of sharpness, and short trainings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats

from medsynth import seeds
from medsynth.defocus import chain, compression
from medsynth.defocus.settings import DEFAULT_RADII_PX, ChainSettings
from medsynth.focus import samples
from medsynth.focus.model import FocusModel
from medsynth.focus.network import NetworkSettings, SmallNetwork
from medsynth.focus.samples import SampleSettings, Source
from medsynth.focus.training import LearningSettings, Trainer

RADII = np.array(DEFAULT_RADII_PX)
CLEAR = 2.0
SIZE = 176
"""Side of a test tile in pixels: what the recipe makes of a tile of 256 by default."""

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Tiles:
    """Test tiles and what is known of them."""

    images: Images
    added: NDArray[np.int64]
    """The class of the disc that was added."""
    effective: NDArray[np.float64]
    """The class, with its fraction, of that disc and the source tile's own blur together."""
    place: NDArray[np.int64]
    """The source tile of each."""


def make(source: Source, settings: ChainSettings, count: int, seed: int, classes: Sequence[int] = range(30)) -> Tiles:
    """Put tiles out of focus, as many of each source tile and of each class."""
    generator = np.random.default_rng(seed)
    images, added, places = [], [], []
    for number in range(count):
        place, k = number % len(source), int(classes[int(generator.integers(len(classes)))])
        pixels = source[place].pixels
        side = min(SIZE + 2 * chain.crop_margin(settings, None), *pixels.shape[:2])
        for _ in range(10):  # a place with tissue
            y, x = (int(generator.integers(n - side + 1)) for n in pixels.shape[:2])
            window = np.ascontiguousarray(pixels[y : y + side, x : x + side])
            if window[::4, ::4, 1].std() >= 12:
                break
        own = seeds.sample_seed(seed, number)
        parameters = chain.draw(settings, k, None, own)
        image = chain.render(window, settings, parameters, SIZE, own)
        images.append(through_jpeg(image, parameters.jpeg_quality, parameters.jpeg_subsampling))
        added.append(k)
        places.append(place)
    own_blur2 = np.array([source.own_blur2[place] for place in places])
    radii = np.sqrt(np.maximum(0, RADII[added] ** 2 + own_blur2))
    effective = np.interp(radii, RADII, np.arange(30))
    return Tiles(np.stack(images), np.array(added), effective, np.array(places))


def through_jpeg(image: Images, quality: int | None, subsampling: str | None = "4:2:0") -> Images:
    """Compress and open again, or nothing for a quality of None."""
    if quality is None or subsampling is None:
        return image
    data = np.frombuffer(compression.encode(image, quality, subsampling), np.uint8)
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


def grain(images: Images, levels: float, seed: int = 3) -> Images:
    """Add noise of so many grey levels."""
    noise = np.random.default_rng(seed).normal(0, levels, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


def laplacian(image: Images) -> float:
    """Variance of the Laplacian of the luma."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def tenengrad(image: Images) -> float:
    """Mean squared Sobel gradient of the luma."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    across, down = (cv2.Sobel(grey, cv2.CV_64F, *way) for way in ((1, 0), (0, 1)))
    return float((across**2 + down**2).mean())


def calibrated(measure: Callable[[Images], float], known: Tiles) -> Callable[[Images], float]:
    """Turn a measure of sharpness into a radius: the rising function that fits training tiles best."""
    blur = np.array([softness(measure)(image) for image in known.images])
    order = np.argsort(blur)
    fitted = optimize.isotonic_regression(RADII[known.added[order]]).x
    return lambda image: float(np.interp(softness(measure)(image), blur[order], fitted))


def softness(measure: Callable[[Images], float]) -> Callable[[Images], float]:
    """A measure of sharpness turned round, on a scale where its ratios are distances."""
    return lambda image: -float(np.log(measure(image) + 1e-9))


def figures(radii: NDArray[np.float64], wanted: NDArray[np.float64], clear: NDArray[np.bool_]) -> dict[str, float]:
    """The issue's four figures of predicted radii against true classes."""
    places = np.interp(radii, RADII, np.arange(30))
    apart = np.abs(np.rint(places) - np.rint(wanted))
    near = apart <= 1
    return {
        "spearman": round(float(stats.spearmanr(radii, wanted).statistic), 4),
        "within_one": round(float(near.mean()), 4),
        "within_one_from_2px": round(float(near[clear].mean()), 4),
        "class_error": round(float(apart.mean()), 4),
        "class_error_unrounded": round(float(np.abs(places - wanted).mean()), 4),
    }


@dataclass(frozen=True)
class Arm:
    """A short training: which network on which samples."""

    samples: SampleSettings
    network: NetworkSettings = field(default_factory=NetworkSettings)
    seed: int = 0


def train(arm: Arm, source: Source, distinct: int, turns: int, batch: int = 64) -> FocusModel:
    """Train as jobs/train_focus.py does, without Ray: the same trainer, on the same samples, seen again and again."""
    learning = LearningSettings(network=arm.network, steps=distinct * turns // batch, batch=batch, learning_rate=3e-3)
    trainer = Trainer(learning, DEFAULT_RADII_PX, torch.device("cpu"), arm.seed)
    images, radii = samples.make_batch(source, arm.samples, arm.seed, range(distinct))
    whole, inputs = trainer.module.forward, images
    if isinstance(trainer.module, SmallNetwork):
        # Its cosines learn nothing, so that each sample's spectrum is reckoned but once.
        batches = [torch.from_numpy(images[i : i + 64]) for i in range(0, distinct, 64)]
        inputs = np.concatenate([trainer.module.spectra(batch).numpy() for batch in batches])
        trainer.module.forward = trainer.module.judge  # type: ignore[assignment, method-assign]
    order = np.random.default_rng(arm.seed)
    for _ in range(turns):
        places = order.permutation(distinct)
        for first in range(0, distinct - batch + 1, batch):
            chosen = places[first : first + batch]
            trainer.step(inputs[chosen], radii[chosen])
    trainer.module.forward = whole  # type: ignore[method-assign]
    return FocusModel(trainer.averaged, DEFAULT_RADII_PX, {"distinct": distinct, "turns": turns, "seed": arm.seed})
