"""The defocus chain against albumentations and against the codec alone: JPEG bytes in, JPEG bytes out.

One thread on one processor. Contestants take turns, round by round, at the same tiles, focus classes
and qualities; a ratio is the median over the rounds of the ratio within a round:

- exact, fast: the product: decode, draw the parameters, render 256 x 256 px, encode
- albumentations: OpenCV's decoder, Defocus of the nearest whole radius (none for class 0), CenterCrop,
  ShotNoise, OpenCV's encoder; the transforms are built beforehand
- opencv, simplejpeg: decode, crop, encode; the faster of the two is the bare codec

Every tile is as large as the mode with the wider margin needs, so that all decode the same pixels.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask PyPI for its newest version while it is imported

import albumentations
import cv2
import numpy as np
import simplejpeg

from medsynth import images, storage
from medsynth.defocus import chain, compression, halfres
from medsynth.defocus.chain import ChainParameters, ChainSettings
from medsynth.defocus.settings import DEFAULT_RADII_PX
from tests.benchmarks import harness

SIZE = 256
BARS = {
    "exact_over_albumentations": 10.0,
    "exact_over_codec": 0.30,
    "fast_over_albumentations": 15.0,
    "fast_over_codec": 0.44,
}
STRETCH = {"fast_over_albumentations": 20.0, "fast_over_codec": 0.55}
TABLES = {"default": DEFAULT_RADII_PX, "linear": tuple(step / 2 for step in range(30))}


@dataclass(frozen=True)
class Task:
    """One output: which bytes, which class, and the quality that the chain's own draw gives."""

    jpeg: bytes
    focus_class: int
    seed: int
    quality: int


Contestant = Callable[[Task], bytes]


def tasks(settings: ChainSettings, side: int, repeats: int) -> list[Task]:
    """Every focus class ``repeats`` times, each on a window of ihc.png of its own, in a random order."""
    image = images.decode(storage.read("package://skimage/data/ihc.png"))
    rng = np.random.default_rng(1)
    found = []
    for seed, focus_class in enumerate(rng.permutation(np.repeat(np.arange(chain.class_count(settings)), repeats))):
        y, x = rng.integers(0, len(image) - side + 1, size=2)
        window = np.ascontiguousarray(image[y : y + side, x : x + side])
        jpeg = simplejpeg.encode_jpeg(window, quality=90, colorspace="RGB", colorsubsampling="420")
        quality = chain.draw(settings, int(focus_class), None, seed).jpeg_quality
        assert quality is not None
        found.append(Task(jpeg, int(focus_class), seed, quality))
    return found


def product(settings: ChainSettings) -> Contestant:
    """The product itself."""

    def make(task: Task) -> bytes:
        tile = images.decode(task.jpeg)
        parameters = chain.draw(settings, task.focus_class, None, task.seed)
        return encoded(chain.render(tile, settings, parameters, SIZE, task.seed), parameters)

    return make


def encoded(image: np.ndarray, parameters: ChainParameters) -> bytes:
    """The image as its parameters want it."""
    assert parameters.jpeg_quality is not None
    assert parameters.jpeg_subsampling is not None
    return compression.encode(image, parameters.jpeg_quality, parameters.jpeg_subsampling)


def with_albumentations(radii: tuple[float, ...]) -> Contestant:
    """albumentations at its own defaults, but for the radius."""
    rest = [albumentations.CenterCrop(SIZE, SIZE), albumentations.ShotNoise(p=1)]
    transforms = [albumentations.Compose(rest)]
    for radius in radii[1:]:
        whole = max(1, round(radius))
        transforms.append(albumentations.Compose([albumentations.Defocus(radius=(whole, whole), p=1), *rest]))

    def make(task: Task) -> bytes:
        tile = cv2.imdecode(np.frombuffer(task.jpeg, np.uint8), cv2.IMREAD_COLOR)
        image = transforms[task.focus_class](image=tile)["image"]
        return bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, task.quality))[1])

    return make


def with_opencv(task: Task) -> bytes:
    """OpenCV's codec alone; it samples the chroma 4:2:0 unless told otherwise."""
    tile = cv2.imdecode(np.frombuffer(task.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert tile is not None
    return cv2.imencode(".jpg", cropped(tile), (cv2.IMWRITE_JPEG_QUALITY, task.quality))[1].tobytes()


def with_simplejpeg(task: Task) -> bytes:
    """simplejpeg's codec alone."""
    image = np.ascontiguousarray(cropped(simplejpeg.decode_jpeg(task.jpeg)))
    made: bytes = simplejpeg.encode_jpeg(image, quality=task.quality, colorspace="RGB", colorsubsampling="420")
    return made


def cropped(tile: np.ndarray) -> np.ndarray:
    """The middle of a tile."""
    margin = (len(tile) - SIZE) // 2
    return tile[margin : margin + SIZE, margin : margin + SIZE]


def race(contestants: dict[str, Contestant], work: list[Task], rounds: int) -> dict[str, np.ndarray]:
    """Tiles a second of each contestant in each round; who begins changes from round to round."""
    rates: dict[str, list[float]] = defaultdict(list)
    names = list(contestants)
    for make in contestants.values():  # compiles, and fills tables and caches
        for task in work:
            assert simplejpeg.decode_jpeg_header(make(task))[:2] == (SIZE, SIZE)
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            make = contestants[name]
            start = time.perf_counter()
            for task in work:
                make(task)
            rates[name].append(len(work) / (time.perf_counter() - start))
    return {name: np.array(values) for name, values in rates.items()}


def stages(settings: ChainSettings, work: list[Task], rounds: int) -> dict[str, float]:
    """Milliseconds a tile in each stage, the median over the rounds; noise is what it adds to a rendering without."""
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        clock: dict[str, float] = defaultdict(float)
        for task in work:
            marks = [time.perf_counter()]
            tile = images.decode(task.jpeg)
            marks.append(time.perf_counter())
            parameters = chain.draw(settings, task.focus_class, None, task.seed)
            marks.append(time.perf_counter())
            silent = replace(parameters, photons=None, read_noise_e=None)
            chain.render(tile, settings, silent, SIZE, task.seed)
            marks.append(time.perf_counter())
            image = chain.render(tile, settings, parameters, SIZE, task.seed)
            marks.append(time.perf_counter())
            encoded(image, parameters)
            marks.append(time.perf_counter())
            decode, draw, blur, render, encode = np.diff(marks)
            for name, seconds in zip(
                ("decode", "draw", "light_and_blur", "noise", "encode"),
                (decode, draw, blur, render - blur, encode),
                strict=True,
            ):
                clock[name] += 1000 * seconds / len(work)
        for name, milliseconds in clock.items():
            spent[name].append(milliseconds)
    return {name: float(np.median(values)) for name, values in spent.items()}


def fast_errors(radii: list[float]) -> list[dict[str, float]]:
    """How far the fast mode is from the exact one, in grey levels, on ihc.png without noise or JPEG."""
    image = images.decode(storage.read("package://skimage/data/ihc.png"))
    found = []
    for radius in radii:
        exact = ChainSettings(radii_px=(radius,), sensor=None, jpeg=None)
        fast = exact.model_copy(update={"fast": True})
        size = chain.output_size(fast, len(image), None)
        one, other = (
            chain.render(image, settings, chain.draw(settings, 0, None, 0), size, 0).astype(float)
            for settings in (exact, fast)
        )
        error = np.abs(one - other)
        found.append({"radius_px": radius, "max": float(error.max()), "rms": float(np.sqrt((error**2).mean()))})
    return found


def measure(radii: tuple[float, ...], repeats: int, rounds: int) -> dict[str, Any]:
    """All contestants on one table of radii."""
    exact, fast = ChainSettings(radii_px=radii), ChainSettings(radii_px=radii, fast=True)
    margin = max(chain.crop_margin(settings, None) for settings in (exact, fast))
    work = tasks(exact, SIZE + 2 * margin, repeats)
    contestants = {
        "exact": product(exact),
        "fast": product(fast),
        "albumentations": with_albumentations(radii),
        "opencv": with_opencv,
        "simplejpeg": with_simplejpeg,
    }
    rates = race(contestants, work, rounds)
    codec = max(("opencv", "simplejpeg"), key=lambda name: float(np.median(rates[name])))
    ratios = {
        f"{mode}_over_{name}": harness.summary(rates[mode] / rates[rival])
        for mode in ("exact", "fast")
        for name, rival in (("albumentations", "albumentations"), ("codec", codec))
    }
    return {
        "tile_px": SIZE + 2 * margin,
        "tiles_a_round": len(work),
        "rounds": rounds,
        "tiles_a_second": {name: harness.summary(values.tolist()) for name, values in rates.items()},
        "codec": codec,
        "ratios": ratios,
        "stage_milliseconds": {
            name: stages(settings, work, max(3, rounds // 4)) for name, settings in (("exact", exact), ("fast", fast))
        },
    }


def show(name: str, table: tuple[float, ...], result: dict[str, Any]) -> None:
    """One table's figures, for reading."""
    print(f"\n{name} table: {table[0]:g} to {table[-1]:g} px in {len(table)} classes; tiles of {result['tile_px']} px")
    for contestant, rate in result["tiles_a_second"].items():
        print(f"  {contestant:15} {rate['median']:8,.0f} tiles/s  (IQR {rate['iqr']:,.0f})")
    for ratio, value in result["ratios"].items():
        bar, stretch = BARS[ratio], STRETCH.get(ratio)
        verdict = "met" if value["median"] >= bar else "MISSED"
        more = "" if stretch is None else f"; beyond: {stretch:g}, {'met' if value['median'] >= stretch else 'MISSED'}"
        rival = ratio.replace("_over_codec", f" / bare codec ({result['codec']})").replace("_over_", " / ")
        print(f"  {rival:34} {value['median']:6.2f}  (IQR {value['iqr']:.2f})  bar {bar:g}: {verdict}{more}")
    for mode, spent in result["stage_milliseconds"].items():
        parts = ", ".join(f"{stage.replace('_', ' ')} {milliseconds:.2f}" for stage, milliseconds in spent.items())
        print(f"  ms a tile, {mode}: {parts}")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=1, help="tiles of each focus class in a round")
    parser.add_argument("--quick", action="store_true", help="a few rounds: a look, not a measurement")
    args = parser.parse_args()
    rounds, repeats = (3, 1) if args.quick else (args.rounds, args.repeats)
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = {}
    for name, table in TABLES.items():
        results[name] = measure(table, repeats, rounds if name == "default" else max(3, rounds // 2))
        show(name, table, results[name])
    errors = fast_errors(sorted({r for table in TABLES.values() for r in table if r >= halfres.FROM_RADIUS}))
    print(f"\nfast against exact, from {halfres.FROM_RADIUS:g} px, in grey levels on ihc.png without noise and JPEG:")
    for error in errors:
        print(f"  {error['radius_px']:6.2f} px: at most {error['max']:3.0f}, RMS {error['rms']:.3f}")
    harness.write(
        "chain",
        {
            "tables": results,
            "bars": BARS,
            "beyond": STRETCH,
            "fast_from_radius_px": halfres.FROM_RADIUS,
            "fast_errors_grey_levels": errors,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
