"""A mask kept as the box that holds it: a report's masks on a whole-body PET would else fill the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CroppedMask"]


@dataclass(frozen=True, eq=False)
class CroppedMask:
    """inside: bool, the part of a mask of `shape` [I, J, K] from `start` on; all outside of it is False.

    Stands for a label Volume where that is read: `shape`, `affine` and `array`, which is made anew at each asking.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    start: tuple[int, int, int]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: NDArray[Any], affine: NDArray[np.float64]) -> CroppedMask:
        """The voxels of mask [I, J, K] above 0."""
        above = mask > 0
        box: list[slice] = []
        for others in ((1, 2), (0, 2), (0, 1)):
            held = np.flatnonzero(above.any(axis=others))
            box.append(slice(int(held[0]), int(held[-1]) + 1) if held.size else slice(0, 0))
        i, j, k = mask.shape
        start = (box[0].start, box[1].start, box[2].start)
        return cls((i, j, k), affine, start, above[tuple(box)].copy())  # a view would keep the whole

    @property
    def empty(self) -> bool:
        return self.inside.size == 0

    @property
    def array(self) -> NDArray[np.bool_]:
        """The whole mask."""
        whole = np.zeros(self.shape, dtype=np.bool_)
        box = tuple(slice(at, at + length) for at, length in zip(self.start, self.inside.shape, strict=True))
        whole[box] = self.inside
        return whole
