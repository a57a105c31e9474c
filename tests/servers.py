"""Real S3 servers on free loopback ports, and a proxy that makes one slow or unreliable.

Each runs in a process of its own and is stopped by its process id. The proxy's own program is
``tests/fault_proxy.py``, moto's is ``tests/moto_app.py``. Use them as context managers; ``tests/conftest.py`` has
fixtures::

    with rclone_server(folder) as server, FaultProxy(server, Faults(delay_get_seconds=0.03)) as slow:
        os.environ |= slow.env
        bucket = server.bucket()  # "s3://bucket-1", reached through the proxy by slow.env
"""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

import boto3

from tests.fault_proxy import COUNTS_PATH, Faults

ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"
BIN = Path(sys.executable).parent
REPO = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0

__all__ = ["FaultProxy", "Faults", "S3Server", "delayed_store", "free_port", "moto_server", "rclone_server"]


@dataclass(frozen=True)
class S3Server:
    """A running S3 server, or the way to one through a proxy."""

    endpoint: str
    """http://127.0.0.1:port"""
    conditional: bool
    """Whether it keeps the condition of a put."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), repr=False)

    @property
    def env(self) -> dict[str, str]:
        """Variables that lead boto3, obstore and pyarrow to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            # Else pyarrow's client sends a trailing checksum, which rclone takes for content.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }

    def client(self):
        """A boto3 client, for looking at the server past medsynth's own code."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def bucket(self, name: str | None = None) -> str:
        """Make a new, empty bucket and give its URI."""
        name = name or f"bucket-{next(self._numbers)}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}"


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on.

    Above those of Ray's workers, and below those that Linux gives to whoever asks for any port: nobody is given it
    between this call and the start of the server that it is for.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[S3Server]:
    """moto's server; it keeps everything in memory, ``folder`` takes its log."""
    port = free_port()
    with _process([sys.executable, "-m", "tests.moto_app", str(port)], port, folder / "moto.log"):
        yield S3Server(f"http://127.0.0.1:{port}", conditional=True)


@contextlib.contextmanager
def rclone_server(folder: Path) -> Iterator[S3Server]:
    """``rclone serve s3``; the folders in ``folder``/buckets are its buckets."""
    port = free_port()
    buckets = folder / "buckets"
    buckets.mkdir(parents=True)
    command = [BIN / "rclone", "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", os.devnull]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--no-cleanup", buckets]
    with _process(command, port, folder / "rclone.log"):
        yield S3Server(f"http://127.0.0.1:{port}", conditional=False)


@contextlib.contextmanager
def delayed_store(folder: Path, seconds: float) -> Iterator[S3Server]:
    """The folders in ``folder`` as buckets to read from, each GET ``seconds`` late, at little cost of CPU."""
    port = free_port()
    command = [sys.executable, "-m", "tests.delayed_store", folder, str(port), str(seconds)]
    with _process(command, port, Path(os.devnull)):
        yield S3Server(f"http://127.0.0.1:{port}", conditional=False)


class FaultProxy:
    """An HTTP proxy before a server, in a process of its own, that delays and fails requests.

    Args:
        server: the server behind it.
        faults: what goes wrong, how often.
    """

    def __init__(self, server: S3Server, faults: Faults) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.env = replace(server, endpoint=self.endpoint).env
        upstream = re.sub("^http://", "", server.endpoint)
        settings = json.dumps(asdict(faults))
        self._command = [sys.executable, "-m", "tests.fault_proxy", upstream, str(self.port), settings]
        self._running = contextlib.ExitStack()

    def __enter__(self) -> "FaultProxy":
        self._running.enter_context(_process(self._command, self.port, Path(os.devnull)))
        return self

    def __exit__(self, *raised: object) -> None:
        self._running.close()

    def counts(self) -> dict[str, int]:
        """So far: ``requests``, by method too, ``delayed``, each fault by name, and ``bytes_out``."""
        with urllib.request.urlopen(self.endpoint + COUNTS_PATH, timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def _process(command: list, port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([str(part) for part in command], cwd=REPO, stdout=output, stderr=output)
    try:
        _await_port(process, port, log)
        yield
    finally:
        process.kill()  # it has nothing to save, and rclone takes five seconds to end in peace
        process.wait()


def _await_port(process: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args[0]} did not listen on port {port} within {_START_SECONDS:g} s")
