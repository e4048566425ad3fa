"""Patches of an exam: where they lie, how they are drawn, cut out and put back. All places are voxels z, y, x.

nnU-Net (Isensee et al. 2021) makes sure that a share of the patches holds foreground; here it is the finding of one of
the sentences that are asked. A patch is never turned nor mirrored: left stays left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["box_of", "cut", "draw_start", "in_image", "moved_box", "turned_margin"]

Places = NDArray[np.int64]

OFF_CENTRE = 0.25  # of the patch: a finding that always lay in its middle could be found without reading
HALF = 0.5  # share of a voxel from which on it belongs to the finding


def draw_start(
    rng: np.random.Generator, grid_zyx: Sequence[int], patch_zyx: Sequence[int], finding: Places | None
) -> tuple[int, int, int]:
    """The patch's first voxel, so that it lies in the grid (which is at least as large).

    finding: voxels [N, 3]; one of them lies within a quarter of the patch of its middle, nearer to its edge only at the
    edge of the grid. None: anywhere.
    """
    grid, patch = np.asarray(grid_zyx), np.asarray(patch_zyx)
    if (patch > grid).any():
        raise ValueError(f"the patch {tuple(patch)} does not lie in the grid {tuple(grid)}")
    last = grid - patch
    if finding is None:
        start = rng.integers(last + 1)
    else:
        voxel = finding[int(rng.integers(len(finding)))]
        off = np.floor(OFF_CENTRE * patch).astype(int)
        start = np.clip(voxel - patch // 2 + rng.integers(-off, off + 1), 0, last)
    z, y, x = (int(n) for n in start)
    return z, y, x


def cut(array: NDArray[Any], start_zyx: Sequence[int], shape_zyx: Sequence[int]) -> NDArray[np.float32]:
    """[..., Z, Y, X] -> [..., *shape] float32 from `start` on; what lies outside of the array is zero."""
    out = np.zeros((*array.shape[:-3], *shape_zyx), dtype=np.float32)
    source, place = [], []
    for begin, length, size in zip(start_zyx, shape_zyx, array.shape[-3:], strict=True):
        low, high = min(max(begin, 0), size), min(max(begin + length, 0), size)
        source.append(slice(low, high))
        place.append(slice(low - begin, high - begin) if high > low else slice(0, 0))
    out[(..., *place)] = array[(..., *source)]
    return out


def box_of(start_zyx: Sequence[int], patch_zyx: Sequence[int], grid_zyx: Sequence[int]) -> NDArray[np.float32]:
    """[2, 3]: lower and upper corner (z, y, x) of the patch in the exam's grid, whose ends are -1 and 1."""
    start, patch, grid = (np.asarray(one, dtype=np.float64) for one in (start_zyx, patch_zyx, grid_zyx))
    return np.stack([2 * start / grid - 1, 2 * (start + patch) / grid - 1]).astype(np.float32)


def moved_box(box: NDArray[np.float32], patch_zyx: Sequence[int], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """The box of what a patch shows after it was augmented.

    matrix [4, 4]: voxels from the middle of the new patch -> voxels from the middle of the old one, where each new
    voxel's value was taken from. Shifts and scales are followed; a turn has no box, its means are kept.
    """
    half = np.asarray(patch_zyx, dtype=np.float64) / 2
    middle, reach = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    middle = middle + reach * matrix[:3, 3] / half
    reach = reach * np.diag(matrix)[:3]
    return np.stack([middle - reach, middle + reach]).astype(np.float32)


def turned_margin(patch_zyx: Sequence[int], rotate_rad: float, scale: float, shift_voxels: float) -> tuple[int, ...]:
    """Voxels around a patch that augmentation may turn, scale or shift into it."""
    half = np.asarray(patch_zyx, dtype=np.float64) / 2
    others = half.sum() - half
    return tuple(int(n) for n in np.ceil(scale * half + np.sin(rotate_rad) * others + shift_voxels))


def in_image(target: NDArray[np.float32]) -> float:
    """Whether a finding that the exam has lies in the patch or image, for the presence head: 1, or NaN if it does not.

    target [Z, Y, X] in 0..1. Of a finding outside nothing can be said from inside.
    """
    return 1.0 if float(target.max(initial=0.0)) >= HALF else float("nan")
