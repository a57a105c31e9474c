"""A corpus as a torch dataset; apart from the reader, so that nothing else waits for torch's import."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from medsynth import storage
from medsynth.corpus.reader import Corpus, decode
from medsynth.seeds import digest64, permute

_BATCH = 64


class TorchRows(IterableDataset[Any]):
    """The rows of a corpus, each of them exactly once over all ranks and workers.

    The shards, laid end to end in the epoch's order, are cut into as many runs of rows as there are
    consumers. A shard at a cut is opened by two of them; in return no consumer gets more than one row
    more than another, however few the shards are.

    Args:
        corpus: what to read.
        columns: the keys of each dict.
        transform: called with each dict, or None.
        shuffle_seed: seed of the order of shards and of rows within a shard, or None for the manifest's order.
    """

    def __init__(
        self,
        corpus: Corpus,
        columns: list[str],
        transform: Callable[[dict[str, Any]], Any] | None,
        shuffle_seed: int | None,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.columns = columns
        self.transform = transform
        self.shuffle_seed = shuffle_seed
        # In shared memory, so that workers that live on from epoch to epoch see a new one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch, before it starts: another epoch is another order where there is a shuffle seed."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Any]:
        consumer, consumers = _consumer()
        order = self._shard_order()
        total = len(self.corpus)
        first, last = consumer * total // consumers, (consumer + 1) * total // consumers
        ends = list(accumulate(self.corpus.rows[shard] for shard in order))
        for shard, end in zip(order, ends, strict=True):
            start = end - self.corpus.rows[shard]
            if start < last and first < end:
                yield from self._rows(shard, max(first - start, 0), min(last, end) - start)

    def _shard_order(self) -> list[int]:
        places = self._shuffled(np.arange(len(self.corpus.paths), dtype=np.int64), "shards")
        return [int(place) for place in places]

    def _rows(self, shard: int, first: int, last: int) -> Iterator[Any]:
        with storage.open_input(storage.join(self.corpus.uri, self.corpus.paths[shard])) as file:
            table = pq.ParquetFile(file).read(columns=self.columns)
        places = self._shuffled(np.arange(table.num_rows, dtype=np.int64), self.corpus.paths[shard])[first:last]
        for start in range(0, len(places), _BATCH):
            for row in table.take(pa.array(places[start : start + _BATCH])).to_pylist():
                if "image" in row:
                    row["image"] = torch.from_numpy(decode(row["image"]["bytes"])).permute(2, 0, 1).contiguous()
                yield self.transform(row) if self.transform else row

    def _shuffled(self, places: NDArray[np.int64], what: str) -> NDArray[np.int64]:
        if self.shuffle_seed is None or not len(places):
            return places
        return permute(places, len(places), digest64(self.shuffle_seed, int(self._epoch), what))


def _consumer() -> tuple[int, int]:
    # The ranks' shares first, and each rank's workers within its share: a rank's rows then do not depend
    # on how many workers another rank has.
    ranked = distributed.is_available() and distributed.is_initialized()
    rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if ranked else (0, 1)
    worker = get_worker_info()
    number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
    return rank * workers + number, ranks * workers
