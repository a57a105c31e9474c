"""An HTTP/1.1 reverse proxy that delays and fails requests, to stand before an S3 server.

Run as ``python -m tests.fault_proxy UPSTREAM_HOST:PORT PORT SETTINGS_JSON``; see
``tests.servers.FaultProxy``. It passes the Host header on, so that signatures hold.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass

import uvloop  # comes with ray[serve]; takes half of asyncio's own time, on a machine that the test shares

COUNTS_PATH = "/_proxy/counts"
FAILURES = ("error_500", "slow_down_503", "dropped_before", "dropped_after", "cut_off")
"""Answers in the server's place; a connection closed before and after the server got the request; half an answer."""

_LIMIT = 1 << 16  # of a head
_HOP_HEADERS = ("connection", "content-length", "expect", "transfer-encoding")  # hold for one connection only


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Shares are in [0, 1] and drawn for each request from the seed and its number."""

    delay_get_seconds: float = 0.0
    """Added to every GET."""
    fail_share: float = 0.0
    """Requests that fail, each in one of the ways of ``FAILURES``."""
    delay_share: float = 0.0
    """Requests that wait for ``delay_seconds``."""
    delay_seconds: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Message:
    """A request or an answer, whole."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        """A header's value in lower case, or nothing."""
        return next((value.lower() for key, value in self.headers if key.lower() == name), "")

    def reframed(self, start: str, body: bytes) -> "Message":
        """The same message with another first line, and a body of known length."""
        kept = [(k, v) for k, v in self.headers if k.lower() not in _HOP_HEADERS]
        return Message(start, [*kept, ("Content-Length", str(len(body)))], body)

    def encode(self) -> bytes:
        """The bytes for the wire."""
        head = "".join(f"{key}: {value}\r\n" for key, value in self.headers)
        return f"{self.start}\r\n{head}\r\n".encode("latin-1") + self.body


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """The proxy's state: settings, counts, and idle connections to the server behind it."""

    def __init__(self, host: str, port: int, faults: Faults) -> None:
        self.address = (host, port)
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self.idle: list[Connection] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until either side closes it."""
        keep = True
        try:
            while keep:
                request = await read_message(reader)
                if request.header("expect") == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request = request.reframed(request.start, await read_body(reader, request))
                answer, keep = await self.answer(request)
                self.counts["bytes_out"] += len(answer)
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, request: Message) -> tuple[bytes, bool]:
        """What to send back, and whether the connection stays open after it."""
        method, path, _ = request.start.split(" ", 2)
        if path == COUNTS_PATH:
            return plain("200 OK", "application/json", json.dumps(self.counts)), True
        draws = random.Random(f"{self.faults.seed}/{self.counts['requests']}")
        fault = draws.choice(FAILURES) if draws.random() < self.faults.fail_share else ""
        delayed = draws.random() < self.faults.delay_share
        self.counts.update(["requests", method, *([fault] if fault else []), *(["delayed"] if delayed else [])])
        wait = self.faults.delay_get_seconds * (method == "GET") + self.faults.delay_seconds * delayed
        if wait:
            await asyncio.sleep(wait)
        if fault == "error_500":
            return s3_error("500 Internal Server Error", "InternalError"), True
        if fault == "slow_down_503":
            return s3_error("503 Service Unavailable", "SlowDown"), True
        if fault == "dropped_before":
            return b"", False
        answer = await self.forward(request, method)
        if fault == "dropped_after":
            return b"", False
        if fault == "cut_off":
            return answer.encode()[: -(len(answer.body) // 2 + 1)], False
        return answer.encode(), True

    async def forward(self, request: Message, method: str) -> Message:
        """Ask the server behind, over an idle connection if one still lives."""
        while self.idle:
            connection = self.idle.pop()
            try:
                return await self.exchange(request, method, connection)
            except (ConnectionError, asyncio.IncompleteReadError):
                connection[1].close()
        return await self.exchange(request, method, await asyncio.open_connection(*self.address, limit=_LIMIT))

    async def exchange(self, request: Message, method: str, connection: Connection) -> Message:
        """Send a request, read its answer whole, and keep the connection if the server does."""
        reader, writer = connection
        writer.write(request.encode())
        await writer.drain()
        answer = await read_message(reader)
        version, status = answer.start.split(" ")[:2]
        start = answer.start.replace(version, "HTTP/1.1", 1)
        keep = version == "HTTP/1.1" and answer.header("connection") != "close"
        if method == "HEAD" or status in ("204", "304"):
            whole = Message(start, [(k, v) for k, v in answer.headers if k.lower() != "connection"])
        elif answer.header("content-length") or answer.header("transfer-encoding"):
            whole = answer.reframed(start, await read_body(reader, answer))
        else:
            whole, keep = answer.reframed(start, await reader.read()), False
        if keep:
            self.idle.append(connection)
        else:
            writer.close()
        return whole


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Read a first line and headers; the body stays in the stream."""
    head = await reader.readuntil(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    return Message(start, [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines)])


async def read_body(reader: asyncio.StreamReader, message: Message) -> bytes:
    """Read the body that a message's headers announce."""
    if message.header("transfer-encoding") != "chunked":
        return await reader.readexactly(int(message.header("content-length") or 0))
    chunks = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass  # trailers
    return b"".join(chunks)


def plain(status: str, kind: str, text: str) -> bytes:
    """An answer of the proxy's own."""
    return Message("", [("Content-Type", kind)]).reframed(f"HTTP/1.1 {status}", text.encode()).encode()


def s3_error(status: str, code: str) -> bytes:
    """An error as S3 words it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return plain(status, "application/xml", text)


async def main(upstream: str, port: int, faults: Faults) -> None:
    """Serve until the process is stopped."""
    host, _, upstream_port = upstream.partition(":")
    proxy = Proxy(host, int(upstream_port), faults)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", port, limit=_LIMIT, backlog=512) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), Faults(**json.loads(sys.argv[3]))))
