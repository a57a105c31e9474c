"""Pictures that put each step to the test, and plain float64 versions of what the chain reckons in integers."""

import numpy as np
from numpy.typing import NDArray

from medsynth import images, storage
from medsynth.defocus.light import LEVEL, code_table, light_table, look_up

IHC = "package://skimage/data/ihc.png"


def ihc() -> NDArray[np.uint8]:
    """A real immunohistochemistry image, 512 x 512."""
    return images.decode(storage.read(IHC))


def scene(name: str, side: int) -> NDArray[np.uint8]:
    """One of SCENES, (side, side, 3)."""
    if name == "ihc":
        top = (512 - side) // 2
        return np.ascontiguousarray(ihc()[top : top + side, top : top + side])
    picture = np.zeros((side, side, 3), dtype=np.uint8)
    if name == "noise":
        picture[:] = np.random.default_rng(side).integers(0, 256, size=picture.shape)
    elif name == "dark noise":
        picture[:] = np.random.default_rng(side).integers(0, 12, size=picture.shape)
    elif name == "white":
        picture[:] = 255
    elif name == "step":
        picture[:, side // 2 :] = 255
    elif name == "corner":
        picture[: side // 2, : side // 2] = 255
    elif name == "stripes":
        picture[:, ::2] = 255
    elif name == "point":
        picture[side // 2, side // 2] = 255
    elif name == "hole":
        picture[:] = 255
        picture[side // 2, side // 2] = 0
    else:
        assert name == "black"
    return picture


SCENES = ("noise", "dark noise", "ihc", "step", "corner", "stripes", "white", "black", "point", "hole")


def to_light(codes: NDArray[np.uint8], linear: bool) -> NDArray[np.float64]:
    """The light of codes in [0, 1], by the sRGB standard's formula or as it is."""
    value = codes / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) if linear else value


def to_codes(light: NDArray[np.float64], linear: bool) -> NDArray[np.float64]:
    """The codes of light in [0, 1], not rounded."""
    light = np.clip(light, 0, 1)
    if linear:
        light = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return light * 255


def light_of(picture: NDArray[np.uint8], linear: bool) -> NDArray[np.uint16]:
    """The chain's own integer light of a picture, interleaved."""
    values = np.ascontiguousarray(picture).reshape(len(picture), -1)
    out = np.empty(values.shape, dtype=np.uint16)
    look_up(values, light_table(linear), 0, 0, out)
    return out


def codes_of(levels: NDArray[np.uint16], linear: bool) -> NDArray[np.uint8]:
    """The chain's own codes of interleaved levels, as a picture."""
    assert levels.max() <= LEVEL
    out = np.empty(levels.shape, dtype=np.uint8)
    look_up(levels, code_table(linear), 0, 0, out)
    return out.reshape(len(levels), -1, 3)
