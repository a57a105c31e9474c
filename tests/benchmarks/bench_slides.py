"""Slides: tissue pixels per second and core with decoding, and the memory of a worker on a huge slide."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from medsynth.catalog import slides
from medsynth.focus import slide as scoring
from medsynth.focus.model import DEFAULT_URI, FocusModel
from medsynth.storage import head
from tests.benchmarks import harness
from tests.slides import network, write_huge

REPO = Path(__file__).resolve().parents[2]
SVS = REPO.parent / "shared" / "data" / "pathology" / "CMU-1-Small-Region.svs"


def load() -> tuple[FocusModel, str]:
    """The shipped network; where there is none, fresh weights of the same shape, which cost the same."""
    if head(DEFAULT_URI) is not None:
        return FocusModel.load(), "shipped"
    return network(None), "fresh weights of the shipped shape"


def speed(path: Path, model: FocusModel, rounds: int, bands: int) -> dict[str, Any]:
    """Time reading alone, and scoring with reading, on the same bands of a slide."""
    with slides.opened(str(path)) as slide:
        started = time.process_time()
        found = scoring.survey(slide, scoring.geometry(slide, model, model.stride))
        survey = time.process_time() - started
    middle = found.bands_with_tissue()
    chosen = middle[max(0, len(middle) // 2 - bands // 2) :][:bands]
    rows = found.geometry.piece
    cells = sum(int(found.tissue[band * rows : (band + 1) * rows].sum()) for band in chosen)
    pixels = cells * found.geometry.spacing**2 / 1e6
    samples = []
    for _ in range(rounds):
        with slides.opened(str(path)) as slide:
            started = time.process_time()
            for band in chosen:
                scoring.score_band(slide, found, model, band)
            samples.append(pixels / (time.process_time() - started))
    width, height = found.geometry.width, found.geometry.height
    return {
        "slide": f"{path.name}, {width}x{height}",
        "tissue_mpx": round(pixels, 2),
        "survey_mpx_per_s": round(width * height / 1e6 / survey, 1),
        "tissue_mpx_per_s_per_core": harness.summary(samples),
    }


def memory(path: Path) -> dict[str, float]:
    """Peak memory of a process that surveys a slide and scores its middle band."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure-memory", str(path)], capture_output=True, text=True, check=True, cwd=REPO
    )
    before, peak = map(float, done.stdout.split())
    return {"before_gb": round(before, 3), "peak_gb": round(peak, 3)}


def measure_memory(path: str) -> None:
    """Print the peak memory before the slide is opened and after, in GB."""
    model, _ = load()
    before = peak()
    with slides.opened(path) as slide:
        found = scoring.survey(slide, scoring.geometry(slide, model, model.stride))
        scoring.score_band(slide, found, model, found.geometry.bands // 2)
    print(before, peak())


def peak() -> float:
    """Peak memory of this process in GB; getrusage's is inherited from the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=30_000, help="of the huge slide, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--measure-memory")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.measure_memory:
        measure_memory(arguments.measure_memory)
        return
    model, weights = load()
    results: dict[str, Any] = {"weights": weights, "threads": 1, "slides": []}
    with tempfile.TemporaryDirectory() as folder:
        huge = write_huge(Path(folder, "huge.tif"), arguments.side)
        for path in [path for path in (SVS, huge) if path.exists()]:
            results["slides"].append(speed(path, model, arguments.rounds, bands=2))
            print(results["slides"][-1])
        results["memory"] = {"slide": f"{arguments.side}x{arguments.side}, one level", **memory(huge)}
        print(results["memory"])
    harness.write("slides", results, arguments.out)


if __name__ == "__main__":
    main()
