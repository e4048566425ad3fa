"""The size that a report states, held against an outline's volume.

A size is the longest diameter on one CT slice, mostly; an outline is what is warm on the PET. Of 204 phantom lesions
(whole-body phantoms of seed 901) outlined with a Dice of 0.5 or more, the volume is 0.19 to 0.79 times (5th to 95th
percentile), at most 0.96 times, that of a ball of the stated diameter widened by the blur; the median is 0.46. Patients
are less tidy: a lesion may be longer from head to foot than across, and a short axis may be what is stated. A factor of
4 leaves room for that: 1.6 times the diameter in all directions, or 4 times in one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from petground.labeling.neighbourhood import Neighbourhood

__all__ = ["around_seed", "by_size", "log_over_usual", "most_ml"]

BLUR_MM = 7.0  # added in quadrature, as for the candidates (see `match`)
MOST_TIMES = 4.0
USUAL = 0.46
SPREAD = 0.9  # of the logarithm of volume over the usual one; 0.45 on phantoms, whose sizes are exact
MOST_NUDGE = 4.0


def most_ml(size_mm: float) -> float:
    """The largest volume that an outline of a lesion of this stated size may have."""
    return MOST_TIMES * _ball_ml(size_mm)


def log_over_usual(volume_ml: float, size_mm: float) -> float:
    """Logarithm of the volume over the usual one for the size: 0 is as expected, 0.7 twice as much."""
    return float(np.log(max(volume_ml, 1e-3) / (USUAL * _ball_ml(size_mm))))


def by_size(whole: float, even_ml: float, uneven_ml: float, size_mm: float) -> float:
    """The probability that the uneven outline is the better one, once the size is known (Bayes' rule)."""
    far = [min(abs(log_over_usual(ml, size_mm)), 5.0) ** 2 / (2 * SPREAD**2) for ml in (even_ml, uneven_ml)]
    nudge = float(np.clip(far[0] - far[1], -MOST_NUDGE, MOST_NUDGE))
    return float(special.expit(special.logit(np.clip(whole, 1e-4, 1 - 1e-4)) + nudge))


def around_seed(near: Neighbourhood, size_mm: float) -> NDArray[np.bool_]:
    """Where a lesion of this size can reach: within its longest diameter, and half the blur, of its hottest voxel."""
    axes = [(np.arange(n) - s) * step for n, s, step in zip(near.image.shape, near.seed, near.spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.asarray(x**2 + y**2 + z**2 <= (size_mm + BLUR_MM / 2) ** 2, dtype=bool)


def _ball_ml(size_mm: float) -> float:
    return float(np.pi / 6000 * np.hypot(size_mm, BLUR_MM) ** 3)
