"""Can the model say no? How well its presence tells sentences whose finding is there from those about nothing there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.training.bootstrap import Estimate, estimate, estimate_weighted

__all__ = ["auroc", "calibration"]

BINS = 10


def auroc(presence: Sequence[float], is_there: Sequence[bool], patients: Sequence[str]) -> Estimate:
    """Chance that a sentence whose finding is there gets a higher presence than one about nothing there; ties half.

    The Mann-Whitney statistic over both counts (Hanley and McNeil 1982), with its interval over patients; no value
    without either kind of sentence.
    """
    _, place = np.unique(np.asarray(presence, dtype=np.float64), return_inverse=True)
    true = np.asarray(is_there, dtype=bool)
    values = int(place.max(initial=-1)) + 1

    def of(weights: NDArray[np.float64]) -> float:
        there = np.bincount(place[true], weights[true], values)
        absent = np.bincount(place[~true], weights[~true], values)
        pairs = there.sum() * absent.sum()
        return float(there @ (np.cumsum(absent) - absent / 2) / pairs) if pairs else float("nan")

    return estimate_weighted(patients, of)


def calibration(presence: Sequence[float], is_there: Sequence[bool], patients: Sequence[str]) -> dict[str, Any]:
    """Expected calibration error over equal-width bins (Guo et al. 2017, section 2), and the bins.

    presence in [0, 1]. Returns {"error": an estimate, "bins": [{"low", "high", "n", "presence", "share_there"}]}. The
    error of few sentences is too high by chance (so are drawings of patients): see n of each bin.
    """
    said: NDArray[np.float64] = np.asarray(presence, dtype=np.float64)
    true = np.asarray(is_there, dtype=np.float64)
    which = np.minimum((said * BINS).astype(int), BINS - 1)
    rows = np.zeros((len(said), 3, BINS))  # sentences, their presence, how many are there
    rows[np.arange(len(said)), :, which] = np.stack([np.ones(len(said)), said, true], axis=1)
    bins = []
    for number, (count, summed, there) in enumerate(rows.sum(axis=0).T):
        if count:
            edges = {"low": number / BINS, "high": (number + 1) / BINS}
            means = {"presence": round(summed / count, 4), "share_there": round(there / count, 4)}
            bins.append({**edges, "n": int(count), **means})

    def error(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        count, summed, there = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, BINS), -2, 0)
        return np.asarray(np.abs(summed - there).sum(axis=-1) / count.sum(axis=-1))

    return {"error": estimate(rows.reshape(len(said), 3 * BINS), patients, error).as_json(), "bins": bins}
