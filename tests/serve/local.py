"""The HTTP application with its models in this process: no Ray."""

import contextlib
import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from serve import api
from serve.figures import Figures, Gathered
from serve.focus import FocusService
from serve.generator import GeneratorService
from serve.http import Limits
from tests import skin_model
from tests.slides import network

BASE = "http://127.0.0.1:8000"


class LocalFocus(FocusService):
    """The focus service with fresh weights."""

    def __init__(self, limits: Limits, folder: Any) -> None:
        path = str(folder / "fresh.safetensors")
        network().save(path)
        super().__init__(path, limits.pixels)


class LocalSkin(GeneratorService):
    """The generator with random weights."""

    def __init__(self, folder: Any) -> None:
        self.uri = skin_model.save(folder)
        super().__init__(self.uri)


def client(focus: Any, limits: Limits | None = None, skin: Any = None, **options: Any) -> TestClient:
    """A client of the application; errors that nobody handles are raised in the test."""
    figures = Figures()

    async def metrics() -> bytes:
        gathered = Gathered()
        gathered.tell("ingress", figures.snapshot())
        for name, model in (("focus", focus), ("skin", skin)):
            if hasattr(model, "figures"):
                gathered.tell(name, model.figures.snapshot())
        return gathered.text()

    app = api.build(focus, skin, limits or Limits(), figures=figures, metrics=metrics, **options)
    return TestClient(app, base_url=BASE)


def encoded(picture: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, kind, **options)
    return sink.getvalue()


@contextlib.contextmanager
def server(app: Any) -> Iterator[str]:
    """The application behind a real socket; its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
        assert thread.is_alive()
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join(10)
