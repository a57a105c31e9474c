import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from medsynth.skin import generator
from medsynth.skin.generator import Asked, Chance, GeneratorSettings, PlusNetwork, UNet
from tests.torch_threads import torch_threads

PLUS = GeneratorSettings(size=32, width=4, widest=16, latent=8, embedding=16)


def asked(count: int, size: int = 32) -> Asked:
    masks = torch.zeros(count, 1, size, size)
    for row in range(count):
        masks[row, :, 4 + row : 16, 6:24] = 1
    maps = torch.linspace(-0.5, 0.5, count)[:, None, None, None].expand(-1, 3, size, size).contiguous()
    return Asked(maps, masks, maps[:, :, 0, 0], torch.arange(count) % 3, torch.arange(count) % 7)


def chance(count: int, settings: GeneratorSettings = PLUS, seed: int = 1) -> Chance:
    source = torch.Generator().manual_seed(seed)
    grain = tuple(torch.randn(count, 1, s, s, generator=source) for s in generator.sides(settings.size))
    return Chance(torch.randn(count, settings.latent, generator=source), grain)


@pytest.mark.parametrize("settings", [PLUS, GeneratorSettings(kind="unet", size=32, width=4)])
def test_pictures_have_the_maps_size_and_nothing_counts_batches(settings: GeneratorSettings) -> None:
    torch.manual_seed(0)
    network = generator.build(settings, 3).eval()
    assert isinstance(network, PlusNetwork if settings.kind == "plus" else UNet)
    drawn = network(asked(4), chance(4))
    assert drawn.shape == (4, 3, 32, 32)
    assert drawn.abs().max() <= 1
    assert not [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert [name for name, _ in network.named_buffers()] == (["floors"] if settings.kind == "plus" else [])
    alone = network(
        Asked(*(field[2:3] for field in asked(4)[:5])),
        Chance(chance(4).look[2:3], tuple(g[2:3] for g in chance(4).grain)),
    )
    torch.testing.assert_close(alone, drawn[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_share_out_pictures_and_leave_each_in_its_place(count: int) -> None:
    torch.manual_seed(0)
    network = UNet(GeneratorSettings(kind="unet", size=32, width=4)).eval()
    wanted = network(asked(count)).detach()  # with gradients they are drawn together
    with torch_threads(3):
        with torch.inference_mode():
            drawn = network(asked(count))
        assert torch.get_num_threads() == 3
    torch.testing.assert_close(drawn, wanted, rtol=1e-4, atol=1e-5)


def test_memory_that_is_used_anew_harms_neither_this_picture_nor_the_last() -> None:
    torch.manual_seed(0)
    network = UNet(GeneratorSettings(kind="unet", size=64, width=64)).eval()  # wide enough for it
    wanted = network(asked(2, 64)).detach()  # with gradients, each answer has memory of its own
    with torch.inference_mode():
        first = network(asked(2, 64))
        kept = first.clone()
        torch.testing.assert_close(first, wanted, rtol=1e-3, atol=1e-4)
        assert not torch.equal(network(asked(1, 64)), first[1:])
        assert torch.equal(first, kept)
        assert torch.equal(network(asked(2, 64)), kept)


def test_one_map_gives_many_pictures_and_noise_of_every_scale_counts() -> None:
    torch.manual_seed(0)
    network = generator.build(PLUS, 3).eval()
    one, base = asked(1), chance(1)
    drawn = network(one, base)
    for place in range(len(base.grain)):
        other = chance(1, seed=2)
        grain = tuple(other.grain[k] if k == place else g for k, g in enumerate(base.grain))
        assert (network(one, Chance(base.look, grain)) - drawn).abs().max() > 1e-4
    assert (network(one, Chance(chance(1, seed=2).look, base.grain)) - drawn).abs().max() > 1e-4
    with pytest.raises(ValueError, match="draws from noise"):
        network(one)


def test_strengths_are_the_medians_of_what_each_layer_divides_by(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = PlusNetwork(PLUS, 3).eval()
    divided = []
    real = torch.rsqrt
    monkeypatch.setattr(torch, "rsqrt", lambda x: (divided.append(x), real(x))[1])
    with torch.no_grad():
        found = network.strengths(asked(3), chance(3))
    assert found.shape == (len(network.floors), 3) == (len(divided), 3)
    for layer, squares in zip(found, divided, strict=True):
        np.testing.assert_allclose(layer, np.quantile(squares, 0.5, axis=(1, 2), method="lower"), rtol=1e-4, atol=2e-5)


def test_a_floor_leaves_weak_pixels_weak_and_changes_no_strong_one() -> None:
    channels, floor = 4, torch.tensor(9.0)
    plain = torch.zeros(1, 6, channels)  # neither scaled nor shifted: what is seen is the normalised pixel
    x = torch.rand(1, channels, 1, 3, generator=torch.Generator().manual_seed(0))
    x = x / (x**2).mean(dim=1, keepdim=True).sqrt() * torch.tensor([0.03, 3.0, 1000.0])
    region, grain = torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)
    for given, wanted in ((torch.tensor(0.0), [1, 1, 1]), (floor, [0.01, 0.5**0.5, 1])):
        found = generator._modulated(x, plain, region, grain, given, []).double()
        size = (found**2).mean(dim=1).sqrt().flatten()
        np.testing.assert_allclose(size, wanted, rtol=0.01)
        np.testing.assert_allclose(found / size, x / (x**2).mean(dim=1, keepdim=True).sqrt(), rtol=1e-3)


def test_the_ellipse_fills_the_masks_box() -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, 0, 8:24, 4:12] = 1
    masks[1] = 1
    found = generator.inside(masks)
    assert found[0, 0, 16, 8] > 0.8
    assert (found[0, 0] > 0).sum() == pytest.approx(torch.pi / 4 * 16 * 8, rel=0.1)
    assert (found[0, 0][masks[0, 0] == 0] <= 0.02).all()
    assert found.min() >= -1
    assert (found[1] > 0).float().mean() == pytest.approx(torch.pi / 4, rel=0.02)


def test_the_ellipse_of_a_box_is_the_same_to_the_bit_on_every_machine() -> None:
    masks = torch.zeros(3, 1, 64, 64)
    masks[0, 0, 8:24, 4:12] = 1
    masks[1] = 1
    masks[2, 0, 5, 63] = 1
    assert hashlib.sha256(generator.inside(masks).numpy().tobytes()).hexdigest()[:16] == "482691025b753dae"


def test_a_size_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="take a power of two"):
        GeneratorSettings(size=96)


def test_skin_far_from_a_lesion_does_not_depend_on_its_size() -> None:
    torch.manual_seed(0)
    network = generator.build(PLUS, 3).eval()
    assert isinstance(network, PlusNetwork)
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 4:10, 4:10] = 1
    masks[1, :, 2:12, 2:12] = 1
    noise = chance(1)
    both = Chance(noise.look.expand(2, -1), tuple(g.expand(2, -1, -1, -1) for g in noise.grain))
    style, ellipse = torch.zeros(2, PLUS.embedding), generator.inside(masks)
    begun = network.begin(asked(2)._replace(masks=masks), ellipse, both, style)
    assert torch.equal(begun[0, :, 4:, 4:], begun[1, :, 4:, 4:])
    region = network.region(masks, ellipse, both, style)
    assert (region[0] - region[1]).abs()[:, 6:, 6:].max() < 0.05
    assert (region[0] - region[1]).abs().max() > 0.2
