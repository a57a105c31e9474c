"""Work shared out to threads: all of it, once, and nothing of how is left behind."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from medsynth.skin import threads
from tests.torch_threads import torch_threads


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    with torch_threads(3):
        yield


@pytest.mark.parametrize(("images", "each"), [(1, [3]), (2, [1, 1]), (3, [1, 1, 1]), (8, [1, 1, 1])])
def test_every_image_is_worked_on_once_by_threads_that_share_torchs(images: int, each: list[int]) -> None:
    seen: list[tuple[int, int]] = []
    told: list[tuple[int, bool, bool]] = []

    def work(some: slice) -> None:
        seen.extend((place, some.start) for place in range(some.start, some.stop))
        told.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    with torch.inference_mode():
        threads.in_parts(work, images)
    assert sorted(place for place, _ in seen) == list(range(images))
    assert sorted(told) == [(count, True, False) for count in each]
    threads.in_parts(work, images)
    assert {(mode, gradients) for _, mode, gradients in told[len(each) :]} == {(False, False)}
    assert torch.get_num_threads() == 3
    assert torch.is_grad_enabled()


def test_what_fails_in_any_thread_is_raised_and_torch_has_its_threads_again() -> None:
    def work(some: slice) -> None:
        if some.stop == 4:
            raise ValueError("the last")

    with pytest.raises(ValueError, match="the last"):
        threads.in_parts(work, 4)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_function_is_called_for_all(count: int) -> None:
    seen: list[int] = []
    threads.shared_out(lambda first, start, end: seen.extend(range(first + start, first + end)), count, 10)
    assert sorted(seen) == list(range(10, 10 + count))


def test_scratch_is_a_threads_own_and_stays_until_more_or_another_type_is_asked_for() -> None:
    with torch.inference_mode():
        first = threads.scratch("test", torch.empty(0), 2, 3)
    first.fill_(7)  # outside of that mode too
    assert first.shape == (2, 3)
    again = threads.scratch("test", torch.empty(0), 4)
    assert again.data_ptr() == first.data_ptr()
    assert threads.scratch("other", torch.empty(0), 4).data_ptr() != first.data_ptr()
    assert threads.scratch("test", torch.empty(0), 7).shape == (7,)
    assert threads.scratch("test", torch.empty(0, dtype=torch.float64), 2).dtype == torch.float64
    seen: list[int] = []
    threads.in_parts(lambda some: seen.append(threads.scratch("shared", torch.empty(0), 5).data_ptr()), 3)
    mine = threads.scratch("shared", torch.empty(0), 5).data_ptr()
    assert seen.count(mine) == 1, "this thread did one part, and others theirs elsewhere"


def test_threads_that_help_stay_and_their_scratch_with_them() -> None:
    def used() -> set[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        together = threading.Barrier(3)

        def work(_: slice) -> None:
            seen.append((threading.get_ident(), threads.scratch("stays", torch.empty(0), 5).data_ptr()))
            together.wait(10)

        threads.in_parts(work, 3)
        return set(seen)

    first = used()
    assert len(first) == 3
    assert used() == first


def running() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def test_torchs_own_threads_end_where_others_begin_and_come_back() -> None:
    some = torch.randn(300, 300)
    wanted = some @ some  # starts them
    before = running()
    threads.shared_out(lambda *_: None, 3)
    end = time.monotonic() + 10
    while len(before - running()) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(before - running()) >= 2
    assert torch.equal(some @ some, wanted)
    assert len(running() - before) >= 2
