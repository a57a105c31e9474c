"""Settings: what may be written, what is drawn from it, and one line for each mistake."""

from typing import Any

import numpy as np
import pytest

from medsynth.defocus import chain
from medsynth.defocus.settings import DEFAULT_RADII_PX, ChainSettings
from medsynth.errors import SpecError
from medsynth.spec import parse

SEEDS = range(2000)


def chain_of(**section: Any) -> ChainSettings:
    return parse(ChainSettings, section, "out_of_focus")


def drawn(name: str, **section: Any) -> np.ndarray:
    """One parameter, as drawn for many samples."""
    settings = chain_of(**section)
    return np.array([getattr(chain.draw(settings, 0, None, seed), name) for seed in SEEDS], dtype=float)


def assert_uniform(fractions: np.ndarray) -> None:
    """Kolmogorov-Smirnov at a level of about 1e-6."""
    steps = np.arange(len(fractions)) / len(fractions)
    assert np.abs(np.sort(fractions) - steps).max() < 2.7 / np.sqrt(len(fractions))


PARAMETERS = [
    ("photons", "sensor", "photons", 50, 800),
    ("read_noise_e", "sensor", "read_noise_e", 1, 9),
    ("sharpening_amount", "sharpening", "amount", 0.1, 0.9),
    ("sharpening_radius_px", "sharpening", "radius_px", 0.5, 2.5),
]


@pytest.mark.parametrize(("name", "step", "key", "low", "high"), PARAMETERS)
def test_each_parameter_is_fixed_or_drawn_uniformly_or_log_uniformly(
    name: str, step: str, key: str, low: float, high: float
) -> None:
    assert set(drawn(name, **{step: {key: low}})) == {low}
    values = drawn(name, **{step: {key: {"uniform": [low, high]}}})
    assert low <= values.min() < values.max() <= high
    assert_uniform((values - low) / (high - low))
    values = drawn(name, **{step: {key: {"log_uniform": [low, high]}}})
    assert low <= values.min() < values.max() <= high
    assert_uniform(np.log(values / low) / np.log(high / low))


def test_the_quality_is_a_whole_number_and_both_ends_come_as_often_as_the_rest() -> None:
    values = drawn("jpeg_quality", jpeg={"quality": {"uniform": [40, 49]}})
    counts = np.bincount(values.astype(int), minlength=50)[40:]
    assert counts.sum() == len(values)
    expected = len(values) / 10
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert set(drawn("jpeg_quality", jpeg={"quality": 77})) == {77}
    assert set(drawn("jpeg_quality", jpeg={"quality": {"uniform": [99, 100]}})) == {99, 100}


def test_parameters_are_drawn_independently_of_one_another() -> None:
    settings = chain_of(sharpening={"amount": {"uniform": [0.1, 0.9]}, "radius_px": {"uniform": [0.5, 2.5]}})
    names = [name for name, *_ in PARAMETERS] + ["jpeg_quality", "grid_dx", "grid_dy"]
    table = [[getattr(chain.draw(settings, 0, None, seed), name) for name in names] for seed in SEEDS]
    correlations = np.corrcoef(np.array(table, dtype=float).T) - np.eye(len(names))
    assert np.abs(correlations).max() < 5 / np.sqrt(len(SEEDS))


def test_the_default_table_has_thirty_classes_up_to_twelve_pixels() -> None:
    assert len(DEFAULT_RADII_PX) == 30
    assert (DEFAULT_RADII_PX[0], DEFAULT_RADII_PX[-1]) == (0.0, 12.0)
    assert np.diff(DEFAULT_RADII_PX).min() > 0


def test_settings_survive_being_written_down() -> None:
    settings = chain_of(
        radii_um=[0, 1.5],
        bokeh={"kind": "wave", "wavelength_nm": [620, 550, 460]},
        sensor={"photons": {"log_uniform": [5, 50]}},
        sharpening={},
        jpeg=None,
        mpp=0.3,
    )
    assert parse(ChainSettings, settings.model_dump(mode="json"), "again") == settings


def test_each_step_can_be_null() -> None:
    settings = chain_of(bokeh=None, sensor=None, sharpening=None, jpeg=None)
    assert (settings.bokeh, settings.sensor, settings.sharpening, settings.jpeg) == (None, None, None, None)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"radii_px": [0, 2, 1]}, "never fall"),
        ({"radii_px": [-0.5, 2]}, "start at 0"),
        ({"radii_px": [0, 30.1]}, "at most 30 px"),
        ({"radii_px": []}, "empty"),
        ({"radii_um": [0, 2, 1]}, "never fall"),
        ({"radii_um": [-1]}, "start at 0"),
        ({"radii_px": [0, 1], "radii_um": [0, 1]}, "not both"),
        ({"radii_px": [0, float("nan")]}, "radii_px"),
        ({"radii_px": ["wide"]}, "radii_px"),
        ({"radius_px": [0, 1]}, "did you mean 'radii_px'"),
        ({"sensor": {"photon": 5}}, "did you mean 'photons'"),
        ({"jpeg": {"qualty": 5}}, "did you mean 'quality'"),
        ({"bokeh": {"NA": 0.5}}, "unknown key 'bokeh.NA'"),
        ({"bokeh": {"na": 1.0}}, "below refractive_index"),
        ({"bokeh": {"na": 1.4, "refractive_index": 1.33}}, "below refractive_index"),
        ({"bokeh": {"wavelength_nm": [550, 550]}}, "wavelength_nm"),
        ({"bokeh": {"wavelength_nm": 0.55}}, "between 100 and 2000"),
        ({"sensor": {"photons": 0}}, "photons must lie"),
        ({"sensor": {"photons": {"uniform": [500, 100]}}}, "lies above"),
        ({"sensor": {"photons": {"normal": [500, 100]}}}, "{uniform: [low, high]}"),
        ({"sensor": {"read_noise_e": -1}}, "read_noise_e must lie"),
        ({"sensor": {"read_noise_e": {"log_uniform": [0, 5]}}}, "above 0"),
        ({"sharpening": {"amount": 11}}, "amount must lie"),
        ({"sharpening": {"radius_px": 0}}, "radius_px must lie"),
        ({"jpeg": {"quality": {"uniform": [0, 90]}}}, "between 1 and 100"),
        ({"jpeg": {"quality": 101}}, "between 1 and 100"),
        ({"jpeg": {"subsampling": "420"}}, "jpeg.subsampling"),
        ({"jpeg": {"grid_shift": 3}}, "jpeg.grid_shift"),
        ({"fast": True, "bokeh": {"kind": "wave"}}, "fast blurs discs only"),
        ({"light": "srgb"}, "light"),
        ({"mpp": -0.25}, "mpp"),
        ({"sensor": True}, "sensor"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(section: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        chain_of(**section)
    message = str(caught.value)
    assert message.startswith("out_of_focus: ")
    assert words in message
    assert "\n" not in message


def test_a_quality_range_must_hold_whole_numbers() -> None:
    for quality in (77.5, {"uniform": [40.5, 90]}, {"uniform": [40, 89.5]}):
        with pytest.raises(SpecError, match="whole number"):
            chain_of(jpeg={"quality": quality})
