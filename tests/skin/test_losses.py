import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from medsynth.skin import losses

PHOTO = torch.zeros(1, 3, 16, 16)
MASK = torch.zeros(1, 1, 16, 16)
MASK[:, :, 4:8, 4:8] = 1


def test_l1_is_a_mean_over_pixels_or_over_squares() -> None:
    drawn = torch.zeros(1, 3, 16, 16)
    drawn[..., ::2] = 1
    drawn[..., 1::2] = -1
    assert float(losses.l1(drawn, PHOTO, 1)) == 1
    assert float(losses.l1(drawn, PHOTO, 4)) == 0


def test_lesion_l1_sees_the_lesion_alone() -> None:
    assert float(losses.lesion_l1(2 * MASK.expand(-1, 3, -1, -1), PHOTO, MASK, 1)) == pytest.approx(2)
    assert float(losses.lesion_l1((1 - MASK).expand(-1, 3, -1, -1), PHOTO, MASK, 1)) == 0
    assert float(losses.lesion_l1(PHOTO, PHOTO, torch.zeros_like(MASK), 1)) == 0


@pytest.mark.parametrize("kind", ["vanilla", "hinge"])
def test_good_judgements_cost_less_and_the_worst_patch_counts(kind: losses.Kind) -> None:
    high, low = [torch.full((2, 1, 3, 3), 2.0)], [torch.full((2, 1, 3, 3), -2.0)]
    assert losses.judged(high, True, kind) < losses.judged(low, True, kind)
    assert losses.judged(low, False, kind) < losses.judged(high, False, kind)
    assert losses.fooled(high, kind) < losses.fooled(low, kind)
    one_bad = [high[0].clone()]
    one_bad[0][:, 0, 1, 1] = -2.0
    assert float(losses.min_patch(one_bad, kind)) == pytest.approx(float(losses.fooled(low, kind)))
    assert float(losses.fooled(one_bad, kind)) < float(losses.fooled(low, kind))


def test_vanilla_is_cross_entropy() -> None:
    scores = torch.tensor([[[[0.3]]]])
    chance = 1 / (1 + math.exp(-0.3))
    assert float(losses.judged([scores], True, "vanilla")) == pytest.approx(-math.log(chance))
    assert float(losses.judged([scores], False, "vanilla")) == pytest.approx(-math.log(1 - chance))


def test_statistics_do_not_ask_where_and_features_do() -> None:
    one = torch.randn(2, 4, 8, 8)
    moved = one.roll(3, dims=3)
    assert float(losses.statistics_matching([one], [moved])) == pytest.approx(0, abs=1e-6)
    assert float(losses.feature_matching([one], [moved])) > 0.5
    assert float(losses.feature_matching([one], [one])) == 0


def test_texture_tells_strength_not_place() -> None:
    torch.manual_seed(0)
    fine, other, strong = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64), 2 * torch.randn(1, 3, 64, 64)
    assert float(losses.texture(fine, fine)) == 0
    assert float(losses.texture(fine, other)) < 0.2 * float(losses.texture(fine, strong))


def _speckled(colour: tuple[float, float, float], every: int, strength: float) -> torch.Tensor:
    found = torch.zeros(1, 3, 64, 64)
    found[:, :, ::every, ::every] = strength * torch.tensor(colour)[None, :, None, None]
    return found


def test_texture_of_brightness_and_colour_tells_green_specks_from_grey_ones() -> None:
    grey, green = _speckled((1 / 3, 1 / 3, 1 / 3), 4, 1.0), _speckled((0.0, 1.0, 0.0), 4, 1.0)
    apart = float(losses.texture(grey, green, colour=2))
    assert float(losses.texture(green, green, colour=2)) == 0
    # In red, green and blue a third as much detail in each is as much as all of it in one.
    assert apart > 4 * float((losses.texture(grey, 0 * grey) - losses.texture(green, 0 * green)).abs())
    assert apart > float(losses.texture(grey, green))


def test_texture_of_strong_detail_tells_few_strong_specks_from_many_weak_ones() -> None:
    many, few = _speckled((1, 1, 1), 4, 0.1), _speckled((1, 1, 1), 8, 0.4)
    usual = float(losses.texture(many, few))
    assert float(losses.texture(many, few, strong=1)) > 2 * usual


def test_tone_sees_the_skins_mean_and_spread_and_not_the_lesion() -> None:
    torch.manual_seed(0)
    photo = torch.randn(2, 3, 32, 32)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:16, 8:16] = 1
    assert float(losses.tone(photo + 5 * mask, photo, mask)) == pytest.approx(0, abs=1e-5)
    assert float(losses.tone(photo + 5 * mask + 3 * (1 - mask), photo, 1 - mask)) == pytest.approx(5, abs=1e-4)
    assert float(losses.tone(photo + 0.5, photo, mask)) == pytest.approx(0.5, abs=1e-4)
    assert float(losses.tone(photo.flip(3), photo, mask.maximum(mask.flip(3)))) == pytest.approx(0, abs=1e-5)
    spread = float(losses.tone(3 * photo, photo, mask)) - float(losses.tone(3 * photo, photo, mask, 0.0))
    assert spread > 0.1
    assert float(losses.tone(3 * photo, photo, mask, 3.0)) == pytest.approx(
        float(losses.tone(3 * photo, photo, mask, 0.0)) + 3 * spread, rel=1e-4
    )


def test_divergence_is_that_of_normal_distributions() -> None:
    assert float(losses.divergence(torch.zeros(2, 5), torch.zeros(2, 5))) == 0
    mean, log_variance = torch.randn(1, 1), torch.randn(1, 1)
    one = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    reference = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0))
    assert float(losses.divergence(mean, log_variance)) == pytest.approx(float(reference), rel=1e-5)


def shaded(inside: torch.Tensor, beside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of 64 px with these shades of grey, in order, in its left quarter and beside it; and its mask."""
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., :16] = 1
    grey = torch.cat([inside.reshape(64, 16), beside.reshape(64, 48)], dim=1)
    return grey.expand(1, 3, 64, 64), masks


def test_shades_are_a_wasserstein_distance_in_each_place() -> None:
    torch.manual_seed(0)
    one, other = (torch.rand(1024) for _ in range(2))
    skin, shift = torch.rand(3072), 0.3
    drawn, masks = shaded(one**3, skin + shift)
    photo, _ = shaded(other, skin)
    # Of three axes only brightness differs between greys.
    wanted = (wasserstein_distance(one**3, other) + shift) / 3 / 2
    assert float(losses.shades(drawn, photo, masks)) == pytest.approx(wanted, rel=1e-4)


def test_shades_may_lie_anywhere_but_two_fields_are_no_gradient() -> None:
    torch.manual_seed(0)
    skin, order = torch.zeros(3072), torch.randperm(1024)
    ramp = torch.linspace(-0.5, 0.5, 1024)
    fields = torch.where(ramp > 0, 1.0, -1.0) * ramp.std()
    drawn, masks = shaded(ramp[order], skin)
    photo, _ = shaded(ramp, skin)
    flat, _ = shaded(fields, skin)
    assert float(losses.shades(drawn, photo, masks)) == pytest.approx(0, abs=1e-6)
    assert float(losses.tone(flat, photo, 1 - masks)) < 0.02
    assert float(losses.shades(flat, photo, masks)) > 0.01
    coloured = photo.clone()
    coloured[:, 1, :, :16] += 0.3
    assert float(losses.shades(coloured, photo, masks)) > 0.03


def test_shades_of_a_lesion_that_is_all_or_nothing_still_count() -> None:
    drawn, masks = shaded(torch.full((1024,), 0.2), torch.full((3072,), 0.2))
    for place in (torch.zeros_like(masks), torch.ones_like(masks)):
        assert float(losses.shades(drawn, torch.zeros_like(drawn), place)) == pytest.approx(0.2 / 3 / 2, rel=1e-4)


def test_of_so_many_pictures_alone_the_lesions_shades_count() -> None:
    drawn, masks = shaded(torch.full((1024,), 0.2), torch.full((3072,), 0.2))
    both, photos, places = drawn.repeat(2, 1, 1, 1), torch.zeros(2, *drawn.shape[1:]), masks.repeat(2, 1, 1, 1)
    both[1] *= 1 + masks[0]  # twice as far in its lesion
    assert float(losses.shades(both, photos, places, 1)) == pytest.approx(0.2 / 3, rel=1e-4)
    assert float(losses.shades(both, photos, places)) == pytest.approx((0.3 + 0.2) / 2 / 3, rel=1e-4)
