import pytest

from medsynth.corpus import words


def test_settings_read_as_words() -> None:
    section = {
        "size": 224,
        "radii_px": [0.0, 0.5, 1.0],
        "bokeh": {"kind": "disc", "wavelength_nm": 550.0},
        "sensor": {
            "photons": {"low": 200.0, "high": 20000.0, "logarithmic": True},
            "read_noise_e": {"low": 2.0, "high": 2.0},
        },
        "sharpening": None,
        "mpp": None,
        "fast": False,
        "devices": {},
    }
    assert list(words.setting_lines(section)) == [
        (0, "size", "224 px"),
        (0, "radii", "0, 0.5, 1 px"),
        (0, "bokeh", ""),
        (1, "kind", "disc"),
        (1, "wavelength", "550 nm"),
        (0, "sensor", ""),
        (1, "photons", "200 to 20000 photons at full scale, log-uniform"),
        (1, "read noise", "2 electrons"),
        (0, "sharpening", "off"),
        (0, "fast", "no"),
    ]


def test_long_tables_are_shortened() -> None:
    ((_, _, text),) = words.setting_lines({"radii_um": [float(number) for number in range(30)]})
    assert text == "0, 1, 2, 3, 4, 5, 6, … 29 µm (30 values)"


def test_what_all_devices_share_is_said_once() -> None:
    chains = {"a": {"light": "linear", "mpp": 0.25}, "b": {"light": "linear", "mpp": 0.5}}
    header = {"recipe_settings": {"settings": {"light": "gamma"}, "chains": chains, "image_format": "jpeg"}}
    assert words.recipe_settings(header) == {
        "light": "linear",
        "image_format": "jpeg",
        "device a": {"mpp": 0.25},
        "device b": {"mpp": 0.5},
    }


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (105_837, "106 kB"), (7.47e6, "7.47 MB"), (2e15, "2e+03 TB")],
)
def test_sizes(count: int, text: str) -> None:
    assert words.size(int(count)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (29_891.4, "29,891"), (999.96, "1000"), (-40.123456, "-40.12")]
)
def test_figures(value: float, text: str) -> None:
    assert words.figure(value) == text
