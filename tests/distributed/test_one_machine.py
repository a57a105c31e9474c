"""What is left out on one machine is there again afterwards. That it is left out, test_session sees."""

import inspect

import pytest
from ray._private.node import Node
from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager

from medsynth.distributed import one_machine

REPLACED = [
    (Node, "start_monitor"),
    (_StatsManager, "register_dataset_to_stats_actor"),
    (_StatsManager, "gen_dataset_id_from_stats_actor"),
    (actor_pool_map_operator, "get_actor_locations"),
    (rate_based_cluster_autoscaler, "DefaultAutoscalingCoordinator"),
]


def found() -> list[object]:
    return [inspect.getattr_static(target, name) for target, name in REPLACED]


def test_ray_is_as_it_was_afterwards() -> None:
    before = found()

    def interrupted() -> None:
        with one_machine.small_head(), one_machine.data_without_helpers():
            assert not any(now is then for now, then in zip(found(), before, strict=True))
            assert _StatsManager.gen_dataset_id_from_stats_actor() != _StatsManager.gen_dataset_id_from_stats_actor()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(now is then for now, then in zip(found(), before, strict=True))
