"""Numbers reach the workers once each, a block each, and their answers and errors come back."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from ray.data import TaskPoolStrategy

from medsynth.distributed.exchange import answered, answers, numbers
from medsynth.errors import UserError
from tests import cluster
from tests.conftest import REPO

SCHEMA = pa.schema([("square", pa.int64()), ("rows", pa.int64()), ("error", pa.string())])


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    with cluster.joined_with(sys.modules[__name__]):
        yield


def squared(block: pa.Table, worst: int) -> pa.Table:
    def square(number: int) -> dict[str, Any]:
        if number == worst:
            raise UserError(f"{number}: no square today")
        return {"square": number**2, "rows": block.num_rows}

    return answered(block, square, SCHEMA)


def made(count: int, worst: int) -> Any:
    options: Any = {"fn_args": (worst,), "compute": TaskPoolStrategy(size=1), "num_cpus": 1}
    return numbers(count).map_batches(squared, batch_size=None, batch_format="pyarrow", **options)


@pytest.mark.slow
def test_every_number_is_answered_once() -> None:
    found = list(answers(made(5, worst=9)))
    assert Counter(answer["square"] for answer in found) == Counter([0, 1, 4, 9, 16])
    assert {answer["rows"] for answer in found} == {1}


@pytest.mark.slow
def test_an_error_of_the_users_comes_back_as_itself() -> None:
    with pytest.raises(UserError, match=r"^2: no square today$"):
        list(answers(made(3, worst=2)))
    assert stopped()


@pytest.mark.slow
def test_who_lets_go_of_the_answers_stops_the_work() -> None:
    for _ in answers(made(50, worst=99)):
        break
    assert stopped()


def stopped() -> bool:
    """Whether Ray Data's executor ends soon."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if not any("StreamingExecutor" in thread.name for thread in threading.enumerate()):
            return True
        time.sleep(0.05)
    return False


def test_an_error_of_the_programs_is_not_hidden() -> None:
    def fails(number: int) -> dict[str, Any]:
        raise ZeroDivisionError(number)

    with pytest.raises(ZeroDivisionError):
        answered(pa.table({"id": [1]}), fails, SCHEMA)


@pytest.mark.parametrize(("asked", "seen"), [(0, "looked at"), (1, "")])
def test_a_worker_does_not_look_through_all_that_it_has_loaded_when_it_ends(asked: int, seen: str) -> None:
    program = f"""
import pyarrow as pa
from medsynth.distributed.exchange import answered
class Loaded:
    def __del__(self):
        print("looked at", end="", flush=True)
loaded = Loaded()
loaded.own = loaded
del loaded
for _ in range({asked}):
    answered(pa.table({{"id": [1]}}), lambda number: {{"error": None}}, pa.schema([("error", pa.string())]))
"""
    env = {**os.environ, "PYTHONPATH": str(REPO)}  # without tests/quick_start, which has all processes end so
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == seen
