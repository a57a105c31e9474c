"""The lesion's place as a network is told of it: of a box or a mask, by what it learnt from."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medsynth.skin import form, generator, regions, semantic_map
from medsynth.skin.regions import RegionKind
from medsynth.skin.semantic_map import Box, Region


class Place(NamedTuple):
    """Where a lesion is, pixel by pixel, each (S, S)."""

    shown: NDArray[np.bool_]
    """In the condition's colour on the map."""
    mask: NDArray[np.bool_]
    """What the network takes for the lesion's place: its box, if it learnt from boxes."""
    depth: NDArray[np.float32]
    """As :attr:`medsynth.skin.generator.Asked.depths`."""


def of(region: Region, learnt: RegionKind, size: int, seed: int, spread: float) -> Place:
    """Tell a lesion's place.

    Args:
        region: the box or mask that is asked for.
        learnt: what the network learnt lesions' places from.
        size: side of the picture in pixels.
        seed: the sample's; it decides the form of a lesion in a box.
        spread: how far such forms are from ellipses (:func:`medsynth.skin.form.depth`).

    Returns:
        A mask's form is followed. To a network that learnt from boxes, a mask that fills its bounds is a box.

    Raises:
        MapError: the box or mask does not fit the picture, or the mask is empty.
    """
    shape = (size, size)
    shown = semantic_map.mask(shape, region)
    if learnt == "mask":
        if isinstance(region, Box):
            shown = form.depth(region, shape, seed, spread) > 0
            if not (spread and shown.any()):  # of a box of a few pixels, none may have its centre in the form
                shown = regions.ellipse(region, shape)
        return Place(shown, shown, regions.depth(shown))
    box = regions.bounds(shown)
    mask = semantic_map.mask(shape, box)
    if not np.array_equal(mask, shown):
        return Place(shown, mask, regions.depth(shown))
    if spread:
        return Place(shown, mask, form.depth(box, shape, seed, spread))
    return Place(shown, mask, generator.inside(torch.from_numpy(mask)[None, None].float())[0, 0].numpy())
