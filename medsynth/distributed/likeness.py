"""How like real pictures a generator's are, told while it learns: the evaluation's measure, for its workers."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsynth.evaluation.encoder import Encoder
from medsynth.evaluation.fidelity import FEWEST, kid


@dataclass(frozen=True)
class Likeness:
    """A judge of held-out photos and of pictures drawn from their maps; small, and picklable.

    One figure without an interval, of few pictures: to see which way a training goes, not to compare generators by.
    """

    encoder: str
    """URI of the encoder whose features are compared."""

    def __call__(self, real: NDArray[np.uint8], drawn: NDArray[np.uint8]) -> dict[str, float]:
        """``kid`` between pictures (N, S, S, 3) and others; nothing where they are too few.

        Raises:
            ModelError: the encoder is none.
            StorageError: it cannot be read.
        """
        if len(real) < FEWEST:
            return {}
        encoder = _loaded(self.encoder)
        return {"kid": kid(encoder.features(real), encoder.features(drawn))}


def judge(uri: str) -> Likeness:
    """A judge by an encoder.

    Args:
        uri: of the encoder.

    Raises:
        ModelError: it is none.
        StorageError: it cannot be read.
    """
    _loaded(uri)
    return Likeness(uri)


@functools.lru_cache(maxsize=1)
def _loaded(uri: str) -> Encoder:
    return Encoder.load(uri)
