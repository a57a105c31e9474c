"""Convolutions in fewer products against torch's own."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medsynth.skin import winograd
from medsynth.skin.winograd import Method
from tests.torch_threads import torch_threads


def halved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(x, weight, bias, stride=2, padding=1)


def each(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(x, weight, bias, padding=1)


def doubled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(functional.interpolate(x, scale_factor=2), weight, bias, padding=1)


WAYS = pytest.mark.parametrize(
    ("method", "plain", "kernel"),
    [
        (winograd.HALVED, halved, 4),
        (winograd.HALVED_SMALL, halved, 4),
        (winograd.EACH, each, 4),
        (winograd.DOUBLED, doubled, 3),
        (winograd.DOUBLED_SMALL, doubled, 3),
    ],
    ids=["halved", "halved small", "each", "doubled", "doubled small"],
)
SHAPES = pytest.mark.parametrize("shape", [(2, 2), (8, 8), (10, 26), (32, 6)])  # of whole blocks, and not
THREADS = pytest.mark.parametrize("threads", [1, 2, 7])  # for three pictures: one and two each; and two for each
Plain = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    torch.manual_seed(3)
    with torch_threads(1):
        yield


def given(shape: tuple[int, int], kernel: int, dtype: torch.dtype, into: int = 5, out: int = 3) -> list[Tensor]:
    x = torch.randn(3, into, *shape, dtype=dtype)
    weight = torch.randn(out, into, kernel, kernel, dtype=dtype) / (into * kernel**2) ** 0.5
    return [tensor.requires_grad_() for tensor in (x, weight, torch.randn(out, dtype=dtype))]


@WAYS
@SHAPES
@THREADS
@pytest.mark.parametrize("rows", [1, 512])  # picture by picture, and all at once
@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_answers_and_gradients_are_the_plain_convolutions_of_what_is_rectified(
    method: Method,
    plain: Plain,
    kernel: int,
    shape: tuple[int, int],
    threads: int,
    rows: int,
    slope: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "_ROWS", rows)
    torch.set_num_threads(threads)
    x, weight, bias = tensors = given(shape, kernel, torch.float64)
    wanted = plain(functional.leaky_relu(x, slope), weight, bias)
    parts = [x] if method.inside > 1 else list(x.split([2, 3], dim=1))
    side = wanted.shape[2], wanted.shape[3]
    found = method.learnt(parts, slope, method.weights(weight), bias, side)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    gradient = torch.randn_like(wanted)
    of_found, of_wanted = (torch.autograd.grad(answer, tensors, gradient) for answer in (found, wanted))
    torch.testing.assert_close(of_found, of_wanted, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        drawn = method.drawn(parts, slope, method.packed(weight), bias, side)
        torch.testing.assert_close(drawn, wanted, rtol=1e-11, atol=1e-11)


@WAYS
def test_in_float32_the_error_is_of_the_order_of_the_plain_convolutions(
    method: Method, plain: Plain, kernel: int
) -> None:
    x, weight, bias = tensors = given((32, 32), kernel, torch.float32, 64, 64)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    wanted = plain(*exact)
    gradient = torch.randn_like(wanted)
    side = (wanted.shape[2], wanted.shape[3])
    answers = {
        "plain": plain(x, weight, bias),
        "fewer": method.learnt([x], 1.0, method.weights(weight), bias, side),
        "exact": wanted,
    }
    figures = {
        name: [
            answer,
            *torch.autograd.grad(answer, exact if name == "exact" else tensors, gradient.to(answer.dtype)),
        ]
        for name, answer in answers.items()
    }

    def errors(name: str) -> list[float]:
        pairs = [(one.detach(), other.detach()) for one, other in zip(figures[name], figures["exact"], strict=True)]
        return [float((one - other).square().mean().sqrt() / other.square().mean().sqrt()) for one, other in pairs]

    assert all(fewer < max(10 * direct, 1e-6) for fewer, direct in zip(errors("fewer"), errors("plain"), strict=True))


@WAYS
@pytest.mark.parametrize("name", [None, "mine"])
def test_packed_float32_draws_what_is_learnt(method: Method, plain: Plain, kernel: int, name: str | None) -> None:
    x, weight, bias = (tensor.detach() for tensor in given((32, 32), kernel, torch.float32, 64, 48))
    side = plain(x, weight, bias).shape[2:]
    wanted = method.learnt([x], 0.2, method.weights(weight), bias, (side[0], side[1]))
    with torch.no_grad():
        packed = method.packed(weight)
        drawn = method.drawn([x], 0.2, packed, bias, (side[0], side[1]), name)
        kept = drawn.clone()
        method.drawn([x + 1], 0.2, packed, bias, (side[0], side[1]), "other")
        assert torch.equal(drawn, kept), "another name's memory is another"
    torch.testing.assert_close(drawn, wanted, rtol=1e-4, atol=1e-5)


@WAYS
def test_what_is_not_asked_for_is_not_reckoned(method: Method, plain: Plain, kernel: int) -> None:
    x, weight, bias = given((8, 8), kernel, torch.float64)
    side = plain(x, weight, bias).shape[2:]
    for asked in (x, weight, bias):
        own = [tensor if tensor is asked else tensor.detach() for tensor in (x, weight, bias)]
        answer = method.learnt([own[0]], 1.0, method.weights(own[1]), own[2], (side[0], side[1]))
        (found,) = torch.autograd.grad(answer.square().sum(), asked)
        (wanted,) = torch.autograd.grad(plain(*own).square().sum(), asked)
        torch.testing.assert_close(found, wanted)


def test_it_is_for_large_pictures_of_many_channels_on_a_cpu_in_float32() -> None:
    x, ways = torch.zeros(1, 64, 32, 32), ((16, 32, winograd.HALVED), (8, 16, winograd.HALVED_SMALL))
    with torch.no_grad():
        assert winograd.fastest(x, 64, 64, 16, ways) is winograd.HALVED
        assert winograd.fastest(x, 64, 64, 15, ways) is winograd.HALVED_SMALL
        assert winograd.fastest(x, 64, 64, 7, ways) is None
        assert winograd.fastest(x, 3, 64, 16, ways) is None
        assert winograd.fastest(x, 64, 3, 16, ways) is None
        assert winograd.fastest(x.bfloat16(), 64, 64, 16, ways) is None
        assert winograd.fastest(x.to("meta"), 64, 64, 16, ways) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert winograd.fastest(x, 64, 64, 16, ways) is None
    assert winograd.fastest(x, 64, 64, 31, ways) is winograd.HALVED_SMALL, "learning"
    assert winograd.fastest(x, 64, 64, 32, ways) is winograd.HALVED
