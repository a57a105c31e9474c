"""The paper preset against plain pix2pix: training steps and drawing, images a second at 256 px, in turns.

    python tests/benchmarks/bench_gan.py [--size 256] [--width 64] [--rounds 3] [--threads 2] [--bf16] [--out DIR]

Both in float32 on the same processor, both networks as wide as published, batch 4 to learn and 8 to draw. ``--bf16``
measures the same paper preset with ``precision: bf16`` besides, where the processor reckons with it. On a GPU ours is
repeated from a recording (medsynth/cuda_graph.py); plain pix2pix is not, but for a row in which it draws so, which
tells what of the difference the recording is. "Each alone" is how the product draws there: eight side by side.
"""

import argparse
import copy
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medsynth.cuda_graph import Parts, Repeated
from medsynth.skin import model, presets
from medsynth.skin.generator import Asked
from medsynth.skin.training import Trainer
from tests.benchmarks import harness
from tests.benchmarks.pix2pix import Pix2pix, Pix2pixSettings

LEARNING, DRAWING = 1.5, 2.0
"""The bars: how many times as fast as pix2pix."""


def batch(count: int, size: int) -> dict[str, Any]:
    """What a feed gives; what is in the pictures makes no difference to the speed."""
    random = np.random.default_rng(0)
    masks = np.zeros((count, size, size), dtype=np.uint8)
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    return {
        "photos": random.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "maps": random.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "masks": masks,
        "skins": random.integers(0, 256, (count, 3), dtype=np.uint8),
        "conditions": np.zeros(count, dtype=np.int64),
        "types": np.ones(count, dtype=np.int64),
    }


def in_turns(
    functions: dict[str, Callable[[], Any]], images: int, rounds: int, calls: int, device: torch.device
) -> dict[str, Any]:
    """Images a second of each, taken in turns, and how many times as fast as the first each is, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}

    def timed(function: Callable[[], Any]) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    for function in functions.values():
        timed(function)
    for _ in range(rounds):
        for name, function in functions.items():
            seconds[name].append(timed(function))
    first = seconds[next(iter(functions))]
    return {
        name: {
            **harness.summary([images / one for one in taken]),
            "ratio": float(np.median([peer / one for peer, one in zip(first, taken, strict=True)])),
        }
        for name, taken in seconds.items()
    }


def run(size: int, width: int, rounds: int, bf16: bool, device: torch.device) -> dict[str, Any]:
    """All figures."""
    sized = {"size": size, "width": width, "widest": 8 * width}
    judge = {"width": width}
    flags = {"generator": sized, "samples": {"size": size}, "discriminator": judge, "batch": 4}
    precisions = ("float32", "bf16") if bf16 else ("float32",)
    four, eight = batch(4, size), batch(8, size)
    maps = torch.from_numpy(eight["maps"]).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
    last = maps.contiguous(memory_format=torch.channels_last)
    place = torch.zeros(8, 1, size, size)
    rest = (place, torch.zeros(8, 3), *[torch.zeros(8, dtype=torch.int64)] * 2, place)
    fields = (last, *(field.to(device) for field in rest))
    given = Asked(*fields)
    learners: dict[str, Callable[[], Any]] = {}
    drawers: dict[str, Callable[[], Any]] = {}
    for precision in precisions:
        peer = Pix2pix(Pix2pixSettings(size, width, 4, precision=precision), 0, device)
        ours = Trainer(presets.settings("paper", "gpu", None, {**flags, "precision": precision}), 6, device, 0)
        learners[f"pix2pix, {precision}"] = functools.partial(peer.step, four)
        learners[f"paper, {precision}"] = functools.partial(ours.step, four)
        # As kindly to the peer as can be: statistics fixed, no dropout, which its authors keep when they draw. Of a
        # copy, since learning goes on.
        drawing = copy.deepcopy(peer.generator).eval()
        own = functools.partial(_drawn, ours.averaged, precision)
        drawers[f"pix2pix, {precision}"] = functools.partial(_drawn, drawing, precision, maps.contiguous())
        if device.type == "cuda":
            look = torch.zeros(8, 1, device=device)
            drawers[f"paper, {precision}"] = functools.partial(_recorded(lambda *a, own=own: own(Asked(*a))), *fields)
            drawers[f"paper, each alone, {precision}"] = functools.partial(
                model.drawing(ours.averaged, device, precision == "bf16"), *fields, look
            )
            drawers[f"pix2pix, recorded, {precision}"] = functools.partial(
                _recorded(functools.partial(_drawn, drawing, precision)), maps.contiguous()
            )
        else:
            drawers[f"paper, {precision}"] = functools.partial(own, given)
    found: dict[str, Any] = {"size": size, "width": width, "threads": torch.get_num_threads(), "device": str(device)}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name()
    calls = 20 if device.type == "cuda" else 1
    found["learning"] = {"bar": LEARNING, "batch": 4, **in_turns(learners, 4, rounds, calls, device)}
    with torch.inference_mode():
        found["drawing"] = {"bar": DRAWING, "batch": 8, **in_turns(drawers, 8, 3 * rounds, calls, device)}
    for part in ("learning", "drawing"):
        for name, figure in found[part].items():
            if isinstance(figure, dict):
                told = f"{figure['median']:8.2f} images/s, {figure['ratio']:.2f} times pix2pix in float32"
                print(f"{part:9} {name:26} {told}")
    return found


def _drawn(network: torch.nn.Module, precision: str, given: Any) -> torch.Tensor:
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        found: torch.Tensor = network(given)
    return found


def _recorded(draw: Callable[..., torch.Tensor]) -> Repeated[torch.Tensor]:
    def parts(*given: torch.Tensor) -> Parts[torch.Tensor]:
        yield from ()
        return draw(*given)

    return Repeated(parts, torch.device("cuda"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu", help="cuda for a GPU")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = run(arguments.size, arguments.width, arguments.rounds, arguments.bf16, torch.device(arguments.device))
    harness.write("gan", results, arguments.out)
