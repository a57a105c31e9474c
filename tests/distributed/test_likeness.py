import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from medsynth.distributed.likeness import judge
from medsynth.evaluation.encoder import Encoder, Network
from medsynth.evaluation.fidelity import FEWEST
from medsynth.model_file import ModelError


def test_pictures_of_one_kind_are_nearer_than_noise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(2).eval()
    size = network.fault.in_features
    uri = str(tmp_path / "encoder.safetensors")
    Encoder(network, torch.zeros(size), torch.eye(size), ("MEL", "NEV"), {}).save(uri)
    found = pickle.loads(pickle.dumps(judge(uri)))
    source = np.random.default_rng(1)
    skins = source.integers(120, 220, (2, FEWEST, 1, 1, 3))
    photos, others = (skins + source.integers(-9, 9, (2, FEWEST, 32, 32, 3))).astype(np.uint8)
    noise = source.integers(0, 255, (FEWEST, 32, 32, 3)).astype(np.uint8)
    near, far = found(photos, others)["kid"], found(photos, noise)["kid"]
    assert abs(near) < 0.3 * far
    assert found(photos[1:], others[1:]) == {}, "too few to tell"


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        judge(str(tmp_path / "none"))
