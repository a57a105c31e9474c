"""A cluster that ``ray start --head`` made, as a platform team has one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.jobs import REPO, own_env
from tests.servers import free_port

BIN = Path(sys.executable).parent
# Nobody looks at the dashboard's figures, for which each process would tell what it does, and the agent look at each.
_UNWATCHED = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
}


@dataclass(frozen=True)
class Head:
    """A head, and what a process needs to reach it."""

    address: str
    env: dict[str, str]
    """With which ``ray`` and ``serve`` reach it."""
    folder: Path

    def run(self, tool: str, *args: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``ray`` or ``serve`` in the repository.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        line = [str(BIN / tool), *map(str, args)]
        return subprocess.run(
            line, cwd=REPO, env=self.env, capture_output=True, text=True, timeout=seconds, check=False
        )

    def processes(self) -> set[psutil.Process]:
        """All of its processes, those of its workers among them."""
        own = [one for one in psutil.process_iter(["cmdline"]) if self._is_own(one)]
        raylets = [one for one in own if one.name() == "raylet"]
        return {*own, *(below for one in raylets for below in one.children(recursive=True))}

    def _is_own(self, process: psutil.Process) -> bool:
        port = self.address.rpartition(":")[2]
        words = process.info["cmdline"] or []
        return any(str(self.folder) in word or f":{port}" in word for word in words)


@contextmanager
def started(home: Path, cpus: int, settings: dict[str, str]) -> Iterator[Head]:
    """A head on free ports, stopped by its process ids.

    Args:
        home: folder for what Ray writes into HOME, a token among it.
        cpus: that it offers.
        settings: environment variables of all its processes.
    """
    port, dashboard, agent = free_port(), free_port(), free_port()
    paths = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": f"{REPO}:{os.environ.get('PYTHONPATH', '')}"}
    env = {**own_env(), **_UNWATCHED, **settings, **paths, "HOME": str(home)}
    address = f"http://127.0.0.1:{dashboard}"
    there = {"RAY_API_SERVER_ADDRESS": address, "RAY_DASHBOARD_ADDRESS": address}
    # Its sockets lie in that folder, and their names have little room: not in pytest's.
    head = Head(f"127.0.0.1:{port}", {**env, **there}, Path(f"/tmp/ray-{port}"))
    try:
        begun = head.run(
            "ray", "start", "--head", f"--port={port}", f"--num-cpus={cpus}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",  # else one for the whole machine
            f"--temp-dir={head.folder}", "--disable-usage-stats",
            "--include-log-monitor=",  # nobody reads what it passes on
        )  # fmt: skip
        assert begun.returncode == 0, begun.stdout + begun.stderr
        yield head
    finally:
        mine = head.processes()
        for process in mine:
            with suppress(psutil.NoSuchProcess):  # some end with those before them
                process.kill()
        psutil.wait_procs(mine, timeout=20)
