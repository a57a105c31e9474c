"""How the skin generator learns: one class that takes batches, and nothing of where they come from.

All that is drawn at random in a step comes from a generator keyed by (seed, step, worker), so the state is the
weights, their average, the optimizers' moments, how strongly judged pictures are disturbed, and the number of steps.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from medsynth import learning
from medsynth.cuda_graph import Parts, Repeated
from medsynth.learning import PaceSettings
from medsynth.seeds import digest64
from medsynth.skin import generator, losses
from medsynth.skin.discriminator import Discriminators, DiscriminatorSettings, LookEncoder
from medsynth.skin.generator import Asked, Chance, GeneratorSettings
from medsynth.skin.losses import LossSettings

Batch = Mapping[str, NDArray[Any]]
"""As :meth:`medsynth.skin.samples.Feed.batch` gives it."""

_BATCH = ("photos", "maps", "masks", "skins", "conditions", "types")
_DEPTHS = "depths"


class LearningSettings(PaceSettings):
    """How the networks learn, whatever from."""

    generator: GeneratorSettings = GeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    losses: LossSettings = LossSettings()
    batch: int = Field(default=16, ge=1, le=65536)
    """Samples of one step, over all workers."""
    learning_rate: float = Field(default=5e-4, gt=0, le=1)
    judging_rate: float = Field(default=1e-3, gt=0, le=1)
    """Of the discriminator. Higher than the generator's, as Heusel et al. 2017 (section 2) found to settle better."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Adam's first decay."""
    second_momentum: float = Field(default=0.99, ge=0, lt=1)
    """Adam's second decay: that of Karras et al. 2018 ("Progressive growing of GANs", appendix A.1)."""
    constant: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps before the learning rates begin to fall to nothing."""
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is kept; less in the first steps."""
    augmented: float = Field(default=0.6, ge=0, lt=1)
    """How often real pictures may be told for real before the judged ones are disturbed more; 0 for never."""
    augmented_images: int = Field(default=20000, ge=1)
    """Pictures over which the disturbance goes from never to always, at the fastest."""
    begin: str = ""
    """URI of weights to learn on from, ``shipped`` for those that medsynth comes with, or nothing, to begin anew.

    A network of the kind plus then learns as it is drawn with: with its floors, and noise of the spreads that its
    settings tell. What read photos' looks for it was not kept: with ``losses.look`` above 0 it learns anew, at first
    with the judges alone, and without, no picture has a photo to be held against by pixel.
    """
    judging_first: int = Field(default=0, ge=0)
    """Steps at the start in which only judges learn, and what reads looks, where the generator's weights are begun with
    and theirs are not."""
    learnt: float = Field(default=1.0, gt=0, le=1)
    """Where weights are begun with, how far the way from these to those learnt the kept ones lie. Halfway often draws
    better than either end (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, section 3)."""
    silenced: float = Field(default=1.0, gt=0, le=1)
    """Channels that alone make more than this share of the specks of light on drawn skin are silenced in the weights
    that are kept (:mod:`medsynth.skin.specks`); 1 silences none. To find them takes some 430 pictures at 6 conditions,
    at each validation."""

    @model_validator(mode="after")
    def _begun(self) -> Self:
        if self.begin and self.generator.kind == "plus" and not self.losses.look:
            held = [name for name in ("l1", "lesion_l1") if getattr(self.losses, name)]
            if held:
                raise ValueError(
                    f"losses.{held[0]} holds pictures against photos whose looks are read, and weights to begin with "
                    "come without what reads them; let it learn anew with losses.look above 0, or set both to 0"
                )
        if self.learnt < 1 and not self.begin:
            raise ValueError(f"learnt is {self.learnt} of the way from weights to begin with; name them as begin")
        if self.silenced < 1 and self.generator.kind == "unet":
            raise ValueError(f"silenced is {self.silenced}, but a U-Net has no channels to silence; leave it at 1")
        if self.judging_first >= self.steps:
            raise ValueError(
                f"judging_first is {self.judging_first} of {self.steps} steps; leave some to the generator"
            )
        if self.judging_first % self.log_every:
            raise ValueError(f"judging_first must be a multiple of log_every ({self.log_every})")
        return self


class Trainer:
    """The networks in training.

    Args:
        settings: how they learn.
        conditions: how many there are.
        device: where they learn.
        seed: of the first weights and of all chance.
        average: called with tensors of each step, to replace them by their means over all workers.
        rank: of this worker; each draws other noise.
        begun: weights of the generator to begin with; random ones by default.
    """

    def __init__(
        self,
        settings: LearningSettings,
        conditions: int,
        device: torch.device,
        seed: int,
        average: Callable[[Sequence[Tensor]], None] = lambda _: None,
        rank: int = 0,
        begun: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._settings, self._device, self._seed = settings, device, seed
        self._rank = rank
        own = settings.generator
        learning.made_repeatable(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(digest64(seed, "weights") >> 1)
            self.module = generator.build(own, conditions)
            self.averaged = generator.build(own, conditions)
            self.judge = Discriminators(settings.discriminator, conditions)
            read = own.kind == "plus" and (begun is None or settings.losses.look > 0)
            self.encoder = LookEncoder(own.width, own.latent, own.size) if read else None
        # Weights that are begun with learn from noise as they draw with.
        self._spreads = (1.0, 1.0) if begun is None else (own.look_spread, own.grain_spread)
        if begun is not None:
            self.module.load_state_dict(begun)
        self.averaged.load_state_dict(self.module.state_dict())
        self._modules: dict[str, nn.Module] = {
            "weights": self.module, "average": self.averaged, "judge": self.judge,
        } | ({"encoder": self.encoder} if self.encoder else {})  # fmt: skip
        for module in self._modules.values():
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged.requires_grad_(False).eval()
        drawing = {f"weights.{name}": value for name, value in self.module.named_parameters()}
        if self.encoder:
            drawing |= {f"encoder.{name}": value for name, value in self.encoder.named_parameters()}
        self._learning = {
            "draw": drawing,
            "judge": {f"judge.{name}": value for name, value in self.judge.named_parameters()},
        }
        betas = (settings.momentum, settings.second_momentum)
        gpu = device.type == "cuda"
        self._optimizers = {
            name: torch.optim.Adam(
                list(parameters.values()),
                lr=torch.zeros((), device=device) if gpu else 0.0,
                betas=betas,
                fused=True,
                capturable=gpu,
            )
            for name, parameters in self._learning.items()
        }
        self.disturbed = torch.zeros((), device=device)
        self.steps = 0
        self._repeated = Repeated(self._learn, device, average)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch.

        Args:
            batch: this worker's share of the step.

        Returns:
            The losses before the step by name, scalars on the device.
        """
        # A copy first: batches come read-only out of shared memory.
        names = (*_BATCH, _DEPTHS) if _DEPTHS in batch else _BATCH
        given = [torch.from_numpy(np.array(batch[name])) for name in names]
        self._set_rates()
        if self.steps == self._settings.judging_first:
            self._repeated.forget()  # more is to be done from now on
        with self._chance():
            told = self._repeated(*given)
        learning.changed(self.module)
        self.steps += 1
        learning.follow(self.averaged, self.module, self._settings.ema, self.steps)
        return {name: loss.clone() for name, loss in told.items()}

    def _set_rates(self) -> None:
        for name, rate in self.rates().items():
            group = self._optimizers["draw" if name == "learning_rate" else "judge"].param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _learn(self, *given: Tensor) -> Parts[dict[str, Tensor]]:
        own = self._settings.losses
        photos, asked = _scaled(*given)
        judging = self.steps < self._settings.judging_first
        reading = judging and self.encoder is not None
        self.module.requires_grad_(not judging)
        with (
            torch.set_grad_enabled(reading or not judging),
            learning.precision(self._device, self._settings.precision),
        ):
            chance, spread = self._looks(photos, asked)
            drawn = self.module(asked, chance).float()
        disturb = _disturbance(len(photos), self.disturbed)
        seen = Asked(disturb(asked.maps), disturb(asked.masks), asked.skin, asked.conditions, asked.types)
        real, fake = disturb(photos), disturb(drawn)
        with learning.precision(self._device, self._settings.precision):
            both = Asked(*(torch.cat([field, field]) for field in seen[:5]))
            scores, features = self.judge(torch.cat([real, fake.detach()]), both)
        real_scores, fake_scores = zip(*(score.chunk(2) for score in scores), strict=True)
        real_features = [answer.detach().chunk(2)[0] for answer in features]
        judged = losses.judged(real_scores, True, own.kind) + losses.judged(fake_scores, False, own.kind)
        sure = torch.stack([score.detach().float().sign().mean() for score in real_scores]).mean()
        yield [*self._gradients("judge", own.judge * judged), sure]
        self._optimizers["judge"].step()
        self._follow(sure)
        if reading:
            terms = self._terms(drawn, photos, asked.masks, None, spread)
            yield self._gradients("draw", torch.stack(list(terms.values())).sum())
            self._optimizers["draw"].step()
            return {"judge": judged.detach(), **{name: term.detach() for name, term in terms.items()}}
        if judging:
            return {"judge": judged.detach()}
        self.judge.requires_grad_(False)
        with learning.precision(self._device, self._settings.precision):
            scores, features = self.judge(fake, seen)
        self.judge.requires_grad_(True)
        terms = self._terms(drawn, photos, asked.masks, (scores, features, real_features), spread)
        yield self._gradients("draw", torch.stack(list(terms.values())).sum())
        self._optimizers["draw"].step()
        return {"judge": judged.detach(), **{name: term.detach() for name, term in terms.items()}}

    def _looks(self, photos: Tensor, asked: Asked) -> tuple[Chance | None, tuple[Tensor, Tensor] | None]:
        # Of every other photo the look is read, and its picture is held against it pixel by pixel; the others'
        # are drawn as they will be once it is learnt.
        own = self._settings.generator
        if own.kind == "unet":
            return None, None
        spreads = self._spreads
        if self.encoder is None:
            look = spreads[0] * torch.randn(len(photos), own.latent, device=self._device)
            return Chance(look, self._grain(len(photos), spreads[1])), None
        count = (len(photos) + 1) // 2
        mean, spread = (value.float() for value in self.encoder(photos[:count], asked.masks[:count]))
        look = spreads[0] * torch.randn(len(photos), own.latent, device=self._device)
        read = mean + (0.5 * spread).exp() * look[:count]
        return Chance(torch.cat([read, look[count:]]), self._grain(len(photos), spreads[1])), (mean, spread)

    def _grain(self, count: int, spread: float) -> tuple[Tensor, ...]:
        sides = generator.sides(self._settings.generator.size)
        return tuple(spread * torch.randn(count, 1, side, side, device=self._device) for side in sides)

    def _terms(
        self,
        drawn: Tensor,
        photos: Tensor,
        masks: Tensor,
        judged: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]] | None,
        spread: tuple[Tensor, Tensor] | None,
    ) -> dict[str, Tensor]:
        own = self._settings.losses
        known = len(photos) if spread is None else len(spread[0])
        some = len(photos) if own.guessed else known
        match = losses.feature_matching if self._settings.generator.kind == "unet" else losses.statistics_matching
        kept: dict[str, tuple[float, Callable[[], Tensor]]] = {}
        if judged is not None:
            scores, *features = judged
            kept["adversarial"] = (own.adversarial, lambda: losses.fooled(scores, own.kind))
            kept["min_patch"] = (own.min_patch, lambda: losses.min_patch(scores, own.kind))
        kept["l1"] = (own.l1, lambda: losses.l1(drawn[:known], photos[:known], own.pool))
        kept["lesion_l1"] = (
            own.lesion_l1,
            lambda: losses.lesion_l1(drawn[:known], photos[:known], masks[:known], own.pool),
        )
        if judged is not None:
            kept["features"] = (own.feature_matching, lambda: match(*features))
        kept |= {
            "texture": (own.texture, lambda: losses.texture(drawn, photos, own.texture_colour, own.texture_strong)),
            "tone": (own.tone, lambda: losses.tone(drawn, photos, masks, own.tone_spread)),
            "lesion_tone": (
                own.lesion_tone,
                lambda: losses.tone(drawn[:some], photos[:some], 1 - masks[:some], own.tone_spread),
            ),
            "shades": (own.shades, lambda: losses.shades(drawn, photos, masks, some)),
        }
        if spread is not None:
            kept["look"] = (own.look, lambda: losses.divergence(*spread))
        return {name: weight * term() for name, (weight, term) in kept.items() if weight}

    def _gradients(self, name: str, loss: Tensor) -> list[Tensor]:
        self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return [parameter.grad for parameter in self._learning[name].values() if parameter.grad is not None]

    def _follow(self, sure: Tensor) -> None:
        # Karras et al., "Training GANs with limited data", NeurIPS 2020, section 3.1.
        if not self._settings.augmented:
            return
        pace = self._settings.batch / self._settings.augmented_images
        self.disturbed.add_(pace * (sure - self._settings.augmented).sign()).clamp_(0, 0.9)

    def rates(self) -> dict[str, float]:
        """The learning rates of the next step."""
        own = self._settings
        constant = own.constant * own.steps
        left = 1.0 if self.steps < constant else max(0.0, (own.steps - self.steps) / max(1.0, own.steps - constant))
        return {"learning_rate": own.learning_rate * left, "judging_rate": own.judging_rate * left}

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on exactly."""
        found = {"steps": torch.tensor(self.steps), "disturbed": self.disturbed, **learning.state_of(self._modules)}
        for part, parameters in self._learning.items():
            found |= learning.moments_of("adam", parameters, self._optimizers[part])
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Args:
            state: what :meth:`state` gave, of a trainer with the same settings.
        """
        self.steps = int(state["steps"])
        self.disturbed.copy_(state["disturbed"])
        learning.load_state(self._modules, state)
        for part, parameters in self._learning.items():
            learning.load_moments("adam", parameters, self._optimizers[part], state)
        self._repeated.forget()

    @contextmanager
    def _chance(self) -> Iterator[None]:
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(digest64(self._seed, "step", self.steps, self._rank) >> 1)
            yield


def _scaled(
    photos: Tensor,
    maps: Tensor,
    masks: Tensor,
    skins: Tensor,
    conditions: Tensor,
    types: Tensor,
    depths: Tensor | None = None,
) -> tuple[Tensor, Asked]:
    pictures = [picture.permute(0, 3, 1, 2).float() / 127.5 - 1 for picture in (photos, maps)]
    real, drawn = (picture.contiguous(memory_format=torch.channels_last) for picture in pictures)
    deep = None if depths is None else depths[:, None]
    return real, Asked(drawn, masks[:, None].float(), skins.float() / 127.5 - 1, conditions, types, deep)


def _disturbance(count: int, chance: Tensor) -> Callable[[Tensor], Tensor]:
    """Moves some pictures of a batch, and wipes a part of some; the same ones for whatever it is given.

    What turns and mirrors is left to the samples. Colours are not changed: they are what is to be judged.
    """
    moved, wiped = (torch.rand(2, count, device=chance.device) < chance).unbind(0)
    shifts = torch.rand(2, count, device=chance.device) * 2 - 1
    corners = torch.rand(2, count, device=chance.device)

    def disturb(images: Tensor) -> Tensor:
        size = images.shape[2]
        if images.device.type == "cpu" and not (moved | wiped).any():  # a GPU would have to be waited for
            return images
        places = torch.arange(size, device=images.device)
        whole = [torch.round(shift * moved * size / 8).long() for shift in shifts]
        # Mirrored at the edges, as a photo goes on, not filled with a colour that only drawn pictures would have.
        rows, columns = ((size - 1 - (size - 1 - (places + by[:, None]).abs()).abs()) for by in whole)
        index = torch.arange(count, device=images.device)[:, None, None]
        found = images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        low = [(corner * size * 0.7).long()[:, None] for corner in corners]
        inside = [(places >= start) & (places < start + size * 3 // 10) for start in low]
        hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None] & wiped[:, None, None, None]
        return found.masked_fill(hole, 0.0)

    return disturb
