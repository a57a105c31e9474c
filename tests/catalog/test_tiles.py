"""Tile grids, and reading tiles back from files and from Parquet files."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsynth import storage
from medsynth.catalog import tiles
from medsynth.catalog.tiles import Window
from medsynth.errors import Reason, Rejected
from tests.bad_inputs import encoded, picture
from tests.servers import S3Server


@given(
    width=st.integers(16, 3000),
    height=st.integers(16, 3000),
    tile_size=st.integers(16, 512),
    stride=st.none() | st.integers(8, 600),
    margin=st.integers(0, 128),
)
def test_windows_lie_inside_and_cover_what_they_can(width, height, tile_size, stride, margin) -> None:
    windows = tiles.grid(width, height, tile_size, stride, margin)
    step = stride or tile_size
    assert len(set(windows)) == len(windows) >= 1
    for window in windows:
        assert 0 <= window.x <= width - window.width
        assert 0 <= window.y <= height - window.height
    if min(width, height) < tile_size:
        assert windows == [Window(0, 0, width, height, 0)]
        return
    side = windows[0].width
    assert {(w.width, w.height, w.margin) for w in windows} == {(side, side, (side - tile_size) // 2)}
    assert windows[0].margin == min(margin, (min(width, height) - tile_size) // 2)
    assert width - max(w.x for w in windows) - side < step
    assert height - max(w.y for w in windows) - side < step
    assert len(windows) == ((width - side) // step + 1) * ((height - side) // step + 1)


def test_the_grid_of_plain_cases() -> None:
    assert tiles.grid(256, 256, 256) == [Window(0, 0, 256, 256, 0)]
    assert [(w.x, w.y) for w in tiles.grid(600, 512, 256)] == [(0, 0), (256, 0), (0, 256), (256, 256)]
    assert [w.x for w in tiles.grid(512, 256, 256, 64)] == [0, 64, 128, 192, 256]
    assert tiles.grid(512, 512, 256, margin=32) == [Window(0, 0, 320, 320, 32)]
    assert tiles.grid(270, 270, 256, margin=32) == [Window(0, 0, 270, 270, 7)]
    assert tiles.grid(200, 500, 256) == [Window(0, 0, 200, 500, 0)]


def test_an_image_below_sixteen_pixels_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        tiles.grid(15, 1000, 256)
    assert caught.value.reason is Reason.TOO_SMALL


def hugging_face(cells: list[bytes | None]) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array([cell and {"bytes": cell, "path": None} for cell in cells], kind)})


def test_load_checks_then_decodes(tmp_path: Path) -> None:
    data = encoded(picture(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    fetched = tiles.fetch(str(tmp_path / "a.png"))
    assert fetched == data
    np.testing.assert_array_equal(tiles.load(fetched, tiles.digest(data)), picture())
    with pytest.raises(Rejected) as caught:
        tiles.load(encoded(picture(seed=1), "PNG"), tiles.digest(data))
    assert caught.value.reason is Reason.CHANGED


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    for uri, row, column in ((tmp_path / "a.png", None, None), (tmp_path / "a.parquet", 3, "image")):
        with pytest.raises(Rejected) as caught:
            tiles.fetch(str(uri), row, column)
        assert caught.value.reason is Reason.MISSING


@pytest.mark.parametrize("layout", ["struct", "binary", "large"])
def test_cells_of_parquet_files_come_back_from_many_threads(tmp_path: Path, layout: str) -> None:
    cells = [bytes([number]) * 50 for number in range(40)]
    files = []
    for number in range(6):  # more files than are kept open
        path = tmp_path / f"{number}.parquet"
        if layout == "struct":
            table = hugging_face(cells)
        else:
            table = pa.table({"image": pa.array(cells, pa.binary() if layout == "binary" else pa.large_binary())})
        pq.write_table(table, path, row_group_size=7)
        files.append(str(path))
    wanted = [(files[(row * 5) % 6], row) for row in range(40)] * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda item: tiles.fetch(item[0], item[1], "image"), wanted))
    assert found == [cells[row] for _, row in wanted]


def test_a_null_cell_and_a_row_beyond_the_end_are_rejected(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(hugging_face([b"x", None]), path)
    with pytest.raises(Rejected) as caught:
        tiles.fetch(path, 1, "image")
    assert caught.value.reason is Reason.MISSING
    for row, column in ((2, "image"), (0, "picture")):
        with pytest.raises(Rejected) as caught:
            tiles.fetch(path, row, column)
        assert caught.value.reason is Reason.CHANGED


def test_a_damaged_parquet_file_is_rejected_and_read_anew_once_mended(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 no Parquet PAR1")
    with pytest.raises(Rejected) as caught:
        tiles.fetch(str(path), 0, "image")
    assert caught.value.reason is Reason.CHANGED
    pq.write_table(hugging_face([b"x"]), path)
    assert tiles.fetch(str(path), 0, "image") == b"x"


def test_only_the_row_group_is_read(moto_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    cells = [noise.bytes(200_000) for _ in range(20)]
    sink = io.BytesIO()
    pq.write_table(hugging_face(cells), sink, row_group_size=2, compression=None, use_dictionary=False)
    uri = storage.join(moto_env.bucket(), "tiles", "groups.parquet")
    storage.put(uri, sink.getvalue())
    read = 0
    open_input = storage.open_input

    class Counted(io.RawIOBase):
        def __init__(self, file):
            self.file = file

        readable = seekable = lambda self: True

        def seek(self, offset, whence=0):
            return self.file.seek(offset, whence)

        def tell(self):
            return self.file.tell()

        def readinto(self, buffer):
            nonlocal read
            got = self.file.read(len(buffer))
            buffer[: len(got)] = got
            read += len(got)
            return len(got)

    monkeypatch.setattr(storage, "open_input", lambda uri: Counted(open_input(uri)))
    assert tiles.fetch(uri, 5, "image") == cells[5]
    assert tiles.fetch(uri, 4, "image") == cells[4]
    assert 400_000 < read < 1_000_000
