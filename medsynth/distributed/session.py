"""The one place that starts Ray or joins it."""

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import psutil
import ray
from ray._private.authentication import authentication_token_setup  # nothing public does it; Ray is pinned
from ray.data import DataContext
from ray.exceptions import AuthenticationError

from medsynth.distributed import one_machine
from medsynth.errors import UserError

_ANSWER_SECONDS, _EXIT_SECONDS, _LOOK_SECONDS = 10, 10, 0.05
_STORAGE_SETTINGS = ("AWS_", "GOOGLE_", "AZURE_")
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray tells a submitted job its own runtime environment."""
# A local cluster has no dashboard, and nobody reads the figures for it, which cost two cores some 4 % of their time.
_UNWATCHED = {"enable_metrics_collection": False, "task_events_report_interval_ms": 0}


@contextmanager
def session(workers: int | None = None, environments: bool = True) -> Iterator[None]:
    """A Ray session: the cluster in ``RAY_ADDRESS`` or under a submitted job, else a fresh local one.

    A cluster's workers get this process's settings of object storage, so that they reach what it reaches.

    Args:
        workers: CPUs of a local cluster; by default all of this machine's.
        environments: whether workers of a local cluster may have runtime environments of their own, as those of Ray
            Train and of an application on Ray Serve may. It takes a second longer to start.

    Raises:
        UserError: the cluster cannot be reached, or spans machines without token authentication.
    """
    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")  # it counts runs for Ray's makers, in a process of its own
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    # A bare init() would first try the address of the last cluster that Ray saved, and hang where
    # that cluster is dead: hence "local".
    where: dict[str, Any] = {"address": address}
    if address:
        _demand_answer(address)
        settings = _storage_settings()
        if settings:  # even an empty environment would make each worker load Ray twice
            where["runtime_env"] = {"env_vars": settings}
    else:
        # Ray Train would watch, in a process of its own, whether this machine is about to be taken away.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        where = {"address": "local", "num_cpus": workers or os.cpu_count(), "include_dashboard": False}
        where["_system_config"] = _UNWATCHED
    where |= {"logging_level": logging.ERROR, "log_to_driver": False}
    with _quiet_core():
        if address:
            _join(address, where)
        else:
            with one_machine.small_head(environments):
                ray.init(**where)
    helpers = nullcontext() if address else one_machine.data_without_helpers()
    try:
        if address:
            _demand_token()
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        with helpers:
            yield
    finally:
        below = [] if address else _workers()
        ray.shutdown()
        # A worker of Ray 2.60 may lock itself up on its way out, and would then stay for good.
        _end(below, _EXIT_SECONDS)


def _workers() -> list[psutil.Process]:
    """The processes that this process's local cluster started."""
    raylets = [child for child in psutil.Process().children() if child.name() == "raylet"]
    return [worker for raylet in raylets for worker in raylet.children(recursive=True)]


def _end(processes: list[psutil.Process], seconds: float) -> None:
    """Let processes end for so many seconds, then kill the others, and wait for these."""
    stuck = _still_running(processes, seconds)
    for process in stuck:
        with suppress(psutil.NoSuchProcess):  # it has ended after all
            process.kill()
    _still_running(stuck, _EXIT_SECONDS)


def _still_running(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended so many seconds later."""
    end = time.monotonic() + seconds
    while (running := [one for one in processes if _runs(one)]) and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    return running


def _runs(process: psutil.Process) -> bool:
    # What has ended stays a zombie until somebody asks how; a container's first process may never do so.
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def _quiet_core() -> Iterator[None]:
    # Ray's core writes a line to the driver's terminal for each worker that Ray Data starts, as if that were an
    # error. Its level can be set, which it tells in another line, past Python: hence the silent descriptor.
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        del os.environ["RAY_BACKEND_LOG_LEVEL"]


def _join(address: str, where: dict[str, Any]) -> None:
    # `ray start` demands tokens wherever its user's home holds one, and any earlier local session has put
    # one there; but a driver shows its token only when told to.
    logging.getLogger(authentication_token_setup.__name__).setLevel(logging.ERROR)
    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        ray.init(**where)
    except (ConnectionError, AuthenticationError) as error:
        raise UserError(
            f"RAY_ADDRESS={address}: the cluster does not let this process in; put its token into RAY_AUTH_TOKEN "
            "and set RAY_AUTH_MODE=token, or unset RAY_ADDRESS"
        ) from error


def _storage_settings() -> dict[str, str]:
    # Ray refuses a variable that the submitted job's own runtime environment names too, even with the same value.
    submitted = json.loads(os.environ.get(_SUBMITTED, "{}")).get("runtime_env") or {}
    named = submitted.get("env_vars") or {}
    return {k: v for k, v in os.environ.items() if k.startswith(_STORAGE_SETTINGS) and k not in named}


def _demand_answer(address: str) -> None:
    # Ray itself waits for minutes where nothing listens.
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdecimal():
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS={address}: no cluster answers there; start one or unset RAY_ADDRESS") from error


def _demand_token() -> None:
    # Whoever reaches the ports of a cluster without tokens runs code on it (CVE-2023-48022); on one
    # machine the operating system's users are the boundary.
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    if len(machines) > 1 and _cluster_auth_mode() != "token":
        raise UserError(
            f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: the cluster spans {len(machines)} machines without token "
            "authentication; start it with RAY_AUTH_MODE=token, as cluster.yaml does"
        )


def _cluster_auth_mode() -> str | None:
    # A worker has its cluster's setting; that of this process only says what it offers.
    asked = ray.remote(num_cpus=0)(lambda: os.environ.get("RAY_AUTH_MODE")).remote()
    mode: str | None = ray.get(asked)
    return mode
