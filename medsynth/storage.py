"""Bytes at URIs: a path, ``s3://``, ``gs://``, ``az://``, and ``package://`` for installed data.

:func:`put_new` is the commit of everything that medsynth writes: it creates an object whole or
not at all, and the first writer wins. On object storage it is ``If-None-Match: *``, on a local disk
a hard link. There is no rename, and no listing where a table will do.
"""

import functools
import importlib.resources
import importlib.util
import io
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import boto3
import obstore
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.exceptions import NotFoundError as ObjectNotFoundError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from medsynth.errors import NotFoundError, StorageError

if TYPE_CHECKING:
    from obstore import ReadableFile

T = TypeVar("T")

_SCHEMES = ("s3", "gs", "az")
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
    return _check_scheme(uri) not in _SCHEMES


def read(uri: str) -> bytes:
    """Read a whole object.

    Raises:
        NotFoundError: nothing is there.
        StorageError: it cannot be read, after retries.
    """
    if is_local(uri):
        with _local_errors(uri):
            return _path(uri).read_bytes()
    store, key = _locate(uri)
    return _remote(uri, lambda: bytes(obstore.get(store, key).bytes()))


def head(uri: str) -> FileInfo | None:
    """Size and tag of an object, or None where nothing is there."""
    try:
        if is_local(uri):
            with _local_errors(uri):
                return _local_info(uri, _path(uri))
        store, key = _locate(uri)
        meta = _remote(uri, lambda: obstore.head(store, key))
        return FileInfo(uri, meta["size"], meta["e_tag"] or "")
    except NotFoundError:
        return None


def open_input(uri: str) -> BinaryIO:
    """Open an object for reading with seeks, so that a Parquet reader fetches only what it needs."""
    if is_local(uri):
        with _local_errors(uri):
            return _path(uri).open("rb")
    store, key = _locate(uri)
    reader = _remote(uri, lambda: obstore.open_reader(store, key))
    return io.BufferedReader(_RawReader(reader, uri), buffer_size=1 << 16)


def put(uri: str, data: bytes) -> None:
    """Write an object whole, over whatever is there.

    Raises:
        StorageError: it cannot be written, after retries.
    """
    if is_local(uri):
        with _local_errors(uri):
            staged = _stage(_path(uri), data)
            staged.replace(_path(uri))
        return
    store, key = _locate(uri)
    _remote(uri, lambda: obstore.put(store, key, data, use_multipart=False))


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
            path = _path(uri)
            staged = _stage(path, data)
            try:
                os.link(staged, path)
            except FileExistsError:
                return False
            finally:
                staged.unlink(missing_ok=True)
        return True
    store, key = _locate(uri)
    if not conditional:
        if head(uri) is not None:
            return False
        put(uri, data)
        return True
    try:
        _remote(uri, lambda: obstore.put(store, key, data, mode="create", use_multipart=False))
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
        try:
            return not put_new(probe, b"second")
        except StorageError:
            return False
    finally:
        delete(probe)


def delete(uri: str) -> None:
    """Remove an object; nothing happens where none is."""
    if is_local(uri):
        with _local_errors(uri):
            _path(uri).unlink(missing_ok=True)
        return
    store, key = _locate(uri)
    try:
        _remote(uri, lambda: obstore.delete(store, key))
    except NotFoundError:
        pass


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
    for staging in _path(folder).rglob(_STAGING):
        for leftover in staging.iterdir():
            leftover.unlink(missing_ok=True)
        staging.rmdir()


def _check_scheme(uri: str) -> str:
    scheme, separator, _ = uri.partition("://")
    if separator and scheme not in (*_SCHEMES, "package", "file"):
        raise StorageError(f"{uri}: unknown scheme {scheme}://; use s3://, gs://, az:// or a path")
    return scheme if separator else ""


def _path(uri: str) -> Path:
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    if uri.startswith("package://"):
        package, _, inside = uri.removeprefix("package://").partition("/")
        if importlib.util.find_spec(package) is None:
            raise StorageError(f"{uri}: the package {package!r} is not installed; pip install it")
        return Path(str(importlib.resources.files(package))) / inside
    return Path(uri).expanduser()


def _local_info(uri: str, path: Path) -> FileInfo | None:
    status = path.stat()
    if path.is_dir():
        return None
    return FileInfo(uri, status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _stage(path: Path, data: bytes) -> Path:
    # Beside the target, since a hard link cannot cross file systems; a name of its own for each
    # writer, since two may be making the same object.
    staging = path.parent / _STAGING
    staging.mkdir(parents=True, exist_ok=True)
    staged = staging / f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
    staged.write_bytes(data)
    return staged


def _list(folder: str) -> Iterator[FileInfo]:
    if not is_local(folder):
        store, prefix = _locate(folder.rstrip("/") + "/")
        base = folder.rstrip("/").removesuffix(prefix.rstrip("/")).rstrip("/")
        for batch in _remote(folder, lambda: list(obstore.list(store, prefix or None))):
            for meta in batch:
                inside = meta["path"].removeprefix(prefix)
                if not any(part.startswith(".") for part in inside.split("/")):
                    yield FileInfo(join(base, meta["path"]), meta["size"], meta["e_tag"] or "")
        return
    with _local_errors(folder):
        root = _path(folder)
        for parent, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    path = Path(parent, name)
                    info = _local_info(join(folder, path.relative_to(root).as_posix()), path)
                    if info is not None:
                        yield info


class _local_errors:
    """Turns the operating system's errors into one-line storage errors."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise NotFoundError(f"{self.uri}: no such file or folder; check the address") from error
        if isinstance(error, OSError):
            raise StorageError(f"{self.uri}: {error.strerror}; check the path and its access rights") from error


def _remote(uri: str, call: Callable[[], T]) -> T:
    # obstore retries a request by itself, but not a write whose connection broke after it was sent;
    # every write here can be repeated, so it is.
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except AlreadyExistsError:
            raise
        except (ObjectNotFoundError, FileNotFoundError) as error:
            raise NotFoundError(f"{uri}: nothing there; check the bucket and the key") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StorageError(f"{uri}: access denied; check the credentials and the bucket's policy") from error
        except BaseError as error:
            if attempt == _ATTEMPTS - 1:
                raise StorageError(f"{uri}: {_first_line(error)}; gave up after retries") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _locate(uri: str) -> tuple[ObjectStore, str]:
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise StorageError(f"{uri}: no bucket named; write {scheme}://bucket/key")
    settings = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_"))))
    return _store(scheme, bucket, settings), key


@functools.lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, settings: tuple[tuple[str, str], ...]) -> ObjectStore:
    del settings  # part of the key only: another environment is another store
    retry = {"max_retries": 8, "retry_timeout": timedelta(seconds=120)}
    client = {"allow_http": True, "timeout": timedelta(seconds=60), "connect_timeout": timedelta(seconds=10)}
    if scheme == "gs":
        return GCSStore(bucket, retry_config=retry, client_options=client)
    if scheme == "az":
        return AzureStore(bucket, retry_config=retry, client_options=client)
    # boto3 knows profiles, SSO, instance roles and endpoint settings; obstore moves the bytes.
    session = boto3.Session()
    address = session.client("s3", region_name=session.region_name or "us-east-1").meta
    endpoint = None if ".amazonaws.com" in address.endpoint_url else address.endpoint_url
    credentials = (
        {"credential_provider": Boto3CredentialProvider(session)}
        if session.get_credentials() is not None
        else {"skip_signature": True}
    )
    return S3Store(
        bucket,
        endpoint=endpoint,
        region=address.region_name,
        retry_config=retry,
        client_options=client,
        **credentials,
    )


class _RawReader(io.RawIOBase):
    """obstore's reader behind Python's own file interface, which pyarrow takes."""

    def __init__(self, reader: "ReadableFile", uri: str) -> None:
        self._reader, self._uri = reader, uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._reader.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = _remote(self._uri, lambda: bytes(self._reader.read(len(buffer))))
        buffer[: len(data)] = data
        return len(data)
