"""Specks of light on drawn skin, and the channels of a network that strew them: found, and silenced.

A generator that has learnt from few photos of glossy skin strews drops of light where no light falls. One or two
channels at half of the full side do most of it, and little else.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medsynth.skin import tone
from medsynth.skin.generator import Asked, Chance, PlusNetwork
from medsynth.skin.model import SkinModel

_WIDTH = 0.043  # of the picture's side: what is narrower can be a speck
_BRIGHTER = 6.0  # L* above what surrounds it; less is the relief of skin
_EACH, _WORST = 3, 18  # pictures of each condition in each type; those with most specks, which are looked at closely
_TRIED = 8  # channels of a layer, those that follow the specks most


class Channel(NamedTuple):
    """A channel of a network's layer."""

    layer: int
    """Counted as in :attr:`medsynth.skin.generator.PlusNetwork.floors`: two of each side but the last."""
    place: int
    """Among the layer's channels."""


def of(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where a picture has specks of light.

    Args:
        picture: (S, S, 3) sRGB.

    Returns:
        (S, S): by how much more than 6 units of L* it is brighter than its own opening, what is left of it without
        narrow bright details; else 0.

    Source:
        The top-hat transform: Serra, "Image analysis and mathematical morphology", 1982, chapter XII. Width and limit
        are ours, by a look at drawn pictures.
    """
    lightness = tone.to_lab(picture)[..., 0].astype(np.float32)
    width = max(3, round(_WIDTH * len(picture)) | 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    hat = cv2.morphologyEx(lightness, cv2.MORPH_TOPHAT, disc, borderType=cv2.BORDER_REFLECT_101)
    found: NDArray[np.float32] = np.maximum(cv2.GaussianBlur(hat, (0, 0), 1) - _BRIGHTER, 0).astype(np.float32)
    return found


def strewn(model: SkinModel, share: float) -> tuple[Channel, ...]:
    """The channels that strew specks of light.

    Args:
        model: whose, of the kind plus; it stays what it is.
        share: of the specks, below 1; a channel counts without which more than that goes.

    Returns:
        Of the two layers at half of the full side, in order; none where there are no specks.

    Source:
        Bau et al., "GAN Dissection: Visualizing and understanding generative adversarial networks", ICLR 2019: units
        by their agreement with what is seen (section 3.1), what they cause by what goes without them (section 3.2),
        and that a few of them make faults (section 4.3). There people marked the faults; here a rule does.
    """
    network = model.network
    assert isinstance(network, PlusNetwork)
    drawn = [(given, of(_picture(network, *given))) for given in model.usual(_EACH)]
    drawn = sorted(drawn, key=lambda one: -float(one[1].sum()))[:_WORST]
    whole = sum(float(speck.sum()) for _, speck in drawn)
    if whole == 0:
        return ()
    found = []
    for channel in _followers(network, drawn):
        without = copy.deepcopy(network)
        silence(without, [channel])
        left = sum(float(of(_picture(without, *given)).sum()) for given, _ in drawn)
        if 1 - left / whole > share:
            found.append(channel)
    return tuple(sorted(found))


def silence(network: PlusNetwork, channels: Sequence[Channel]) -> None:
    """Let channels say nothing, whatever is drawn: what scales and shifts them is 0, or brings them to 0.

    Args:
        network: to change.
        channels: of its layers.
    """
    with torch.no_grad():
        for layer, place in channels:
            side, second = divmod(layer, 2)
            style = network.styles[side]
            assert isinstance(style, nn.Linear)
            count = network.settings.channels(network.sides[side])
            for numbers in (style.weight, style.bias):
                numbers.view(-1, 6, count, *numbers.shape[1:])[second, :, place] = 0
            style.bias.view(-1, 6, count)[second, 0, place] = -1  # the scale is 1 more


def _picture(network: PlusNetwork, asked: Asked, chance: Chance) -> NDArray[np.uint8]:
    with torch.inference_mode():
        codes = ((network(asked, chance)[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    found: NDArray[np.uint8] = codes.permute(1, 2, 0).cpu().numpy()
    return found


def _followers(
    network: PlusNetwork, drawn: Sequence[tuple[tuple[Asked, Chance], NDArray[np.float32]]]
) -> list[Channel]:
    side = len(network.sides) - 2
    # What comes out of a layer is what goes into the next one, to which the first's edge is repeated.
    follow = {2 * side: (network.convolutions[side], 1), 2 * side + 1: (network.ups[side], 0)}
    active: dict[int, list[Tensor]] = {layer: [] for layer in follow}

    def listen(layer: int, edge: int) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def heard(_: nn.Module, given: tuple[Tensor]) -> None:
            x = given[0][0]
            active[layer].append(x[:, edge : x.shape[1] - edge, edge : x.shape[2] - edge].float().cpu())

        return heard

    hooks = [module.register_forward_pre_hook(listen(layer, edge)) for layer, (module, edge) in follow.items()]
    for given, _ in drawn:
        _picture(network, *given)
    for hook in hooks:
        hook.remove()
    length = network.sides[side]
    small = [cv2.resize(speck, (length, length), interpolation=cv2.INTER_AREA).ravel() for _, speck in drawn]
    specks = np.concatenate(small).astype(np.float64)
    found = []
    for layer, pictures in active.items():
        heard = torch.cat([picture.flatten(1) for picture in pictures], dim=1).double().numpy()
        apart = heard - heard.mean(axis=1, keepdims=True)
        spread = apart.std(axis=1) * specks.std()
        with_specks = (apart @ (specks - specks.mean())) / specks.size / np.maximum(spread, 1e-12)
        found += [Channel(layer, int(place)) for place in np.argsort(-with_specks, kind="stable")[:_TRIED]]
    return found
