"""The pathology images that the shipped focus weights come from, as a folder that jobs/index.py takes.

    python tests/benchmarks/focus_sources.py OUT

Writes OUT/images (the whole-slide file's full level as PNG, the others as they are) and OUT/slides.csv, which
names the slide of each file: TCGA tiles of one case are one slide, and so are the two parts of one name.
"""

import csv
import re
import shutil
import sys
from pathlib import Path

import tifffile
from skimage import data

from medsynth import images

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "pathology"

HELD_OUT = ("OS-1", "TCGA-DB-5275", "stardist", *(f"gbm-{number}" for number in range(21, 40, 2)))
"""The slides that the figures are measured on; the measured weights are trained without them."""


def slide(name: str) -> str:
    """The slide that a file comes from."""
    case = re.search(r"TCGA-\w\w-\d{4}", name)
    if case:
        return case[0]
    tile = re.match(r"gbm40_(\d+)", name)
    return f"gbm-{tile[1]}" if tile else re.split(r"[-_]detail|-ndpi|-Small|_histo|\.", name)[0]


def prepare(shared: Path, out: Path) -> None:
    """Lay the folder out."""
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    whole = tifffile.imread(shared / "CMU-1-Small-Region.svs", key=0)
    (folder / "CMU-1-Small-Region.png").write_bytes(images.encode_png(whole))
    rows: list[tuple[str, str, float | str]] = [("CMU-1-Small-Region.png", "CMU-1", 0.499)]
    ihc = Path(data.__file__).parent / "ihc.png"
    for path in [*sorted(shared.glob("OS-*.tif")), *sorted((shared / "tiles").iterdir()), ihc]:
        shutil.copyfile(path, folder / path.name)
        rows.append((path.name, slide(path.name), 0.2271 if path.name.startswith("OS-") else ""))
    with (out / "slides.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "slide", "mpp"), *rows])


if __name__ == "__main__":
    prepare(SHARED, Path(sys.argv[1]))
