"""Intervals and tests over patients, not over sentences: sentences of one patient are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from petground.training.metrics import f1

__all__ = ["Estimate", "estimate", "estimate_weighted", "exchanged", "f1_of", "mean_of", "share"]

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Estimate(NamedTuple):
    """A figure with its 95 % interval; low and high are None with fewer than two patients or undefined figures."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_json(self) -> dict[str, float | int | None]:
        return self._asdict()


def estimate(
    columns: NDArray[np.float64],
    patients: Sequence[str],
    statistic: Statistic,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Value and percentile interval of a statistic of column sums, drawing patients with replacement.

    columns: [N, C], one row per sentence. patients: N names. statistic: column sums [..., C] -> [...]; F1 of
    (TP, FP, FN) or a mean of (sum, count), say. Draws that leave the statistic undefined (NaN) are left out.
    """
    columns = np.asarray(columns, dtype=np.float64)
    if len(columns) == 0:
        return Estimate(None, None, None, 0)
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    by_patient = np.zeros((len(names), columns.shape[1]))
    np.add.at(by_patient, owner, columns)
    value = float(statistic(columns.sum(axis=0)))
    return _interval(value, lambda: statistic(_drawn(len(names), draws, seed) @ by_patient), owner, level)


def share(columns: NDArray[np.float64], patients: Sequence[str]) -> Estimate:
    """Share of events with its interval; columns [N, 2]: of each sentence, how many events and how many others.

    Where nothing or everything is an event, every drawing gives the same and the bootstrap is blind: then the interval
    is the exact one of the binomial distribution (Clopper and Pearson 1934), as if sentences were independent.
    """
    found = estimate(columns, patients, lambda sums: mean_of(np.stack([sums[..., 0], sums.sum(axis=-1)], axis=-1)))
    return _exact(found, float(np.sum(columns)))


def f1_of(columns: NDArray[np.float64], patients: Sequence[str]) -> Estimate:
    """F1 with its interval; columns [N, 3]: TP, FP, FN of each sentence.

    At 0 and 1, where the bootstrap is blind, it is that of the share p that is found, as `share` has it: F1 is at least
    p (what is not found is answered elsewhere) and at most 2 p / (1 + p) (it is not answered).
    """
    found = _exact(estimate(columns, patients, f1), float(len(columns)))
    if found.value == 0.0 and found.high is not None:
        return found._replace(high=2.0 * found.high / (1.0 + found.high))
    return found


def _exact(found: Estimate, count: float) -> Estimate:
    """The interval of 0 or 1 in `count` tries; of another value the one that it has."""
    if found.low is None or found.value not in (0.0, 1.0):
        return found
    reach = 1.0 - 0.025 ** (1.0 / count)
    return found._replace(low=0.0, high=reach) if found.value == 0.0 else found._replace(low=1.0 - reach, high=1.0)


def estimate_weighted(
    patients: Sequence[str],
    statistic: Callable[[NDArray[np.float64]], float],
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """As `estimate`, of a statistic that is none of sums, over the same drawings of patients.

    patients: N names. statistic: how often each sentence counts [N] -> its value, NaN where undefined.
    """
    if not len(patients):
        return Estimate(None, None, None, 0)
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    value = float(statistic(np.ones(len(owner))))
    return _interval(
        value,
        lambda: np.array([statistic(weights[owner]) for weights in _drawn(len(names), draws, seed)]),
        owner,
        level,
    )


def exchanged(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    patients: Sequence[str],
    statistic: Statistic,
    *,
    draws: int = 9999,
    seed: int = 0,
) -> float | None:
    """Two-sided p of the difference of a statistic, by the permutation test for pairs (Fisher 1935, section 21).

    If there were no difference, either model's answers to all of a patient's sentences might as well be the other's:
    p is the share of such exchanges with a difference as large as that found. one, other: [N, C], as in `estimate`.
    All exchanges are tried where they are at most `draws`, else so many are drawn. None for fewer than two patients.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < 2:
        return None
    change = np.zeros((len(names), one.shape[1]))
    np.add.at(change, owner, other - one)
    if 2 ** len(names) <= draws:
        swap = (np.arange(2 ** len(names))[:, None] >> np.arange(len(names)) & 1).astype(np.float64)
    else:
        swap = np.random.default_rng(seed).integers(0, 2, (draws, len(names))).astype(np.float64)
        swap[0] = 0.0  # as it was found is one of them
    moved = swap @ change
    differences = np.abs(statistic(one.sum(axis=0) + moved) - statistic(other.sum(axis=0) - moved))
    found = differences[0]
    return float(np.mean(differences >= found - 1e-9)) if np.isfinite(found) else None


def _drawn(patients: int, draws: int, seed: int) -> NDArray[np.float64]:
    """[draws, patients]: how often each is drawn."""
    drawn = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=draws)
    return drawn.astype(np.float64)


def _interval(
    value: float, values: Callable[[], NDArray[np.float64]], owner: NDArray[np.intp], level: float
) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, None, None, len(owner))
    if not owner.any():  # one patient
        return Estimate(value, None, None, len(owner))
    low, high = np.nanpercentile(values(), [50 * (1 - level), 50 * (1 + level)])
    return Estimate(value, float(low), float(high), len(owner))


def mean_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Statistic for columns (value, 1): their mean; NaN where nothing was drawn."""
    total, n = sums[..., 0], sums[..., 1]
    ratio: NDArray[np.float64] = np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0)
    return ratio
