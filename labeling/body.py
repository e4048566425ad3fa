"""Where the patient's midline runs, so that left and right in a report can be checked on the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petground.labeling.finding import Laterality
from petground.labeling.volume import Volume

__all__ = ["right_of_midline_mm", "towards_side_mm"]

PET_BODY_SUV = 0.15  # air around the patient stays below, lung and fat above (FDG lung about 0.4, fat 0.2-0.3)
CT_BODY_HU = -500.0  # between air and tissue; the couch is thin and central and moves the median little
WHOLE_WIDTH_MM = 300.0  # a body cut off at both sides of the field of view is still symmetric if it is this wide


def right_of_midline_mm(voxel: tuple[int, int, int], pet: Volume, ct: Volume | None = None) -> float | None:
    """How far right [mm] of the body's midline a PET voxel lies (negative: left), or None when there is no telling.

    The midline is the x that halves the body's cross-section near the voxel's slice, from the CT where given. None
    when the image cuts the body off on one side (a crop around a limb), or nothing of the body is met.
    """
    point = pet.to_world_mm(voxel)
    for image, level in ((ct, CT_BODY_HU), (pet, PET_BODY_SUV)):
        if image is None:
            continue
        middle = _midline_x(image, level, point)
        if middle is not None:
            return float(point[0] - middle)
    return None


def towards_side_mm(right_mm: float | None, side: Laterality | None) -> float | None:
    """Distance into the reported side [mm]: negative means the other side. None when side or midline is unknown."""
    if right_mm is None or side not in ("left", "right"):
        return None
    return right_mm if side == "right" else -right_mm


def _midline_x(image: Volume, level: float, point_mm: NDArray[np.float64], slab_mm: float = 20.0) -> float | None:
    axis = int(np.argmax(np.abs(image.affine[0, :2])))  # the in-plane axis that runs left-right
    index = image.to_index(point_mm)
    half = max(1, round(slab_mm / 2 / image.spacing_ijk_mm[2]))
    k = round(float(index[2]))
    slab = image.array[:, :, max(0, k - half) : max(0, k + half + 1)]
    if slab.shape[2] == 0:
        return None
    profile = (slab > level).sum(axis=(1 - axis, 2)).astype(float)
    if profile.max() < 3:
        return None
    wide = np.flatnonzero(profile > 0.1 * profile.max())
    cut = [bool(profile[end] > 0.2 * profile.max()) for end in (0, -1)]
    width_mm = (wide[-1] - wide[0]) * image.spacing_ijk_mm[axis]
    if any(cut) and not (all(cut) and width_mm > WHOLE_WIDTH_MM):
        return None
    share = np.cumsum(profile) / profile.sum()
    middle = float(np.interp(0.5, share, np.arange(len(share)) + 0.5))
    at = np.array(index)
    at[axis] = middle
    return float(image.to_world_mm(at)[0])
