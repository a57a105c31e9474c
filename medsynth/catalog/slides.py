"""Slides: opened by their path, read region by region, never as a whole.

Scanners' own formats go through OpenSlide, Aperio's JPEG and other TIFFs tile by tile through tifffile, and what is
left is an ordinary image, decoded once.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import openslide
from PIL import Image

from medsynth import images, storage
from medsynth.errors import CatalogError, NotFoundError, Reason, Rejected, StorageError
from medsynth.images import Pixels
from medsynth.images.tiled import TiledTiff

SUFFIXES = frozenset(
    (".svs", ".ndpi", ".mrxs", ".dcm", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".czi", ".tif", ".tiff")
) | {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}
"""Endings of files that a folder of slides is searched for."""

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_BAND_PIXELS = 16_000_000
_COPY_BYTES = 16 << 20


class Slide(Protocol):
    """A picture that is read region by region."""

    sizes: tuple[tuple[int, int], ...]
    """Width and height of each level in its own pixels, the largest first."""
    mpp: float | None
    """Micrometres per pixel of the largest level, where the file tells."""

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> Pixels:
        """A region inside a level, in that level's own pixels, as uint8 of shape (height, width, 3)."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class Source:
    """A slide as it was listed."""

    uri: str
    size: int
    """Bytes of its main file."""
    etag: str

    @property
    def stem(self) -> str:
        """Its name without folder and ending; of a DICOM slide, its folder's."""
        path = PurePosixPath(self.uri)
        if path.suffix.lower() == ".dcm":
            return path.parent.name or path.stem
        name = path.stem
        return name.removesuffix(".ome") if path.suffix.lower() in (".tif", ".tiff") else name


def find(places: list[str], out: str | None = None) -> list[Source]:
    """List slides.

    Args:
        places: slides, folders or buckets of slides, or text files (.txt, .csv) with one such place a line.
        out: a folder whose pictures are never slides, where it lies inside one of the places.

    Returns:
        Each slide once, in the order of the places and then by name; a folder of .dcm files is one slide.

    Raises:
        CatalogError: a place holds no slide.
        StorageError: a place cannot be read.
    """
    found: dict[str, Source] = {}
    for place in places:
        for source in _find(place, out):
            found.setdefault(source.uri, source)
    return list(found.values())


def _find(place: str, out: str | None, *, in_list: bool = True) -> list[Source]:
    uri = storage.absolute(place)
    if in_list and PurePosixPath(uri).suffix.lower() in (".txt", ".csv"):
        return [source for line in _lines(uri) for source in _find(line, out, in_list=False)]
    try:
        listed = [Source(info.uri, info.size, info.etag) for info in storage.list_files(uri.rstrip("/"))]
    except NotFoundError as error:
        raise CatalogError(f"{place}: no such slide or folder; check the address") from error
    if len(listed) == 1 and listed[0].uri == uri:
        return listed
    slides = [source for source in listed if PurePosixPath(source.uri).suffix.lower() in SUFFIXES]
    if out is not None:
        slides = [source for source in slides if not source.uri.startswith(out.rstrip("/") + "/")]
    largest: dict[str, Source] = {}  # OpenSlide takes any file of a DICOM folder for the slide
    for source in slides:
        key = source.uri.rpartition("/")[0] if source.uri.lower().endswith(".dcm") else source.uri
        if key not in largest or source.size > largest[key].size:
            largest[key] = source
    if not largest:
        raise CatalogError(f"{place}: no slides among its {len(listed)} files; check the address")
    return list(largest.values())


def _lines(uri: str) -> list[str]:
    try:
        text = storage.read(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{uri}: not a text file; write one slide's path or URI a line") from error
    lines = [line.strip() for line in text.splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise CatalogError(f"{uri}: an empty list; write one slide's path or URI a line")
    return named


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Slide]:
    """Open a slide; a remote one is copied to this machine and removed afterwards.

    Raises:
        Rejected: it cannot be had, is damaged or of no supported kind.
    """
    with local_copy(uri) as path:
        slide = open_slide(path)
        try:
            yield slide
        finally:
            slide.close()


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """The slide as a local file, with the files that belong to it beside it.

    Raises:
        Rejected: it cannot be had.
    """
    if storage.is_local(uri):
        if uri.startswith("package://"):
            raise Rejected(Reason.UNSUPPORTED, "data of a package; name a path")
        yield Path(uri.removeprefix("file://"))
        return
    with tempfile.TemporaryDirectory(prefix="medsynth-slide-") as folder:
        try:
            for one, inside in _files(uri):
                target = Path(folder, inside)
                target.parent.mkdir(parents=True, exist_ok=True)
                with storage.open_input(one) as remote, target.open("wb") as file:
                    shutil.copyfileobj(remote, file, _COPY_BYTES)
        except NotFoundError as error:
            raise Rejected(Reason.MISSING, str(error)) from error
        except StorageError as error:
            raise Rejected(Reason.STORAGE, str(error)) from error
        yield Path(folder, PurePosixPath(uri).name)


def _files(uri: str) -> Iterator[tuple[str, str]]:
    """The files of a slide, and where each lies beside the first."""
    parent, _, name = uri.rpartition("/")
    yield uri, name
    path = PurePosixPath(name)
    others = {".mrxs": f"{parent}/{path.stem}", ".dcm": parent}.get(path.suffix.lower())
    if others is not None:
        for info in storage.list_files(others):
            if info.uri != uri:
                yield info.uri, info.uri.removeprefix(parent + "/")


def open_slide(path: Path) -> Slide:
    """Open a local slide.

    Raises:
        Rejected: it is missing, damaged or of no supported kind.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise Rejected(Reason.MISSING, f"{error.strerror}") from error
    if not start:
        raise Rejected(Reason.TRUNCATED, "the file is empty")
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor == "aperio":
        # The same pixels in a fifth of the time: OpenSlide goes through ARGB and back.
        try:
            tiled = TiledTiff(path)
            if tiled.plain_jpeg:
                return tiled
            tiled.close()
        except Rejected as why:
            if why.reason is Reason.TRUNCATED:
                raise
    if vendor is not None and vendor != "generic-tiff":
        return _Scanned(path)
    if start[:4] in _TIFF:
        return TiledTiff(path)
    if path.suffix.lower() in (".mrxs", ".vms", ".vmu", ".dcm", ".czi"):
        raise Rejected(Reason.UNREADABLE, "OpenSlide does not know it; are all of its files there?")
    return _Decoded(path)


class _Scanned:
    """A scanner's own format, by OpenSlide."""

    def __init__(self, path: Path) -> None:
        try:
            self._slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise Rejected(Reason.UNREADABLE, _one_line(error)) from error
        self.sizes: tuple[tuple[int, int], ...] = self._slide.level_dimensions
        sides = [_number(self._slide.properties.get(name)) for name in ("openslide.mpp-x", "openslide.mpp-y")]
        known = [side for side in sides if side is not None]
        self.mpp = images.plausible_mpp(sum(known) / len(known)) if known else None

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> Pixels:
        scale = self._slide.level_downsamples[level]
        try:
            region = self._slide.read_region((round(x * scale), round(y * scale)), level, (width, height))
        except (openslide.OpenSlideError, OSError) as error:
            raise Rejected(Reason.UNREADABLE, _one_line(error)) from error
        samples = np.asarray(region)
        cover = samples[:, :, 3:]
        if int(cover.min()) == 255:
            return np.ascontiguousarray(samples[:, :, :3])
        # What was never scanned is transparent: glass.
        wide = samples[:, :, :3].astype(np.uint32) * cover + 255 * (255 - cover.astype(np.uint32))
        over: Pixels = ((wide + 127) // 255).astype(np.uint8)
        return over

    def close(self) -> None:
        self._slide.close()


class _Decoded:
    """An ordinary image, small enough to be held."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self._pixels = images.decode(data)
        self.sizes: tuple[tuple[int, int], ...] = ((self._pixels.shape[1], self._pixels.shape[0]),)
        self.mpp = images.mpp(data)

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> Pixels:
        del level  # there is one
        return self._pixels[y : y + height, x : x + width]

    def close(self) -> None:
        pass


def overview(slide: Slide, factor: int) -> Pixels:
    """The whole slide, reduced; read in bands, from the smallest level that is large enough.

    Args:
        slide: an open slide.
        factor: pixels of the largest level per pixel of the result, along each side.

    Returns:
        uint8 array of shape (ceil(height / factor), ceil(width / factor), 3): means over squares.

    Raises:
        Rejected: a region is damaged.
    """
    width, height = slide.sizes[0]
    fitting = [at for at, size in enumerate(slide.sizes) if width / size[0] <= factor * 1.01]
    level = max(fitting, key=lambda at: width / slide.sizes[at][0])
    wide, tall = slide.sizes[level]
    step_x, step_y = factor * wide / width, factor * tall / height
    columns, rows = -(-width // factor), -(-height // factor)
    result = np.empty((rows, columns, 3), np.uint8)
    each = max(1, int(_BAND_PIXELS / (wide * step_y)))
    for first in range(0, rows, each):
        last = min(rows, first + each)
        top, bottom = int(first * step_y), min(tall, int(np.ceil(last * step_y)))
        band = Image.fromarray(slide.read(0, top, wide, bottom - top, level))
        box = (0.0, first * step_y - top, min(wide, columns * step_x), min(tall, last * step_y) - top)
        result[first:last] = np.asarray(band.resize((columns, last - first), Image.Resampling.BOX, box))
    return result


def _one_line(error: Exception) -> str:
    return f"OpenSlide: {' '.join(str(error).split())[:200]}"


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
