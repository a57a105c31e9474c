"""The three generators on held-out patients: plain pix2pix, the paper's, and plus.

    python tests/benchmarks/bench_gan_quality.py train --kind plus --pairs TABLE --out FOLDER [--machine gpu]
    python tests/benchmarks/bench_gan_quality.py measure --pairs TABLE --plus FILE [--paper FILE] [--pix2pix FILE]

``train`` trains one of them, without Ray, on the split and the samples of jobs/train_gan.py; that job's own runs, plus
and paper, it trains by that job's own loop, and leaves what the job leaves. Stopped and called again, it goes on
exactly where its last checkpoint stands.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.utils.data import DataLoader, Dataset

from medsynth import storage
from medsynth.distributed import loop, runs
from medsynth.distributed.board import Progress
from medsynth.distributed.feed import Arrays
from medsynth.evaluation import conditioning, fidelity, pictures
from medsynth.evaluation import encoder as encoders
from medsynth.evaluation.encoder import Encoder
from medsynth.seeds import digest64
from medsynth.skin import presets
from medsynth.skin import run as skin
from medsynth.skin.model import SkinModel
from medsynth.skin.pairs import read, split
from medsynth.skin.run import Order, SkinRun
from medsynth.skin.samples import Facts, Feed, load
from tests.benchmarks import harness, lacking, pix2pix
from tests.benchmarks.lacking import Lacking
from tests.benchmarks.pix2pix import Pix2pix, Pix2pixSettings

_CHECKPOINT = "checkpoint.safetensors"
PEER_WEIGHTS = "pix2pix.safetensors"


class _Batches(Dataset[Arrays]):
    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def __getitem__(self, step: int) -> Arrays:
        torch.set_num_threads(1)
        return self._feed.batch(step, 0, 1)


def batches(feed: Feed, first: int, last: int, makers: int) -> Iterator[Arrays]:
    """A feed's batches in order, made ahead by so many processes."""
    steps: Any = range(first, last)  # what has a length and an order is a sampler
    ahead = 6 if makers else None
    yield from DataLoader(
        _Batches(feed),
        batch_size=None,
        sampler=steps,
        num_workers=makers,
        prefetch_factor=ahead,
        collate_fn=lambda b: b,
    )


def run_of(order: Order) -> SkinRun:
    """A run of jobs/train_gan.py, as the job sets it up."""
    material = skin.part(order)
    own = order.settings.samples
    facts = [load(photo, own.size, own.region).facts for photo in material.whole.photos]
    return skin.set_up(order, material, facts)


def train_ours(job: SkinRun, device: torch.device, makers: int) -> None:
    """Train to the end, from the last checkpoint where there is one, and write weights and card."""
    runs.claim(job.out, job.header())
    learner = job.learner(device, lambda _: None, 0)
    done, rows = runs.resume(job.out, learner.load)
    began = time.monotonic()

    def tell(now: Progress) -> None:
        left = (now.steps - now.step) * (time.monotonic() - began) / (now.step - done)
        told = " ".join(f"{name} {value:.3g}" for name, value in (now.losses | now.rates | now.figures).items())
        speed = f"{now.samples_per_second:.0f} samples/s, {now.waiting:.0%} waiting"
        print(f"step {now.step}/{now.steps}, {speed}, {left:.0f} s left: {told}", flush=True)

    loop.learn(job, learner, batches(job.feed, done, job.pace.steps, makers), done, rows, tell=tell)
    found = runs.load_checkpoint(job.out)
    assert found is not None
    # The learner's own tensors may lie on a GPU.
    print(f"done: {skin.finish(job, found[1], rows, shlex.join(['python', *sys.argv]))}")


def train_pix2pix(
    order: Order, settings: Pix2pixSettings, out: Path, device: torch.device, makers: int, save_seconds: float = 60
) -> None:
    """Train the peer to the end on the photos of an order, from the last checkpoint where there is one."""
    there, seed = skin.part(order), order.seed
    # As pix2pix is told of a photo by its own authors: as it is, turned and mirrored, no tone changed.
    feed = Feed(there.training, there.validation, there.conditions, order.settings.samples, seed, settings.batch)
    learner = Pix2pix(settings, seed, device)
    identity = f"{digest64(str(settings), seed, there.training.digest):x}"
    checkpoint = out / _CHECKPOINT
    if checkpoint.exists():
        with safetensors.safe_open(checkpoint, "pt") as file:
            if (file.metadata() or {}).get("run") != identity:
                sys.exit(f"{checkpoint}: of another run (settings, seed or photos); name another --out")
        learner.load(safetensors.torch.load_file(checkpoint))
    out.mkdir(parents=True, exist_ok=True)
    began, saved, first = time.monotonic(), time.monotonic(), learner.steps
    for batch in batches(feed, first, settings.steps, makers):
        told = learner.step(batch)
        if learner.steps % 200 == 0:
            rate = (learner.steps - first) / (time.monotonic() - began)
            figures = " ".join(f"{name} {float(value):.3f}" for name, value in told.items())
            left = (settings.steps - learner.steps) / rate
            print(f"step {learner.steps}/{settings.steps}, {rate:.2f}/s, {left:.0f} s left: {figures}", flush=True)
        if time.monotonic() - saved > save_seconds or learner.steps == settings.steps:
            _save(learner, checkpoint, identity)
            saved = time.monotonic()
    facts: list[Facts] = [load(photo, settings.size).facts for photo in there.training.photos]
    geometry = there.training.geometry([(one.width, one.height) for one in facts])
    (out / PEER_WEIGHTS).write_bytes(learner.save(there.conditions, geometry, {"seed": seed, "table": order.pairs}))
    print(f"done: {out / PEER_WEIGHTS}")


def _save(learner: Pix2pix, path: Path, identity: str) -> None:
    staged = path.with_suffix(".new")
    state = {name: value.detach().cpu().contiguous() for name, value in learner.state().items()}
    safetensors.torch.save_file(state, staged, {"run": identity})
    staged.replace(path)


def train(given: argparse.Namespace) -> None:
    """The command ``train``."""
    device = torch.device(given.device)
    flags: dict[str, Any] = {"steps": given.steps} if given.steps else {}
    preset = "paper" if given.kind == "pix2pix" else given.kind
    base = presets.settings(preset, given.machine, given.settings, flags)
    table, out = storage.absolute(given.pairs), str(given.out.resolve())
    told = skin.attribution(table) if given.attribution is None else given.attribution
    order = Order(out, base, given.seed, table, told)
    if given.kind != "pix2pix":
        job = run_of(order)
        train_ours(Lacking.of(job, given.without) if given.without else job, device, given.makers)
        return
    wanted = Pix2pixSettings(base.generator.size, base.generator.width, base.batch, base.steps)
    train_pix2pix(order, wanted, given.out, device, given.makers)


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
        for other in ("pix2pix", "plus"):
            if other in features and other != name:
                apart = fidelity.kid_difference(seen, features[name], features[other], real.groups, drawn.groups)
                found[name][f"kid_less_{other}"] = vars(apart)
    wide = max(map(len, models))
    print(f"{'':{wide}} {'KID':>8} {'95 %':>20} density coverage precision recall  ITA error")
    print(f"{'floor':{wide}} {floor.value:8.4f} {floor.low:9.4f} to {floor.high:7.4f}")
    for name in models:
        one = found[name]
        kid = f"{one['kid']['value']:8.4f} {one['kid']['low']:9.4f} to {one['kid']['high']:7.4f}"
        near = f"{one['density']:7.2f} {one['coverage']:8.2f} {one['precision']:9.2f} {one['recall']:6.2f}"
        print(f"{name:{wide}} {kid} {near} {one['ita_error']:9.1f}°")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("train", help="one of the three; call it again to go on")
    one.add_argument("--kind", choices=("plus", "further", "paper", "pix2pix"), required=True)
    one.add_argument("--pairs", required=True, help="table of photos, as for jobs/train_gan.py")
    one.add_argument("--out", required=True, type=Path)
    one.add_argument("--machine", choices=tuple(presets.MACHINES), default="cpu", help="as for jobs/train_gan.py")
    one.add_argument("--settings", help="YAML, as for jobs/train_gan.py; pix2pix takes the paper's size and pace")
    one.add_argument("--without", choices=lacking.PARTS, help="a part of the network plus to do without")
    one.add_argument("--steps", type=int)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--attribution", help="as for jobs/train_gan.py")
    one.add_argument("--device", default="cpu", help="cuda for a GPU")
    one.add_argument("--threads", type=int, default=1, help="of the training itself")
    one.add_argument("--makers", type=int, default=1, help="processes that make samples; 0 for none")
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
        torch.set_num_threads(given.threads)
        train(given)
    elif given.command == "measure":
        loaded = {"pix2pix": pix2pix.load(given.pix2pix)} if given.pix2pix else {}
        loaded |= {name: SkinModel.load(getattr(given, name)) for name in ("paper", "plus") if getattr(given, name)}
        harness.write("gan_quality", measure(given.pairs, loaded, given.encoder, given.count), given.out)
    else:
        print("left out: needs three trained models; see --help")
