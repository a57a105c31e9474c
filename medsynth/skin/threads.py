"""Work on pictures shared out to as many threads as torch's own products take."""

import ctypes
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

_OPENMP, _SOFT = "libgomp.so.1", 1


def in_parts(work: Callable[[slice], None], images: int) -> None:
    """Work on some of the images in each of as many threads as there are.

    So threads wait for each other once a layer. With torch's own, which share out every product, they did hundreds of
    times.

    Args:
        work: called with places of images; what it asks of torch is without gradients.
        images: how many there are.
    """
    threads, mode = torch.get_num_threads(), torch.is_inference_mode_enabled()
    count = min(threads, images)

    def part(first: int, last: int) -> None:
        torch.set_num_threads(threads // count)  # of what this thread asks for
        with torch.inference_mode(mode), torch.no_grad():  # a thread's own, too
            work(slice(first, last))

    try:
        _each([functools.partial(part, *ends) for ends in _ends(images, count)])
    finally:
        torch.set_num_threads(threads)


def shared_out(function: Callable[..., None], count: int, *given: Any) -> None:
    """Call a compiled function, with the first and the last behind what is given, for all of ``count``."""
    ends = _ends(count, min(torch.get_num_threads(), count))
    _each([functools.partial(function, *given, *share) for share in ends])


def scratch(name: str, like: Tensor, *shape: int) -> Tensor:
    """Memory of this thread's, with whatever it holds, for as long as nobody asks for it by the same name.

    What is given back to the allocator between two layers it may give to the system, which clears it anew.

    Args:
        name: what it is for.
        like: of the type that is wanted, on the CPU.
        shape: of the tensor.
    """
    size = math.prod(shape)
    kept = _own.scratch.get(name)
    if kept is None or kept.dtype != like.dtype or len(kept) < size:
        with torch.inference_mode(False):  # else it could not be written to outside of that mode
            kept = torch.empty(size, dtype=like.dtype)
        _own.scratch[name] = kept
    return kept[:size].view(shape)


class _Own(threading.local):
    """What a thread keeps. Those that help it are kept too, for their scratch: new memory's pages are cleared first."""

    def __init__(self) -> None:
        self.scratch: dict[str, Tensor] = {}
        self.helpers = ThreadPoolExecutor(os.cpu_count(), "medsynth-skin")  # which begin when there is work


_own = _Own()


def _ends(count: int, parts: int) -> Iterator[tuple[int, int]]:
    return pairwise(count * place // parts for place in range(parts + 1))


def _each(calls: Sequence[Callable[[], None]]) -> None:
    own, *others = calls
    if not others:
        own()
        return
    _end_torchs()
    begun = [_own.helpers.submit(call) for call in others]
    try:
        own()
    finally:
        wait(begun)
    for call in begun:
        call.result()


def _end_torchs() -> None:
    """End the threads that torch shared this thread's last product out to.

    Each goes round in a loop for some milliseconds, lest another product should come: on a core that is wanted here.
    With two cores and two threads a training step took a sixth longer so. The next product starts them anew, in less
    than a tenth of a millisecond. (OpenMP 5.0, section 3.2.43.)
    """
    with suppress(OSError, AttributeError):  # torch has another OpenMP than GNU's, or an old one
        ctypes.CDLL(_OPENMP, os.RTLD_NOW | os.RTLD_NOLOAD).omp_pause_resource_all(_SOFT)
