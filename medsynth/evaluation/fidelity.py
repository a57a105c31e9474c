"""How like real pictures synthetic ones are, by their features: KID, precision, recall, density, coverage.

Everything is float64 and numpy. Features are rows; what is not independent (the photos of one patient, the
pictures of one map) shares a group, is resampled together, and is never held against itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

NEIGHBOURS = 5
FEWEST = 10
"""Pictures on each side; with fewer nothing is told but how few there are."""

Floats = NDArray[np.float64]
Groups = Sequence[str]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    """2.5th percentile of the resampled figures."""
    high: float
    """97.5th percentile."""


def kernel(x: Floats, y: Floats) -> Floats:
    """The cubic polynomial kernel of features: (x·y / d + 1)³.

    Args:
        x: (N, d).
        y: (M, d).

    Returns:
        (N, M).
    """
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3, dtype=np.float64)


def kid(x: Floats, y: Floats, x_groups: Groups | None = None, y_groups: Groups | None = None) -> float:
    """Kernel inception distance: the unbiased squared maximum mean discrepancy under the cubic kernel.

    Args:
        x: (N, d) features of real pictures.
        y: (M, d) of others.
        x_groups: of x; pairs within a group are left out. By default every picture is alone.
        y_groups: of y.

    Returns:
        About 0 where both come from one distribution, and then as often below it as above.

    Raises:
        ValueError: a side has fewer than two groups.

    Source:
        Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, section 4; the estimator: Gretton et al.,
        JMLR 2012, lemma 6. That pairs within a group are left out is ours: with one picture a group it is theirs.

    Example:
        >>> round(kid(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]])), 2)
        -3.5
    """
    return _Compared(x, y, x_groups, y_groups).figure()


def kid_interval(
    x: Floats,
    y: Floats,
    x_groups: Groups | None = None,
    y_groups: Groups | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """KID with a 95 % interval from a bootstrap over groups, both sides resampled.

    A group drawn twice counts twice, but is not held against its own copy, which would look like likeness.

    Args:
        x: as :func:`kid`.
        y: as :func:`kid`.
        x_groups: as :func:`kid`.
        y_groups: as :func:`kid`.
        draws: resamples.
        seed: of the resampling; with one seed, equal x is resampled equally, whatever y is.

    Raises:
        ValueError: as :func:`kid`.

    Source:
        Efron and Tibshirani, "An introduction to the bootstrap", 1993, sections 8.5 (groups) and 13.3 (percentiles).
    """
    compared = _Compared(x, y, x_groups, y_groups)
    return _estimate(compared.figure(), compared.resampled(draws, seed))


def kid_difference(
    x: Floats,
    y: Floats,
    other: Floats,
    x_groups: Groups | None = None,
    y_groups: Groups | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """KID of y less KID of others, against the same real pictures resampled alike.

    Args:
        x: (N, d) features of real pictures.
        y: (M, d).
        other: (M, d), drawn from the same maps in the same order.
        x_groups: as :func:`kid`.
        y_groups: of both y and other, which are resampled together.
        draws: resamples.
        seed: of the resampling.
    """
    ours, theirs = _Compared(x, y, x_groups, y_groups), _Compared(x, other, x_groups, y_groups)
    return _estimate(ours.figure() - theirs.figure(), ours.resampled(draws, seed) - theirs.resampled(draws, seed))


def kid_floor(x: Floats, groups: Groups, *, draws: int = 200, seed: int = 0) -> Estimate:
    """KID of real pictures against real ones: halves of the groups, parted anew many times.

    Args:
        x: (N, d) features.
        groups: of x; a group is never on both sides.
        draws: partings.
        seed: of the partings.

    Returns:
        Mean, and the 2.5th and 97.5th percentile of the partings.

    Raises:
        ValueError: there are fewer than four groups.
    """
    names = sorted(set(groups))
    if len(names) < 4:
        raise ValueError(f"{len(names)} group(s) cannot be parted into halves of two")
    random = np.random.Generator(np.random.Philox(key=seed))
    place = np.searchsorted(names, list(groups))
    found = []
    for _ in range(draws):
        left = np.isin(place, random.permutation(len(names))[: len(names) // 2])
        found.append(
            kid(x[left], x[~left], *([g for g, t in zip(groups, side, strict=True) if t] for side in (left, ~left)))
        )
    return _estimate(float(np.mean(found)), np.array(found))


def _estimate(value: float, resampled: Floats) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


class _Compared:
    """Kernel sums of two sides by group, from which any weighting of the groups follows."""

    def __init__(self, x: Floats, y: Floats, x_groups: Groups | None, y_groups: Groups | None) -> None:
        members = [_members(len(side), groups) for side, groups in ((x, x_groups), (y, y_groups))]
        for side in members:
            if len(side) < 2:
                raise ValueError("a side has fewer than two groups of pictures; KID needs two of each")
        one, other = members
        self._own = [(_without_own(m @ kernel(s, s) @ m.T), m.sum(axis=1)) for s, m in ((x, one), (y, other))]
        self._cross = one @ kernel(x, y) @ other.T

    def figure(self) -> float:
        return float(self._of(*(np.ones((1, len(count))) for _, count in self._own))[0])

    def resampled(self, draws: int, seed: int) -> Floats:
        weights = []
        for side, (_, count) in enumerate(self._own):
            random = np.random.Generator(np.random.Philox(key=[seed, side]))
            weights.append(_counts(random, draws, len(count)))
        return self._of(*weights)

    def _of(self, x: Floats, y: Floats) -> Floats:
        terms = []
        for weights, (sums, count) in zip((x, y), self._own, strict=True):
            whole, each = weights * count, (weights * count) ** 2
            terms.append(((weights @ sums) * weights).sum(axis=1) / (whole.sum(axis=1) ** 2 - each.sum(axis=1)))
        sizes = (x @ self._own[0][1]) * (y @ self._own[1][1])
        return np.asarray(terms[0] + terms[1] - 2 * ((x @ self._cross) * y).sum(axis=1) / sizes)


def _counts(random: np.random.Generator, draws: int, size: int) -> Floats:
    # A resample of one group alone, size times, has no pair to compare; with a handful of groups it does happen.
    found: Floats = random.multinomial(size, np.full(size, 1 / size), draws).astype(np.float64)
    while (single := (found > 0).sum(axis=1) < 2).any():
        found[single] = random.multinomial(size, np.full(size, 1 / size), int(single.sum()))
    return found


def _members(count: int, groups: Groups | None) -> Floats:
    names = [str(number) for number in range(count)] if groups is None else list(groups)
    if len(names) != count:
        raise ValueError(f"{count} pictures, but {len(names)} groups")
    found: Floats = (np.array(sorted(set(names)))[:, None] == np.array(names)[None]).astype(np.float64)
    return found


def _without_own(sums: Floats) -> Floats:
    np.fill_diagonal(sums, 0.0)
    return sums


@dataclass(frozen=True)
class Neighbourhood:
    """What the nearest neighbours tell, each 0 to 1 but density."""

    precision: float
    """Share of synthetic pictures within a real one's neighbourhood."""
    recall: float
    """Share of real pictures within a synthetic one's neighbourhood."""
    density: float
    """In how many real neighbourhoods a synthetic picture lies, over k; about 1 for equal distributions."""
    coverage: float
    """Share of real neighbourhoods that hold a synthetic picture."""


def neighbourhood(real: Floats, synthetic: Floats, k: int = NEIGHBOURS) -> Neighbourhood:
    """Precision, recall, density and coverage.

    Args:
        real: (N, d) features, N above k.
        synthetic: (M, d), M above k; recall and coverage grow with M, so compare at equal numbers.
        k: the neighbour, not counting itself, whose distance is a picture's radius.

    Raises:
        ValueError: a side has too few pictures.

    Source:
        Kynkäänniemi et al., NeurIPS 2019, section 2 (precision, recall); Naeem et al., "Reliable fidelity and
        diversity metrics for generative models", ICML 2020, section 3 (density, coverage).
    """
    if min(len(real), len(synthetic)) <= k:
        raise ValueError(
            f"{len(real)} real and {len(synthetic)} synthetic pictures; more than k={k} of each are needed"
        )
    apart = cdist(real, synthetic)
    of_real, of_synthetic = _radii(real, k), _radii(synthetic, k)
    within = apart <= of_real[:, None]
    return Neighbourhood(
        precision=float(within.any(axis=0).mean()),
        recall=float((apart <= of_synthetic[None]).any(axis=1).mean()),
        density=float(within.sum() / (k * len(synthetic))),
        coverage=float(within.any(axis=1).mean()),
    )


def neighbourhood_equal(real: Floats, synthetic: Floats, *, draws: int = 20, seed: int = 0) -> Neighbourhood:
    """The same with as many synthetic pictures as real ones: the mean over picks of the larger side.

    Args:
        real: (N, d).
        synthetic: (M, d).
        draws: picks.
        seed: of the picks.
    """
    size = min(len(real), len(synthetic))
    random = np.random.Generator(np.random.Philox(key=seed))
    found = []
    for _ in range(1 if len(real) == len(synthetic) else draws):
        sides = [side[np.sort(random.permutation(len(side))[:size])] for side in (real, synthetic)]
        one = neighbourhood(sides[0], sides[1])
        found.append([one.precision, one.recall, one.density, one.coverage])
    return Neighbourhood(*(float(value) for value in np.mean(found, axis=0)))


def _radii(points: Floats, k: int) -> Floats:
    apart = cdist(points, points)
    np.fill_diagonal(apart, np.inf)
    return np.asarray(np.partition(apart, k - 1, axis=1)[:, k - 1])


def compare(
    real: Floats, synthetic: Floats, real_groups: Groups, synthetic_groups: Groups, *, seed: int = 0
) -> dict[str, Any]:
    """All figures of two sets of features, for a report.

    Args:
        real: (N, d).
        synthetic: (M, d).
        real_groups: of the real ones, their patients.
        synthetic_groups: of the synthetic ones.
        seed: of resampling.

    Returns:
        ``real`` and ``synthetic``, how many there are; and where there are enough of both, ``kid`` with its
        interval, and ``precision``, ``recall``, ``density`` and ``coverage`` at equal numbers.
    """
    found: dict[str, Any] = {"real": len(real), "synthetic": len(synthetic), "patients": len(set(real_groups))}
    if min(len(real), len(synthetic)) < FEWEST or len(set(real_groups)) < 4:
        return {**found, "too_few": True}
    distance = kid_interval(real, synthetic, real_groups, synthetic_groups, seed=seed)
    near = neighbourhood_equal(real, synthetic, seed=seed)
    return {**found, "too_few": False, "kid": vars(distance), **vars(near)}
