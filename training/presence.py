"""Can the model say no? How well its presence tells sentences whose finding is there from those about nothing there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["auroc", "calibration"]

BINS = 10


def auroc(there: Sequence[float], absent: Sequence[float]) -> float | None:
    """Chance that a sentence whose finding is there gets a higher presence than one about nothing there; ties half.

    The Mann-Whitney statistic over both counts (Hanley and McNeil 1982). None without either kind.
    """
    if not len(there) or not len(absent):
        return None
    ranks = rankdata([*there, *absent])
    n, m = len(there), len(absent)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def calibration(presence: Sequence[float], is_there: Sequence[bool]) -> dict[str, Any]:
    """Expected calibration error over equal-width bins (Guo et al. 2017, section 2), and the bins.

    presence in [0, 1]. Returns {"error", "bins": [{"low", "high", "n", "presence", "share_there"}]}, error None
    without sentences.
    """
    said: NDArray[np.float64] = np.asarray(presence, dtype=np.float64)
    true = np.asarray(is_there, dtype=np.float64)
    which = np.minimum((said * BINS).astype(int), BINS - 1)
    bins = []
    error = 0.0
    for number in range(BINS):
        inside = which == number
        count = int(inside.sum())
        if not count:
            continue
        mean, share = float(said[inside].mean()), float(true[inside].mean())
        error += count / len(said) * abs(mean - share)
        edges = {"low": number / BINS, "high": (number + 1) / BINS}
        bins.append({**edges, "n": count, "presence": round(mean, 4), "share_there": round(share, 4)})
    return {"error": error if len(said) else None, "bins": bins}
