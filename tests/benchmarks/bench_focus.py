"""The focus network's figures: accuracy, known discs, robustness, scale, ablation; beside other measures.

    python tests/benchmarks/focus_sources.py SOURCES
    python jobs/index.py --images SOURCES/images --metadata SOURCES/slides.csv --key file --subgroups slide \\
        --tile-size 512 --out CATALOG
    python tests/benchmarks/bench_focus.py [--catalog CATALOG] [--weights URI] [--part NAME] [--quick]

Test tiles come from the slides that focus_sources.py holds out, and from no other.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsynth.defocus import chain, device
from medsynth.defocus.settings import ChainSettings, SensorSettings
from medsynth.focus import own_blur, samples
from medsynth.focus.model import FocusModel
from medsynth.focus.network import NetworkSettings
from medsynth.focus.samples import SampleSettings, Source
from medsynth.spec import Range
from tests.benchmarks import focus_sources, harness
from tests.benchmarks import focus_tiles as tiles

Images = NDArray[np.uint8]
Predict = Callable[[Images], float]

BARS = {
    "spearman": 0.990,
    "within_one": 0.88,
    "within_one_from_2px": 0.98,
    "class_error": 0.6,
    "noise_8_within_one": 0.80,
    "known_disc_within_15_percent_from_3.35px": 0.98,
    "known_disc_within_one_from_3.35px": 0.98,
    "known_disc_within_one_from_2px": 0.85,
    "order_kept": 1.0,
}

STILL = ChainSettings(sensor=None, jpeg=None)
"""The disc alone."""

CHANGES: dict[str, Callable[[Images], Images]] = {
    "contrast 0.35": lambda image: _codes(128 + 0.35 * (np.arange(256.0) - 128))[image],
    "brightness +40": lambda image: _codes(np.arange(256.0) + 40)[image],
    "brightness -40": lambda image: _codes(np.arange(256.0) - 40)[image],
    "noise 4": lambda image: tiles.grain(image, 4),
    "noise 8": lambda image: tiles.grain(image, 8),
    "JPEG 40": lambda image: tiles.through_jpeg(image, 40),
    "stain shift": lambda image: np.stack(
        [_codes(255 * (np.arange(256) / 255) ** power)[image[..., k]] for k, power in enumerate((1.4, 0.8, 1.2))],
        axis=-1,
    ),
}


def _codes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).round().astype(np.uint8)


def by_model(model: FocusModel) -> Predict:
    """Expected radius by a model."""
    return lambda image: model.score(image).radius_px


def accuracy(predict: Predict, known: tiles.Tiles) -> dict[str, Any]:
    """The issue's four figures against the effective and the added class, and with noise."""
    clear = known.added >= int(np.searchsorted(tiles.RADII, tiles.CLEAR))
    plain = np.array([predict(image) for image in known.images])
    noisy = np.array([predict(image) for image in tiles.grain(known.images, 8)])
    return {
        "effective": tiles.figures(plain, known.effective, clear),
        "added": tiles.figures(plain, known.added.astype(float), clear),
        "noise_8": tiles.figures(noisy, known.effective, clear),
    }


def known_discs(predict: Predict, source: Source, count: int) -> dict[str, float]:
    """Real tiles in focus, blurred by a disc and nothing else."""
    still = tiles.make(source, STILL, count, seed=21)
    radii = np.array([predict(image) for image in still.images])
    true = tiles.RADII[still.added]
    near = np.abs(np.rint(np.interp(radii, tiles.RADII, np.arange(30))) - still.added) <= 1
    far, clear = true >= 3.35, true >= tiles.CLEAR
    return {
        "within_15_percent_from_3.35px": float((np.abs(radii / np.maximum(true, 1) - 1) <= 0.15)[far].mean()),
        "within_one_from_3.35px": float(near[far].mean()),
        "within_one_from_2px": float(near[clear].mean()),
        "tiles": int(clear.sum()),
    }


def order_kept(predict: Predict, source: Source, count: int) -> dict[str, float]:
    """Share of pairs, a tile and itself blurred by 3 px or more, that a change to one of them does not turn."""
    sharp = tiles.make(source, STILL, count, seed=31, classes=[0])
    blurred = tiles.make(source, STILL, count, seed=31, classes=[int(np.searchsorted(tiles.RADII, 3.0))])
    least = [predict(image) for image in sharp.images]
    most = [predict(image) for image in blurred.images]
    kept = {}
    for name, change in CHANGES.items():
        # The worst way round: whichever of the pair is changed, or both.
        sharp_changed = [predict(change(image)) for image in sharp.images]
        blurred_changed = [predict(change(image)) for image in blurred.images]
        pairs = zip(least, most, sharp_changed, blurred_changed, strict=True)
        kept[name] = float(np.mean([max(a, c) < min(b, d) for a, b, c, d in pairs]))
    return kept


def scale(predict: Predict, source: Source, count: int) -> dict[str, float]:
    """The same tissue at half the pixels: the radius in µm, against that at all of them."""
    ratios = []
    for radius in (3.0, 4.5, 6.0, 9.0):
        settings = STILL.model_copy(update={"radii_px": (radius,)})
        for place in range(min(len(source), count)):
            pixels = source[place].pixels
            parameters = chain.draw(settings, 0, None, place)
            side = (min(pixels.shape[:2]) - 2 * chain.crop_margin(settings, None)) // 2 * 2
            full = chain.render(
                np.ascontiguousarray(pixels[: min(pixels.shape[:2]), : min(pixels.shape[:2])]),
                settings,
                parameters,
                side,
                0,
            )
            half = full.reshape(side // 2, 2, side // 2, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
            ratios.append(2 * predict(half) / predict(full))
    low, middle, high = np.percentile(ratios, [5, 50, 95])
    return {"ratio_median": float(middle), "ratio_p5": float(low), "ratio_p95": float(high), "tiles": len(ratios)}


def ablation(source: Source, test: Source, length: tuple[int, int], count: int) -> dict[str, Any]:
    """The post's claim: each step left out of training, tested on another scanner's full chain and on real tiles."""
    base = SampleSettings(devices=0.0)
    arms = {
        "full chain": base,
        "Gaussian for disc": base.model_copy(update={"bokeh": "gaussian"}),
        "no noise": base.model_copy(update={"noise": False}),
        "no JPEG": base.model_copy(update={"jpeg": False}),
    }
    scanner = chain.with_device(ChainSettings(), device.load("philips-ufs-like")).model_copy(update={"mpp": None})
    starved = ChainSettings(sensor=SensorSettings(photons=Range(low=200, high=1000, logarithmic=True)))
    other, dim = tiles.make(test, scanner, count, seed=41), tiles.make(test, starved, count, seed=42)
    rows = {}
    for name, settings in arms.items():
        predict = by_model(tiles.train(tiles.Arm(settings), source, *length))
        rows[name] = {
            "another scanner": accuracy(predict, other)["added"],
            "a starved sensor": accuracy(predict, dim)["added"],
            "known discs": known_discs(predict, test, count),
        }
        print(name, rows[name], flush=True)
    return rows


def run(catalog: str, weights: str | None, part: str, quick: bool) -> dict[str, Any]:
    """The figures of one part, or of all."""
    whole = samples.open_catalog(catalog)
    model = FocusModel.load(weights)
    own = own_blur.excess(by_model(model), whole, count=4 if quick else 8)
    whole = whole.with_own_blur2(own)
    in_focus = [i for i in range(len(whole)) if own[i] <= own_blur.LIMIT]
    held = [i for i in in_focus if whole.slides[i] in focus_sources.HELD_OUT]
    train, test = whole.subset([i for i in in_focus if i not in held]), whole.subset(held)
    print(f"{len(train)} tiles to train on, {len(test)} to test on", flush=True)
    count, length = (100, (640, 2)) if quick else (1400, (4096, 24))
    found: dict[str, Any] = {"weights": model.sha256, "bars": BARS, "short_training_samples_and_turns": length}
    found["test_slides_seen_in_training"] = weights is None
    found["tiles"] = {"test": len(test), "train": len(train), "samples": count}
    predictors: dict[str, Predict] = {}
    orders: dict[str, Predict] = {}
    if part in ("main", "all"):
        predictors["focus network"] = by_model(model)
        fitting = tiles.make(train, ChainSettings(), count, seed=12)
        for name, measure in (("Laplacian variance", tiles.laplacian), ("Tenengrad", tiles.tenengrad)):
            predictors[name] = tiles.calibrated(measure, fitting)
            # Only the order is asked for there, and the fitted function has steps, on which all are alike.
            orders[name] = tiles.softness(measure)
    if part in ("short", "all"):
        lite = tiles.Arm(SampleSettings(), NetworkSettings(kind="lite"))
        predictors["FocusLiteNN-like, short training"] = by_model(tiles.train(lite, train, *length))
        for seed in (1, 2):
            arm = tiles.Arm(SampleSettings(), seed=seed)
            predictors[f"focus network, short training, seed {seed}"] = by_model(tiles.train(arm, train, *length))
    known = tiles.make(test, ChainSettings(), count, seed=11)
    for name, predict in predictors.items():
        found[name] = {
            "accuracy": accuracy(predict, known),
            "known_discs": known_discs(predict, test, count),
            "order_kept": order_kept(orders.get(name, predict), test, 40 if quick else 100),
            "scale": scale(predict, test, 4 if quick else 12),
        }
        print(name, found[name], flush=True)
    if part in ("ablation", "all"):
        found["ablation"] = ablation(train, test, length, count // 2)
    return found


def indexed(out: Path) -> str:
    """Make the catalog of the shared images by the product's own job."""
    focus_sources.prepare(focus_sources.SHARED, out / "sources")
    job = Path(__file__).resolve().parents[2] / "jobs" / "index.py"
    flags = ["--key", "file", "--subgroups", "slide", "--tile-size", "512", "--out", str(out / "catalog")]
    where = ["--images", str(out / "sources" / "images"), "--metadata", str(out / "sources" / "slides.csv")]
    subprocess.run([sys.executable, str(job), *where, *flags], check=True)
    return str(out / "catalog")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", help="of the folder that focus_sources.py makes [made now, beside the figures]")
    parser.add_argument("--weights", help="a focus model [the shipped one]")
    parser.add_argument("--part", choices=("main", "short", "ablation", "all"), default="all")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--quick", action="store_true", help="few tiles and very short trainings: whether it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.weights is None:
        print("the shipped weights have seen the test slides; name weights trained without them to measure", flush=True)
    catalog = arguments.catalog or indexed(arguments.out / "focus-catalog")
    figures = run(catalog, arguments.weights, arguments.part, arguments.quick)
    harness.write("focus" if arguments.part == "all" else f"focus_{arguments.part}", figures, arguments.out)
