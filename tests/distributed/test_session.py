"""One session: local by default, the named cluster where there is one, and never a hang."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest
import ray

from medsynth.distributed import session as sessions
from medsynth.distributed.session import session
from medsynth.errors import UserError
from tests.servers import free_port


@pytest.mark.slow
def test_a_local_session_has_the_asked_cpus_and_leaves_nothing_running() -> None:
    others = set(psutil.Process().children(recursive=True))
    with session(1, environments=False):
        assert ray.cluster_resources()["CPU"] == 1
        with session():  # inside another, it is the same one
            assert ray.cluster_resources()["CPU"] == 1
        assert ray.is_initialized()

        class Doubled:
            def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
                return {"id": 2 * batch["id"]}

        doubled = ray.data.range(3).map_batches(Doubled, compute=ray.data.ActorPoolStrategy(size=1))
        assert sorted(row["id"] for row in doubled.take_all()) == [0, 2, 4]

        @ray.remote
        class Deaf:
            def stop_itself(self) -> None:
                os.kill(os.getpid(), signal.SIGSTOP)  # as deaf as one that has locked itself up

        Deaf.remote().stop_itself.remote()
        deaf: list[psutil.Process] = []
        while not deaf:
            time.sleep(0.05)
            mine = set(psutil.Process().children(recursive=True)) - others
            deaf = [one for one in mine if _state(one) == psutil.STATUS_STOPPED]
        started = " ".join(word for one in mine for word in _command(one))
    assert not ray.is_initialized()
    assert sessions._still_running(list(mine), 0) == []
    assert "raylet" in started
    helpers = "dashboard.py", "log_monitor.py", "monitor.py", "StatsActor", "AutoscalingCoordinator", "LocationTracker"
    assert not [name for name in (*helpers, "DashboardAgent", "RuntimeEnvAgent") if name in started]


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):  # the first worker is on its way out
        return list(process.cmdline())
    return []


def _state(process: psutil.Process) -> str | None:
    with suppress(psutil.NoSuchProcess):
        return str(process.status())
    return None


def test_a_session_inside_another_lets_ray_data_count_no_runs_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setenv("RAY_DATA_USAGE_DISABLED", "")  # so that what the session sets is undone afterwards
    monkeypatch.delenv("RAY_DATA_USAGE_DISABLED")
    with session():
        assert os.environ["RAY_DATA_USAGE_DISABLED"] == "1"


def test_what_has_ended_is_not_waited_for_though_nobody_asked_how() -> None:
    with subprocess.Popen(["true"]) as ended, subprocess.Popen(["sleep", "60"]) as running:
        processes = [psutil.Process(one.pid) for one in (ended, running)]
        while processes[0].status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert sessions._still_running(processes, 0.1) == processes[1:]
        running.kill()
    assert sessions._still_running(processes, 0.1) == []


def test_what_does_not_end_by_itself_is_killed_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as running, subprocess.Popen(["sleep", "60"]) as ended:
        processes = [psutil.Process(one.pid) for one in (ended, running)]
        ended.kill()
        ended.wait()
        sessions._end(processes, 0)
        assert running.poll() == -signal.SIGKILL
        with monkeypatch.context() as patch:  # it ends between the look and the kill
            patch.setattr(sessions, "_still_running", lambda found, _: found)
            sessions._end(processes, 0)


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_a_dead_cluster_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    address = address.format(port=free_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(UserError, match="no cluster answers there; start one or unset RAY_ADDRESS"), session():
        pass
    assert time.monotonic() - start < 15


def test_a_clusters_workers_get_the_storage_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", list)
    with session():
        passed = given["runtime_env"]["env_vars"]
    assert (passed["AWS_PROFILE"], passed["AZURE_STORAGE_ACCOUNT_NAME"]) == ("lab", "lab")
    assert "HOME" not in passed
    # Ray refuses to start where a variable of the submitted job is named once more.
    submitted = {"runtime_env": {"env_vars": {"AWS_PROFILE": "lab"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted))
    with session():
        assert "AWS_PROFILE" not in given["runtime_env"]["env_vars"]


def test_a_cluster_of_several_machines_needs_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"NodeManagerAddress": f"10.0.0.{i}", "Alive": True} for i in range(3)]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # what this process offers says nothing of the cluster
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(sessions, "_cluster_auth_mode", lambda: None)
    with pytest.raises(UserError, match="spans 3 machines without token authentication"), session():
        pass
    monkeypatch.setattr(sessions, "_cluster_auth_mode", lambda: "token")
    with session():
        pass


def test_a_cluster_that_refuses_the_token_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match="put its token into RAY_AUTH_TOKEN"), session():
        pass
