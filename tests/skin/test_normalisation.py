"""Normalised instances against torch's own, in double precision."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medsynth.skin.normalisation import normalised
from tests.torch_threads import torch_threads

SHAPES = pytest.mark.parametrize(
    "shape", [(2, 3), (8, 8), (9, 31)]
)  # of less than a run of pixels, whole ones, and not


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    torch.manual_seed(3)
    with torch_threads(2):
        yield


def plain(x: Tensor, slope: float) -> Tensor:
    return functional.leaky_relu(functional.instance_norm(x, eps=1e-5), slope)


@SHAPES
@pytest.mark.parametrize("slope", [0.2, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_answers_and_gradients_are_instance_normalisations(
    shape: tuple[int, int], slope: float, layout: torch.memory_format
) -> None:
    x = (3 * torch.randn(3, 5, *shape, dtype=torch.float64) + 7).contiguous(memory_format=layout).requires_grad_()
    found, wanted = normalised(x, slope), plain(x, slope)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    gradient = torch.randn_like(wanted)
    of_found, of_wanted = (torch.autograd.grad(answer, x, gradient) for answer in (found, wanted))
    torch.testing.assert_close(of_found, of_wanted, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(normalised(x.detach().clone(), slope), wanted, rtol=1e-11, atol=1e-11)


def test_in_float32_a_mean_far_from_nothing_costs_no_more_than_its_own_rounding() -> None:
    x = torch.randn(2, 8, 64, 64) + 1000
    wanted = plain(x.double(), 1.0)
    assert float((normalised(x.clone()) - wanted).abs().max()) < 2 * 1000 * torch.finfo(torch.float32).eps


def test_a_channel_of_one_value_is_nothing() -> None:
    x = torch.full((1, 2, 4, 4), 0.3, requires_grad=True)
    found = normalised(x, 0.2)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert float(found.detach().abs().max()) < 1e-4
    assert torch.isfinite(x.grad).all()


def test_a_picture_is_the_same_in_whatever_company() -> None:
    x, other = torch.randn(5, 4, 16, 16), torch.randn(3, 4, 16, 16)
    other[2] = x[1]
    assert torch.equal(normalised(x.clone(), 0.2)[1], normalised(other, 0.2)[2])


@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_in_half_precision_nothing_but_what_comes_in_and_out_is_rounded(slope: float) -> None:
    x = (torch.randn(2, 4, 24, 24) + 30).bfloat16().requires_grad_()
    exact = x.detach().double().requires_grad_()
    found, wanted = normalised(x, slope), plain(exact, slope)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=2**-20)
    gradient = torch.randn(found.shape).bfloat16()
    (of_found,), (of_wanted,) = (
        torch.autograd.grad(found, x, gradient),
        torch.autograd.grad(wanted, exact, gradient.double()),
    )
    torch.testing.assert_close(of_found.double(), of_wanted, rtol=2**-7, atol=2**-7 * float(of_wanted.abs().max()))
    with torch.no_grad():
        torch.testing.assert_close(normalised(x, slope), found)
