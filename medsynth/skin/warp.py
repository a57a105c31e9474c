"""Bends a training photo, so that lesions have other outlines than the few that the photos show."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsynth import draws
from medsynth.skin import regions

_CELLS = 32  # on a side, each moved as one quadrangle; twice as many take four times as long
_LEAST = 12.0  # px: a finer net of knots than for a lesion of twice that would bend its pores, not its outline


def warped(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], boxed: bool, share: float, own: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Move every place of a sample a little, neighbours alike.

    On a net of knots half as far apart as the lesion is long, each is moved by up to ``share`` of that length on either
    axis, evenly drawn; between them the way is interpolated. Up to 0.15, places on a row or column keep their order.

    Args:
        image: (S, S, 3) sRGB.
        mask: (S, S), 1 in the lesion's place.
        boxed: it is the lesion's box: what is moved is then the ellipse inside, and the answer is the box about that.
        share: of the lesion's longer side, 0 to 0.15.
        own: the sample's seed.

    Returns:
        Both again; something of the lesion stays in the mask.

    Source:
        Elastic distortions of training pictures: Simard, Steinkraus and Platt, "Best practices for convolutional
        neural networks applied to visual document analysis", ICDAR 2003, section 2. The net in place of a smoothed
        field, and its tie to the lesion's length, are ours.
    """
    size = image.shape[0]
    box = regions.bounds(mask > 0)
    length = max(box.x1 - box.x0, box.y1 - box.y0)
    mesh = _mesh(size, share * length, max(_LEAST, length / 2), own)
    place = regions.ellipse(box, mask.shape).astype(np.uint8) if boxed else mask
    moved = np.asarray(_transformed(Image.fromarray(place), mesh, Image.Resampling.NEAREST))
    if not moved.any():
        return image, mask
    if boxed:
        about = regions.bounds(moved > 0)
        moved = np.zeros_like(mask)
        moved[about.y0 : about.y1, about.x0 : about.x1] = 1
    return np.asarray(_transformed(Image.fromarray(image), mesh, Image.Resampling.BICUBIC)), moved


_Mesh = list[tuple[tuple[int, int, int, int], tuple[float, ...]]]


def _mesh(size: int, most: float, apart: float, own: int) -> _Mesh:
    knots = int(np.ceil(size / apart)) + 2
    u = draws.uniforms(own, "warp", 2 + 2 * knots * knots)
    ways = (2 * u[2:].reshape(2, knots, knots) - 1) * most
    cells = min(_CELLS, size)
    edges = np.rint(np.linspace(0, size, cells + 1)).astype(int)
    # The net begins somewhere before the picture, and ends behind it.
    across, down = edges / apart + u[0], edges / apart + u[1]
    x = _inside(edges[None, :] + _between(ways[0], down, across), size)
    y = _inside(edges[:, None] + _between(ways[1], down, across), size)
    mesh: _Mesh = []
    for row in range(cells):
        for column in range(cells):
            corners = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
            quad = tuple(float(value) for corner in corners for value in (x[corner], y[corner]))
            target = (int(edges[column]), int(edges[row]), int(edges[column + 1]), int(edges[row + 1]))
            mesh.append((target, quad))
    return mesh


def _between(
    values: NDArray[np.float64], down: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float64]:
    # With a cosine's ease between two knots, so that no crease is seen at them.
    def weights(places: NDArray[np.float64]) -> NDArray[np.float64]:
        first = np.floor(places).astype(int)
        ease = (1 - np.cos(np.pi * (places - first))) / 2
        found = np.zeros((len(places), len(values)))
        rows = np.arange(len(places))
        found[rows, first] += 1 - ease
        found[rows, first + 1] += ease
        return found

    moved: NDArray[np.float64] = weights(down) @ values @ weights(across).T
    return moved


def _inside(places: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    # Mirrored at the border; on it, Pillow would find nothing.
    return np.asarray(np.clip(size - np.abs(size - np.abs(places)), 1e-3, size - 1e-3))


def _transformed(image: Image.Image, mesh: _Mesh, how: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.MESH, mesh, resample=how)
