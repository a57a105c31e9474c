"""Noise: mean and variance within 1 % of a float64 reference, at every level and exposure."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from medsynth.defocus import sensor
from medsynth.defocus.light import LEVEL, code_table
from medsynth.seeds import digest64

PHOTONS = (1.0, 3.0, 10.0, 17.3, 60.0, 250.0, 1e3, 1e4, 1e5, 1e6)
LEVELS = (1, 40, 700, 3000, 8191, 12000, LEVEL)
COUNT = 400_000


def exposed(level: int, photons: float, read: float, key: int = 7, count: int = COUNT) -> NDArray[np.float64]:
    levels = np.full((count // 1000, 1000), level, dtype=np.uint16)
    return sensor.expose(levels, photons, read, key).astype(np.float64).ravel()


def assert_moments(values: NDArray[np.float64], mean: float, variance: float, fourth: float) -> None:
    """Within 1 %, and within what chance allows a sample of this size to miss it by (5 sigma)."""
    chance = 5 * math.sqrt(variance / len(values))
    assert abs(values.mean() - mean) <= 0.01 * mean + chance
    chance = 5 * math.sqrt(max(fourth - variance**2, 0) / len(values))
    assert abs(values.var() - variance) <= 0.01 * variance + chance


@pytest.mark.parametrize("read", [0.0, 2.5])
@pytest.mark.parametrize("photons", PHOTONS)
def test_mean_and_variance_are_those_of_poisson_and_read_noise(photons: float, read: float) -> None:
    for level in LEVELS:
        electrons = exposed(level, photons, read) * photons / LEVEL
        mean = photons * level / LEVEL
        variance = mean + read**2
        assert_moments(electrons, mean, variance, mean + 3 * variance**2)


@pytest.mark.parametrize("read", [0.0, 2.0, 10.0])
@pytest.mark.parametrize("photons", [1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4, 1e6])
def test_four_million_pixels_leave_chance_little_of_the_one_percent(photons: float, read: float) -> None:
    count = 4_000_000
    for share in (0.3, 1.0):
        level = int(share * LEVEL)
        electrons = exposed(level, photons, read, key=digest64("sensor", level), count=count) * photons / LEVEL
        mean = photons * level / LEVEL
        # Read noise alone moves the mean by chance: by 0.005 electrons where it is 10 and there is hardly light.
        assert abs(electrons.mean() - mean) <= 0.01 * mean + 3 * read / math.sqrt(count)
        assert electrons.var() == pytest.approx(mean + read**2, rel=0.01)


@pytest.mark.parametrize("photons", [1.0, 8.0, 30.0, 500.0])
def test_what_is_clipped_and_coded_has_the_references_mean_and_variance(photons: float) -> None:
    rng = np.random.default_rng(1)
    codes = code_table(True)
    for level in LEVELS:
        levels = np.full((COUNT // 1000, 1000), level, dtype=np.uint16)
        got = np.empty(levels.shape, dtype=np.uint8)
        sensor.expose_to_codes(levels, photons, 1.5, 3, codes, got)
        electrons = rng.poisson(photons * level / LEVEL, COUNT) + 1.5 * rng.standard_normal(COUNT)
        expected = codes[np.floor(np.clip(electrons / photons, 0, 1) * LEVEL + 0.5).astype(np.int64)].astype(float)
        fourth = float(((expected - expected.mean()) ** 4).mean())
        # Both are samples, so chance comes in twice.
        assert_moments(got.astype(float).ravel()[: COUNT // 2], float(expected.mean()), float(expected.var()), fourth)


@pytest.mark.parametrize("mean", [0.05, 0.7, 2.3, 9.9, 15.9])
def test_few_electrons_follow_the_poisson_law(mean: float) -> None:
    level = 4096
    photons = mean * LEVEL / level
    counts = exposed(level, photons, 0.0) * photons / LEVEL
    assert np.abs(counts - np.round(counts)).max() < 1e-4, "electrons come whole"
    found = np.bincount(np.round(counts).astype(np.int64), minlength=64)
    law = stats.poisson.pmf(np.arange(len(found)), mean)
    kept = law * COUNT > 20
    error = np.abs(found[kept] - law[kept] * COUNT)
    assert np.all(error <= 0.01 * law[kept] * COUNT + 5 * np.sqrt(law[kept] * COUNT))


def test_many_electrons_are_skewed_as_the_poisson_law_is() -> None:
    electrons = exposed(8191, 80.0, 0.0, count=2_000_000) * 80 / LEVEL
    assert stats.skew(electrons) == pytest.approx(1 / math.sqrt(80 * 8191 / LEVEL), rel=0.1)


def test_the_two_ways_of_drawing_meet() -> None:
    # Just below and just above the 16 electrons where the normal takes over.
    quantiles = []
    for photons in (31.9, 32.1):
        values = exposed(8192, photons, 1.0) * photons / LEVEL
        quantiles.append(np.quantile(values, [0.001, 0.05, 0.5, 0.95, 0.999]))
    assert np.abs(quantiles[0] - quantiles[1]).max() < 0.6


def test_normals_are_normal() -> None:
    count = 4_000_000
    z = (exposed(0, 1000.0, 50.0, count=count) * 1000 / LEVEL / 50).astype(np.float64)
    # Five standard errors of each moment; the sixth of the normal law is 15 and the twelfth 10395.
    assert abs(z.mean()) < 5 / math.sqrt(count)
    for power, moment, other in ((2, 1, 3), (4, 3, 105), (6, 15, 10395)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt((other - moment**2) / count)
    # The values lie 0.0065 apart, which alone makes 0.0013.
    assert stats.kstest(z, "norm").statistic < 0.0025
    for far in (2.0, 3.0, 4.0):
        law = stats.norm.sf(far) * count
        assert np.count_nonzero(z > far) == pytest.approx(law, abs=0.1 * law + 5 * math.sqrt(law))
    assert 4.5 < z.max() < 5.1


def test_two_hundred_samples_are_independent_of_one_another() -> None:
    # As the chain keys them. Each two of 200 fields, at one place and at each other's neighbours.
    levels = np.full((64, 192), 9000, dtype=np.uint16)
    for photons, read in ((900.0, 2.0), (9.0, 0.0)):
        fields = np.array(
            [sensor.expose(levels, photons, read, digest64(seed, "sensor")).ravel() for seed in range(200)]
        )
        fields = (fields - fields.mean(axis=1, keepdims=True)) / fields.std(axis=1, keepdims=True)
        for shift in (0, 1, 3, 96, 192):
            correlations = fields @ np.roll(fields, shift, axis=1).T / levels.size
            if shift == 0:
                np.fill_diagonal(correlations, 0)
            assert np.abs(correlations).max() < 5.5 / math.sqrt(levels.size)
            assert correlations.std() == pytest.approx(1 / math.sqrt(levels.size), rel=0.05)


def test_neighbours_and_keys_are_independent() -> None:
    levels = np.full((256, 768), 9000, dtype=np.uint16)
    keys = [digest64(number, "sensor") for number in range(4)]
    fields = [sensor.expose(levels, 900.0, 2.0, key).astype(np.float64) for key in keys]
    fields = [field - field.mean() for field in fields]
    scale = fields[0].std() ** 2
    chance = 5 / math.sqrt(levels.size)
    for dy, dx in ((0, 1), (0, 3), (1, 0), (1, 1), (0, 384), (0, 383), (128, 0), (2, 5)):
        here, there = fields[0][dy:, dx:], fields[0][: 256 - dy, : 768 - dx]
        assert abs((here * there).mean() / scale) < chance * math.sqrt(levels.size / here.size), (dy, dx)
    for i, one in enumerate(fields):
        for other in fields[i + 1 :]:
            assert abs((one * other).mean() / scale) < chance


def test_the_same_key_gives_the_same_noise_and_the_shades_do_not_mix() -> None:
    rng = np.random.default_rng(3)
    levels = rng.integers(0, LEVEL + 1, (64, 96)).astype(np.uint16)
    one = sensor.expose(levels, 40.0, 2.0, 11)
    assert np.array_equal(one, sensor.expose(levels, 40.0, 2.0, 11))
    assert not np.array_equal(one, sensor.expose(levels, 40.0, 2.0, 12))
    # A value depends on its own level and place alone.
    other = levels.copy()
    other[:, ::2] = rng.integers(0, LEVEL + 1, other[:, ::2].shape)
    assert np.array_equal(sensor.expose(other, 40.0, 2.0, 11)[:, 1::2], one[:, 1::2])


def test_no_light_and_no_read_noise_stay_dark() -> None:
    levels = np.zeros((3, 5), dtype=np.uint16)
    assert np.array_equal(sensor.expose(levels, 100.0, 0.0, 5), np.zeros((3, 5), dtype=np.float32))


@pytest.mark.parametrize("width", [1, 2, 3, 7, 768])
def test_any_width_will_do(width: int) -> None:
    levels = np.full((5, width), 5000, dtype=np.uint16)
    out = np.empty(levels.shape, dtype=np.uint8)
    sensor.expose_to_codes(levels, 3000.0, 2.0, 5, code_table(True), out)
    assert np.all(np.abs(out.astype(int) - int(code_table(True)[5000])) < 30)


def test_tables_hold_whole_laws() -> None:
    thresholds, aliases = (table.astype(np.int64) for table in sensor.poisson_tables())
    for table in (0, 1, 33, 128):
        shares = np.zeros(64)
        for slot in range(64):
            shares[slot] += thresholds[table, slot] / 65536 / 64
            shares[aliases[table, slot]] += (65536 - thresholds[table, slot]) / 65536 / 64
        mean = (table / 32) ** 2
        assert np.abs(shares - stats.poisson.pmf(np.arange(64), mean)).max() < 1e-5
