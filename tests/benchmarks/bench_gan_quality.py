"""The three generators on held-out patients: plain pix2pix, the paper's, and plus.

    python tests/benchmarks/bench_gan_quality.py train --pairs TABLE --out FOLDER [--minutes 4]
    python tests/benchmarks/bench_gan_quality.py measure --pairs TABLE --plus FILE [--paper FILE] [--pix2pix FILE]

``train`` trains pix2pix on the split and the samples of jobs/train_gan.py, and may be stopped and called again:
it goes on exactly where its last checkpoint stands, and says when it is done. Its weights are then in
``FOLDER/pix2pix.safetensors``.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import harness
import pix2pix
import safetensors.torch
import torch
from pix2pix import Pix2pix, Pix2pixSettings

from medsynth.evaluation import conditioning, fidelity, pictures
from medsynth.evaluation import encoder as encoders
from medsynth.evaluation.encoder import Encoder
from medsynth.seeds import digest64
from medsynth.skin import run as skin
from medsynth.skin.model import SkinModel
from medsynth.skin.pairs import read, split
from medsynth.skin.samples import Facts, Feed, SampleSettings, load

_CHECKPOINT, _WEIGHTS = "checkpoint.safetensors", "pix2pix.safetensors"


def train(pairs: str, out: Path, settings: Pix2pixSettings, seed: int, minutes: float) -> bool:
    """Train, or go on; whether it is done."""
    base = {"generator": {"size": settings.size}, "samples": {"size": settings.size}, "batch": settings.batch}
    order = skin.Order("", skin.settings("paper", "cpu", None, base), seed, pairs)
    there = skin.part(order)
    # As pix2pix is told of a photo by its own authors: as it is, turned and mirrored, no tone changed.
    samples: SampleSettings = order.settings.samples
    feed = Feed(there.training, there.validation, there.conditions, samples, seed, settings.batch)
    learner = Pix2pix(settings, seed)
    identity = f"{digest64(str(settings), seed, there.training.digest):x}"
    checkpoint = out / _CHECKPOINT
    if checkpoint.exists():
        with safetensors.safe_open(checkpoint, "pt") as file:
            if (file.metadata() or {}).get("run") != identity:
                sys.exit(f"{checkpoint}: of another run (settings, seed or photos); name another --out")
        learner.load(safetensors.torch.load_file(checkpoint))
    out.mkdir(parents=True, exist_ok=True)
    end, saved = time.monotonic() + 60 * minutes, time.monotonic()
    began, first = time.monotonic(), learner.steps
    while learner.steps < settings.steps:
        told = learner.step(feed.batch(learner.steps, 0, 1))
        over = time.monotonic() > end or learner.steps == settings.steps
        if over or time.monotonic() > saved + 60:
            _save(learner, checkpoint, identity)
            saved = time.monotonic()
            rate = (learner.steps - first) / (saved - began)
            left = (settings.steps - learner.steps) / rate / 60
            figures = " ".join(f"{name} {value:.3f}" for name, value in told.items())
            print(f"step {learner.steps}/{settings.steps}, {rate:.2f}/s, {left:.0f} min left: {figures}", flush=True)
        if over:
            break
    if learner.steps < settings.steps:
        return False
    facts: list[Facts] = [load(photo, settings.size).facts for photo in there.training.photos]
    geometry = there.training.geometry([(one.width, one.height) for one in facts])
    (out / _WEIGHTS).write_bytes(learner.save(there.conditions, geometry, {"seed": seed, "table": pairs}))
    print(f"done: {out / _WEIGHTS}")
    return True


def _save(learner: Pix2pix, path: Path, identity: str) -> None:
    staged = path.with_suffix(".new")
    state = {name: value.detach().contiguous().clone() for name, value in learner.state().items()}
    safetensors.torch.save_file(state, staged, {"run": identity})
    staged.replace(path)


def measure(pairs: str, models: dict[str, SkinModel], encoder: str | None, count: int) -> dict[str, Any]:
    """KID with intervals, density and coverage of each on the same held-out patients, maps and encoder."""
    first = next(iter(models.values()))
    whole = read(pairs)
    settings = models["plus"].about.get("settings", {})
    training, held = split(whole, settings.get("hold_out", 0.15), settings.get("split_seed", 0))
    judge = Encoder.load(encoder) if encoder else encoders.train(training, held, first.conditions)
    real = pictures.real(held, first.size, first.conditions)
    seen = judge.features(real.images)
    floor = fidelity.kid_floor(seen, real.groups)
    found: dict[str, Any] = {"encoder": judge.sha256, "accuracy": encoders.accuracy(judge, real), "floor": vars(floor)}
    features = {}
    for name, model in models.items():
        if (model.size, model.conditions) != (first.size, first.conditions):
            sys.exit(f"{name}: other conditions or another size than the first model's; train them alike")
        drawn = pictures.drawn(model, held, count, 0)
        features[name] = judge.features(drawn.images)
        tones = conditioning.tones(drawn.asked, pictures.measured(drawn), drawn.types)
        told = fidelity.compare(seen, features[name], real.groups, drawn.groups)
        found[name] = {**told, "ita_spearman": tones["spearman"], "ita_error": tones["median_error"]}
        if name != "pix2pix" and "pix2pix" in features:
            apart = fidelity.kid_difference(seen, features[name], features["pix2pix"], real.groups, drawn.groups)
            found[name]["kid_less_pix2pix"] = vars(apart)
    print(f"{'':8} {'KID':>8} {'95 %':>20} density coverage precision recall  ITA error")
    print(f"{'floor':8} {floor.value:8.4f} {floor.low:9.4f} to {floor.high:7.4f}")
    for name in models:
        one = found[name]
        kid = f"{one['kid']['value']:8.4f} {one['kid']['low']:9.4f} to {one['kid']['high']:7.4f}"
        near = f"{one['density']:7.2f} {one['coverage']:8.2f} {one['precision']:9.2f} {one['recall']:6.2f}"
        print(f"{name:8} {kid} {near} {one['ita_error']:9.1f}°")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("train", help="train pix2pix; call it again until it is done (exit code 0, else 3)")
    one.add_argument("--pairs", required=True, help="table of photos, as for jobs/train_gan.py")
    one.add_argument("--out", required=True, type=Path)
    one.add_argument("--size", type=int, default=128)
    one.add_argument("--width", type=int, default=24, help="channels of the first layer; 64 as published")
    one.add_argument("--batch", type=int, default=4)
    one.add_argument("--steps", type=int, default=12000)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--minutes", type=float, default=3.5, help="after which it stops; call it again")
    two = commands.add_parser("measure", help="their table; pix2pix.safetensors, and two skin.safetensors")
    two.add_argument("--pairs", required=True)
    two.add_argument("--plus", required=True)
    two.add_argument("--paper", help="[left out]")
    two.add_argument("--pix2pix", help="[left out]")
    two.add_argument("--encoder", help="of jobs/evaluate.py [learn one]")
    two.add_argument("--count", type=int, default=304)
    two.add_argument("--out", type=Path, default=Path("bench-out"))
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    torch.set_num_threads(1)
    if given.command == "train":
        wanted = Pix2pixSettings(given.size, given.width, given.batch, given.steps)
        sys.exit(0 if train(given.pairs, given.out, wanted, given.seed, given.minutes) else 3)
    elif given.command == "measure":
        loaded = {"pix2pix": pix2pix.load(given.pix2pix)} if given.pix2pix else {}
        loaded |= {name: SkinModel.load(getattr(given, name)) for name in ("paper", "plus") if getattr(given, name)}
        harness.write("gan_quality", measure(given.pairs, loaded, given.encoder, given.count), given.out)
    else:
        print("left out: needs three trained models; see --help")
