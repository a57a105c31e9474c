import json
from pathlib import Path

import pytest
import torch

from medsynth.distributed import runs
from medsynth.errors import TrainingError
from tests.servers import S3Server

STATE = {"model.weight": torch.linspace(-1, 1, 7), "steps": torch.tensor(3, dtype=torch.int64)}
ROWS = [
    runs.row(5, {"loss": 0.5, "rate": 1e-3}),
    runs.row(10, {"loss": 1 / 3, "rate": 1e-3, "spearman": 0.9}),
    runs.row(15, {"loss": 0.1, "rate": 1e-3}),
]


def test_the_same_run_again_is_let_in_and_another_is_refused_by_what_differs(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    header = {"settings": {"steps": 100, "loss": "rps"}, "seed": 1}
    runs.claim(out, header)
    runs.claim(out, {"seed": 1, "settings": {"loss": "rps", "steps": 100}})
    with pytest.raises(TrainingError, match=r"holds another training run \(settings.loss: \"rps\" there, \"ce\" now\)"):
        runs.claim(out, {"settings": {"steps": 100, "loss": "ce"}, "seed": 1})
    assert json.loads((tmp_path / "run" / runs.HEADER).read_text()) == header


def test_a_checkpoint_comes_back_to_the_bit(s3_env: S3Server) -> None:
    out = f"{s3_env.bucket()}/run"
    assert runs.load_checkpoint(out) is None
    for step in (10, 15):
        runs.save_checkpoint(out, step, {**STATE, "extra": torch.tensor([step])}, ROWS)
    found = runs.load_checkpoint(out)
    assert found is not None
    step, state = found
    assert step == 15
    assert state["extra"].tolist() == [15]
    for name, tensor in STATE.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)


def test_the_curve_is_cut_to_the_checkpoint(tmp_path: Path) -> None:
    out = str(tmp_path)
    runs.save_checkpoint(out, 15, STATE, ROWS)
    assert (tmp_path / runs.METRICS).read_text().splitlines() == [
        "step,loss,rate,spearman", "5,0.5,0.001,", "10,0.333333333,0.001,0.9", "15,0.1,0.001,",
    ]  # fmt: skip
    assert runs.load_rows(out, 15) == ROWS
    assert runs.load_rows(out, 10) == ROWS[:2]
    assert runs.load_rows(out, 0) == []


def test_nine_digits_name_a_float32_exactly() -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)).tolist()
    written = [float(runs.row(1, {"loss": value})["loss"]) for value in values]
    assert torch.equal(torch.tensor(written), torch.tensor(values))


def test_a_run_goes_on_from_its_checkpoint_and_refuses_one_of_another_network(tmp_path: Path) -> None:
    out = str(tmp_path)
    network = torch.nn.Linear(2, 3)
    assert runs.resume(out, network.load_state_dict) == (0, [])
    runs.save_checkpoint(out, 10, torch.nn.Linear(2, 3).state_dict(), ROWS)
    assert runs.resume(out, network.load_state_dict) == (10, ROWS[:2])
    assert torch.equal(network.weight, runs.load_checkpoint(out)[1]["weight"])
    for other in (torch.nn.Linear(2, 4), torch.nn.PReLU()):
        with pytest.raises(TrainingError, match=r"last.safetensors: does not fit the settings; remove it"):
            runs.resume(out, other.load_state_dict)


@pytest.mark.parametrize("data", [b"", b"no checkpoint", b"\x08" + bytes(7) + b'{"a": 1}'])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, data: bytes) -> None:
    place = tmp_path / runs.CHECKPOINT
    place.parent.mkdir()
    place.write_bytes(data)
    with pytest.raises(TrainingError, match=r"last.safetensors: damaged; remove it"):
        runs.load_checkpoint(str(tmp_path))


def test_a_damaged_header_or_curve_is_named(tmp_path: Path) -> None:
    (tmp_path / runs.HEADER).write_text("{")
    with pytest.raises(TrainingError, match=r"training.json: damaged"):
        runs.claim(str(tmp_path), {})
    (tmp_path / runs.METRICS).write_text("loss\n0.5\n")
    with pytest.raises(TrainingError, match=r"metrics.csv: damaged"):
        runs.load_rows(str(tmp_path), 5)
