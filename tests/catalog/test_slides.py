"""Slides of every kind are read region by region to the pixels that were written, and rubbish is named."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from medsynth import images, storage
from medsynth.catalog import slides
from medsynth.errors import CatalogError, Reason, Rejected, StorageError
from tests.bad_inputs import encoded
from tests.servers import S3Server
from tests.slides import on_glass, stained, write_tiff

PICTURE = stained(300, 420)


def opened_kinds(folder: Path) -> dict[str, Path]:
    files = {
        "tiled": write_tiff(folder / "tiled.tif", PICTURE),
        "pyramid": write_tiff(folder / "pyramid.tif", PICTURE, levels=3),
        "planar": write_tiff(folder / "planar.tif", PICTURE.transpose(2, 0, 1), planarconfig="separate"),
        "strips": write_tiff(folder / "strips.tif", PICTURE, tile=None, rowsperstrip=7),
        "lzw": write_tiff(folder / "lzw.tif", PICTURE, compression="lzw", predictor=True),
        "big": write_tiff(folder / "wide.tif", PICTURE.astype(np.uint16) * 257),
        "ome": folder / "one.ome.tif",
        "png": folder / "one.png",
    }
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(files["ome"], PICTURE, photometric="rgb", tile=(64, 64), metadata=metadata)
    files["png"].write_bytes(images.encode_png(PICTURE))
    return files


def test_every_kind_gives_the_pixels_that_were_written(tmp_path: Path) -> None:
    for kind, path in opened_kinds(tmp_path).items():
        slide = slides.open_slide(path)
        assert slide.sizes[0] == (420, 300), kind
        assert slide.mpp == (None if kind == "png" else 0.25), kind
        for x, y, width, height in ((0, 0, 420, 300), (100, 37, 1, 1), (127, 120, 130, 140), (419, 0, 1, 300)):
            np.testing.assert_array_equal(slide.read(x, y, width, height), PICTURE[y : y + height, x : x + width])
        slide.close()


def test_levels_are_read_in_their_own_pixels(tmp_path: Path) -> None:
    slide = slides.open_slide(write_tiff(tmp_path / "p.tif", PICTURE, levels=3))
    assert slide.sizes == ((420, 300), (210, 150), (105, 75))
    np.testing.assert_array_equal(slide.read(3, 5, 40, 30, 2), PICTURE[::4, ::4][5:35, 3:43])


@pytest.mark.parametrize(("factor", "band"), [(4, 10**9), (4, 4 * 420 * 4), (12, 10**9)])
def test_an_overview_is_the_mean_over_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: int, band: int
) -> None:
    monkeypatch.setattr(slides, "_BAND_PIXELS", band)
    found = slides.overview(slides.open_slide(write_tiff(tmp_path / "t.tif", PICTURE)), factor)
    rows, columns = 300 // factor, 420 // factor
    means = PICTURE.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    assert found.shape == (rows, columns, 3)
    assert np.abs(found - means).max() <= 1


def test_an_overview_of_odd_sides_covers_all_and_comes_from_a_level_that_is_large_enough(tmp_path: Path) -> None:
    picture = on_glass(301, 423, (150, 200, 151, 223))
    slide = slides.open_slide(write_tiff(tmp_path / "o.tif", picture, levels=2))
    read: list[int] = []
    inner = slide.read
    slide.read = lambda x, y, w, h, level=0: (read.append(level), inner(x, y, w, h, level))[1]  # type: ignore[method-assign]
    found = slides.overview(slide, 4)
    assert set(read) == {1}
    assert found.shape == (76, 106, 3)
    assert found[:36, :48].min() > 200
    assert found[40:, 52:, 1].mean() < 160


def test_a_tile_that_was_never_written_is_glass(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "sparse.tif", PICTURE)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages.first.databytecounts)
        counts[0] = 0
        file.pages.first.tags["TileByteCounts"].overwrite(counts)
    slide = slides.open_slide(path)
    assert slide.read(0, 0, 128, 128).min() == 255
    np.testing.assert_array_equal(slide.read(128, 0, 100, 100), PICTURE[:100, 128:228])


def bad_files() -> dict[str, tuple[bytes, Reason]]:
    return {
        "empty.svs": (b"", Reason.TRUNCATED),
        "text.svs": (b"not a slide at all", Reason.UNREADABLE),
        "lost.mrxs": (b"\xff\xd8\xff\xe0 no more", Reason.UNREADABLE),
        "one.dcm": (bytes(128) + b"DICM", Reason.UNREADABLE),
        "headless.tif": (b"II*\x00\xff\xff\xff\x00", Reason.TRUNCATED),
        "cut.jpg": (encoded(PICTURE, "JPEG")[:2000], Reason.TRUNCATED),
    }


@pytest.mark.parametrize("name", bad_files())
def test_rubbish_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    data, reason = bad_files()[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Rejected) as refused:
        slides.open_slide(tmp_path / name)
    assert refused.value.reason is reason


def test_a_missing_slide_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="missing"):
        slides.open_slide(tmp_path / "none.svs")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_cut_tiff_is_truncated_when_it_is_opened(tmp_path: Path, kept: float) -> None:
    # tifffile writes its directory first: the pixels are what is lost.
    data = write_tiff(tmp_path / "whole.tif", PICTURE).read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(Rejected) as refused:
        slides.open_slide(tmp_path / "cut.tif")
    assert refused.value.reason is Reason.TRUNCATED


def test_a_damaged_tile_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "damaged.tif", PICTURE)
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    slide = slides.open_slide(path)
    slide.read(128, 0, 100, 100)
    with pytest.raises(Rejected, match="unreadable"):
        slide.read(0, 0, 10, 10)


def test_several_pictures_and_odd_samples_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        for _ in range(2):
            writer.write(PICTURE, photometric="rgb", tile=(64, 64))
    with pytest.raises(Rejected, match="several_frames"):
        slides.open_slide(tmp_path / "two.tif")
    tifffile.imwrite(tmp_path / "float.tif", PICTURE.astype(np.float32), photometric="rgb", tile=(64, 64))
    with pytest.raises(Rejected, match="unsupported"):
        slides.open_slide(tmp_path / "float.tif")


def test_a_real_svs_is_what_openslide_makes_of_it(shared_data: Path) -> None:
    path = shared_data / "pathology" / "CMU-1-Small-Region.svs"
    with openslide.OpenSlide(path) as reference:
        seen = np.asarray(reference.read_region((1000, 1200), 0, (300, 200)).convert("RGB"))
    for slide in (slides.open_slide(path), slides._Scanned(path)):
        assert (slide.sizes, slide.mpp) == (((2220, 2967),), 0.499)
        np.testing.assert_array_equal(slide.read(1000, 1200, 300, 200), seen)
        slide.close()


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.999])
def test_a_truncated_svs_is_refused_wherever_it_ends(shared_data: Path, tmp_path: Path, kept: float) -> None:
    data = (shared_data / "pathology" / "CMU-1-Small-Region.svs").read_bytes()
    (tmp_path / "cut.svs").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(Rejected) as refused:
        slides.overview(slides.open_slide(tmp_path / "cut.svs"), 4)
    assert refused.value.reason in (Reason.TRUNCATED, Reason.UNREADABLE)


def test_jpeg_in_ome_tiff_is_what_tifffile_makes_of_it(shared_data: Path) -> None:
    path = shared_data / "pathology" / "OS-1-detail.ome.tif"
    slide = slides.open_slide(path)
    assert slide.mpp == pytest.approx(0.2271, abs=1e-3)
    np.testing.assert_array_equal(slide.read(400, 300, 600, 700), tifffile.imread(path)[300:1000, 400:1000])


def test_what_was_never_scanned_is_glass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Half:
        level_downsamples = (1.0,)

        def read_region(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
            picture = np.zeros((size[1], size[0], 4), np.uint8)
            picture[:, 5:] = (10, 20, 30, 255)
            return Image.fromarray(picture)

    slide = slides._Scanned.__new__(slides._Scanned)
    slide._slide = Half()
    found = slide.read(0, 0, 10, 4)
    assert (found[:, :5] == 255).all()
    assert (found[:, 5:] == (10, 20, 30)).all()


def test_slides_are_found_by_file_folder_and_list(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("a/b.svs", "a/deep/c.ome.tif", "a/notes.md", "a/d.PNG", "e.tif"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text(f"\ufeff# slides\n\n{tmp_path}/e.tif\n{tmp_path}/a\n")
    stems = [source.stem for source in slides.find([str(tmp_path / "list.txt"), str(tmp_path / "e.tif")])]
    assert stems == ["e", "b", "d", "c"]
    outside = slides.find([str(tmp_path / "a")], str(tmp_path / "a" / "deep"))
    assert [source.stem for source in outside] == ["b", "d"]
    for place, message in (
        (tmp_path / "none.svs", "no such slide or folder"),
        (tmp_path / "a" / "empty", "no such"),
    ):
        with pytest.raises(CatalogError, match=message):
            slides.find([str(place)])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(CatalogError, match="an empty list"):
        slides.find([str(tmp_path / "empty.txt")])


def test_a_folder_of_dicom_files_is_one_slide(tmp_path: Path) -> None:
    (tmp_path / "slide7").mkdir()
    for size in (3, 9, 5):
        (tmp_path / "slide7" / f"{size}.dcm").write_bytes(b"x" * size)
    (found,) = slides.find([str(tmp_path)])
    assert (found.stem, found.size, found.uri[-5:]) == ("slide7", 9, "9.dcm")


def test_a_remote_slide_is_copied_with_its_folder_and_removed(moto_env: S3Server) -> None:
    bucket = moto_env.bucket()
    for name in ("s/one.mrxs", "s/one/Index.dat", "s/one/Data/0.dat", "s/other/0.dat"):
        storage.put(storage.join(bucket, name), name.encode())
    with slides.local_copy(storage.join(bucket, "s/one.mrxs")) as path:
        folder = path.parent
        assert path.read_bytes() == b"s/one.mrxs"
        inside = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        assert inside == ["one.mrxs", "one/Data/0.dat", "one/Index.dat"]
    assert not folder.exists()
    with pytest.raises(Rejected, match="missing"), slides.local_copy(storage.join(bucket, "s/none.svs")):
        pass


def test_storage_that_fails_is_no_fault_of_the_slide(moto_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = storage.join(moto_env.bucket(), "a.svs")

    def broken(_: str) -> None:
        raise StorageError(f"{uri}: the server does not answer")

    monkeypatch.setattr(storage, "open_input", broken)
    with pytest.raises(Rejected, match="storage_failed"), slides.local_copy(uri):
        pass
