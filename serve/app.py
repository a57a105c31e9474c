"""The service on Ray Serve: one ingress, and each model a deployment of its own behind it.

``serve run serve.app:app`` on a laptop, ``serve deploy serve/config.yaml`` on a cluster. A further model is a further
deployment that is bound here, handed to the ingress, and given its routes in :mod:`serve.api`.
"""

import asyncio
import os
import sys
import time
from typing import Any, NoReturn

import ray
from ray import serve
from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve._private.constants import DEFAULT_HTTP_HOST, RAY_SERVE_ENABLE_HA_PROXY  # nothing public tells
from ray.serve.context import _get_global_client
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from medsynth import spec, storage
from medsynth.errors import UserError
from serve import api
from serve.figures import Figures, Gathered, Snapshot, tell_each_second
from serve.focus import About, FocusScorer, Form, Item, Judged, Refused
from serve.http import Limits, Problem, busy, check_address, log_as_json, tokens_of
from serve.slides import SlideSettings, StoredJobs

_ABOUT_SECONDS = 3.0

# On a laptop; serve/config.yaml says how it is on a cluster, and why.
_QUIET = {"enable_access_log": False}  # the ingress logs each request itself
_GATHERER: dict[str, Any] = {
    "max_ongoing_requests": 256,
    "ray_actor_options": {"num_cpus": 0},
    "logging_config": _QUIET,
}
_FOCUS: dict[str, Any] = {
    "max_ongoing_requests": 32,
    "max_queued_requests": 64,
    "graceful_shutdown_timeout_s": 30.0,
    "ray_actor_options": {"num_cpus": 1},
    "logging_config": _QUIET,
}
_INGRESS: dict[str, Any] = {
    "max_ongoing_requests": 1024,
    "graceful_shutdown_timeout_s": 30.0,
    "ray_actor_options": {"num_cpus": 0},
    "logging_config": _QUIET,
}


class AppSettings(spec.Settings):
    """What ``args`` in config.yaml may say, or ``key=value`` behind ``serve run serve.app:app``."""

    focus_weights: str | None = None
    """URI of the focus network's weights; the shipped ones by default."""
    limits: Limits = Limits()
    slides: SlideSettings | None = None
    """Where slides may be read and jobs are kept; without it /v1/focus/slides answers 404."""


class Gatherer:
    """Sums the figures of all replicas."""

    def __init__(self) -> None:
        self._gathered = Gathered()

    async def tell(self, source: str, snapshot: Snapshot) -> None:
        """Take a replica's figures."""
        self._gathered.tell(source, snapshot)

    async def text(self) -> bytes:
        """The sum, for Prometheus."""
        return self._gathered.text()


class Remote:
    """Calls of a deployment, whose failures are HTTP problems.

    Models are pure: a call whose replica dies is sent once more, to another.

    Args:
        handle: of the deployment.
        seconds: for an answer.
    """

    def __init__(self, handle: DeploymentHandle[Any], seconds: float) -> None:
        self._handle, self._seconds = handle, seconds

    async def __call__(self, method: str, *args: Any, seconds: float | None = None) -> Any:
        """The method's answer.

        Raises:
            Problem: 429, its queue is full; 503, no replica; 504, too slow.
        """
        deadline = time.monotonic() + (seconds or self._seconds)
        for last in (False, True):
            response = getattr(self._handle, method).remote(*args)
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await response
            except TimeoutError:
                response.cancel()
                if seconds is not None:
                    raise busy("the model is not ready") from None
                raise Problem(504, f"no answer within {self._seconds:g} s; send fewer or smaller images") from None
            except BackPressureError:
                raise busy("more is waiting than will be answered in time; ask again in a second", 429) from None
            except (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError, TaskCancelledError):
                if last:
                    raise busy("the model's replica was lost; ask again in a second") from None
        raise AssertionError("unreachable")


class RemoteFocus:
    """The focus model behind its deployment's handle.

    Args:
        handle: of the deployment.
        seconds: for an answer.
    """

    def __init__(self, handle: DeploymentHandle[Any], seconds: float) -> None:
        self._remote = Remote(handle, seconds)

    async def about(self) -> About:
        """Which model answers."""
        found: About = await self._remote("about", seconds=_ABOUT_SECONDS)
        return found

    async def score(self, items: list[Item]) -> tuple[list[Judged | Refused], About]:
        """Judge images, each by itself."""
        found: tuple[list[Judged | Refused], About] = await self._remote("score", items)
        return found

    async def heat_map(self, data: bytes, mpp: float | None, form: Form) -> tuple[bytes | Refused, About]:
        """Draw an image's focus map."""
        found: tuple[bytes | Refused, About] = await self._remote("heat_map", data, mpp, form)
        return found


@serve.ingress()
class Ingress:
    """HTTP, and nothing that takes a processor's time.

    Args:
        settings: of the application.
        focus: handle of its deployment.
        gatherer: handle of the gatherer.

    Raises:
        UserError: others can reach the proxy, and there are no tokens.
    """

    def __init__(
        self,
        settings: AppSettings,
        focus: DeploymentHandle[Any],
        gatherer: DeploymentHandle[Any],
    ) -> None:
        self._tokens = tokens_of(os.environ)
        client = _get_global_client()
        assert client is not None, "a replica has its controller"
        check_address(client.http_config.host, self._tokens)
        log_as_json()
        self._settings, self._gatherer = settings, Remote(gatherer, 2.0)
        self._focus = RemoteFocus(focus, settings.limits.seconds)
        self._figures = Figures()
        tell_each_second(self._figures, gatherer)

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Serve's name for it
        """The application, once the replica is there."""
        settings = self._settings
        jobs = StoredJobs(settings.slides, settings.focus_weights, self._focus) if settings.slides else None
        return api.build(
            self._focus,
            settings.limits,
            tokens=self._tokens,
            figures=self._figures,
            metrics=self._metrics,
            jobs=jobs,
        )

    async def _metrics(self) -> bytes:
        found: bytes = await self._gatherer("text", seconds=2.0)
        return found


def app(args: dict[str, Any]) -> serve.Application:
    """The application, as ``serve run serve.app:app [key=value ...]`` and config.yaml name it.

    Args:
        args: of :class:`AppSettings`.

    Raises:
        UserError: the settings are wrong, or others could reach the service without a token.
    """
    try:
        settings = spec.parse(AppSettings, args, "args")
        if settings.focus_weights is not None:
            settings = settings.model_copy(update={"focus_weights": storage.absolute(settings.focus_weights)})
        tokens = tokens_of(os.environ)
        if not ray.is_initialized():
            check_address("0.0.0.0" if RAY_SERVE_ENABLE_HA_PROXY else DEFAULT_HTTP_HOST or "127.0.0.1", tokens)
    except UserError as error:
        if ray.is_initialized():  # a task of `serve deploy`, whose errors Serve tells
            raise
        _end(error)
    gatherer = serve.deployment(name="Gatherer", **_GATHERER)(Gatherer).bind()
    focus = serve.deployment(name="FocusScorer", **_FOCUS)(FocusScorer).bind(
        settings.focus_weights, settings.limits.pixels, gatherer
    )
    ingress: serve.Application = serve.deployment(name="Ingress", **_INGRESS)(Ingress).bind(settings, focus, gatherer)
    return ingress


def _end(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)
