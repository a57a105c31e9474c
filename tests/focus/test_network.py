"""The networks: geometry, independence of batch and surroundings, sizes."""

import pytest
import torch

from medsynth.focus.network import FocusNetwork, NetworkSettings, build

KINDS = ("small", "paper", "lite")


def made(kind: str) -> FocusNetwork:
    torch.manual_seed(5)
    return build(NetworkSettings.model_validate({"kind": kind, "width": 8}))


def pixels(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_dense_cells_are_the_answers_for_their_patches(kind: str) -> None:
    network = made(kind)
    field, stride = network.field, network.stride
    image = pixels(1, field + 2 * stride + 5, field + stride + stride - 1)
    dense = network(image)
    assert dense.shape == (1, 30, 3, 2)
    for i in range(3):
        for j in range(2):
            patch = network(image[:, i * stride : i * stride + field, j * stride : j * stride + field])
            torch.testing.assert_close(patch[:, :, 0, 0], dense[:, :, i, j], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_map_has_as_many_cells_as_said(kind: str) -> None:
    network = made(kind)
    for more in (0, 1, network.stride - 1, network.stride, 2 * network.stride + 3):
        height = network.field + more
        assert network(pixels(1, height, network.field)).shape[2:] == (more // network.stride + 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_sees_its_whole_field_and_nothing_else(kind: str) -> None:
    network = made(kind)
    image = pixels(1, network.field + network.stride, network.field)
    seen = False
    for _ in range(5):  # a network that takes a least answer must be given a lesser one
        changed = image.clone()
        changed[:, network.field :] = 255 * torch.randint(0, 2, changed[:, network.field :].shape)
        with torch.inference_mode():
            before, after = network(image), network(changed)
        torch.testing.assert_close(before[:, :, 0], after[:, :, 0], rtol=1e-4, atol=1e-5)
        seen |= not torch.allclose(before[:, :, 1], after[:, :, 1], atol=1e-5)
    assert seen


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_an_image_is_judged_alone_as_in_a_batch(kind: str) -> None:
    network = made(kind)
    images = pixels(3, network.field, network.field)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-5)


def test_sizes_are_those_named() -> None:
    sizes = {kind: sum(p.numel() for p in build(NetworkSettings(kind=kind)).parameters()) for kind in KINDS}  # type: ignore[arg-type]
    assert sizes["lite"] == 148  # as the paper counts
    assert sizes["small"] < 250_000
    assert build(NetworkSettings(kind="paper")).field == 139
