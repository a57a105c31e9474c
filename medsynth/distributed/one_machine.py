"""Ray on one machine alone, without the processes that it keeps for clusters.

Nothing public leaves them out; Ray is pinned.
"""

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import ray
from ray._private import ray_constants, services
from ray._private.node import Node
from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler
from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import AutoscalingCoordinator
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager

_CORE: Any = ray._raylet  # it has no types
_REGISTERED_SECONDS, _LOOK_SECONDS = 30, 0.02
_DASHBOARD_AGENT = {
    "--dashboard_agent_command": [
        _CORE.METRICS_AGENT_PORT_NAME,
        _CORE.METRICS_EXPORT_PORT_NAME,
        _CORE.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    ]
}
_ENVIRONMENT_AGENT = {"--runtime_env_agent_command": [_CORE.RUNTIME_ENV_AGENT_PORT_NAME]}
# A raylet ends when one of its agents does: something has to stand there for as long as the raylet runs.
_IDLE = "import os, time\nwhile os.getppid() == int(os.environ['RAY_RAYLET_PID']): time.sleep(1)"


@contextmanager
def small_head(environments: bool) -> Iterator[None]:
    """Let a head start without what a job on one machine asks nothing, while the context lasts.

    These are what serves the dashboard, even where there is none, and its agent, what hands the workers' output on,
    and what adds machines. They take half of a start, and two cores' time after it.

    Args:
        environments: whether workers may have runtime environments of their own, as Ray Train's do. Where not, the
            agent that makes them is left out too, and a session would end at the first worker that asks for one;
            unless RAY_RUNTIME_ENV_HOOK gives one to all of them. Under `uv run` Ray would do so too, each of them a
            `uv run` in a copy of the folder; here they run what this process runs.
    """
    needed = environments or ray_constants.RAY_RUNTIME_ENV_HOOK in os.environ
    absent = _DASHBOARD_AGENT if needed else _DASHBOARD_AGENT | _ENVIRONMENT_AGENT
    start: Any = services.start_ray_process
    look: Any = services.get_node

    def start_without(command: list[str], process_type: str, *others: Any, **named: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            command = _without_agents(command, absent)
        return start(command, process_type, *others, **named)

    def look_soon(gcs_address: str, node_id: str) -> Any:
        _wait_for(gcs_address, node_id)
        return look(gcs_address, node_id)

    with (
        _replaced(Node, start_api_server=_nothing, start_log_monitor=_nothing, start_monitor=_nothing),
        _replaced(services, start_ray_process=start_without, get_node=look_soon),
        _replaced(ray_constants, RAY_ENABLE_UV_RUN_RUNTIME_ENV=False),
    ):
        yield


def _without_agents(command: list[str], absent: dict[str, list[str]]) -> list[str]:
    """The raylet's command, where agents are told to have no port, and idle processes stand for them."""
    given = dict(word.split("=", 1) for word in command if "=" in word)
    for name in (port for ports in absent.values() for port in ports):
        _CORE.persist_port(given["--session_dir"], given["--node_id"], name, -1)
    idle = subprocess.list2cmdline([sys.executable, "-I", "-S", "-c", _IDLE])
    return [f"{name}={idle}" if (name := word.split("=", 1)[0]) in absent else word for word in command]


def _wait_for(gcs_address: str, node_id: str) -> None:
    """Wait until a node has registered, or for so long; Ray itself would look once a second."""
    client = _CORE.GcsClient(address=gcs_address)
    end = time.monotonic() + _REGISTERED_SECONDS
    while node_id not in {node.hex() for node in client.get_all_node_info()} and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)


@contextmanager
def data_without_helpers() -> Iterator[None]:
    """Let this process's datasets run without three actors, while the context lasts.

    They gather figures for the dashboard, know which machine an actor is on, and share the machines out. Each takes
    three seconds of a processor to start, when the workers start too, and then wakes a hundred times a second beside
    them. On one machine the driver can answer what they are asked.
    """
    told = ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics")
    figures = dict.fromkeys(told, staticmethod(_nothing))
    names = {"gen_dataset_id_from_stats_actor": staticmethod(lambda: uuid4().hex)}
    places = {"get_or_create_actor_location_tracker": Tracker, "get_actor_locations": lambda _: {}}
    with (
        _replaced(_StatsManager, **figures, **names),
        _replaced(actor_pool_map_operator, **places),
        _replaced(rate_based_cluster_autoscaler, DefaultAutoscalingCoordinator=WholeMachine),
    ):
        yield


@contextmanager
def _replaced(target: Any, **by: Any) -> Iterator[None]:
    whole = {name: inspect.getattr_static(target, name) for name in by}
    for name, value in by.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name, value in whole.items():
            setattr(target, name, value)


def _nothing(*_: object, **__: object) -> None:
    pass


class _Unheard:
    remote = staticmethod(_nothing)


class Tracker:
    """Stands where an actor does that workers tell which machine they are on."""

    update_actor_location = _Unheard


class WholeMachine(AutoscalingCoordinator):
    """Gives every dataset the whole machine, to which nothing can be added."""

    def __init__(self, **_: object) -> None:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        self._resources: dict[str, dict[str, float]] = {node["NodeID"]: node["Resources"] for node in nodes}

    def request_resources(self, *_: object, **__: object) -> None:
        """Ask for more, which there is not."""

    def cancel_request(self) -> None:
        """Take that back."""

    def get_reserved_resources(self) -> dict[str, dict[str, float]]:
        """All there is, by node."""
        return self._resources
