"""A Ray cluster that the jobs of one pytest process join: starting one costs more than most of them do.

It runs in a process of its own, which ends, and takes the cluster with it, when its standard input does: so it does
also where pytest is killed.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import ray
from ray import cloudpickle

from medsynth.distributed import one_machine
from medsynth.distributed.session import session

_REPO = Path(__file__).resolve().parent.parent


@cache
def address() -> str:
    """Where this process's cluster answers; it is started by the first call."""
    # Its input is this process's end of a pipe, which closes with this process, however that ends.
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster"],
        cwd=_REPO,
        env={name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    _KEPT.append(process)
    assert process.stdout is not None
    found = process.stdout.readline().strip()
    if not found:
        raise RuntimeError("the cluster of the tests did not start; run: python -m tests.cluster")
    return found


_KEPT: list[subprocess.Popen[str]] = []


_JOINED = ExitStack()


def join() -> None:
    """Join this process's cluster, or go on in it: every session would start its workers anew."""
    if not ray.is_initialized():
        _JOINED.enter_context(joined_at(address()))
        # It is on one machine, though a session that joins it cannot know that.
        _JOINED.enter_context(one_machine.data_without_helpers())


@contextmanager
def joined_with(module: ModuleType) -> Iterator[None]:
    """The session of :func:`join`; its workers are handed what they need of a module, since they cannot import it."""
    cloudpickle.register_pickle_by_value(module)
    join()
    yield
    cloudpickle.unregister_pickle_by_value(module)


def leave() -> None:
    """End the session of :func:`join`; nothing where there is none."""
    _JOINED.close()


@contextmanager
def joined_at(address: str) -> Iterator[None]:
    """A session of this process on the cluster that answers there."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", address)
            # The one setting of storage that tests/conftest.py makes: a session hands them on to the workers, each of
            # which would then load Ray twice.
            patch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
            stack.enter_context(session())
        yield


def _serve() -> None:
    with session(1):  # a processor for each of two pytest processes
        print(ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve()
