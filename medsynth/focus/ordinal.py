"""Ordered classes: targets, losses and what is read off a class distribution.

Class k stands for a blur radius, and the radii grow with k. All functions are pure; in a tensor (N, K) or
(N, K, h, w), classes lie along dimension 1.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional


def soft_target(radius_px: Tensor, radii_px: Sequence[float]) -> Tensor:
    """Spread each radius over the two classes between whose radii it lies, so that their mean is the radius.

    Args:
        radius_px: (N,) float, pixels; beyond the table's ends the end's class gets everything.
        radii_px: the K radii, strictly growing.

    Returns:
        (N, K) float32, rows that sum to 1.

    Example:
        >>> soft_target(torch.tensor([1.5]), (0.0, 1.0, 2.0)).tolist()
        [[0.0, 0.5, 0.5]]
    """
    table = torch.tensor(radii_px, dtype=torch.float64, device=radius_px.device)
    radius = radius_px.to(torch.float64).clamp(table[0], table[-1])
    upper = torch.searchsorted(table, radius).clamp(1, len(table) - 1)
    share = (radius - table[upper - 1]) / (table[upper] - table[upper - 1])
    target = torch.zeros(len(radius), len(table), dtype=torch.float64, device=radius.device)
    target.scatter_(1, (upper - 1)[:, None], (1 - share)[:, None])
    target.scatter_add_(1, upper[:, None], share[:, None])
    return target.to(torch.float32)


def ranked_probability_score(logits: Tensor, target: Tensor) -> Tensor:
    """How far a predicted distribution lies from the target one, where near misses cost less than far ones.

    Args:
        logits: (N, K) or (N, K, h, w) float.
        target: (N, K) float, the target distribution, the same for all cells of an image.

    Returns:
        The sum over classes of (CDF predicted - CDF target)², averaged over images and cells; a scalar.

    Source:
        Epstein, "A scoring system for probability forecasts of ranked categories", 1969; as a loss for
        focus: Yang et al., BMC Bioinformatics 2018, "Assessing microscope image focus quality".
    """
    wanted = _as_cells(target, logits)
    # In float32 also under mixed precision: sums of thirty terms lose digits that the loss lives on.
    predicted = torch.softmax(logits.float(), dim=1)
    return (torch.cumsum(predicted - wanted, dim=1) ** 2).sum(dim=1).mean()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy to a target distribution, blind to the classes' order.

    Args:
        logits: (N, K) or (N, K, h, w) float.
        target: (N, K) float.

    Returns:
        A scalar in nats, averaged over images and cells.
    """
    return -(_as_cells(target, logits) * functional.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()


def expected_radius(probabilities: Tensor, radii_px: Sequence[float]) -> Tensor:
    """The mean radius of a distribution.

    Args:
        probabilities: (N, K) or (N, K, h, w), summing to 1 over K.
        radii_px: the K radii, or the like in any other unit.

    Returns:
        (N,) or (N, h, w), in the radii's unit.
    """
    table = torch.tensor(radii_px, dtype=probabilities.dtype, device=probabilities.device)
    radius: Tensor = torch.tensordot(probabilities, table, dims=([1], [0]))
    return radius


def nearest_class(radii: ArrayLike, radii_px: Sequence[float]) -> NDArray[np.int64]:
    """The class that a radius belongs to.

    Args:
        radii: of any shape, in the table's unit.
        radii_px: the K classes' radii, rising.

    Returns:
        The same shape: 0 to K - 1, the nearest on the scale of classes.
    """
    places = np.interp(np.asarray(radii, dtype=np.float64), radii_px, np.arange(len(radii_px)))
    return np.rint(places).astype(np.int64)


def certainty(probabilities: Tensor) -> Tensor:
    """How sure a distribution is: 1 for one class alone, 0 for all alike.

    Args:
        probabilities: (N, K) or (N, K, h, w), summing to 1 over K.

    Returns:
        1 - H / ln K, of shape (N,) or (N, h, w), in [0, 1].

    Source:
        Yang et al. 2018, "Measurement of prediction certainty".
    """
    entropy = torch.special.entr(probabilities).sum(dim=1)
    sure: Tensor = 1 - entropy / math.log(probabilities.shape[1])
    return sure.clamp(0, 1)


def _as_cells(target: Tensor, logits: Tensor) -> Tensor:
    return target.reshape(*target.shape, *(1,) * (logits.ndim - target.ndim))
