"""What each part of plus is worth: learnt without it, on the split, samples and maps of bench_gan_quality.py.

    python tests/benchmarks/bench_gan_ablation.py --pairs TABLE --out FOLDER [--steps 1000] [--only PART ...]

Trains plus as the preset for a CPU, then with one part less each, and its two peers with as many steps of as many
pictures; a process each, so many at a time. Stopped and called again it goes on, and only measures what is learnt.
Needs a table of photos, and on 2 cores about an hour for 1,000 steps; so it is no part of `make bench`.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml

from medsynth import spec
from medsynth.skin.generator import PlusNetwork
from medsynth.skin.model import SkinModel
from medsynth.skin.run import WEIGHTS
from tests.benchmarks import bench_gan_quality, harness, pix2pix
from tests.benchmarks.lacking import Part

_BATCH = 8
_PARTS: Mapping[str, dict[str, Any]] = {
    "plus": {},
    "judged pictures never disturbed": {"augmented": 0.0},
    "no retoning": {"samples": {"retoned": 0.0}},
    "no texture term": {"losses": {"texture": 0.0}},
    "no tone term": {"losses": {"tone": 0.0}},
    "no matching of features": {"losses": {"feature_matching": 0.0}},
    "one judge, of one scale": {"discriminator": {"scales": 1}},
    "no noise by pixel": {},
    "no scale and noise of the lesion's own": {},
    "no embeddings": {},
}
"""Each run of plus by what it lacks: settings in place of the preset's."""
_WITHOUT: Mapping[str, Part] = {
    "no noise by pixel": "grain",
    "no scale and noise of the lesion's own": "regions",
    "no embeddings": "embeddings",
}
"""What some of them do without, of the network."""
_PEERS = ("pix2pix", "paper")


def _folder(out: Path, name: str) -> Path:
    return out / "".join(letter for letter in name.replace(" ", "-") if letter.isalnum() or letter == "-")


def _weights(out: Path, name: str) -> Path:
    return _folder(out, name) / (bench_gan_quality.PEER_WEIGHTS if name == "pix2pix" else WEIGHTS)


def train(name: str, pairs: str, out: Path, steps: int) -> None:
    """Train one of them in a process of its own, to the end.

    Raises:
        CalledProcessError: it could not.
    """
    if _weights(out, name).exists():
        return
    folder = _folder(out, name)
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(spec.merged({"batch": _BATCH, "validate_every": 500}, _PARTS.get(name, {}))))
    command = [sys.executable, str(Path(bench_gan_quality.__file__)), "train", "--kind"]
    command += [name if name in _PEERS else "plus", "--pairs", pairs, "--out", str(folder), "--settings", str(settings)]
    command += ["--steps", str(steps), "--makers", "0"]
    command += ["--without", _WITHOUT[name]] if name in _WITHOUT else []
    with folder.with_suffix(".log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    print(f"{name}: learnt", flush=True)


def learnt(out: Path, names: Sequence[str]) -> Iterator[tuple[str, SkinModel]]:
    """Those of these names, and plus in its other ways of drawing, which need no other training."""
    for name in names:
        yield name, (pix2pix.load if name == "pix2pix" else SkinModel.load)(str(_weights(out, name)))
    hard = SkinModel.load(str(_weights(out, "plus")))
    assert isinstance(hard.network, PlusNetwork)
    hard.network.floors.zero_()
    yield "no floors", hard


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="table of photos, as for jobs/train_gan.py")
    parser.add_argument("--out", type=Path, default=Path("bench-out/gan-ablation"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--together", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", nargs="+", choices=(*_PEERS, *_PARTS), metavar="PART", help="and plus: by name [all]")
    parser.add_argument("--encoder", help="of jobs/evaluate.py [learn one]")
    parser.add_argument("--count", type=int, default=304, help="pictures to measure")
    return parser.parse_args()


def main() -> None:
    """Train what is missing, then measure all."""
    given = _arguments()
    if given.pairs is None:
        print("left out: needs a table of photos and an hour; see --help")
        return
    torch.set_num_threads(1)
    names = [name for name in (*_PEERS, *_PARTS) if name == "plus" or given.only is None or name in given.only]
    with ThreadPoolExecutor(given.together) as pool:
        list(pool.map(lambda name: train(name, given.pairs, given.out, given.steps), names))
    found = bench_gan_quality.measure(given.pairs, dict(learnt(given.out, names)), given.encoder, given.count)
    harness.write("gan_ablation", found, given.out)


if __name__ == "__main__":
    main()
