"""Small pictures' convolutions as products, against torch's own, with their gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medsynth.skin import patches

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def halved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(x, weight, bias, stride=2, padding=1)


def doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(functional.interpolate(x, scale_factor=2), weight, bias, padding=1)


def each(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(x, weight, bias, padding=1)


@pytest.mark.parametrize(
    ("found", "wanted", "kernel"),
    [
        (lambda x, weight, bias: patches.halved(x, patches.matrix(weight), bias), halved, 4),
        (lambda x, weight, bias: patches.doubled(x, patches.matrix(weight), bias), doubled, 3),
        (patches.placed, each, 4),
    ],
    ids=["half", "double", "each"],
)
@pytest.mark.parametrize("shape", [(2, 2), (4, 6), (10, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_answers_and_gradients_are_the_plain_convolutions(
    found: Way, wanted: Way, kernel: int, shape: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(2, 3, *shape).double(), torch.randn(5, 3, kernel, kernel).double()
    given = [one.contiguous(memory_format=layout).requires_grad_() for one in (x, weight)]
    given.append(torch.randn(5, dtype=torch.float64, requires_grad=True))
    answers = [way(*given) for way in (found, wanted)]
    torch.testing.assert_close(*answers)
    of_answer = torch.randn_like(answers[0])
    torch.testing.assert_close(*(torch.autograd.grad(answer, given, of_answer) for answer in answers))


def test_one_pixel_is_doubled_too() -> None:
    torch.manual_seed(3)
    x, weight, bias = torch.randn(4, 3, 1, 1), torch.randn(5, 3, 3, 3), torch.randn(5)
    torch.testing.assert_close(patches.doubled(x, patches.matrix(weight), bias), doubled(x, weight, bias))
