"""The ingress as a deployment, and what it needs of the others. No model is imported here: it starts in a moment."""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import grpc
from ray import serve
from ray.exceptions import RayActorError, RayError, TaskCancelledError
from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY  # nothing public tells
from ray.serve.context import _get_global_client
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from serve import api
from serve.figures import Figures, Gathered, Snapshot, tell_each_second
from serve.http import Problem, busy, check_address, log_as_json, tokens_of
from serve.settings import AppSettings
from serve.slides import StoredJobs
from serve.wire import About, Asked, Form, Full, Item, Judged, Misfit, Picture, Refused, SkinAbout

_FRESH_SECONDS = 1.0
_FIRST_SECONDS = 3.0
_ABOUT_SECONDS = 0.5  # where it is known already: orchestrators wait a second for readiness
_CONTROLLER_SECONDS = 3.0
_FIGURES_SECONDS = 2.0
_ANSWERING = ("RUNNING", "PENDING_MIGRATION")  # states of a replica to which Serve sends calls
# What a call of a replica ends with that is gone; the last is a gRPC call's, see serve/environment.py.
_LOST = (
    RayActorError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    TaskCancelledError,
    grpc.aio.AioRpcError,
)


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
        what: it is, for whoever gets none.
    """

    def __init__(self, handle: DeploymentHandle[Any], seconds: float, what: str = "the model") -> None:
        self._handle, self._seconds, self._what = handle, seconds, what

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
            except asyncio.CancelledError:
                response.cancel()
                raise
            except TimeoutError:
                response.cancel()
                if seconds is not None:
                    raise busy(f"{self._what} did not answer within {seconds:g} s; ask again in a second") from None
                raise Problem(504, f"no answer within {self._seconds:g} s; send fewer or smaller images") from None
            except BackPressureError:
                raise busy("more is waiting than will be answered in time; ask again in a second", 429) from None
            except _LOST:
                if last:
                    raise busy(f"{self._what}'s replica was lost; ask again in a second") from None
        raise AssertionError("unreachable")


Named = TypeVar("Named", About, SkinAbout)


class Known(Generic[Named]):
    """What a model last said of itself: one that is busy need not be asked, and is there all the same.

    Args:
        remote: the model's deployment.
        running: tells how many replicas run there with their weights loaded; called in a thread.
    """

    def __init__(self, remote: Remote, running: Callable[[], int]) -> None:
        self._remote, self._running = remote, running
        self._last: Named | None = None
        self._fresh_until = 0.0
        self._asking: asyncio.Task[Named] | None = None
        self._thread = ThreadPoolExecutor(1, "running")  # one: calls that hang do not pile up

    def heard(self, about: Named) -> None:
        """Keep what came with an answer."""
        self._last, self._fresh_until = about, time.monotonic() + _FRESH_SECONDS

    async def about(self) -> Named:
        """Which model answers, a second old at most; of one that is busy, what it said last.

        Raises:
            Problem: 429, it is busy and has never been heard; 503, no replica runs.
        """
        if self._last is not None and self._fresh:
            return self._last
        if self._asking is None or self._asking.done():  # however many want to know, it is asked once
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Named:
        try:
            self.heard(await self._remote("about", seconds=_FIRST_SECONDS if self._last is None else _ABOUT_SECONDS))
        except Problem:
            if not self._fresh and not await self._runs():
                raise busy("the model is not ready") from None
        if self._last is None:
            raise busy("the model is too busy to say which it is; ask again in a second", 429)
        return self._last

    @property
    def _fresh(self) -> bool:
        return time.monotonic() < self._fresh_until

    async def _runs(self) -> bool:
        try:
            async with asyncio.timeout(_CONTROLLER_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._running) > 0
        except (TimeoutError, RayError, RayServeException):
            return False  # nobody can say


def replicas(handle: DeploymentHandle[Any]) -> int:
    """How many of a deployment's replicas take calls, as Serve's controller says; one does once it has its weights."""
    application = serve.status().applications.get(handle.app_name)
    deployment = application.deployments.get(handle.deployment_name) if application is not None else None
    states = deployment.replica_states if deployment is not None else {}
    return sum(count for state, count in states.items() if state in _ANSWERING)


class RemoteFocus:
    """The focus model behind its deployment's handle.

    Args:
        handle: of the deployment.
        seconds: for an answer.
    """

    def __init__(self, handle: DeploymentHandle[Any], seconds: float) -> None:
        self._remote = Remote(handle, seconds)
        self._known: Known[About] = Known(self._remote, partial(replicas, handle))

    async def about(self) -> About:
        """Which model answers."""
        return await self._known.about()

    async def score(self, items: list[Item]) -> tuple[list[Judged | Refused], About]:
        """Judge images, each by itself."""
        found: list[Judged | Refused] | Full
        found, about = await self._remote("score", items)
        self._known.heard(about)
        if isinstance(found, Full):
            raise _refused(found)
        return found, about

    async def heat_map(self, item: Item, form: Form) -> tuple[bytes | Refused, About]:
        """Draw an image's focus map."""
        found: bytes | Refused | Full
        found, about = await self._remote("heat_map", item, form)
        self._known.heard(about)
        if isinstance(found, Full):
            raise _refused(found)
        return found, about


class RemoteSkin:
    """The skin generator behind its deployment's handle.

    Args:
        handle: of the deployment.
        seconds: for an answer.
    """

    def __init__(self, handle: DeploymentHandle[Any], seconds: float) -> None:
        self._remote = Remote(handle, seconds)
        self._known: Known[SkinAbout] = Known(self._remote, partial(replicas, handle))

    async def about(self) -> SkinAbout:
        """Which model answers."""
        return await self._known.about()

    async def draw(self, asked: Asked, seeds: list[int]) -> tuple[list[Picture] | Misfit, SkinAbout]:
        """Draw a picture for each seed."""
        found: list[Picture] | Misfit | Full
        found, about = await self._remote("draw", asked, seeds)
        self._known.heard(about)
        if isinstance(found, Full):
            raise _refused(found)
        return found, about


def _refused(full: Full) -> Problem:
    return busy("more is waiting than will be answered in time; ask again later", 429, full.seconds)


def listens_on(host: str | None) -> str:
    """The address at which the service can be reached.

    Args:
        host: that Serve was told. HAProxy listens on all interfaces whatever that is, if only with its own statistics.
    """
    return "0.0.0.0" if RAY_SERVE_ENABLE_HA_PROXY else host or "127.0.0.1"


@serve.ingress()
class Ingress:
    """HTTP, and nothing that takes a processor's time.

    Args:
        settings: of the application.
        focus: handle of its deployment.
        skin: handle of its deployment; None where there are no weights.
        gatherer: handle of the gatherer.

    Raises:
        UserError: others can reach the proxy, and there are no tokens.
    """

    def __init__(
        self,
        settings: AppSettings,
        focus: DeploymentHandle[Any],
        skin: DeploymentHandle[Any] | None,
        gatherer: DeploymentHandle[Any],
    ) -> None:
        self._tokens = tokens_of(os.environ)
        client = _get_global_client()
        assert client is not None, "a replica has its controller"
        check_address(listens_on(client.http_config.host), self._tokens)
        log_as_json()
        self._settings, self._gatherer = settings, Remote(gatherer, _FIGURES_SECONDS, "the gatherer of figures")
        self._focus = RemoteFocus(focus, settings.limits.seconds)
        self._skin = RemoteSkin(skin, settings.limits.seconds) if skin is not None else None
        self._figures = Figures()
        tell_each_second(self._figures, gatherer)

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Serve's name for it
        """The application, once the replica is there."""
        settings = self._settings
        jobs = None
        if settings.slides:
            jobs = StoredJobs(settings.slides, settings.focus_weights, self._focus, settings.limits.seconds)
        return api.build(
            self._focus,
            self._skin,
            settings.limits,
            tokens=self._tokens,
            figures=self._figures,
            metrics=self._metrics,
            jobs=jobs,
        )

    async def _metrics(self) -> bytes:
        found: bytes = await self._gatherer("text", seconds=_FIGURES_SECONDS)
        return found
