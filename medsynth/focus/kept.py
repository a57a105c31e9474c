"""Training samples that are met again, kept on a machine's disk, where all of its processes find them."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsynth.errors import TrainingError


class Kept:
    """Samples by number. What is kept is a function of its number, so that who comes second writes the same.

    Args:
        name: of the samples; whoever gives the same name finds the same samples.
        count: how many there are.
        size: side of a sample in pixels.

    Raises:
        TrainingError: the temporary folder has no room for them.
    """

    def __init__(self, name: str, count: int, size: int) -> None:
        folder = _folder(name)
        needed, free = count * (3 * size**2 + 4), shutil.disk_usage(tempfile.gettempdir()).free
        if needed > free and not folder.exists():  # a mapped file that finds the disk full kills its process
            raise TrainingError(
                f"samples.distinct: {needed / 1e9:.1f} GB of samples are to be kept in {folder.parent}, which has "
                f"{free / 1e9:.1f} GB left; lower it, or set TMPDIR to a larger disk"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._images = _mapped(folder / "images", np.dtype(np.uint8), (count, size, size, 3))
        # Written after the image: 0 where there is none yet, else the radius and one.
        self._radii = _mapped(folder / "radii", np.dtype(np.float32), (count,))

    def get(self, number: int) -> tuple[NDArray[np.uint8], float] | None:
        """A sample (size, size, 3) with its radius in px; None if nobody has made it yet."""
        radius = float(self._radii[number])
        return (self._images[number], radius - 1) if radius else None

    def put(self, number: int, image: NDArray[np.uint8], radius: float) -> float:
        """Keep a sample; gives its radius as it will be found."""
        self._images[number] = image
        self._radii[number] = radius + 1
        return float(self._radii[number]) - 1


def remove(name: str) -> None:
    """Give the disk of this machine back."""
    shutil.rmtree(_folder(name), ignore_errors=True)


def _folder(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"medsynth-samples-{name}"


def _mapped(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> NDArray:  # type: ignore[type-arg]
    with path.open("ab") as file:
        file.truncate(int(np.prod(shape)) * kind.itemsize)  # zeros, which take no room before they are written over
    return np.memmap(path, kind, "r+", shape=shape)
