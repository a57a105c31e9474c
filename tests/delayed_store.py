"""Folders as S3 buckets that answer every GET late, at next to no cost of CPU.

Run as ``python -m tests.delayed_store FOLDER PORT SECONDS``; see ``tests.servers.delayed_store``. For benchmarks alone:
a store that is far away takes time and none of this machine's cores. rclone and a proxy before it take 0.45 ms of CPU a
GET, four times as much as this, and a benchmark on the same cores would count that as the job's. Whole objects only;
nothing is checked, not even who asks.
"""

import asyncio
import sys
from email.utils import formatdate
from pathlib import Path

import uvloop


class Store(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.received = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is a whole head; a GET has no body."""
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
            late = self.seconds if method == "GET" else 0.0
            asyncio.get_running_loop().call_later(late, self.answer, method, path)

    def answer(self, method: str, path: str) -> None:
        """Send an object, or say that there is none."""
        file = self.folder / path.split("?")[0].lstrip("/")
        if method not in ("GET", "HEAD") or not file.is_file():
            self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        body, changed = file.read_bytes(), int(file.stat().st_mtime)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nETag: \"{changed:x}-{len(body):x}\"\r\n"
            f"Last-Modified: {formatdate(changed, usegmt=True)}\r\nContent-Type: image/jpeg\r\n\r\n"
        )  # fmt: skip
        self.transport.write(head.encode() + (body if method == "GET" else b""))


async def main(folder: Path, port: int, seconds: float) -> None:
    """Serve until the process is stopped."""
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Store(folder, seconds), "127.0.0.1", port, backlog=512) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
