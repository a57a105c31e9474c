"""Numbers go out to the workers and small answers come back, one row and one block each.

Ray Data's own ``range`` and ``iter_batches`` would take a quarter of the driver's time for a block: the one pickles new
functions with each, the other hands each through three threads.
"""

import atexit
import gc
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import Dataset, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from medsynth.errors import UserError

_SCHEMA = pa.schema([("id", pa.int64())])


def numbers(count: int) -> Dataset:
    """The numbers from 0 to below ``count`` in a column ``id``."""
    made: Dataset = ray.data.read_datasource(_Numbers(count), override_num_blocks=count)
    return made


class _Numbers(Datasource):
    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._count = count

    def estimate_inmemory_data_size(self) -> int:
        return 8 * self._count

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        of_one = BlockMetadata(num_rows=1, size_bytes=8, input_files=None, exec_stats=None)
        return [ReadTask(partial(_block, number), of_one, _SCHEMA) for number in range(self._count)]


def _block(number: int) -> list[pa.Table]:
    return [pa.table({"id": [number]}, schema=_SCHEMA)]


def answered(block: pa.Table, answer: Callable[[int], Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """What a worker makes of a block of numbers.

    Args:
        block: has a column ``id``.
        answer: makes a number's row. A UserError that it raises comes back as a value: Ray would wrap it, and try
            again.
        schema: of the rows, with a column ``error`` for the text of such an error.
    """

    def row(number: int) -> Mapping[str, Any]:
        try:
            return answer(number)
        except UserError as error:
            return {"error": str(error)}

    _end_at_once()
    return pa.Table.from_pylist([row(number) for number in block["id"].to_pylist()], schema=schema)


@cache
def _end_at_once() -> None:
    # Python looks through all that a process has loaded before it ends: for a worker a second of a processor, which
    # then the card's writer or the next wave's workers go without.
    atexit.register(gc.freeze)


def answers(made: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a dataset of what :func:`answered` makes, as they are made.

    Raises:
        UserError: what a worker raised of that kind.
    """
    for bundle in made.iter_internal_ref_bundles():
        for block in ray.get(list(bundle.block_refs)):
            for row in block.to_pylist():
                if row["error"] is not None:
                    raise UserError(row["error"])
                yield row
