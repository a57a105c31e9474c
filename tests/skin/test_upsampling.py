"""Every way of resize and convolution against the plain one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medsynth.skin import upsampling
from medsynth.skin.upsampling import UpConvolution

OUT = pytest.mark.parametrize("out", [3, 12, 96])  # by places when drawn, as transposed, by differences
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (4, 4), (5, 7)])


def plain(layer: UpConvolution, x: Tensor) -> Tensor:
    return functional.conv2d(functional.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)


@OUT
@SHAPES
def test_it_is_resize_and_convolution(shape: tuple[int, int], out: int) -> None:
    torch.manual_seed(3)
    layer = UpConvolution(3, out).double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(layer, x), rtol=1e-12, atol=1e-12)


@OUT
def test_its_gradients_are_those_of_the_plain_form_too(out: int) -> None:
    torch.manual_seed(3)
    layer = UpConvolution(2, out).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    given = [x, *layer.parameters()]
    found = torch.autograd.grad((layer(x) ** 2).sum(), given)
    wanted = torch.autograd.grad((plain(layer, x) ** 2).sum(), given)
    torch.testing.assert_close(found, wanted)


@OUT
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (5, 7), (32, 32)])
@pytest.mark.parametrize("channels", [2, 64])  # with fewer products where there are many
def test_what_is_made_of_positive_parts_is_the_same(shape: tuple[int, int], out: int, channels: int) -> None:
    torch.manual_seed(3)
    layer = UpConvolution(channels + 3, out).double()
    parts = [torch.randn(3, size, *shape, dtype=torch.float64, requires_grad=True) for size in (channels, 3)]
    wanted = plain(layer, functional.relu(torch.cat(parts, dim=1)))
    found = layer.of_rectified(parts)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    given, gradient = [*parts, *layer.parameters()], torch.randn_like(wanted)
    of_found, of_wanted = (torch.autograd.grad(answer, given, gradient) for answer in (found, wanted))
    torch.testing.assert_close(of_found, of_wanted, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(layer.of_rectified(parts), wanted, rtol=1e-12, atol=1e-12)


@OUT
def test_new_weights_are_seen(out: int) -> None:
    torch.manual_seed(3)
    layer, other = UpConvolution(4, out), UpConvolution(4, out)
    x = torch.randn(1, 4, 6, 6)
    with torch.inference_mode():
        layer.of_rectified([x])
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer.of_rectified([x]), other.of_rectified([x]))
    with torch.no_grad():
        layer.weight.lerp_(torch.zeros_like(layer.weight), 0.5)
        assert not torch.equal(layer.of_rectified([x]), other.of_rectified([x]))


@OUT
def test_a_picture_is_the_same_in_whatever_company_it_is_drawn(out: int) -> None:
    torch.manual_seed(3)
    layer = UpConvolution(32, out)
    x = torch.randn(8, 32, 16, 16)
    other = torch.randn(8, 32, 16, 16)
    other[6] = x[1]
    with torch.inference_mode():
        assert torch.equal(layer.of_rectified([x])[1], layer.of_rectified([other])[6])


@SHAPES
def test_smoothed_neighbours_are_a_bilinear_enlargement(shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    wanted = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsampling.doubled(x), wanted)


def test_smoothing_makes_a_layer_bilinear_enlargement_and_convolution_away_from_the_edges() -> None:
    torch.manual_seed(3)
    layer = UpConvolution(3, 4).double()
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    large = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    wanted = functional.conv2d(large, layer.weight, layer.bias, padding=1)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(upsampling.smoothed(layer(x))[inner], wanted[inner])


def test_repeated_edges_have_the_gradient_of_replicating_padding() -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(upsampling.repeated(x), functional.pad(x, (1, 1, 1, 1), mode="replicate"))
    assert torch.autograd.gradcheck(upsampling.repeated, (x,))
