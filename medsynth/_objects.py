"""Object storage behind :mod:`medsynth.storage`: credentials from boto3, bytes by obstore, one-line errors."""

import functools
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from botocore.exceptions import BotoCoreError
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.exceptions import NotFoundError as ObjectNotFoundError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from medsynth.errors import NotFoundError, StorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")

SCHEMES = ("s3", "gs", "az")

_ATTEMPTS = 5
_PATIENCE_SECONDS = 30.0
_STORE_LOCK = threading.Lock()
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


def remote(uri: str, call: Callable[[], T]) -> T:
    """Make a request, again if need be.

    obstore retries a request by itself, but not a write whose connection broke after it was sent;
    every write here can be repeated, so it is.

    Raises:
        NotFoundError: no such object or bucket.
        AlreadyExistsError: a conditional write found an object there.
        StorageError: anything else, in one line, after about 30 seconds at the most.
    """
    start = time.monotonic()
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except AlreadyExistsError:
            raise
        except (ObjectNotFoundError, FileNotFoundError) as error:
            raise NotFoundError(f"{uri}: nothing there; check the bucket and the key") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StorageError(f"{uri}: access denied; check the credentials and the bucket's policy") from error
        except ValueError as error:
            raise StorageError(f"{uri}: {_first_line(error)}; rename the object") from error
        except BaseError as error:
            text = _first_line(error)
            if "404 Not Found" in text:  # how obstore reports the listing of a bucket that is not there
                raise NotFoundError(f"{uri}: no such bucket; check the address") from error
            if attempt == _ATTEMPTS - 1 or time.monotonic() - start > _PATIENCE_SECONDS:
                server = re.search(r"performing \w+ (\w+://[^/\s]+)", text)
                if server and "error sending request" in text:
                    text = f"{server[1]} does not answer; check the endpoint and the network"
                raise StorageError(f"{uri}: {text}") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def locate(uri: str, *, may_be_bucket: bool = False) -> tuple[ObjectStore, str]:
    """The store that a URI's bucket is in, and the key.

    Raises:
        StorageError: no bucket or no key is named, or the settings in the environment are of no use.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or not (key or may_be_bucket):
        raise StorageError(f"{uri}: no {'key' if bucket else 'bucket'} named; write {scheme}://bucket/key")
    if not _BUCKET.fullmatch(bucket):  # obstore panics on some of these
        raise StorageError(f"{uri}: {bucket!r} is no bucket's name; use letters, digits, '.', '-' and '_' alone")
    settings = tuple((k, os.environ[k]) for k in sorted(os.environ) if k.startswith(("AWS_", "GOOGLE_", "AZURE_")))
    try:
        with _STORE_LOCK:  # else the first of many threads' requests would each load boto3's models
            return _store(scheme, bucket, settings), key
    except (BotoCoreError, BaseError, ValueError) as error:
        raise StorageError(f"{uri}: {_first_line(error)}; mend the {scheme}:// settings") from error


def list_objects(folder: str) -> Iterator[tuple[str, int, str]]:
    """URI, size and tag of every object below a folder but hidden ones, in no order."""
    store, prefix = locate(folder.rstrip("/") + "/", may_be_bucket=True)
    bucket = folder.split("/")[:3]
    metas = remote(folder, lambda: [meta for batch in obstore.list(store, prefix or None) for meta in batch])
    parents = {meta["path"].rpartition("/")[0] for meta in metas} | {prefix.rstrip("/")}
    for meta in metas:
        path, size = meta["path"], meta["size"]
        if size == 0 and path in parents:
            continue  # no file, but the empty object by which S3's web console shows a folder
        if not any(part.startswith(".") for part in path.removeprefix(prefix).split("/")):
            yield "/".join([*bucket, path]), size, meta["e_tag"] or ""


@functools.lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, settings: tuple[tuple[str, str], ...]) -> ObjectStore:
    retry: RetryConfig = {"max_retries": 8, "retry_timeout": timedelta(seconds=_PATIENCE_SECONDS)}
    client: ClientConfig = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(minutes=10),  # of a whole transfer: a large shard over a thin line
    }
    if scheme == "gs":
        return GCSStore(bucket, retry_config=retry, client_options=client)
    if scheme == "az":
        return AzureStore(bucket, retry_config=retry, client_options=client)
    from obstore.auth.boto3 import Boto3CredentialProvider  # here: who uses files alone need not load boto3

    session, region, endpoint = _amazon(settings)
    known = session.get_credentials() is not None
    return S3Store(
        bucket,
        config={"endpoint": endpoint} if endpoint else None,
        region=region,
        retry_config=retry,
        client_options=client,
        skip_signature=not known,
        # boto3 renews short-lived credentials from ten minutes before they end; ask more often than that.
        credential_provider=Boto3CredentialProvider(session, ttl=timedelta(minutes=5)) if known else None,
    )


@functools.lru_cache(maxsize=8)
def _amazon(settings: tuple[tuple[str, str], ...]) -> tuple[Any, str, str | None]:
    """A session of boto3, which knows profiles, SSO, instance roles and endpoint settings; its region and endpoint."""
    del settings  # the key alone: another environment is another session
    import boto3

    session = boto3.Session()
    # Unlike every other SDK of Amazon's, boto3 does not look at AWS_REGION.
    region = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
    address = session.client("s3", region_name=region).meta.endpoint_url
    # Amazon's own addresses, None here, are obstore's business: it knows the form that each bucket and region wants.
    return session, region, None if ".amazonaws.com" in address else address


class RemoteFile(io.RawIOBase):
    """An object as a file: each read is one range request, without state that a broken connection could spoil."""

    def __init__(self, uri: str, size: int) -> None:
        self._uri, self._size, self._position = uri, size, 0
        self._whole: bytes | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to where the next read starts."""
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read as much as is asked for and there."""
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        data = remote(self._uri, lambda: self._range(end))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _range(self, end: int) -> bytes:
        store, key = locate(self._uri)
        if self._whole is None:
            try:
                return bytes(obstore.get_range(store, key, start=self._position, end=end))
            except GenericError as error:
                if "non-partial" not in str(error):
                    raise
                # rclone's server answers a range with 200 instead of 206, which obstore refuses.
                self._whole = bytes(obstore.get(store, key).bytes())
        return self._whole[self._position : end]
