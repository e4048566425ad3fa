"""Is the hottest spot the lesion, or the hottest part of a larger, uneven one?

A warm organ around a small lesion and a large tumour around its hottest nodule look alike at the spot itself. They
differ in what is met when the threshold falls: an organ or the body joins at its own level, nearly at once, and runs
out along itself; an uneven tumour is gained step by step, stays one lump, and stands clear of its surroundings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petground.labeling.threshold import Fixpoint
from petground.labeling.valleys import fine_noise

__all__ = ["filling", "is_part_of_larger", "steepest_gain"]

# Set by looking at six drawn sarcomas (ibsi_sts and sts_001_whole_body) and at simulated even and uneven lesions in, on
# and beside organs: their figures are no test of these constants.
MORE_THAN_BLUR_MM = 3.5  # blur of 6 mm FWHM lies between half height and the uneven threshold with less
LEAST_UNEVEN_ML = 4.0  # smaller lesions are all blur
GRADUAL_GAIN = 2.45
LUMP_FILLING = 0.55
CLEAR_BACKGROUND = 0.6
NOISE_SPOT_SD = 10.0


def is_part_of_larger(
    image: NDArray[np.float32],
    wide: NDArray[np.float32],
    level: NDArray[np.float32],
    even: Fixpoint,
    uneven: Fixpoint,
    spacing_mm: tuple[float, float, float],
) -> bool:
    """True when the uneven component is a lesion of which the even one is only the hottest part.

    level: connection levels to the seed (see `contour`). wide: the image smoothed as `fine_noise` wants it.
    """
    grown_mm = _radius_mm(uneven.volume_ml) - _radius_mm(even.volume_ml)
    if grown_mm < MORE_THAN_BLUR_MM or uneven.volume_ml < LEAST_UNEVEN_ML or even.threshold <= uneven.threshold:
        return False
    joined = (level >= uneven.threshold) & (level < even.threshold)
    if float(level.max()) - even.background < NOISE_SPOT_SD * fine_noise(image, wide, joined):
        return True
    return (
        uneven.background < CLEAR_BACKGROUND * uneven.threshold
        and steepest_gain(level, even.threshold, uneven.threshold) < GRADUAL_GAIN
        and filling(level >= uneven.threshold, spacing_mm) > LUMP_FILLING
    )


def steepest_gain(level: NDArray[np.float32], high: float, low: float) -> float:
    """Volume gained in the richest 5 % step of the threshold from `high` down to `low`, over the mean step's; >= 1."""
    steps = max(2, int(np.ceil(np.log(high / low) / -np.log(0.95))))
    thresholds = np.maximum(high * 0.95 ** np.arange(steps + 1), low)
    levels = np.sort(level[level >= low])
    gains = np.diff(len(levels) - np.searchsorted(levels, thresholds))
    return float(gains.max() / max(gains.mean(), 1e-9))


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
