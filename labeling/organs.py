"""Organs whose uptake is normal: a label map tells where a lesion is not to be looked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petground.labeling.volume import Volume

__all__ = ["PHYSIOLOGIC", "organ_at", "physiologic_in"]

PHYSIOLOGIC: dict[int, str] = {2: "kidney", 3: "kidney", 21: "bladder", 51: "heart", 90: "brain"}
"""Ids of TotalSegmentator's task "total", version 2: organs with excretion or high normal uptake."""


def physiologic_in(
    organs: Volume, pet: Volume, slices: tuple[slice, slice, slice], site: str | None
) -> NDArray[np.bool_]:
    """PET voxels of a crop that lie in a physiologic organ which the report does not name itself.

    The label map may lie on its own grid: the nearest voxel counts, in millimetres.
    """
    wanted = [number for number, name in PHYSIOLOGIC.items() if not _names(site, name)]
    return np.isin(_nearest(organs, pet, slices), wanted)


def organ_at(organs: Volume, pet: Volume, voxel: tuple[int, int, int]) -> str | None:
    """Name of the physiologic organ at a PET voxel, or None."""
    i, j, k = voxel
    number = int(_nearest(organs, pet, (slice(i, i + 1), slice(j, j + 1), slice(k, k + 1)))[0, 0, 0])
    return PHYSIOLOGIC.get(number)


def _names(site: str | None, organ: str) -> bool:
    adjective = {"kidney": "renal", "bladder": "vesical", "heart": "cardiac", "brain": "cerebr"}[organ]
    return site is not None and (organ in site or adjective in site)


def _nearest(organs: Volume, pet: Volume, slices: tuple[slice, slice, slice]) -> NDArray[np.int64]:
    grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in slices], indexing="ij"), axis=-1)
    index = np.rint(organs.to_index(pet.to_world_mm(grid))).astype(np.int64)
    inside = ((index >= 0) & (index < organs.shape)).all(axis=-1)
    index = np.clip(index, 0, np.array(organs.shape) - 1)
    return np.where(inside, organs.array[tuple(np.moveaxis(index, -1, 0))].astype(np.int64), 0)
