"""The sharpness figure separates focus from contrast, noise and compression, on real tiles."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import convolve

from medsynth import images
from medsynth.catalog.sharpness import DEFAULT_THRESHOLD, sharpness

Tile = NDArray[np.uint8]


def blurred(tile: Tile, radius: float) -> Tile:
    """Put out of focus: a disc of this radius, its rim anti-aliased by 16 x 16 sub-samples."""
    reach = int(np.ceil(radius))
    fine = (np.arange((2 * reach + 1) * 16) + 0.5) / 16 - reach - 0.5
    inside = fine[:, None] ** 2 + fine[None, :] ** 2 <= radius**2
    disc = inside.reshape(2 * reach + 1, 16, 2 * reach + 1, 16).mean(axis=(1, 3))
    disc /= disc.sum()
    planes = [convolve(tile[..., band].astype(float), disc, mode="reflect") for band in range(3)]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


def compressed(tile: Tile, quality: int) -> Tile:
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(tile), quality=quality, colorsubsampling="420")
    return simplejpeg.decode_jpeg(data)


def noisy(tile: Tile, sigma: float) -> Tile:
    noise = np.random.default_rng(0).normal(0, sigma, tile.shape)
    return np.clip(np.rint(tile + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def ihc() -> list[Tile]:
    """Four real tiles that come with a dependency."""
    image = images.decode((Path(skimage.__file__).parent / "data" / "ihc.png").read_bytes())
    return [image[y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)]


@pytest.fixture(scope="module")
def tissues(shared_data: Path) -> list[Tile]:
    """H&E of three origins: one tile of each image."""
    files = sorted((shared_data / "pathology" / "tiles").iterdir())[::2]
    files += sorted((shared_data / "pathology").glob("OS-1*.tif"))
    return [images.decode(file.read_bytes())[128:384, 128:384] for file in files]


def kept(tiles: list[Tile]) -> float:
    return float(np.mean([sharpness(tile) >= DEFAULT_THRESHOLD for tile in tiles]))


def test_blur_lowers_it_whatever_else_is_done(ihc: list[Tile]) -> None:
    for tile in ihc:
        figures = [sharpness(blurred(tile, radius)) for radius in (0.8, 1, 1.5, 2, 3, 5)]
        assert figures == sorted(figures, reverse=True)
        assert sharpness(tile) > figures[0] > DEFAULT_THRESHOLD
        assert figures[-2] < DEFAULT_THRESHOLD
        for change in (lambda t: noisy(t, 4), lambda t: compressed(t, 75), lambda t: t // 3 + 90):
            assert sharpness(change(tile)) > DEFAULT_THRESHOLD > sharpness(change(blurred(tile, 3)))


def test_contrast_and_white_noise_hardly_move_it(ihc: list[Tile]) -> None:
    for tile in ihc:
        assert sharpness(tile // 2 + 60) == pytest.approx(sharpness(tile), rel=0.03)
        assert sharpness(noisy(tile, 4)) == pytest.approx(sharpness(tile), rel=0.03)


def test_real_tissue_is_kept_and_its_blurred_copies_are_not(tissues: list[Tile]) -> None:
    assert len(tissues) > 20
    assert kept(tissues) == 1
    assert kept([compressed(tile, 75) for tile in tissues]) == 1
    assert kept([blurred(tile, 2) for tile in tissues]) == 0
    assert kept([blurred(tile, 3) for tile in tissues]) == 0
    assert kept([compressed(blurred(tile, 3), 75) for tile in tissues]) < 0.05


@pytest.mark.parametrize("sigma", [0, 1, 2, 4])
@pytest.mark.parametrize("quality", [None, 95, 80, 50])
@pytest.mark.parametrize("slope", [0, 20])
def test_an_empty_background_is_not_in_focus(sigma: float, quality: int | None, slope: float) -> None:
    light = np.full((256, 256, 3), 230.0) + slope * np.linspace(0, 1, 256)[:, None, None]
    tile = noisy(light, sigma)
    assert sharpness(compressed(tile, quality) if quality else tile) == 0


def test_real_empty_background_is_not_in_focus(shared_data: Path) -> None:
    image = images.decode((shared_data / "pathology" / "OS-2-ndpi.ome.tif").read_bytes())
    assert sharpness(image[1280:1536, 256:512]) == 0


def reference(tile: Tile) -> float:
    """The figure in plain float64: medians over eight column positions of means of neighbours' products."""
    luma = tile.astype(np.float64) @ [0.25, 0.5, 0.25]

    def energy(values: NDArray[np.float64], lag: int) -> float:
        bent = 2 * values[:, lag:-lag] - values[:, 2 * lag :] - values[:, : -2 * lag]
        products = bent[1:] * bent[:-1]
        return float(np.median([products[:, start::8].mean() for start in range(8)]))

    rows, columns = luma.shape[0] // 4, luma.shape[1] // 4
    blocks = np.array(
        [[luma[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean() for c in range(columns)] for r in range(rows)]
    )
    structure = (np.diff(blocks, 2, axis=0) ** 2).mean() + (np.diff(blocks, 2, axis=1) ** 2).mean()
    if structure < 10:
        return 0.0
    fine, coarse = (energy(luma, lag) + energy(luma.T, lag) for lag in (1, 3))
    return 81 * max(fine, 0) / (max(coarse, 0) + structure / 8)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    seed=st.integers(0, 2**32 - 1),
    smooth=st.sampled_from([0, 1, 3]),
)
def test_it_equals_the_reference(height: int, width: int, seed: int, smooth: float) -> None:
    tile = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tile = blurred(tile, smooth) if smooth else tile
    figure = sharpness(tile)
    assert figure == pytest.approx(reference(tile), rel=1e-5)
    assert figure >= 0


def test_views_and_copies_give_the_same(ihc: list[Tile]) -> None:
    view = ihc[0][::-1, 3:200]
    assert sharpness(view) == sharpness(view.copy())
