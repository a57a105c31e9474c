"""moto's S3 server, whose conditional writes are one step as S3's are: moto itself looks first and writes later.

``python -m tests.moto_app PORT``; ``tests/servers.py`` starts it. A listing holds 100 keys, where S3's hold 1,000.
"""

import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import run_simple


class OneWriteAtATime:
    """A WSGI application behind a lock for everything that writes."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._app(environ, start_response)
        with self._lock:
            return self._app(environ, start_response)


if __name__ == "__main__":
    os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = "100"
    moto = OneWriteAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), moto, threaded=True, request_handler=MotoRequestHandler)
