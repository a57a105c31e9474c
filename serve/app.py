"""The service on Ray Serve: one ingress, and each model a deployment of its own behind it.

``serve run serve.app:app`` on a laptop, ``serve deploy serve/config.yaml`` on a cluster. A further model is a further
deployment that is bound here, handed to the ingress, and given its routes in :mod:`serve.api`.
"""

import os
import socket
import sys
from typing import Any, NoReturn

import ray
from ray import serve
from ray.serve._private.constants import DEFAULT_HTTP_HOST, DEFAULT_HTTP_PORT  # nothing public tells

from medsynth import spec, storage
from medsynth.errors import UserError
from serve.deployments import FocusScorer, SkinGenerator
from serve.http import check_address, tokens_of
from serve.ingress import Gatherer, Ingress, listens_on
from serve.settings import AppSettings

_JOBS = {"focus_weights": "focus", "skin_weights": "gan"}
_SHIPPED_SKIN = "package://medsynth/weights/skin.safetensors"

# On a laptop; serve/config.yaml says how it is on a cluster, and why.
_QUIET = {"enable_access_log": False}  # the ingress logs each request itself
_LIFE = {
    "graceful_shutdown_wait_loop_s": 1.0,
    "graceful_shutdown_timeout_s": 30.0,
    "health_check_period_s": 1.0,
    "health_check_timeout_s": 30.0,
    "max_surge_percent": 100,  # the old version answers until the new one can
}
_GATHERER: dict[str, Any] = {
    "max_ongoing_requests": 256,
    "ray_actor_options": {"num_cpus": 0},
    "logging_config": _QUIET,
}
_FOCUS: dict[str, Any] = {
    "max_ongoing_requests": 32,
    "max_queued_requests": 64,
    **_LIFE,
    "ray_actor_options": {"num_cpus": 0.5},  # on two cores there is room for the old version and the new
    "logging_config": _QUIET,
}
_SKIN: dict[str, Any] = {
    "max_ongoing_requests": 16,
    "max_queued_requests": 32,
    **_LIFE,
    "ray_actor_options": {"num_cpus": 0.5},  # on two cores there is room for the old version and the new
    "logging_config": _QUIET,
}
_INGRESS: dict[str, Any] = {
    "max_ongoing_requests": 1024,
    **_LIFE,
    "ray_actor_options": {"num_cpus": 0},
    "logging_config": _QUIET,
}


def app(args: dict[str, Any]) -> serve.Application:
    """The application, as ``serve run serve.app:app [key=value ...]`` and config.yaml name it.

    Args:
        args: of :class:`serve.settings.AppSettings`.

    Raises:
        UserError: the settings are wrong, others could reach the service without a token, its port is taken, or
            weights are not there.
    """
    try:
        settings = _settings(args)
        tokens = tokens_of(os.environ)
        if not ray.is_initialized():
            check_address(listens_on(DEFAULT_HTTP_HOST), tokens)
            if os.environ.get("RAY_ADDRESS") == "local":  # what is wrong here is wrong for the service
                _check_free(DEFAULT_HTTP_HOST or "127.0.0.1", DEFAULT_HTTP_PORT)
                _check_weights(settings)
    except UserError as error:
        if ray.is_initialized():  # a task of `serve deploy`, whose errors Serve tells
            raise
        _end(error)
    gatherer = serve.deployment(name="Gatherer", **_GATHERER)(Gatherer).bind()
    focus = serve.deployment(name="FocusScorer", **_FOCUS)(FocusScorer).bind(
        settings.focus_weights, settings.limits.pixels, gatherer
    )
    skin = None
    if settings.skin_weights is not None:
        skin = serve.deployment(name="SkinGenerator", **_SKIN)(SkinGenerator).bind(settings.skin_weights, gatherer)
    ingress: serve.Application = serve.deployment(name="Ingress", **_INGRESS)(Ingress).bind(
        settings, focus, skin, gatherer
    )
    return ingress


def _check_weights(settings: AppSettings) -> None:
    # Replicas would say so too, three times, in a hundred lines.
    for key in ("focus_weights", "skin_weights"):
        uri = getattr(settings, key)
        if uri is not None and storage.head(uri) is None:
            raise UserError(f"{key}: {uri}: no such file; name the weights that jobs/train_{_JOBS[key]}.py made")


def _check_free(host: str, port: int) -> None:
    # Serve itself would try for half a minute, and bury in tracebacks what it found.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
        except OSError as error:
            text = f"{host}:{port}: {error.strerror}; stop what listens there, or serve a config.yaml with another port"
            raise UserError(text) from error


def _settings(args: dict[str, Any]) -> AppSettings:
    found = spec.parse(AppSettings, args, "args")
    skin = found.skin_weights
    if skin is None and storage.head(_SHIPPED_SKIN) is not None:
        skin = _SHIPPED_SKIN
    places = {"focus_weights": found.focus_weights, "skin_weights": skin}
    whole = {key: uri if uri is None else storage.absolute(uri) for key, uri in places.items()}
    return found.model_copy(update=whole)


def _end(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)
