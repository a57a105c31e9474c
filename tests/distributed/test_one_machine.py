"""What is left out on one machine is there again afterwards. That it is left out, test_session sees."""

import inspect
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from ray._private import ray_constants, services
from ray._private.node import Node
from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager

from medsynth.distributed import one_machine

NODE = 28 * "ab"
REPLACED = [
    (Node, "start_monitor"),
    (services, "start_ray_process"),
    (services, "get_node"),
    (ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV"),
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
        with one_machine.small_head(environments=False), one_machine.data_without_helpers():
            assert not any(now is then for now, then in zip(found(), before, strict=True))
            assert _StatsManager.gen_dataset_id_from_stats_actor() != _StatsManager.gen_dataset_id_from_stats_actor()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(now is then for now, then in zip(found(), before, strict=True))


@pytest.mark.parametrize(
    ("environments", "hooked", "there"), [(False, "", False), (True, "", True), (False, "a.hook", True)]
)
def test_the_agent_for_environments_is_there_where_workers_have_one(
    environments: bool, hooked: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(services, "start_ray_process", lambda command, _: started.append(command))
    if hooked:
        monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", hooked)
    agents = {"--dashboard_agent_command=d", "--runtime_env_agent_command=e"}
    command = [f"--session_dir={tmp_path}", f"--node_id={NODE}", *agents]
    with one_machine.small_head(environments):
        services.start_ray_process(command, "raylet")
        services.start_ray_process(command, "gcs_server")
    assert agents & set(started[0]) == ({"--runtime_env_agent_command=e"} if there else set())
    assert started[1] == command


def test_agents_have_no_port_and_what_stands_for_them_ends_with_the_raylet(tmp_path: Path) -> None:
    whole = ["raylet", f"--session_dir={tmp_path}", f"--node_id={NODE}", "--labels=", "--head"]
    command = [*whole, "--dashboard_agent_command=loads for seconds", "--runtime_env_agent_command=loads too"]
    made = one_machine._without_agents(command, one_machine._DASHBOARD_AGENT)
    assert made[:5] == whole
    assert made[6] == command[6]
    ports = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(ports.values()) == {"-1"}
    assert set(ports) == {f"{name}_{NODE}" for name in one_machine._DASHBOARD_AGENT["--dashboard_agent_command"]}
    idle = shlex.split(made[5].removeprefix("--dashboard_agent_command="))
    raylet = "import os, subprocess, sys\nos.environ['RAY_RAYLET_PID'] = str(os.getpid())\nsubprocess.run(sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", raylet, *idle]) as parent:
        while not (below := psutil.Process(parent.pid).children()):
            assert parent.poll() is None
        assert psutil.wait_procs(below, timeout=1.5)[1] == below
        parent.kill()
    assert psutil.wait_procs(below, timeout=10)[1] == []
