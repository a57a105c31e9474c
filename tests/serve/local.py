"""The HTTP application with its models in this process: no Ray."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from serve import api
from serve.figures import Figures, Gathered
from serve.focus import FocusService
from serve.http import Limits
from tests.slides import network

BASE = "http://127.0.0.1:8000"


class LocalFocus(FocusService):
    """The focus service with fresh weights."""

    def __init__(self, limits: Limits, folder: Any) -> None:
        path = str(folder / "fresh.safetensors")
        network().save(path)
        super().__init__(path, limits.pixels)


def client(focus: Any, limits: Limits | None = None, **options: Any) -> TestClient:
    """A client of the application; errors that nobody handles are raised in the test."""
    figures = Figures()

    async def metrics() -> bytes:
        gathered = Gathered()
        gathered.tell("ingress", figures.snapshot())
        if hasattr(focus, "figures"):
            gathered.tell("focus", focus.figures.snapshot())
        return gathered.text()

    app = api.build(focus, limits or Limits(), figures=figures, metrics=metrics, **options)
    return TestClient(app, base_url=BASE)


def encoded(picture: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, kind, **options)
    return sink.getvalue()
