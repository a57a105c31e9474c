"""The whole chain: drawing, cropping, margins, determinism, and each step against the steps' own references."""

import itertools
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsynth import images, storage
from medsynth.defocus import bokeh, chain, device, halfres
from medsynth.defocus.chain import ChainParameters, ChainSettings, crop_margin, draw, output_size, render
from medsynth.defocus.light import code_table, light_table
from medsynth.defocus.resample import resample, source_size
from medsynth.errors import Reason, Rejected, SpecError
from medsynth.spec import parse

STEPS_OFF: dict[str, Any] = {"sensor": None, "jpeg": None}


def chain_of(**section: Any) -> ChainSettings:
    return parse(ChainSettings, section, "out_of_focus")


@pytest.fixture(scope="module")
def ihc() -> NDArray[np.uint8]:
    return images.decode(storage.read("package://skimage/data/ihc.png"))


def test_the_default_table_has_30_classes_from_0_to_12_px_in_growing_steps() -> None:
    radii = [draw(chain_of(), k, None, 1).blur_radius_px for k in range(30)]
    assert chain.class_count(chain_of()) == 30
    assert (radii[0], radii[1], radii[-1]) == (0.0, 0.25, 12.0)
    assert np.all(np.diff(radii) > 0.2)
    assert np.diff(radii)[-1] > 2 * np.diff(radii)[0]


def test_the_default_geometry_gives_224_px_of_256() -> None:
    assert crop_margin(chain_of(), None) == 16
    assert output_size(chain_of(), 256, None) == 224


def test_a_tile_in_focus_without_noise_passes_through_unchanged(ihc: NDArray[np.uint8]) -> None:
    plain = chain_of(**STEPS_OFF)
    for light in ("linear", "gamma"):
        section = chain_of(light=light, **STEPS_OFF)
        made = render(ihc[:200, :200], section, draw(section, 0, 0.25, 3), 160, 3)
        assert np.array_equal(made, ihc[20:180, 20:180])
    assert draw(plain, 0, 0.25, 3).blur_radius_px == 0


@pytest.mark.parametrize("focus_class", [1, 7, 29])
@pytest.mark.parametrize("light", ["linear", "gamma"])
def test_the_middle_of_the_tile_is_what_is_blurred(ihc: NDArray[np.uint8], focus_class: int, light: str) -> None:
    section = chain_of(light=light, **STEPS_OFF)
    tile = np.ascontiguousarray(ihc[:128, 100:228])
    parameters = draw(section, focus_class, None, 3)
    kernel = bokeh.disc(parameters.blur_radius_px)
    low, high = 14 - kernel.reach, 114 + kernel.reach
    window = np.ascontiguousarray(tile[low:high, low:high]).reshape(high - low, -1)
    expected = code_table(light == "linear")[bokeh.blur(light_table(light == "linear")[window], kernel, 3)]
    assert np.array_equal(render(tile, section, parameters, 100, 3), expected.reshape(100, 100, 3))


def test_each_grid_shift_moves_the_crop_and_all_64_come(ihc: NDArray[np.uint8]) -> None:
    section = chain_of(sensor=None)
    tile = ihc[:120, :120]
    seen = set()
    for seed in range(600):
        parameters = draw(section, 0, None, seed)
        seen.add((parameters.grid_dx, parameters.grid_dy))
    assert seen == set(itertools.product(range(8), repeat=2))
    for dx, dy in ((0, 0), (7, 3), (4, 7)):
        made = render(tile, section, replace(parameters, grid_dx=dx, grid_dy=dy), 100, 1)
        assert np.array_equal(made, tile[6 + dy : 106 + dy, 6 + dx : 106 + dx])


def test_switching_one_step_off_leaves_the_others_draws(ihc: NDArray[np.uint8]) -> None:
    full: dict[str, Any] = {"sharpening": {"amount": {"uniform": [0.1, 0.9]}, "radius_px": {"uniform": [0.5, 2]}}}
    whole = asdict(draw(chain_of(**full), 12, 0.25, 99))
    touched = {
        "bokeh": {"blur_kind", "blur_radius_px", "blur_radius_um", "defocus_um"},
        "sensor": {"photons", "read_noise_e"},
        "sharpening": {"sharpening_amount", "sharpening_radius_px"},
        "jpeg": {"jpeg_quality", "jpeg_subsampling", "grid_dx", "grid_dy"},
    }
    for step, names in touched.items():
        section = chain_of(**{**full, step: None})
        without = asdict(draw(section, 12, 0.25, 99))
        assert {name for name in whole if whole[name] != without[name]} <= names, step
        assert without != whole, step
        assert render(ihc[:200, :200], section, ChainParameters(**without), 100, 99).shape == (100, 100, 3)


def test_noise_and_the_other_draws_differ_from_sample_to_sample(ihc: NDArray[np.uint8]) -> None:
    section = chain_of()
    drawn = [draw(section, 3, 0.25, seed) for seed in range(200)]
    assert len({parameters.photons for parameters in drawn}) == 200
    qualities = [parameters.jpeg_quality for parameters in drawn]
    assert min(q for q in qualities if q) >= 40
    assert max(q for q in qualities if q) <= 90
    made = [render(ihc[:150, :150], section, drawn[0], 100, seed) for seed in (1, 2)]
    assert not np.array_equal(*made)


def test_both_ends_of_the_quality_come_as_often_as_the_rest() -> None:
    section = chain_of(jpeg={"quality": {"uniform": [60, 63]}})
    counts = np.bincount([draw(section, 0, None, seed).jpeg_quality or 0 for seed in range(2000)])[60:]
    assert len(counts) == 4
    assert counts.min() > 430


def test_the_same_inputs_give_the_same_pixels(ihc: NDArray[np.uint8]) -> None:
    for section in (chain_of(), chain_of(fast=True), chain_of(sharpening={}), chain_of(bokeh={"kind": "wave"})):
        for focus_class in (0, 4, 20):
            parameters = draw(section, focus_class, 0.25, 5)
            assert parameters == draw(section, focus_class, 0.25, 5)
            one = render(ihc[:180, :180], section, parameters, 90, 5)
            frozen = ihc[:180, :180].copy()
            frozen.flags.writeable = False
            assert np.array_equal(one, render(frozen, section, parameters, 90, 5))
            assert np.array_equal(one, render(ihc[:180, :180][:, :, :], section, parameters, 90, 5))


def test_parameters_are_plain_values_that_a_table_can_hold() -> None:
    for section in (chain_of(), chain_of(bokeh=None, sensor=None, jpeg=None)):
        for value in asdict(draw(section, 5, 0.25, 1)).values():
            assert value is None or type(value) in (str, int, float, bool)
    assert {field.name for field in fields(ChainParameters)} >= {
        "blur_radius_px", "blur_radius_um", "photons", "jpeg_quality", "mpp"
    }  # fmt: skip


def test_micrometres_and_pixels_agree() -> None:
    section = chain_of(radii_um=[0, 0.5, 2.0], bokeh={"na": 0.5})
    parameters = draw(section, 2, 0.25, 1)
    assert (parameters.blur_radius_px, parameters.blur_radius_um) == (8.0, 2.0)
    assert parameters.defocus_um == bokeh.defocus_um(2.0, 0.5, 1.0)
    assert crop_margin(section, 0.25) == 8 + 4
    for call in (lambda: draw(section, 2, None, 1), lambda: crop_margin(section, None)):
        with pytest.raises(Rejected) as caught:
            call()
        assert caught.value.reason == Reason.UNKNOWN_MPP
    unknown = draw(chain_of(), 9, None, 1)
    assert (unknown.mpp, unknown.blur_radius_um, unknown.defocus_um) == (None, None, None)


def test_wave_optics_need_the_scale() -> None:
    for kind_of_call in (crop_margin, lambda section, mpp: draw(section, 3, mpp, 1)):
        with pytest.raises(Rejected) as caught:
            kind_of_call(chain_of(bokeh={"kind": "wave"}), None)
        assert caught.value.reason == Reason.UNKNOWN_MPP


def test_each_colour_can_have_its_own_wavelength(ihc: NDArray[np.uint8]) -> None:
    one, three = ({"kind": "wave", "wavelength_nm": w} for w in (550, [1100, 550, 400]))
    made = []
    for optics in (one, three):
        section = chain_of(bokeh=optics, **STEPS_OFF)
        made.append(render(ihc[:150, :150], section, draw(section, 0, 0.25, 1), 80, 1))
    # Green is the same but for where the kernel is cut, which the widest colour decides.
    assert np.abs(made[0][..., 1].astype(int) - made[1][..., 1]).max() <= 2
    assert np.abs(made[0][..., 0].astype(int) - made[1][..., 0]).max() > 5


@given(
    kind=st.sampled_from(["disc", "gaussian", "wave"]),
    fast=st.booleans(),
    shift=st.booleans(),
    sharpen=st.booleans(),
    mpp=st.sampled_from([None, 0.2, 0.25, 0.279, 0.13]),
    device_mpp=st.sampled_from([None, 0.25, 0.2271]),
    largest=st.floats(0, 20),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_the_margin_is_enough_for_every_class_and_every_draw(
    kind: str, fast: bool, shift: bool, sharpen: bool, mpp: float | None, device_mpp: float | None, largest: float,
    seed: int,
) -> None:  # fmt: skip
    assume(kind != "wave" or mpp is not None)
    assume(mpp is None or device_mpp is None or device_mpp / mpp > 0.893)
    section = chain_of(
        bokeh={"kind": kind},
        fast=fast and kind == "disc",
        radii_px=[0.0, round(largest / 2, 2), round(largest, 2)],
        jpeg={"grid_shift": shift},
        sharpening={"radius_px": {"uniform": [0.5, 1.5]}} if sharpen else None,
        mpp=device_mpp,
    )
    side = 31 + seed % 50 + 2 * crop_margin(section, mpp)
    size = output_size(section, side, mpp)
    assert 10 <= size
    assert crop_margin(section, mpp) >= round(largest, 2)
    tile = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for focus_class in range(3):
        parameters = draw(section, focus_class, mpp, seed)
        for dx, dy in ((0, 0), (7, 7), (parameters.grid_dx, parameters.grid_dy)) if shift else ((0, 0),):
            shifted = replace(parameters, grid_dx=dx, grid_dy=dy)
            assert render(tile, section, shifted, size, seed).shape == (size, size, 3)


def test_a_tile_that_is_too_small_is_rejected_in_words(ihc: NDArray[np.uint8]) -> None:
    section = chain_of()
    with pytest.raises(Rejected, match="100x100 px") as caught:
        render(ihc[:100, :100], section, draw(section, 29, None, 1), 100, 1)
    assert caught.value.reason == Reason.TOO_SMALL
    assert output_size(section, 20, None) <= 0


def test_a_devices_pixels_are_honoured_where_the_tiles_are_known(ihc: NDArray[np.uint8]) -> None:
    section = chain_of(mpp=0.5, **STEPS_OFF)
    parameters = draw(section, 0, 0.25, 1)
    assert (parameters.scale, parameters.mpp) == (2.0, 0.5)
    made = render(ihc[:200, :200], section, parameters, 80, 1)
    side = source_size(80, 2.0)
    assert 160 <= side <= 164
    start = (200 - side) // 2
    window = light_table(True)[ihc[start : start + side, start : start + side]].reshape(side, -1)
    expected = code_table(True)[bokeh.blur(resample(window, 80, 2.0, 3), bokeh.disc(0.0), 3)]
    assert np.array_equal(made, expected.reshape(80, 80, 3))
    kept = draw(section, 0, None, 1)
    assert (kept.scale, kept.mpp) == (1.0, None)


def test_radii_count_in_the_devices_pixels() -> None:
    assert draw(chain_of(mpp=0.5), 29, 0.25, 1).blur_radius_px == 12.0
    assert draw(chain_of(mpp=0.5), 29, 0.25, 1).blur_radius_um == 6.0
    assert crop_margin(chain_of(mpp=0.5), 0.25) >= 2 * 12 + 4


def test_enlarging_is_allowed_to_12_percent() -> None:
    assert draw(chain_of(mpp=0.2271), 0, 0.25, 1).scale == pytest.approx(0.9084)
    with pytest.raises(Rejected, match="at most 12 %") as caught:
        draw(chain_of(mpp=0.2271), 0, 0.26, 1)
    assert caught.value.reason == Reason.UNSUPPORTED


@pytest.mark.parametrize("name", device.scanners())
def test_each_device_renders_and_they_differ(ihc: NDArray[np.uint8], name: str) -> None:
    section = chain.with_device(chain_of(), device.load(name))
    size = output_size(section, 256, 0.25)
    assert size >= 176
    parameters = draw(section, 6, 0.25, 8)
    assert parameters.mpp == section.mpp
    made = render(ihc[:256, :256], section, parameters, 176, 8)
    plain = render(ihc[:256, :256], chain_of(), draw(chain_of(), 6, 0.25, 8), 176, 8)
    assert made.std() > 10
    assert not np.array_equal(made, plain)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"radii_px": [0, 2], "radii_um": [0, 1]}, "not both"),
        ({"radii_px": []}, "empty"),
        ({"radii_px": [0, 3, 2]}, "never fall"),
        ({"radii_px": [-1, 3]}, "start at 0"),
        ({"radii_px": [0, 31]}, "at most 30 px"),
        ({"sensor": {"photons": 0}}, "photons"),
        ({"sensor": {"photon": 1}}, "did you mean 'photons'"),
        ({"sensor": {"read_noise_e": -1}}, "read_noise_e"),
        ({"jpeg": {"quality": 0}}, "quality"),
        ({"jpeg": {"quality": {"uniform": [40, 101]}}}, "quality"),
        ({"jpeg": {"subsampling": "4:1:1"}}, "jpeg.subsampling"),
        ({"bokeh": {"kind": "ring"}}, "bokeh.kind"),
        ({"bokeh": {"na": 1.0}}, "refractive_index"),
        ({"bokeh": {"kind": "wave", "wavelength_nm": 5}}, "wavelength_nm"),
        ({"bokeh": {"kind": "gaussian"}, "fast": True}, "fast"),
        ({"light": "log"}, "light"),
        ({"mpp": 0}, "mpp"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(section: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        chain_of(**section)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_radii_in_micrometres_that_are_too_large_for_the_tile_are_rejected() -> None:
    with pytest.raises(Rejected, match="at most 30 px"):
        crop_margin(chain_of(radii_um=[0, 10]), 0.25)


def test_classes_outside_the_table_are_no_classes() -> None:
    for focus_class in (-1, 30):
        with pytest.raises(ValueError, match="lies outside 0 to 29"):
            draw(chain_of(), focus_class, None, 1)


def test_the_sharpest_class_gets_noise_and_jpeg_too(ihc: NDArray[np.uint8]) -> None:
    section = chain_of()
    sharpest, softest = draw(section, 0, None, 8), draw(section, 29, None, 8)
    assert replace(softest, blur_radius_px=0.0) == sharpest, "a class is a radius and nothing else"
    tile = np.full((200, 200, 3), 128, dtype=np.uint8)
    sigmas = [render(tile, section, parameters, 100, 8).std() for parameters in (sharpest, softest)]
    assert sigmas[0] > 0.5
    assert sigmas[0] == pytest.approx(sigmas[1], rel=0.01)


def test_nothing_depends_on_what_was_made_before(ihc: NDArray[np.uint8]) -> None:
    section = chain_of(sharpening={"amount": {"uniform": [0.1, 0.9]}})

    def made(seed: int) -> bytes:
        return render(ihc, section, draw(section, seed % 30, None, seed), 64, seed).tobytes()

    forwards = [made(seed) for seed in range(30)]
    assert [made(seed) for seed in reversed(range(30))] == forwards[::-1]
    assert len(set(forwards)) == 30


@pytest.mark.parametrize("fast", [False, True])
def test_the_tiles_border_does_not_tell_the_class(ihc: NDArray[np.uint8], fast: bool) -> None:
    # What lies outside the tile does not count: the middle of a larger picture comes out the same.
    section = chain_of(fast=fast, **STEPS_OFF)
    for focus_class in (0, 3, 11, 20, 29):
        parameters = draw(section, focus_class, None, 1)
        size = output_size(section, 200, None)
        alone = render(ihc[150:350, 100:300], section, parameters, size, 1)
        within = render(ihc[50:450, 0:400], section, parameters, size + 200, 1)
        assert np.array_equal(within[100:-100, 100:-100], alone)


def test_fast_is_fast_from_a_radius_on_and_the_rest_is_exact(ihc: NDArray[np.uint8]) -> None:
    radii = [0.0, halfres.FROM_RADIUS - 0.01, halfres.FROM_RADIUS, 20.0]
    exact, fast = (chain_of(radii_px=radii, fast=mode, **STEPS_OFF) for mode in (False, True))
    same = []
    for focus_class in range(4):
        parameters = draw(exact, focus_class, None, 1)
        assert parameters == draw(fast, focus_class, None, 1)
        one, other = (render(ihc, section, parameters, 300, 1).astype(int) for section in (exact, fast))
        same.append(bool((one == other).all()))
        assert np.sqrt(((one - other) ** 2).mean()) < 1.5
    assert same == [True, True, False, False]


@pytest.mark.parametrize("mpp", [None, 0.2271, 0.25])
@pytest.mark.parametrize("name", [None, *device.scanners()])
def test_the_margin_is_exact_enough_and_one_for_all_classes(
    ihc: NDArray[np.uint8], name: str | None, mpp: float | None
) -> None:
    section = chain.with_device(chain_of(), device.load(name)) if name else chain_of()
    side = 250
    size = output_size(section, side, mpp)
    scale = draw(section, 0, mpp, 0).scale
    assert size == int((side - 2 * crop_margin(section, mpp)) / scale)
    # The sizes do not know the class: a tile too small for one class is too small for all of them.
    assert output_size(section, side - 2 * int(np.ceil(scale)), mpp) < size
    for focus_class in range(chain.class_count(section)):
        parameters = draw(section, focus_class, mpp, focus_class)
        corner = replace(parameters, grid_dx=7, grid_dy=0)
        assert render(ihc[:side, :side], section, corner, size, 1).shape == (size, size, 3)
