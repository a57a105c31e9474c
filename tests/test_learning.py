import pytest
import torch
import yaml
from pydantic import ValidationError

from medsynth import learning
from medsynth.learning import PaceSettings


def test_validations_stand_on_lines_of_the_curve() -> None:
    assert PaceSettings(validate_every=40, log_every=20).validate_every == 40
    with pytest.raises(ValidationError, match=r"must be a multiple of log_every \(20\)"):
        PaceSettings(validate_every=50, log_every=20)
    assert "checkpoint_seconds" not in PaceSettings().deciding()
    assert PaceSettings(steps=7).deciding()["steps"] == 7


@pytest.mark.parametrize(
    ("wanted", "kind"), [("auto", torch.float32), ("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_products_on_a_cpu_are_in_float32_unless_asked(wanted: str, kind: torch.dtype) -> None:
    one = torch.ones(2, 2)
    with learning.precision(torch.device("cpu"), wanted):
        assert (one @ one).dtype == kind
    assert (one @ one).dtype == torch.float32
    with pytest.raises(ValidationError, match="precision"):
        PaceSettings(precision="fp16")


def test_an_average_forgets_the_first_weights_in_a_short_run() -> None:
    mean, module = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        for network, value in ((mean, 0.0), (module, 1.0)):
            network.weight.fill_(value)
            network.bias.fill_(value)
    learning.follow(mean, module, 0.999, 1)
    assert mean.weight.item() == pytest.approx(0.9)
    learning.follow(mean, module, 0.5, 10**6)
    assert mean.weight.item() == pytest.approx(0.95)


def test_an_optimizer_goes_on_with_the_moments_that_were_kept() -> None:
    def made() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(1)
        module = torch.nn.Linear(3, 2)
        return module, torch.optim.Adam(module.parameters(), lr=0.1)

    def step(module: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    whole = made()
    for _ in range(4):
        step(*whole)
    first = made()
    step(*first)
    step(*first)
    kept = {
        **learning.state_of({"weights": first[0]}),
        **learning.moments_of("adam", dict(first[0].named_parameters()), first[1]),
    }
    again = made()
    learning.load_state({"weights": again[0]}, kept)
    learning.load_moments("adam", dict(again[0].named_parameters()), again[1], kept)
    for _ in range(2):
        step(*again)
    assert torch.equal(again[0].weight, whole[0].weight)


def test_a_card_ends_with_the_command_and_with_settings_that_make_the_run_again() -> None:
    settings = {"held_out_slides": ["Größe"], "steps": 7, "network": {"kind": "paper"}}
    lines = learning.how_made("python jobs/train.py", "Seed 3.", settings)
    text = "\n".join(lines)
    assert "python jobs/train.py" in lines
    assert "Seed 3. Settings that decide the weights:" in lines
    assert "Größe" in text
    assert yaml.safe_load(text.split("```yaml")[1].split("```")[0]) == settings
