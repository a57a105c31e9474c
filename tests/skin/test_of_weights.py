import copy
import pickle

import torch
from torch import Tensor

from medsynth.skin.of_weights import OfWeights


def test_it_is_made_once_until_the_weights_change_and_anew_where_something_is_learnt() -> None:
    calls = []

    def make(weight: Tensor) -> Tensor:
        calls.append(1)
        return weight * 2

    of_weights, weight = OfWeights(), torch.ones(2)
    with torch.no_grad():
        assert of_weights(weight, make) is of_weights(weight, make)
        assert len(calls) == 1
        weight.add_(1)
        assert of_weights(weight, make).tolist() == [4, 4]
        assert of_weights(torch.zeros(2), make).tolist() == [0, 0], "another tensor, changed as often"
        for other in (copy.deepcopy(of_weights), pickle.loads(pickle.dumps(of_weights))):
            assert not other._kept
    before = len(calls)
    for _ in range(2):
        of_weights(weight, make)
    with torch.inference_mode():
        for _ in range(2):
            of_weights(torch.ones(2), make)
    assert len(calls) == before + 4
