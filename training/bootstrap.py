"""Confidence intervals by drawing patients, not sentences: sentences of one patient are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "estimate", "estimate_weighted", "mean_of"]

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
