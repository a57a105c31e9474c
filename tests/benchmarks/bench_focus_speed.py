"""Pixels per second of the focus network, one thread: uint8 in, map out; beside FocusLiteNN's and the Laplacian's.

    python tests/benchmarks/bench_focus_speed.py [--weights URI] [--slide FILE] [--out DIR] [--quick]

With ``--slide`` also a tiled whole-slide file, its decoding included.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medsynth.defocus.settings import DEFAULT_RADII_PX
from medsynth.focus.model import FocusModel
from medsynth.focus.network import NetworkSettings, build
from tests.benchmarks import harness

BAR, STRETCH = 80.0, 150.0
"""Megapixels a second."""


def scene(side: int) -> NDArray[np.uint8]:
    """Blobs of all sizes with grain; what is in the picture makes no difference to the speed of any of these."""
    generator = np.random.default_rng(1)
    blobs = sum(ndimage.zoom(generator.random((side // n, side // n, 3)), (n, n, 1), order=1) for n in (64, 16, 4))
    return np.clip(85 * np.asarray(blobs) + generator.normal(0, 4, (side, side, 3)), 0, 255).astype(np.uint8)


def rounds(functions: dict[str, Callable[[], Any]], pixels: int, count: int) -> dict[str, Any]:
    """Megapixels a second of each, taken in turns, so that a busy moment meets all of them."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(count):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {**harness.summary([pixels / s / 1e6 for s in taken]), "best": pixels / min(taken) / 1e6}
        for name, taken in seconds.items()
    }


def slide(model: FocusModel, path: Path, count: int) -> dict[str, Any]:
    """A slide read through tifffile by bands and judged, as one worker does it."""
    import tifffile

    def judge() -> int:
        with tifffile.TiffFile(path) as file:
            pixels = file.pages[0].asarray(maxworkers=1)
        model.score_map(np.ascontiguousarray(pixels[..., :3]))
        return int(pixels.shape[0] * pixels.shape[1])

    return {"file": path.name, "megapixels": judge() / 1e6, **rounds({"decoded and judged": judge}, judge(), count)}


def run(weights: str | None, slide_path: Path | None, quick: bool) -> dict[str, Any]:
    """All figures."""
    model = FocusModel.load(weights)
    lite = FocusModel(build(NetworkSettings(kind="lite")), DEFAULT_RADII_PX, {})
    image = scene(1024 if quick else 4096)
    functions: dict[str, Callable[[], Any]] = {
        "focus network": lambda: model.score_map(image),
        "FocusLiteNN-like": lambda: lite.score_map(image),
        "Laplacian variance": lambda: cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var(),
    }
    found: dict[str, Any] = {"bar": BAR, "stretch": STRETCH, "side": image.shape[0]}
    found["megapixels_per_second"] = rounds(functions, image.shape[0] * image.shape[1], 3 if quick else 15)
    if slide_path is not None:
        found["slide"] = slide(model, slide_path, 3 if quick else 9)
    for name, figure in found["megapixels_per_second"].items():
        print(f"{name:20} {figure['median']:8.1f} MP/s (best {figure['best']:.1f})")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a focus model [the shipped one]")
    parser.add_argument("--slide", type=Path, help="a tiled TIFF or SVS")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--quick", action="store_true", help="a small image, few rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    harness.write("focus_speed", run(arguments.weights, arguments.slide, arguments.quick), arguments.out)
