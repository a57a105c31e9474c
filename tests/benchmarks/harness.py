"""What all benchmarks share: the machine's description, medians with their spread, and JSON."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGES = ("numpy", "numba", "simplejpeg", "opencv-python-headless", "pyarrow", "ray", "albumentations", "obstore")


def machine() -> dict[str, Any]:
    """What ran it: processor, cores, memory and the versions that matter."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Median, interquartile range and number of samples."""
    low, middle, high = np.percentile(samples, [25, 50, 75])
    return {"median": float(middle), "iqr": float(high - low), "n": len(samples)}


def write(name: str, results: dict[str, Any], out: Path) -> None:
    """Write ``<out>/<name>.json`` with the machine's description."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps({"benchmark": name, "machine": machine(), **results}, indent=1) + "\n")
    print(f"written: {path}")
