"""Is the hottest spot the lesion, or the hottest part of a larger, uneven one?

A warm organ around a small lesion and a large tumour around its hottest nodule look alike at the spot itself. They
differ in what is met when the threshold falls: an organ or the body joins at its own level, nearly at once and evenly;
an uneven tumour is gained step by step, is uneven, stays one lump, and stands clear of its surroundings.

How much each sign weighs is fitted on simulated lesions only (`python benchmarks/fit_outlines.py` writes whole.json).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petground.labeling.logistic import load_logistic
from petground.labeling.threshold import Fixpoint

__all__ = ["SIGNS", "filling", "probability_whole", "signs", "steepest_gain"]

LEAST_GROWN_MM = 1.5  # within the blur there is nothing to decide
LEAST_UNEVEN_ML, MOST_UNEVEN_ML = 2.0, 1500.0  # above: a liver, or the body
LUMP_FILLING = 0.5  # below, it ran out along an organ
SIGNS = ("gain", "clear", "arms", "volume", "spread", "embedded", "grown")


def probability_whole(measured: dict[str, float] | None) -> float:
    """Probability that the uneven outline fits the lesion better than the even one; 0 where there is no choice."""
    return load_logistic("whole").probability(measured) if measured else 0.0


def signs(
    wide: NDArray[np.float32],
    level: NDArray[np.float32],
    even: Fixpoint,
    uneven: Fixpoint,
    spacing_mm: tuple[float, float, float],
) -> dict[str, float] | None:
    """What tells the two apart; None where both thresholds outline the same.

    level: connection levels to the seed (see `contour`). wide: the image smoothed by WIDE_FWHM_MM.

    gain: logarithm of `steepest_gain`. clear: background over the uneven threshold. arms: what the uneven component
    lacks of a `filling` of 0.7. volume: logarithm of its ml. spread: relative standard deviation of the smoothed
    uptake in what joins between the two thresholds. embedded: background of the even component over its threshold.
    grown: what the radius gains, as part of the uneven one.
    """
    radius_mm = _radius_mm(uneven.volume_ml)
    grown_mm = radius_mm - _radius_mm(even.volume_ml)
    if grown_mm < LEAST_GROWN_MM or even.threshold <= uneven.threshold:
        return None
    if not LEAST_UNEVEN_ML <= uneven.volume_ml <= MOST_UNEVEN_ML:
        return None
    filled = filling(level >= uneven.threshold, spacing_mm)
    joined = wide[(level >= uneven.threshold) & (level < even.threshold)]
    if len(joined) == 0 or filled < LUMP_FILLING:
        return None
    return {
        "gain": float(np.log(steepest_gain(level, even.threshold, uneven.threshold))),
        "clear": uneven.background / uneven.threshold,
        "arms": max(0.0, 0.7 - filled),
        "volume": float(np.log(uneven.volume_ml)),
        "spread": float(joined.std() / max(float(joined.mean()), 1e-6)),
        "embedded": even.background / even.threshold,
        "grown": grown_mm / radius_mm,
    }


def steepest_gain(level: NDArray[np.float32], high: float, low: float) -> float:
    """Volume gained in the richest 5 % step of the threshold from `high` down to `low`, over the mean step's; >= 1."""
    steps = max(2, int(np.ceil(np.log(high / low) / -np.log(0.95))))
    thresholds = np.maximum(high * 0.95 ** np.arange(steps + 1), low)
    levels = np.sort(level[level >= low])
    gains = np.diff(len(levels) - np.searchsorted(levels, thresholds))
    return float(max(gains.max() / max(gains.mean(), 1e-9), 1.0))


def filling(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """Volume over that of the ellipsoid with the same second moments: 1 for an ellipsoid, less for what has arms."""
    points = np.argwhere(mask) * np.array(spacing_mm)
    if len(points) < 8:
        return 1.0
    spread = np.cov(points.T) * 5  # of a filled ellipsoid: half-axis squared / 5
    ellipsoid_mm3 = 4 / 3 * np.pi * np.sqrt(max(float(np.linalg.det(spread)), 1e-9))
    return float(len(points) * np.prod(spacing_mm) / ellipsoid_mm3)


def _radius_mm(volume_ml: float) -> float:
    return float((3000.0 * volume_ml / (4 * np.pi)) ** (1 / 3))
