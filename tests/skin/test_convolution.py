"""The layer that halves, and judges, against torch's own."""

import pytest
import torch
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from medsynth.skin import winograd
from medsynth.skin.convolution import Convolution

STRIDES = pytest.mark.parametrize("stride", [1, 2])
SIDES = pytest.mark.parametrize("side", [2, 8, 16, 32, 64])  # of those that pay, and not


@pytest.fixture(autouse=True)
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_CHANNELS", 3)
    torch.manual_seed(3)


@STRIDES
@SIDES
@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_it_is_torchs_convolution(stride: int, side: int, slope: float) -> None:
    layer = Convolution(4, 3, stride).double()
    x = torch.randn(2, 4, side, side, dtype=torch.float64, requires_grad=True)
    shown = functional.leaky_relu(x, slope)
    wanted = functional.conv2d(shown, layer.weight, layer.bias, stride=stride, padding=1)
    found = layer.of_rectified(x, slope)
    torch.testing.assert_close(found, wanted)
    tensors = [x, *layer.parameters()]
    gradients = [torch.autograd.grad(answer.square().sum(), tensors) for answer in (found, wanted)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(layer.of_rectified(x, slope), wanted)
        torch.testing.assert_close(layer(shown), wanted)


@STRIDES
def test_new_weights_are_seen(stride: int) -> None:
    layer, other = Convolution(4, 3, stride), Convolution(4, 3, stride)
    x = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        layer(x)
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(x), other(x))
    with torch.no_grad():
        layer.weight.lerp_(torch.zeros_like(layer.weight), 0.5)
        assert not torch.equal(layer(x), other(x))


@STRIDES
def test_weights_that_are_reckoned_at_each_call_are_not_kept(stride: int) -> None:
    layer = spectral_norm(Convolution(4, 3, stride)).double().eval()
    x = torch.randn(1, 4, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        layer.parametrizations.weight.original.copy_(torch.randn_like(layer.weight))
        found = layer(x)
        torch.testing.assert_close(found, functional.conv2d(x, layer.weight, layer.bias, stride, 1))
        assert not torch.allclose(found, before)


@STRIDES
def test_a_picture_is_the_same_whatever_is_drawn_beside_it_in_its_place(stride: int) -> None:
    layer = Convolution(4, 3, stride)
    x, other = torch.randn(3, 4, 64, 64), torch.randn(3, 4, 64, 64)
    other[1] = x[1]
    with torch.inference_mode():
        assert torch.equal(layer(x)[1], layer(other)[1])
