"""Where a lesion ends and its neighbour begins: hotter regions, separate peaks, organ plateaus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

__all__ = [
    "WIDE_FWHM_MM",
    "fine_noise",
    "hotter_foreign",
    "keep_to_basin",
    "noise_of",
    "off_the_plateau",
    "organ_plateau",
    "separate_peaks",
]

Voxel = tuple[int, int, int]
WIDE_FWHM_MM = 8.0  # noise spots of a voxel or two do not survive it, lesions and organs do
DEEP_VALLEY = 0.4  # saddle over peak, both above background: nodules of one tumour have more between them
PLATEAU_ML = 25.0  # what joins at once above this volume is an organ, not a part of the lesion
PLATEAU_GROWTH = 2.0
STANDS_OUT_SD = 7.0
STANDS_OUT = 1.2  # a lesion is still above the organ after smoothing, a noise spot is not


def noise_of(image: NDArray[np.float32]) -> float:
    """Standard deviation of the noise [g/ml] where there is uptake, from differences of neighbours (median based)."""
    uptake = image > max(float(np.median(image)), 1e-3)
    uptake[-1] = False
    step = (image - np.roll(image, -1, axis=0))[uptake]
    return float(np.median(np.abs(step)) / 0.6745 / np.sqrt(2)) if len(step) else 0.0


def hotter_foreign(
    image: NDArray[np.float32], wide: NDArray[np.float32], seed: Voxel, noise: float
) -> NDArray[np.bool_]:
    """What is hotter than the seed, and not by noise alone: by definition no part of a lesion with that maximum.

    wide: the image smoothed by WIDE_FWHM_MM.
    """
    value = image[seed]
    hotter = image > value
    if not hotter.any():
        return hotter
    return np.asarray(hotter & ((wide > wide[seed]) | (image > value + 5 * noise)), dtype=bool)


def keep_to_basin(
    image: NDArray[np.float32], smooth: NDArray[np.float32], seed: Voxel, foreign: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The seed's side of the watershed between it and the foreign voxels.

    On the smoothed image, unless the seed is but a shoulder there: then it has a valley of its own only in the other.
    """
    around = smooth[tuple(slice(max(0, s - 2), s + 3) for s in seed)]
    beside = smooth[tuple(slice(max(0, s - 1), s + 2) for s in seed)]
    shoulder = float(around.max()) > float(beside.max())
    markers = np.where(foreign, 2, 0)
    markers[seed] = 1
    return np.asarray(watershed(-(image if shoulder else smooth), markers, connectivity=1) == 1, dtype=bool)


def separate_peaks(
    image: NDArray[np.float32],
    wide: NDArray[np.float32],
    level: NDArray[np.float32],
    threshold: float,
    background: float,
) -> NDArray[np.bool_]:
    """Other maxima of the component behind a deep valley: lesions of their own that merely touch.

    They stand out of the valley after smoothing (`wide`, by WIDE_FWHM_MM) too; noise spots do not.
    """
    inside = level >= threshold
    top = inside & (image == ndimage.maximum_filter(image, 3))
    peak, saddle = image[top] - background, level[top] - background
    deep = (saddle < DEEP_VALLEY * peak) & (wide[top] > STANDS_OUT * level[top])
    found = np.zeros(image.shape, dtype=bool)
    found[tuple(index[deep] for index in np.nonzero(top))] = True
    return found


def organ_plateau(
    image: NDArray[np.float32], wide: NDArray[np.float32], level: NDArray[np.float32], low: float, voxel_ml: float
) -> tuple[float, float] | None:
    """Thresholds (above, below) between which an organ joins the lesion all at once, or None.

    level: see `contour`. wide: the image smoothed by WIDE_FWHM_MM. low: the threshold down to which to look. A large
    even lesion joins itself in the same way, from a noise spot on it: that one does not stand out.
    """
    top = float(level.max())
    levels = np.sort(level[level >= low])[::-1]
    above = 0.95 * top
    while above > low:
        below = max(above * 0.93, low)
        before, after = (np.searchsorted(-levels, -t, side="right") * voxel_ml for t in (above, below))
        if after - before > PLATEAU_ML and after > PLATEAU_GROWTH * before:
            joined = (level >= below) & (level < above)
            if top - float(np.median(image[joined])) > STANDS_OUT_SD * fine_noise(image, wide, joined):
                return above, below
        above = below
    return None


def fine_noise(image: NDArray[np.float32], wide: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Standard deviation [g/ml] of what smoothing by WIDE_FWHM_MM takes away."""
    return float((image - wide)[where].std()) if where.any() else 0.0


def off_the_plateau(
    smooth: NDArray[np.float32],
    level: NDArray[np.float32],
    plateau: tuple[float, float],
    spacing_mm: tuple[float, float, float],
    reach_mm: float = 7.0,
) -> NDArray[np.bool_]:
    """The lesion's side of the steepest edge towards the organ it lies in or on.

    The organ is what joined between the two thresholds, further than the blur reaches from what was there before.
    """
    above, below = plateau
    lesion = level >= above
    far = ndimage.distance_transform_edt(~lesion, sampling=spacing_mm) > reach_mm
    markers = np.where((level >= below) & far, 2, 0)
    markers[lesion] = 1
    steepness = ndimage.generic_gradient_magnitude(smooth, ndimage.sobel)
    return np.asarray(watershed(steepness, markers, connectivity=1) == 1, dtype=bool)
