"""Unsharp masking against SciPy's float64 Gaussian."""

import numpy as np
import pytest
from scipy import ndimage

from medsynth.defocus.sharpening import reach, sharpen
from tests.defocus import scenes


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.8, 1.0, 1.7, 4.0, 20.0])
@pytest.mark.parametrize("name", scenes.SCENES)
def test_it_is_within_one_level_of_float64(name: str, sigma: float) -> None:
    lost = reach(sigma)
    picture = scenes.scene(name, 24 + 2 * lost)
    blurred = ndimage.gaussian_filter(picture.astype(np.float64), (sigma, sigma, 0), radius=(lost, lost, 0))
    for amount in (0.0, 0.1, 0.35, 1.0, 3.0):
        expected = np.clip(picture + amount * (picture - blurred), 0, 255)[lost:-lost, lost:-lost]
        found = sharpen(picture, amount, sigma)
        assert found.dtype == np.uint8
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1


def test_amount_zero_only_crops() -> None:
    picture = scenes.scene("noise", 40)
    assert np.array_equal(sharpen(picture, 0.0, 1.0), picture[3:-3, 3:-3])


def test_flat_pictures_stay_as_they_are_whatever_the_amount() -> None:
    for value in (0, 1, 128, 255):
        picture = np.full((20, 20, 3), value, dtype=np.uint8)
        assert np.all(sharpen(picture, 10.0, 1.0) == value)


def test_what_would_leave_the_codes_is_clipped() -> None:
    edge = np.where(np.arange(40) < 20, 60, 200).astype(np.uint8)
    picture = np.repeat(np.tile(edge, (40, 1))[:, :, None], 3, axis=2)
    found = sharpen(picture, 10.0, 2.0)
    assert found.min() == 0
    assert found.max() == 255


def test_channels_do_not_mix() -> None:
    picture = scenes.scene("noise", 30)
    picture[:, :, 1] = 77
    assert np.all(sharpen(picture, 2.0, 1.5)[:, :, 1] == 77)
