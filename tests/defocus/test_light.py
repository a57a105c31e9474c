"""Light and codes: the sRGB curve by table, there and back."""

import numpy as np
import pytest

from medsynth.defocus.light import LEVEL, LIGHT, code_table, light_table, look_up
from tests.defocus import scenes

CODES = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("full", [LIGHT, LEVEL])
def test_light_is_the_formula_s_to_half_a_unit(linear: bool, full: int) -> None:
    table = light_table(linear, full)
    assert table.dtype == np.uint16
    assert np.abs(table - scenes.to_light(CODES, linear) * full).max() <= 0.5 + 1e-4
    assert (table[0], table[255]) == (0, full)
    assert np.all(np.diff(table.astype(int)) > 0)


@pytest.mark.parametrize("linear", [True, False])
def test_codes_are_the_formula_s_to_half_a_code(linear: bool) -> None:
    table = code_table(linear)
    assert table.dtype == np.uint8
    assert table.shape == (LEVEL + 1,)
    levels = np.arange(LEVEL + 1) / LEVEL
    assert np.abs(table - scenes.to_codes(levels, linear)).max() <= 0.5 + 1e-6
    assert np.all(np.diff(table.astype(int)) >= 0)


@pytest.mark.parametrize("linear", [True, False])
def test_every_code_comes_back(linear: bool) -> None:
    assert np.array_equal(code_table(linear)[light_table(linear, LEVEL)], CODES)
    # The way by the blur: 13 bits in, 14 out.
    levels = np.round(light_table(linear) * (LEVEL / LIGHT)).astype(int)
    assert np.array_equal(code_table(linear)[levels], CODES)


def test_a_window_is_looked_up_where_it_lies() -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 30), dtype=np.uint8)
    out = np.empty((4, 12), dtype=np.uint16)
    look_up(values, light_table(True), 3, 6, out)
    assert np.array_equal(out, light_table(True)[values[3:7, 6:18]])


def test_eight_lights_fit_sixteen_bits() -> None:
    assert 8 * LIGHT < 2**16
