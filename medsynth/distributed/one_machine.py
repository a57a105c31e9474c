"""Ray on one machine alone, without the processes that it keeps for clusters.

Nothing public leaves them out; Ray is pinned.
"""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import uuid4

import ray
from ray._private.node import Node
from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler
from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import AutoscalingCoordinator
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager


def small_head() -> AbstractContextManager[None]:
    """Let a head start without what a job on one machine asks nothing, while the context lasts.

    These are what serves the dashboard, even where there is none, what hands the workers' output on, and what adds
    machines. They take a third of a start, and two cores' time after it.
    """
    return _replaced(Node, start_api_server=_nothing, start_log_monitor=_nothing, start_monitor=_nothing)


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
