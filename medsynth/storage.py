"""Bytes at URIs: a path, ``s3://``, ``gs://``, ``az://``, and ``package://`` for installed data.

:func:`put_new` is the commit of everything that medsynth writes: it creates an object whole or
not at all, and the first writer wins. On object storage it is ``If-None-Match: *``, on a local disk
a hard link. There is no rename, and no listing where a table will do.
"""

import contextlib
import errno
import importlib.resources
import importlib.util
import io
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError

from medsynth import _objects
from medsynth.errors import NotFoundError, StorageError

T = TypeVar("T")

_STAGING = ".staging"
_ATTEMPTS = 5


@dataclass(frozen=True)
class FileInfo:
    """One object or file, as a listing or a head request tells."""

    uri: str
    """Where it is."""
    size: int
    """Bytes."""
    etag: str
    """The server's tag; on a local disk, size and modification time."""


def join(uri: str, *parts: str) -> str:
    """Append path parts to a folder's URI."""
    return "/".join([uri.rstrip("/"), *parts])


def absolute(uri: str) -> str:
    """The same place, written so that it does not depend on the working directory."""
    _check_scheme(uri)
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def is_local(uri: str) -> bool:
    """Whether a URI is a path on this machine (or data of an installed package)."""
    return _check_scheme(uri) not in _objects.SCHEMES


def read(uri: str) -> bytes:
    """Read a whole object.

    Raises:
        NotFoundError: nothing is there.
        StorageError: it cannot be read, after retries.
    """
    if is_local(uri):
        with _local_errors(uri):
            return _path(uri).read_bytes()
    store, key = _objects.locate(uri)
    return _objects.remote(uri, lambda: bytes(obstore.get(store, key).bytes()))


def head(uri: str) -> FileInfo | None:
    """Size and tag of an object, or None where nothing is there."""
    try:
        if is_local(uri):
            with _local_errors(uri):
                return _local_info(uri, _path(uri))
        store, key = _objects.locate(uri)
        meta = _objects.remote(uri, lambda: obstore.head(store, key))
        return FileInfo(uri, meta["size"], meta["e_tag"] or "")
    except NotFoundError:
        return None


def open_input(uri: str) -> BinaryIO:
    """Open an object for reading with seeks, so that a Parquet reader fetches only what it needs."""
    if is_local(uri):
        with _local_errors(uri):
            return _path(uri).open("rb")
    info = head(uri)
    if info is None:
        raise NotFoundError(f"{uri}: nothing there; check the bucket and the key")
    return io.BufferedReader(_objects.RemoteFile(uri, info.size), buffer_size=1 << 16)


def put(uri: str, data: bytes) -> None:
    """Write an object whole, over whatever is there.

    Raises:
        StorageError: it cannot be written, after retries.
    """
    if is_local(uri):
        with _local_errors(uri):
            _stage(_path(uri), data, lambda staged, path: staged.replace(path))
        return
    store, key = _objects.locate(uri)
    _objects.remote(uri, lambda: obstore.put(store, key, data, use_multipart=False))


def put_new(uri: str, data: bytes, *, conditional: bool = True) -> bool:
    """Create an object whole, unless one is there already.

    Args:
        uri: where.
        data: all of its bytes.
        conditional: False for a server that :func:`honours_put_new` found to ignore the condition;
            the write is then a look followed by an overwrite.

    Returns:
        True if the object is there now and was not seen before; False if one was there already,
        which may be an earlier attempt of this very call: compare the bytes if it matters.

    Raises:
        StorageError: it cannot be written, after retries.
    """
    if is_local(uri):
        with _local_errors(uri):
            return _stage(_path(uri), data, _link_new)
    store, key = _objects.locate(uri)
    if not conditional:
        if head(uri) is not None:
            return False
        put(uri, data)
        return True
    try:
        _objects.remote(uri, lambda: obstore.put(store, key, data, mode="create", use_multipart=False))
    except AlreadyExistsError:
        return False
    return True


def honours_put_new(folder: str) -> bool:
    """Find out, with a probe object, whether a server keeps the condition of :func:`put_new`.

    The probe is also the earliest moment at which an unwritable output shows.

    Raises:
        StorageError: the folder cannot be written.
    """
    probe = join(folder, f".medsynth-probe-{secrets.token_hex(8)}")
    try:
        put_new(probe, b"first")
    except NotFoundError as error:
        raise NotFoundError(
            f"{folder}: cannot be written, there is no such bucket or folder; check the address"
        ) from error
    try:
        return not put_new(probe, b"second")
    finally:
        delete(probe)


def delete(uri: str) -> None:
    """Remove an object; nothing happens where none is."""
    if is_local(uri):
        with _local_errors(uri):
            _path(uri).unlink(missing_ok=True)
        return
    store, key = _objects.locate(uri)
    with contextlib.suppress(NotFoundError):
        _objects.remote(uri, lambda: obstore.delete(store, key))


def list_files(folder: str) -> Iterator[FileInfo]:
    """All files below a folder, sorted by URI; a URI of one file gives that file.

    Hidden files and folders (a leading dot) are left out.

    Raises:
        NotFoundError: nothing is there.
    """
    found = sorted(_list(folder), key=lambda info: info.uri)
    if not found:
        one = head(folder)
        if one is None:
            raise NotFoundError(f"{folder}: no files there; check the address")
        found = [one]
    yield from found


def remove_staging(folder: str) -> None:
    """Remove what killed writers left half-written below a local folder (remote writes leave nothing)."""
    if not is_local(folder):
        return
    with _local_errors(folder):
        for staging in list(_path(folder).rglob(_STAGING)):
            for leftover in staging.iterdir():
                leftover.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a writer that still lives put in another; it cleans up itself
                staging.rmdir()


def _check_scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    if separator and scheme not in (*_objects.SCHEMES, "package", "file"):
        raise StorageError(f"{uri}: unknown scheme {scheme}://; use s3://, gs://, az:// or a path")
    return scheme if separator else ""


def _path(uri: str) -> Path:
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    if uri.startswith("package://"):
        package, _, inside = uri.removeprefix("package://").partition("/")
        if not package.isidentifier() or importlib.util.find_spec(package) is None:
            raise StorageError(f"{uri}: the package {package!r} is not installed; pip install it")
        return Path(str(importlib.resources.files(package))) / inside
    return Path(uri).expanduser()


def _local_info(uri: str, path: Path) -> FileInfo | None:
    status = path.stat()
    return None if path.is_dir() else FileInfo(uri, status.st_size, _local_tag(status))


def _local_tag(status: os.stat_result) -> str:
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _stage(path: Path, data: bytes, commit: Callable[[Path, Path], T]) -> T:
    # Beside the target, since a hard link cannot cross file systems; a name of its own for each
    # writer, since two may be making the same object.
    staging = path.parent / _STAGING
    for attempt in range(_ATTEMPTS):
        staged = staging / f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            staging.mkdir(parents=True, exist_ok=True)
            with staged.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a name must not appear before its bytes, even if the power fails
            return commit(staged, path)
        except (FileNotFoundError, FileExistsError):
            # A run that started meanwhile called remove_staging.
            if attempt == _ATTEMPTS - 1:
                raise
        except NotADirectoryError as error:
            raise StorageError(f"{path}: a part of this path is a file, not a folder; write elsewhere") from error
        finally:
            with contextlib.suppress(NotADirectoryError):
                staged.unlink(missing_ok=True)
    raise AssertionError("unreachable")


def _link_new(staged: Path, path: Path) -> bool:
    try:
        os.link(staged, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            text = f"{path}: this file system has no hard links; write to another disk or to object storage"
            raise StorageError(text) from error
        raise
    return True


def _list(folder: str) -> Iterator[FileInfo]:
    if not is_local(folder):
        yield from (FileInfo(*found) for found in _objects.list_objects(folder))
        return
    with _local_errors(folder):
        root = _path(folder)
        if not root.is_dir():
            return
        for parent, folders, names in os.walk(root, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    path = Path(parent, name)
                    # A dangling link is listed as it is, so that it is missed when it is read, not here.
                    status = path.stat() if path.exists() else path.lstat()
                    inside = path.relative_to(root).as_posix()
                    yield FileInfo(join(folder, inside), status.st_size, _local_tag(status))


def _raise(error: OSError) -> None:
    raise error


@contextlib.contextmanager
def _local_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{uri}: no such file or folder; check the address") from error
    except OSError as error:
        raise StorageError(f"{uri}: {error.strerror}; check the path and its access rights") from error
