"""Lesions that touch and have no deep valley between them: told by the neck where they meet.

Two blurred lesions side by side share a saddle at four fifths of their height, no deeper than the saddles between the
nodules of one tumour. What tells them apart is the shape: cut at the valley, two lesions meet on an area smaller than
either of them is across, the parts of one lesion on a larger one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from petground.labeling.neighbourhood import Neighbourhood

__all__ = ["neck", "necked_peaks"]

Voxel = tuple[int, int, int]
Mask = NDArray[np.bool_]
# Simulated lesions (crops of seed 31): touching ones meet at 0.1 to 0.4, halves of one lesion above 1.0 in nine of ten.
NARROW = 0.7
NEAREST_MM = 6.0  # maxima closer than a blur's width are one
MOST_PEAKS = 12


def necked_peaks(near: Neighbourhood, threshold: float) -> Mask:
    """Maxima of the component at the threshold that lie behind a narrow neck, as a mask of the crop."""
    found = np.zeros(near.image.shape, dtype=bool)
    where = ndimage.find_objects(near.component(threshold).astype(np.uint8))
    if not where:
        return found
    part = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in where[0])
    inside, image, smooth = near.component(threshold)[part], near.image[part], near.smooth[part]
    seed = tuple(n - s.start for n, s in zip(near.seed, part, strict=True))
    peaks = np.argwhere(inside & (smooth == ndimage.maximum_filter(smooth, 3)))
    peaks = peaks[np.argsort(-smooth[tuple(peaks.T)])]
    taken = 0
    for peak in peaks:
        top = _hottest_beside(image, inside, peak)
        far_mm = float(np.linalg.norm((np.array(top) - seed) * near.spacing_mm))
        if far_mm < NEAREST_MM:
            continue
        taken += 1
        if taken > MOST_PEAKS:
            break
        if neck(smooth, inside, (seed[0], seed[1], seed[2]), top, near.spacing_mm) < NARROW:
            found[tuple(t + s.start for t, s in zip(top, part, strict=True))] = True
    return found


def neck(
    smooth: NDArray[np.float32], inside: Mask, seed: Voxel, other: Voxel, spacing_mm: tuple[float, float, float]
) -> float:
    """Area on which the seed's and the other's catchment basins meet, over the cross-section of the smaller one."""
    markers = np.zeros(inside.shape, dtype=np.int32)
    markers[seed], markers[other] = 1, 2
    basins = watershed(-smooth, markers, mask=inside, connectivity=1)
    own, foreign = basins == 1, basins == 2
    least_mm3 = min(int(own.sum()), int(foreign.sum())) * float(np.prod(spacing_mm))
    if least_mm3 == 0:
        return np.inf
    across = []  # area as seen along each axis: together that of a plane of any direction
    for axis, step in enumerate(spacing_mm):
        a, b = np.moveaxis(own, axis, 0), np.moveaxis(foreign, axis, 0)
        pairs = int((a[1:] & b[:-1]).sum() + (a[:-1] & b[1:]).sum())
        across.append(pairs * float(np.prod(spacing_mm)) / step)
    radius_mm = (3 * least_mm3 / (4 * np.pi)) ** (1 / 3)
    return float(np.linalg.norm(across) / (np.pi * radius_mm**2))


def _hottest_beside(image: NDArray[np.float32], inside: Mask, peak: NDArray[np.int64]) -> Voxel:
    around = tuple(slice(max(0, int(p) - 1), int(p) + 2) for p in peak)
    values = np.where(inside[around], image[around], -np.inf)
    i, j, k = (
        int(n) + s.start for n, s in zip(np.unravel_index(int(values.argmax()), values.shape), around, strict=True)
    )
    return i, j, k
