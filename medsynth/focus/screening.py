"""The focus network in the place of the sharpness figure: which tiles are in focus enough to be sources."""

import numpy as np
from numpy.typing import NDArray

from medsynth.catalog.sharpness import sharpness
from medsynth.focus.model import FocusModel


class Screen:
    """Judges tiles for :func:`medsynth.catalog.units.measure`, which wants a figure that grows with sharpness.

    Args:
        model: the network.
    """

    def __init__(self, model: FocusModel) -> None:
        self._model = model
        # By this name the catalog knows which figure it holds: another network's is measured anew.
        self.__qualname__ = f"Screen({model.sha256[:16]})"

    def __call__(self, tile: NDArray[np.uint8]) -> float:
        """A tile's figure.

        Args:
            tile: uint8 array of shape (height, width, 3).

        Returns:
            :func:`figure` of the expected blur radius; 0 for an empty tile, which nothing can be seen in.

        Raises:
            Rejected: the tile is smaller than the network's window.
        """
        radius = self._model.score(tile).radius_px
        return figure(radius) if sharpness(tile) > 0 else 0.0


def figure(radius_px: float) -> float:
    """1 / (1 + radius), rounded to 4 digits: 1 for a perfect tile, and a radius of 2 px gives a third.

    Args:
        radius_px: blur radius in pixels, 0 or more.
    """
    return float(f"{1 / (1 + radius_px):.4g}")
