from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medsynth import learning
from medsynth.cuda_graph import Parts, Repeated
from medsynth.skin.model import Request, SkinModel

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=gpu)]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_what_is_yielded_is_handed_over_in_order_and_may_be_changed(device: torch.device) -> None:
    seen: list[list[float]] = []

    def between(tensors: Sequence[Tensor]) -> None:
        seen.append([float(one) for one in tensors])
        for one in tensors:
            one += 1

    def work(x: Tensor, y: Tensor) -> Parts[Tensor]:
        twice = 2 * x
        yield [twice]
        both = [twice * y, twice + y]
        yield both
        apart: Tensor = both[0] - both[1]
        return apart

    repeated = Repeated(work, device, between)
    for turn in range(8):
        assert float(repeated(torch.tensor(float(turn)), torch.tensor(3.0))) == 3 * (2 * turn + 1) - (2 * turn + 4)
        assert seen == [[2 * turn], [3 * (2 * turn + 1), 2 * turn + 4]]
        seen.clear()


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_other_shapes_are_another_recording(device: torch.device) -> None:
    def work(x: Tensor) -> Parts[Tensor]:
        yield from ()
        return x.sum()

    repeated = Repeated(work, device)
    for size in (3, 5, 3):
        for turn in range(6):
            assert float(repeated(torch.full((size,), float(turn)))) == size * turn


@gpu
def test_a_recording_learns_the_same_bits_with_noise_of_its_own_at_every_step() -> None:
    device = torch.device("cuda")
    learning.made_repeatable(device)

    def trained(forget_after: Sequence[int]) -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 1)).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=torch.tensor(0.01, device=device), capturable=True)

        def work(x: Tensor) -> Parts[Tensor]:
            optimizer.zero_grad(set_to_none=True)
            loss: Tensor = ((network(x) - torch.randn(len(x), 1, device=device)) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            yield [one.grad for one in network.parameters() if one.grad is not None]
            optimizer.step()
            return loss.detach()

        repeated = Repeated(work, device)
        losses = []
        for step in range(12):
            torch.manual_seed(step)
            if step in forget_after:
                repeated.forget()
            losses.append(repeated(torch.ones(4, 8)).clone())
        return [*losses, *(one.detach() for one in network.parameters())]

    recorded, launched = trained(()), trained(range(0, 12, 2))
    assert all(torch.equal(one, other) for one, other in zip(recorded, launched, strict=True))
    assert len({float(loss) for loss in recorded[:12]}) == 12


@gpu
def test_a_gpu_draws_a_picture_the_same_in_whatever_company() -> None:
    model = SkinModel.load()
    model.network.to(torch.device("cuda"))
    # In a batch of eight, the last places of the first two of these came out otherwise on an H100.
    requests = [Request(name, kind) for name, kind in zip(3 * model.conditions, 5 * (1, 3, 5, 6), strict=False)]
    own = range(len(requests))
    together = [one.image for one in model.draw(requests, own)]
    on_cpu = [one.image for one in SkinModel.load().draw(requests, own)]
    assert np.abs(np.array(together).astype(int) - np.array(on_cpu)).mean() < 0.1  # TF32: 0.004 on an H100
    for place, request in enumerate(requests):
        assert np.array_equal(model.draw([request], [place])[0].image, together[place])
    turned = model.draw(requests[::-1], own[::-1])
    assert all(np.array_equal(one.image, other) for one, other in zip(turned[::-1], together, strict=True))
