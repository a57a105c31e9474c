"""Work that a GPU repeats from a recording, a CUDA graph.

To launch the kernels of a small network one by one takes several times as long as they run. A recording is launched
as a whole: the same kernels in the same order on the same memory, so the same bits.
"""

import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Parts = Generator[Sequence[Tensor], None, Result]
"""Work in parts: what it yields is handed to somebody else, who may change it in place, before it goes on."""

_Part = tuple[torch.cuda.CUDAGraph, Sequence[Tensor] | None]
_FIRST = 3
"""Calls before the recording, in which libraries choose their ways and optimizers make their state."""


class Repeated(Generic[Result]):
    """Work on tensors of the same shapes, again and again: on a GPU from a recording, on a CPU as it comes.

    What it reads beside its inputs, weights and learning rates say, it must find in the same memory at every call, and
    nothing on the way may wait for the GPU or ask what was reckoned. Noise is drawn anew, from the generator's state at
    the call. Not for several threads at a time.

    Args:
        work: of tensors on the device; see ``Parts``.
        device: where.
        between: called with what the work yields.

    Source:
        "CUDA graphs" in PyTorch's notes on CUDA semantics: whole-network capture.
    """

    def __init__(
        self,
        work: Callable[..., Parts[Result]],
        device: torch.device,
        between: Callable[[Sequence[Tensor]], None] = lambda _: None,
    ) -> None:
        self._work, self._device, self._between = work, device, between
        self.forget()

    def forget(self) -> None:
        """Record anew, since what is read beside the inputs lies elsewhere now."""
        self._inputs: list[Tensor] = []
        self._calls = 0
        self._recorded: list[_Part] = []
        self._result: Result | None = None

    def __call__(self, *inputs: Tensor) -> Result:
        """Do it.

        Args:
            inputs: as the work takes them; on any device.

        Returns:
            What the work does; the next call may write over it.
        """
        if self._device.type != "cuda":
            return self._run(inputs)
        if [(one.shape, one.dtype) for one in inputs] != [(one.shape, one.dtype) for one in self._inputs]:
            self.forget()
            self._inputs = [torch.empty_like(one, device=self._device) for one in inputs]
        for kept, one in zip(self._inputs, inputs, strict=True):
            kept.copy_(one, non_blocking=True)
        self._calls += 1
        if self._calls <= _FIRST:
            return self._beside()
        if not self._recorded:
            self._recorded = self._record()
        for graph, yielded in self._recorded:
            graph.replay()
            if yielded is not None:
                self._between(yielded)
        return self._result  # type: ignore[return-value]

    def _run(self, inputs: Sequence[Tensor]) -> Result:
        work = self._work(*inputs)
        while True:
            try:
                yielded = next(work)
            except StopIteration as end:
                found: Result = end.value
                return found
            self._between(yielded)

    def _beside(self) -> Result:
        # Not on the default stream, as a recording is not: autograd keeps to the stream that it was first used on.
        here, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(here)
        with torch.cuda.stream(stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable")  # it is, soon
            found = self._run(self._inputs)
        here.wait_stream(stream)
        return found

    def _record(self) -> list[_Part]:
        # One graph for each part. They share their memory, as they are always replayed in this order.
        pool = torch.cuda.graph_pool_handle()
        work = self._work(*self._inputs)
        recorded: list[_Part] = []
        while True:
            graph = torch.cuda.CUDAGraph()
            yielded = None
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                try:
                    yielded = next(work)
                except StopIteration as end:
                    self._result = end.value
            recorded.append((graph, yielded))
            if yielded is None:
                return recorded


def side_by_side(tasks: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
    """The results of tasks none of which waits for another; within a recording they run at the same time.

    Each is launched as it would be alone, so what it finds does not hang on what is beside it.
    """
    if not torch.cuda.is_available() or not torch.cuda.is_current_stream_capturing():
        return [task() for task in tasks]
    here = torch.cuda.current_stream()
    found, streams = [], []
    for task in tasks:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            found.append(task())
        streams.append(stream)
    for stream in streams:
        here.wait_stream(stream)
    return found
