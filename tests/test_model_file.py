import pytest
import torch
from safetensors.torch import save

from medsynth import model_file, storage
from medsynth.focus.model import DEFAULT_URI, FocusModel
from medsynth.model_file import Kind, ModelError

TOY = Kind("medsynth.toy/1", "toy", "jobs/toy.py")


def test_what_is_packed_is_unpacked_and_the_same_model_gives_the_same_bytes() -> None:
    weights = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(1, dtype=torch.float16)}
    data = TOY.pack(weights, {"names": ["x"], "about": {}})
    assert TOY.pack(dict(reversed(weights.items())), {"about": {}, "names": ["x"]}) == data
    found, described = TOY.unpack(data, "it")
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert described == {"format": "medsynth.toy/1", "names": ["x"], "about": {}}


def test_the_shipped_file_is_written_again_to_the_byte() -> None:
    assert FocusModel.load().to_bytes() == storage.read(DEFAULT_URI)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        b"\xff" * 64,
        save({"x": torch.zeros(1)}),
        save({"x": torch.zeros(1)}, {"medsynth": "[]"}),
        save({"x": torch.zeros(1)}, {"medsynth": "[" * 100_000}),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"it: (not a safetensors file|no toy model).*jobs/toy.py"):
        TOY.unpack(data, "it")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.full((3,), float("nan"), dtype=torch.float16), "are not all finite"),
        (torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16), "are not all finite"),
        (torch.tensor([float("inf"), float("-inf")]), "are not all finite"),
        (torch.tensor([1e300], dtype=torch.float64), "are not all finite"),
        (torch.ones(2, dtype=torch.int32), r"are torch\.int32, not floating"),
        (torch.ones(2, dtype=torch.bool), r"are torch\.bool, not floating"),
    ],
)
def test_numbers_that_no_training_leaves_are_refused(value: torch.Tensor, what: str) -> None:
    with pytest.raises(ModelError, match=rf"it: the weights 'bad' {what}; name weights that jobs/toy\.py made"):
        TOY.unpack(TOY.pack({"a": torch.zeros(1), "bad": value}, {}), "it")


def test_the_largest_numbers_and_a_count_of_batches_are_taken() -> None:
    weights = {
        "a": torch.full((9,), 65504.0, dtype=torch.float16),
        "b": torch.full((9,), torch.finfo(torch.float32).max),
        "num_batches_tracked": torch.tensor(7),
    }
    assert TOY.unpack(TOY.pack(weights, {}), "it")[0].keys() == weights.keys()


def test_metadata_is_what_stands_beside_the_tensors() -> None:
    assert model_file.metadata(save({"x": torch.zeros(1)}, {"step": "7"})) == {"step": "7"}
    assert model_file.metadata(save({"x": torch.zeros(1)})) == {}


def test_parts_that_do_not_fit_are_the_users_to_mend() -> None:
    with pytest.raises(ModelError, match="it: the weights do not fit the settings beside them"), TOY.fitting("it"):
        torch.nn.Linear(1, 1).load_state_dict({})
