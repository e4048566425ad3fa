"""A model's answer drawn anew on the PET: the model tells which uptake is meant, the PET tells where that ends.

A model that works on voxels much coarser than the PET's gives masks whose rims are wrong by half a voxel of its own:
their volume means little, and the lesion's hottest voxel may lie just outside. The outline is then that of the rules by
which labels are drawn (labeling/contour.py), from the local maximum that the answer's hottest voxel belongs to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from petground.labeling.contour import outline
from petground.labeling.site import Site
from petground.labeling.volume import Volume

__all__ = ["Redraw", "redrawn", "redraws"]

Redraw = Literal["auto", "model", "pet"]
"""Whose outline an answer has: the model's, the PET's, or by `redraws`."""
COARSER = 2.0  # times the PET's volume of a voxel, from which on a model's rim tells less than the PET's
DEFAULT_REACH_MM = 10.0

Voxel = tuple[int, int, int]


def redraws(asked: Redraw, pet: Volume, model_spacing_mm: tuple[float, ...] | None) -> bool:
    """Whether answers on this PET are drawn anew. model_spacing_mm: of the model's voxels; None: like the PET's."""
    if asked != "auto":
        return asked == "pet"
    return model_spacing_mm is not None and float(np.prod(model_spacing_mm)) / 1000.0 > COARSER * pet.voxel_ml


def redrawn(answer: Any, pet: Volume, site: Site, model_spacing_mm: tuple[float, ...] | None = None) -> Any:
    """`answer` (see ground_by.Answer) with the PET's outline of the uptake that it marks, and what is measured in it.

    As it was where it marks nothing; where the maximum lies further off than one voxel of the model along some axis,
    for that is another lesion's or an organ's; where there is no outline, or none that shares a voxel with the answer.
    """
    if answer.voxel_ijk is None:
        return answer
    reach_mm = max(model_spacing_mm) if model_spacing_mm else DEFAULT_REACH_MM
    top = _uphill(pet.array, answer.voxel_ijk)
    off_mm = np.abs(np.subtract(top, answer.voxel_ijk)) * pet.spacing_ijk_mm
    found = outline(pet, top, rules=site) if off_mm.max() <= reach_mm else None
    if found is None:
        return answer
    mask = np.zeros(pet.shape, dtype=bool)
    mask[found.box.slices] = found.mask
    if not (mask & answer.mask).any():
        return answer
    i, j, k = (int(n) for n in np.unravel_index(int(np.where(mask, pet.array, -np.inf).argmax()), pet.shape))
    volume_ml = float(np.count_nonzero(mask)) * pet.voxel_ml
    suv_max = float(pet.array[i, j, k])
    return replace(answer, mask=mask, marked=answer.mask, voxel_ijk=(i, j, k), suv_max=suv_max, volume_ml=volume_ml)


def _uphill(array: NDArray[np.floating[Any]], voxel: Voxel) -> Voxel:
    """From a voxel to its hottest neighbour, one of 26, until none is hotter."""
    while True:
        first = [max(0, v - 1) for v in voxel]
        near = array[tuple(slice(a, v + 2) for a, v in zip(first, voxel, strict=True))]
        step = np.unravel_index(int(near.argmax()), near.shape)
        top = tuple(int(a + s) for a, s in zip(first, step, strict=True))
        if array[top] <= array[voxel]:
            return voxel
        voxel = (top[0], top[1], top[2])
