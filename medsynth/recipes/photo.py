"""One skin photo by itself: what a seed settles of a request, and the camera that sees what was drawn.

The recipe makes its rows with this, and the service its answers, so that the same request and seed give the same
pixels in both.
"""

import math

from medsynth import draws
from medsynth.defocus import device
from medsynth.defocus.chain import ChainParameters, with_device
from medsynth.images import Pixels
from medsynth.recipes import camera
from medsynth.recipes.camera import CameraSettings
from medsynth.skin import semantic_map
from medsynth.skin.model import Request, SkinModel
from medsynth.skin.semantic_map import Box
from medsynth.spec import Range, parse

SIZES = {
    "small": Range(low=0.02, high=0.06),
    "medium": Range(low=0.08, high=0.18),
    "large": Range(low=0.24, high=0.5),
}
"""Shares of the picture. Of 260 real photos, each cut square, the lesion's box takes 4 to 64 % in nine of ten, half of
them under 17 %; a gap between two classes keeps them apart."""

_LONGEST = 0.94  # of the picture's side: some skin must be left to be seen


def camera_of(name: str, where: str) -> CameraSettings:
    """A device's chain for photos.

    Args:
        name: of a shipped device, or the URI of a YAML file.
        where: what to call it in messages.

    Raises:
        SpecError: there is none, or it is no camera.
    """
    merged = with_device(CameraSettings(), device.load(name))
    return parse(CameraSettings, merged.model_dump(), where)


def request(model: SkinModel, condition: str | None, kind: int | None, size: Range | None, seed: int) -> Request:
    """A request in full, with all that was not asked for drawn from the seed; the skin's colour the model draws.

    Args:
        model: whose conditions and geometry are drawn from.
        condition: its name.
        kind: Fitzpatrick type, 1 to 6.
        size: the share of the picture that the lesion's box takes; as in the training set by default.
        seed: the sample's.

    Raises:
        MapError: the condition is unknown.
    """
    u = draws.uniforms(seed, "skin request", 2).tolist()
    condition = condition or model.conditions[int(u[0] * len(model.conditions))]
    box = model.geometry.sample(condition, model.size, seed)
    return Request(condition, kind, None, box if size is None else _sized(box, model.size, size.at(u[1])))


def taken(picture: Pixels, settings: CameraSettings, seed: int) -> tuple[Pixels, ChainParameters]:
    """A drawn picture as a camera sees it, but for the JPEG, which :func:`medsynth.recipes.camera.encode` does.

    Args:
        picture: (S, S, 3).
        settings: the camera.
        seed: the sample's.

    Returns:
        (S, S, 3), and what the seed settled of the camera.
    """
    parameters = camera.draw(settings, seed)
    return camera.photograph(picture, settings, parameters, seed), parameters


def _sized(box: Box, side: int, share: float) -> Box:
    # The lesion's own form and place, at the asked size.
    across, down = box.x1 - box.x0, box.y1 - box.y0
    most = min(2.0, _LONGEST**2 / share)
    aspect = min(max(across / down, 1 / most), most)
    x, y = (box.x0 + box.x1) / 2 / side, (box.y0 + box.y1) / 2 / side
    return semantic_map.placed(math.sqrt(share), x, y, side, aspect)
