"""Blur against plain float64 convolutions, and kernels against what optics says of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsynth import images, storage
from medsynth.defocus import bokeh
from medsynth.defocus.bokeh import Kernel, blur
from medsynth.defocus.light import LEVEL, LIGHT, code_table, light_table

RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0, 1.32, 2.0, 2.88, 5.5, 8.1, 12.0, 14.5, 21.3, 30.0)
SIDE = 24


def disc_weights(radius: float, reach: int) -> NDArray[np.float64]:
    """The share of each pixel's area inside the disc, counted on a fine grid; below 1 px see disc()."""
    if radius < 1:
        small = disc_weights(1.0, reach)
        whole = radius**2 * small / small.sum()
        whole[reach, reach] += 1 - radius**2
        return whole
    fine = 64
    places = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = places[:, None] ** 2 + places**2 <= radius**2
    return inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean(axis=(1, 3))


def gaussian_weights(radius: float, reach: int) -> NDArray[np.float64]:
    if radius == 0:
        return np.ones((1, 1))
    places = np.arange(-reach, reach + 1)
    return np.exp(-(places[:, None] ** 2 + places**2) / (2 * (radius / 2) ** 2))


def convolved(light: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 'valid' convolution, pixel by pixel of the kernel, divided by the kernel's sum."""
    side = len(weights)
    height, width = light.shape[0] - side + 1, light.shape[1] - side + 1
    total = np.zeros((height, width, light.shape[2]))
    for y in range(side):
        for x in range(side):
            total += weights[y, x] * light[y : y + height, x : x + width]
    return total / weights.sum()


def decoded(codes: NDArray[np.float64], linear: bool) -> NDArray[np.float64]:
    if not linear:
        return codes / 255
    c = codes / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def encoded(light: NDArray[np.float64], linear: bool) -> NDArray[np.float64]:
    if not linear:
        return light * 255
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-12) ** (1 / 2.4) - 0.055)


def blurred_codes(image: NDArray[np.uint8], kernel: Kernel, linear: bool) -> NDArray[np.int64]:
    height, width, _ = image.shape
    light = light_table(linear)[image].reshape(height, width * 3)
    levels = blur(light, kernel, 3)
    return code_table(linear)[levels].reshape(levels.shape[0], -1, 3).astype(np.int64)


def pictures(side: int) -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(side)
    real = images.decode(storage.read("package://skimage/data/ihc.png"))[:side, 200 : 200 + side]
    half = np.zeros((side, side, 3), dtype=np.uint8)
    half[:, side // 2 :] = 255
    point = np.zeros((side, side, 3), dtype=np.uint8)
    point[side // 2, side // 2] = 255
    return {
        "random": rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        "black or white": rng.integers(0, 2, (side, side, 3), dtype=np.uint8) * np.uint8(255),
        "dark": rng.integers(0, 12, (side, side, 3), dtype=np.uint8),
        "white": np.full((side, side, 3), 255, dtype=np.uint8),
        "black": np.zeros((side, side, 3), dtype=np.uint8),
        "edge": half,
        "point": point,
        "real": np.ascontiguousarray(real),
    }


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "gamma"])
@pytest.mark.parametrize("radius", RADII)
def test_a_disc_is_within_one_code_of_float64_everywhere(radius: float, linear: bool) -> None:
    kernel = bokeh.disc(radius)
    weights = disc_weights(radius, kernel.reach)
    for name, image in pictures(SIDE + 2 * kernel.reach).items():
        expected = encoded(convolved(decoded(image.astype(np.float64), linear), weights), linear)
        error = np.abs(blurred_codes(image, kernel, linear) - expected)
        assert error.max() < 1, name


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "gamma"])
@pytest.mark.parametrize("radius", [0.0, 0.25, 1.0, 3.3, 12.0])
def test_a_gaussian_is_within_one_code_of_float64_everywhere(radius: float, linear: bool) -> None:
    kernel = bokeh.gaussian(radius)
    weights = gaussian_weights(radius, kernel.reach)
    for name, image in pictures(SIDE + 2 * kernel.reach).items():
        expected = encoded(convolved(decoded(image.astype(np.float64), linear), weights), linear)
        error = np.abs(blurred_codes(image, kernel, linear) - expected)
        assert error.max() < 1, name


@given(st.floats(0, 30), st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
@settings(max_examples=25, deadline=None)
def test_blur_is_the_whole_numbers_convolution(radius: float, seed: int, channels: int) -> None:
    kernel = bokeh.disc(round(radius, 2))
    side = 9 + 2 * kernel.reach
    light = np.random.default_rng(seed).integers(0, LIGHT + 1, (side, side, channels)).astype(np.uint16)
    light[: side // 3] = LIGHT  # as much as any place can hold
    exact = convolved(light.astype(np.float64), kernel.weights.astype(np.float64)) * LEVEL / LIGHT
    got = blur(light.reshape(side, side * channels), kernel, channels)
    assert got.dtype == np.uint16
    assert np.abs(got.reshape(9, 9, channels) - exact).max() < 0.5 + 2e-3


@pytest.mark.parametrize("radius", RADII)
def test_energy_is_conserved(radius: float) -> None:
    for kernel in (bokeh.disc(radius), bokeh.gaussian(min(radius, 12.0))):
        side = 4 * kernel.reach + 1
        point = np.zeros((side, side), dtype=np.uint16)
        point[2 * kernel.reach, 2 * kernel.reach] = LIGHT
        spread = blur(point, kernel, 1).astype(np.int64)
        # Each of the kernel's pixels is rounded once.
        assert abs(int(spread.sum()) - LEVEL) <= 0.5 * (2 * kernel.reach + 1) ** 2
        for value in (0, 1, 4000, LIGHT):
            flat = np.full((side, side), value, dtype=np.uint16)
            assert np.all(np.abs(blur(flat, kernel, 1) - value * LEVEL / LIGHT) <= 0.501)


@pytest.mark.parametrize("radius", [r for r in RADII if r >= 1])
def test_a_disc_has_its_area(radius: float) -> None:
    kernel = bokeh.disc(radius)
    assert kernel.weights.sum() / kernel.full == pytest.approx(math.pi * radius**2, rel=2e-4)


def test_radii_stay_distinct_and_spread_more_and_more() -> None:
    moments = []
    for hundredths in range(0, 1300, 5):
        kernel = bokeh.disc(hundredths / 100)
        places = np.arange(-kernel.reach, kernel.reach + 1) ** 2
        moments.append(float((kernel.weights * places).sum() / kernel.weights.sum()))
    assert moments[0] == 0
    assert np.all(np.diff(moments) > 0)
    # r^2 / 4 on each axis, and 1/12 for the pixel's own width once the rim's coverage is counted.
    assert moments[-1] == pytest.approx(12.95**2 / 4 + 1 / 12, rel=2e-3)


def test_radius_zero_is_the_identity() -> None:
    light = np.random.default_rng(0).integers(0, LIGHT + 1, (7, 9)).astype(np.uint16)
    assert bokeh.disc(0.0).reach == bokeh.gaussian(0.0).reach == 0
    assert np.all(np.abs(blur(light, bokeh.disc(0.0), 1) - light * (LEVEL / LIGHT)) <= 0.501)


def test_a_gaussians_second_moment_is_the_discs() -> None:
    kernel = bokeh.gaussian(8.0)
    places = np.arange(-kernel.reach, kernel.reach + 1) ** 2
    assert float((kernel.weights * places).sum() / kernel.weights.sum()) == pytest.approx(
        8.0**2 / 4, rel=4e-3
    )  # the cut at 4 sigma


def test_no_border_is_invented() -> None:
    kernel = bokeh.disc(3.0)
    light = np.random.default_rng(1).integers(0, LIGHT + 1, (20, 25 * 3)).astype(np.uint16)
    whole = blur(light, kernel, 3)
    assert whole.shape == (14, 19 * 3)
    # Each output pixel depends on its own window alone: a piece blurred by itself is the same.
    piece = np.ascontiguousarray(light[4 : 4 + 10, 6 * 3 : 16 * 3])
    assert np.array_equal(blur(piece, kernel, 3), whole[4:8, 6 * 3 : 10 * 3])


def test_planes_and_interleaved_channels_agree() -> None:
    kernel = bokeh.disc(4.4)
    light = np.random.default_rng(2).integers(0, LIGHT + 1, (22, 23, 3)).astype(np.uint16)
    together = blur(light.reshape(22, -1), kernel, 3).reshape(22 - 2 * kernel.reach, -1, 3)
    for channel in range(3):
        assert np.array_equal(blur(np.ascontiguousarray(light[..., channel]), kernel, 1), together[..., channel])


def wave_reference(radius_um: float, mpp: float, na: float, wavelength_nm: float, reach: int) -> NDArray[np.float64]:
    """|FT{pupil exp(2 pi i W20 rho^2)}|^2 by a plain two-dimensional FFT, averaged over the pixels."""
    wavelength = wavelength_nm / 1000
    fine = 8
    # A field sample every mpp / fine um; the pupil's rim lies at the frequency NA / wavelength.
    count = 2048
    frequency = np.fft.fftfreq(count, d=mpp / fine)
    rho2 = (frequency[:, None] ** 2 + frequency**2) * (wavelength / na) ** 2
    w20 = radius_um * na / (2 * wavelength)
    pupil = np.where(rho2 <= 1, np.exp(2j * np.pi * w20 * rho2), 0)
    field = np.fft.fftshift(np.abs(np.fft.ifft2(pupil)) ** 2)
    # Sample i stands at (i - count / 2) * mpp / fine; a pixel takes half of the samples on its edges.
    box = np.ones(fine + 1)
    box[[0, -1]] = 0.5
    found = np.zeros((2 * reach + 1, 2 * reach + 1))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            top, left = count // 2 + y * fine - fine // 2, count // 2 + x * fine - fine // 2
            found[y + reach, x + reach] = box @ field[top : top + fine + 1, left : left + fine + 1] @ box
    return found / found.sum()


@pytest.mark.parametrize(
    ("radius_um", "na", "wavelength_nm"), [(0.0, 0.75, 550), (0.3, 0.75, 450), (1.0, 0.75, 550), (3.0, 0.5, 620)]
)
def test_a_wave_kernel_is_the_pupils_fourier_transform(radius_um: float, na: float, wavelength_nm: float) -> None:
    reach = bokeh.wave_reach(radius_um, 0.25, na, wavelength_nm)
    kernel = bokeh.wave(radius_um, 0.25, na, wavelength_nm, reach)
    expected = wave_reference(radius_um, 0.25, na, wavelength_nm, reach)
    # The FFT's grid makes the pupil's rim a staircase, which scatters some light.
    assert np.abs(kernel.weights / kernel.weights.sum() - expected).sum() < 0.02


def test_far_out_of_focus_the_wave_kernel_is_the_geometric_disc() -> None:
    differences = []
    for radius_um in (1.5, 3.0, 6.0):
        reach = bokeh.wave_reach(radius_um, 0.25, 0.75, 550)
        wave = bokeh.wave(radius_um, 0.25, 0.75, 550, reach).weights.astype(np.float64)
        disc = bokeh.disc(radius_um / 0.25)
        padded = np.pad(disc.weights.astype(np.float64), reach - disc.reach)
        places = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) * 0.25
        inside = places <= radius_um
        differences.append(abs(wave[inside].sum() / wave.sum() - padded[inside].sum() / padded.sum()))
    assert differences[0] > differences[1] > differences[2]
    assert differences[-1] < 0.06


def test_defocus_follows_the_geometry() -> None:
    z = bokeh.defocus_um(2.0, 0.75, 1.0)
    assert z * math.tan(math.asin(0.75)) == pytest.approx(2.0, rel=1e-5)
    assert bokeh.defocus_um(2.0, 0.75, 1.5) > z


def test_more_red_light_spreads_wider_in_focus() -> None:
    centres = [bokeh.wave(0.0, 0.25, 0.75, nm, 12).weights for nm in (450, 550, 650)]
    shares = [weights[12, 12] / weights.sum() for weights in centres]
    assert shares[0] > shares[1] > shares[2]
