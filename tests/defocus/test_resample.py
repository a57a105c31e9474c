"""Resampling against a float64 triangle filter written out as a matrix."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from medsynth.defocus.light import LIGHT
from medsynth.defocus.resample import resample, source_size

SCALES = (0.9, 0.95, 1.0, 1.03, 0.25 / 0.2271, 1.5, 2.0, 3.3)


def reference(light: NDArray[np.float64], size: int, scale: float) -> NDArray[np.float64]:
    """Each output pixel a weighted mean of the source pixels nearer than max(1, scale)."""
    half = max(1.0, scale)
    matrix = np.zeros((size, len(light)))
    for place in range(size):
        centre = half - 1 + place * scale
        for source in range(len(light)):
            matrix[place, source] = max(0.0, half - abs(source - centre))
    matrix /= matrix.sum(axis=1, keepdims=True)
    return np.einsum("yi,ijc,xj->yxc", matrix, light, matrix)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", SCALES)
def test_every_value_is_the_float64_filter_s_to_two_units(scale: float, channels: int) -> None:
    size = 41
    side = source_size(size, scale)
    light = np.random.default_rng(3).integers(0, LIGHT + 1, (side, side, channels)).astype(np.uint16)
    light[: side // 2, : side // 2] = np.random.default_rng(4).integers(0, 2, (side // 2, side // 2, 1)) * LIGHT
    out = resample(light.reshape(side, -1), size, scale, channels)
    assert out.dtype == np.uint16
    assert out.shape == (size, size * channels)
    # Each of two passes rounds its weights to 1/16384, at most four of them at full light, and its sum.
    assert np.abs(out.reshape(size, size, channels) - reference(light.astype(float), size, scale)).max() <= 2


def test_at_scale_one_nothing_changes() -> None:
    side = source_size(30, 1.0)
    light = np.random.default_rng(5).integers(0, 2**14, (side, side * 3)).astype(np.uint16)
    assert np.array_equal(resample(light, 30, 1.0, 3), light[:30, :90])


@pytest.mark.parametrize("scale", SCALES)
def test_flat_light_stays_flat(scale: float) -> None:
    side = source_size(20, scale)
    for value in (0, 1, 1000, LIGHT, 2**14 - 1):
        assert np.all(resample(np.full((side, side), value, dtype=np.uint16), 20, scale, 1) == value)


@pytest.mark.parametrize("scale", SCALES)
def test_a_ramp_is_sampled_in_the_middle_of_each_pixel(scale: float) -> None:
    # A symmetric filter leaves a slope as it is: only the places count.
    size = 30
    side = source_size(size, scale)
    ramp = np.tile(np.arange(side, dtype=np.uint16) * 100, (side, 1))
    out = resample(ramp, size, scale, 1)
    centres = max(1.0, scale) - 1 + np.arange(size) * scale
    # Reduced by no whole number, the few weights of a pixel do not quite balance.
    assert np.abs(out - centres * 100).max() <= (1.01 if scale <= 1 else 7)


@pytest.mark.parametrize("scale", SCALES)
def test_the_mean_of_a_random_picture_is_kept(scale: float) -> None:
    size = 200
    side = source_size(size, scale)
    light = np.random.default_rng(6).integers(0, LIGHT + 1, (side, side)).astype(np.uint16)
    assert resample(light, size, scale, 1).mean() == pytest.approx(light.mean(), rel=0.005)


@pytest.mark.parametrize("size", [1, 7, 256, 333])
@pytest.mark.parametrize("scale", SCALES)
def test_the_source_is_as_large_as_the_output_and_the_filter(scale: float, size: int) -> None:
    needed = source_size(size, scale)
    assert (size - 1) * scale < needed <= math.ceil((size - 1) * scale + 2 * max(1.0, scale)) + 1
