import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medsynth.skin import generator, specks
from medsynth.skin.generator import Asked, Chance, GeneratorSettings, PlusNetwork
from medsynth.skin.model import Request, SkinModel
from medsynth.skin.semantic_map import Geometry
from medsynth.skin.specks import Channel

SETTINGS = GeneratorSettings(size=128, width=4, widest=16, latent=8, embedding=16, softness=0, fine_softness=0)


def made(planted: Channel | None = None) -> SkinModel:
    """An untrained model that draws next to nothing but its skin, and a channel that makes bright specks."""
    torch.manual_seed(1)
    network = generator.build(SETTINGS, 1)
    assert isinstance(network, PlusNetwork)
    with torch.no_grad():
        network.last.weight.mul_(0.02)
        if planted:
            plant(network, planted)
    return SkinModel(network, ("NEV",), Geometry({"NEV": ((0.5, 0.5, 0.3, 0.25),)}), {})


def plant(network: PlusNetwork, channel: Channel) -> None:
    side, second = divmod(channel.layer, 2)
    style, convolution, up = network.styles[side], network.convolutions[side], network.ups[side]
    assert isinstance(style, nn.Linear)
    assert isinstance(convolution, nn.Conv2d)
    numbers = style.bias.view(-1, 6, SETTINGS.channels(network.sides[side]))[second]
    # No scale, and of much noise the rare peaks.
    numbers[0, channel.place], numbers[1, channel.place], numbers[2, channel.place] = -1, -24, 20
    if second == 0:  # the next layer hands it on
        convolution.weight[channel.place] = 0
        convolution.weight[channel.place, channel.place, 1, 1] = 4
    # At the full size one channel hears nothing else, and is seen.
    for parameter in up.parameters():
        parameter[0] = 0
        if parameter.ndim > 1:
            parameter[0, channel.place] = 1
    network.last.weight[:, 0] = 0
    network.last.weight[:, 0, 1, 1] = 0.4


def drawn(model: SkinModel) -> list[NDArray[np.uint8]]:
    return [one.image for one in model.draw([Request("NEV", kind) for kind in range(1, 7)], range(6))]


def heard(model: SkinModel, module: nn.Module) -> Tensor:
    found: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: found.append(given[0].clone()))
    drawn(model)
    hook.remove()
    return torch.cat(found)


def skin(size: int) -> NDArray[np.uint8]:
    """In the light of one side, with grain."""
    light = np.linspace(0.85, 1.1, size)[None, :, None]
    grain = np.random.default_rng(1).normal(0, 2, (size, size, 1))
    return (np.array([205, 160, 138]) * light + grain).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [128, 256])
def test_specks_are_narrow_and_brighter_than_what_is_about_them(size: int) -> None:
    assert specks.of(skin(size)).sum() == 0
    dark, wide, bright = skin(size), skin(size), skin(size)
    rows, columns = np.mgrid[size // 8 : size : size // 4, size // 8 : size : size // 4].reshape(2, -1)
    width = size // 64
    for y, x in zip(rows, columns, strict=True):
        dark[y : y + width, x : x + width] //= 2
        bright[y : y + width, x : x + width] = (250, 240, 225)
    wide[: size // 4] = (250, 240, 225)
    assert specks.of(dark).sum() == 0
    assert specks.of(wide).sum() == 0
    found = specks.of(bright)
    assert (found[rows, columns] > 0).all()
    near = np.zeros((size, size), dtype=bool)
    for y, x in zip(rows, columns, strict=True):
        near[y - 4 : y + width + 4, x - 4 : x + width + 4] = True
    assert found[~near].sum() == 0


@pytest.mark.parametrize("channel", [Channel(6, 3), Channel(7, 5)])
def test_the_channel_that_strews_specks_is_found_and_they_go_with_it(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(channel)
    before = model.to_bytes()
    handed_on = {6: (channel, Channel(7, channel.place)), 7: (channel,)}[channel.layer]
    assert specks.strewn(model, 0.5) == handed_on
    monkeypatch.setattr(specks, "_TRIED", 1)
    assert specks.strewn(model, 0.5) == handed_on, "no channel follows them as it does"
    assert model.to_bytes() == before
    many = sum(specks.of(picture).sum() for picture in drawn(model))
    assert isinstance(model.network, PlusNetwork)
    specks.silence(model.network, handed_on)
    few = sum(specks.of(picture).sum() for picture in drawn(model))
    assert few < many / 10
    assert specks.strewn(model, 0.5) == ()


def test_a_channel_counts_from_a_share_of_the_specks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, drawing = {Channel(7, 5): 4, Channel(7, 2): 2}, specks._picture

    def told(network: PlusNetwork, asked: Asked, chance: Chance) -> NDArray[np.uint8]:
        picture = np.full_like(drawing(network, asked, chance), 120)
        style = network.styles[3]
        assert isinstance(style, nn.Linear)
        scales = style.bias.view(-1, 6, 8)[1, 0]
        left = 10 - sum(count for channel, count in shares.items() if scales[channel.place] == -1)
        picture[10 : 10 + 10 * left : 10, 60:62] = 240
        return picture

    monkeypatch.setattr(specks, "_picture", told)
    assert specks.strewn(made(), 0.1) == (Channel(7, 2), Channel(7, 5))
    assert specks.strewn(made(), 0.3) == (Channel(7, 5),)


def test_where_there_are_no_specks_no_channel_strews_them() -> None:
    assert specks.strewn(made(), 0.01) == ()


@pytest.mark.parametrize("channel", [Channel(6, 3), Channel(7, 5), Channel(8, 2)])
def test_a_silent_channel_is_nothing_everywhere_and_the_others_of_its_layer_are_what_they_were(
    channel: Channel,
) -> None:
    model = made()
    network = model.network
    assert isinstance(network, PlusNetwork)
    module = {6: network.convolutions[3], 7: network.ups[3], 8: network.last}[channel.layer]
    before = heard(model, module)
    specks.silence(network, [channel])
    after = heard(model, module)
    assert (after[:, channel.place] == 0).all()
    others = [place for place in range(before.shape[1]) if place != channel.place]
    assert torch.equal(after[:, others], before[:, others])
    assert before[:, channel.place].abs().max() > 0
