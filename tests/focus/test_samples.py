"""Training samples: functions of their number, labelled by the blur they have."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medsynth import images
from medsynth.catalog import table, tiles
from medsynth.errors import CatalogError, Reason, Rejected
from medsynth.focus.samples import (
    IN_FOCUS2,
    SampleSettings,
    Source,
    Tile,
    effective_radius,
    make_batch,
    make_sample,
    open_catalog,
)

SMALL = SampleSettings(size=64)


def scene(seed: int, side: int = 320) -> np.ndarray:
    """Something with structure at all scales."""
    generator = np.random.default_rng(seed)
    layers = [
        ndimage.zoom(generator.random((n, n, 3)), (side / n, side / n, 1), order=0)[:side, :side]
        for n in (40, 160, side)
    ]
    return np.clip(255 * sum(layers) / 3, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(["a", "a", "b", "c"], lambda i: Tile(scene(i)))


def test_a_sample_does_not_depend_on_its_batch(source: Source) -> None:
    pixels, radii = make_batch(source, SMALL, 7, [5, 900, 6])
    again, radii_again = make_batch(source, SMALL, 7, [900])
    np.testing.assert_array_equal(pixels[1], again[0])
    assert radii[1] == radii_again[0]
    other, _ = make_batch(source, SMALL, 8, [900])
    assert (other != again).any()


def test_a_run_of_few_samples_meets_each_once_a_turn(source: Source) -> None:
    few = SMALL.model_copy(update={"distinct": 6})
    turns = [make_batch(source, few, 7, range(start, start + 6)) for start in (0, 6)]
    whole = make_batch(source, SMALL, 7, range(6))
    for pixels, radii in turns:
        assert sorted(radii) == sorted(whole[1])
        assert {item.tobytes() for item in pixels} == {item.tobytes() for item in whole[0]}
    assert (turns[0][1] != turns[1][1]).any()


def test_samples_have_shape_kind_and_range(source: Source) -> None:
    pixels, radii = make_batch(source, SMALL, 1, range(40))
    assert pixels.shape == (40, 64, 64, 3)
    assert pixels.dtype == np.uint8
    assert radii.dtype == np.float32
    assert radii.min() < 2
    assert 10 < radii.max() <= 12


def test_blur_is_what_the_label_says(source: Source) -> None:
    """Without noise and JPEG, the rank of the Laplacian's variance is that of the radius."""
    still = SMALL.plain().model_copy(update={"noise": False, "jpeg": False, "devices": 0.0})
    pixels, radii = make_batch(source, still, 3, range(60))
    edges = [ndimage.laplace(item.mean(axis=2)).var() for item in pixels]
    order = np.argsort(radii)
    assert np.corrcoef(np.argsort(order), np.argsort(np.argsort(edges)))[0, 1] < -0.95


@pytest.mark.parametrize(
    "change", [{"noise": False}, {"jpeg": False}, {"bokeh": "gaussian"}, {"colour": False}, {"after": False}]
)
def test_each_step_can_be_switched_off(source: Source, change: dict[str, object]) -> None:
    pixels, radii = make_batch(source, SMALL, 2, range(12))
    without, radii_without = make_batch(source, SMALL.model_copy(update=change), 2, range(12))
    assert (pixels != without).any()
    np.testing.assert_array_equal(radii, radii_without)


def test_bare_samples_have_no_noise_no_compression_or_neither(source: Source) -> None:
    base = SMALL.plain().model_copy(update={"devices": 0.0})
    kinds = {
        (noise, jpeg): make_batch(source, base.model_copy(update={"noise": noise, "jpeg": jpeg}), 4, range(30))[0]
        for noise in (True, False)
        for jpeg in (True, False)
    }
    made = make_batch(source, base.model_copy(update={"bare": 0.9}), 4, range(30))[0]
    alike = {kind: int((images == made).all(axis=(1, 2, 3)).sum()) for kind, images in kinds.items()}
    assert sum(alike.values()) == 30
    assert all(alike[kind] >= 4 for kind in ((False, True), (True, False), (False, False)))
    assert alike[True, True] < 9


def test_a_finished_tile_keeps_its_pixels_and_label() -> None:
    tile = scene(9)
    source = Source(["x"], lambda _: Tile(tile, radius_px=3.5))
    settings = SMALL.plain()
    image, radius = make_sample(source, settings, 1, 4)
    assert radius == 3.5
    assert np.sort(np.unique(image)).tolist() == sorted(set(image.ravel().tolist()) & set(tile.ravel().tolist()))


@given(st.floats(0, 12), st.floats(-4, 4), st.floats(1, 4))
def test_effective_radius(added: float, own: float, scale: float) -> None:
    found = effective_radius(added, own, scale)
    # The variance of all blur, the scanner's too, shrinks with the square of the scale.
    variance = added**2 + (own + IN_FOCUS2) / scale**2
    # The square of the blur is held to a float64's precision; its root has half of the digits where little is left.
    assert found**2 == pytest.approx(max(0, variance - IN_FOCUS2), rel=1e-9, abs=1e-12)
    assert effective_radius(added, 0.0, 1.0) == pytest.approx(added, abs=1e-7)


def test_own_blur_raises_labels_not_pixels(source: Source) -> None:
    softer = source.with_own_blur2([1.0] * 4)
    pixels, radii = make_batch(source, SMALL, 5, range(20))
    same, raised = make_batch(softer, SMALL, 5, range(20))
    np.testing.assert_array_equal(pixels, same)
    assert (raised > radii).all()


def test_tiles_too_small_are_rejected() -> None:
    tiny = Source(["t"], lambda _: Tile(scene(1, 80)))
    with pytest.raises(Rejected) as why:
        make_batch(tiny, SMALL, 0, range(40))
    assert why.value.reason is Reason.TOO_SMALL


def test_pixels_are_read_once_and_kept_up_to_the_limit() -> None:
    read: list[int] = []

    def load(i: int) -> Tile:
        read.append(i)
        return Tile(np.zeros((100, 100, 3), dtype=np.uint8))

    source = Source(["s"] * 3, load, limit_bytes=60_000)
    for i in (0, 1, 0, 1, 2, 1, 0):
        _ = source[i]
    assert read == [0, 1, 2, 0]


def test_a_part_of_a_source_has_its_tiles_and_slides() -> None:
    source = Source(["a", "b", "a", "c", "d", "c"], lambda i: Tile(scene(i)))
    part = source.subset([3, 5, 0])
    assert part.slides == ("c", "c", "a")
    np.testing.assert_array_equal(part[0].pixels, source[3].pixels)


def catalog(folder: Path, rows: list[dict[str, object]]) -> str:
    schema = table.schema(["slide"])
    table.write(str(folder / "cat"), pa.Table.from_pylist(rows, schema), table.REJECT_COLUMNS.empty_table(), {})
    return str(folder / "cat")


def row(path: Path, pixels: np.ndarray, **named: object) -> dict[str, object]:
    path.write_bytes(images.encode_png(pixels))
    data = path.read_bytes()
    window = {"x": 0, "y": 0, "width": pixels.shape[1], "height": pixels.shape[0], "margin": 0}
    file = {"uri": str(path), "etag": "", "bytes": len(data), "sha256": tiles.digest(data)}
    return {**window, **file, "sharpness": 5.0, "in_focus": True, "slide": path.stem, **named}


def test_a_catalog_gives_its_sharp_tiles(tmp_path: Path) -> None:
    one, two = scene(1, 96), scene(2, 96)
    rows = [
        row(tmp_path / "a.png", one, slide="s1"),
        row(tmp_path / "a.png", one, slide="s1", x=10, y=20, width=50, height=40),
        row(tmp_path / "b.png", two, in_focus=False),
    ]
    source = open_catalog(catalog(tmp_path, rows))
    assert source.slides == ("s1", "s1")
    np.testing.assert_array_equal(source[0].pixels, one)
    np.testing.assert_array_equal(source[1].pixels, one[20:60, 10:60])


def test_a_catalog_of_soft_tiles_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="in focus"):
        open_catalog(catalog(tmp_path, [row(tmp_path / "a.png", scene(1, 64), in_focus=False)]))


def test_a_changed_file_is_rejected(tmp_path: Path) -> None:
    uri = catalog(tmp_path, [row(tmp_path / "a.png", scene(1, 64))])
    (tmp_path / "a.png").write_bytes(images.encode_png(scene(2, 64)))
    with pytest.raises(Rejected) as why:
        _ = open_catalog(uri)[0]
    assert why.value.reason is Reason.CHANGED
