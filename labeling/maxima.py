"""Local maxima of a PET: where a reported SUVmax can have been read off."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "box_around", "component_at", "dominance", "local_maxima", "peaks"]

Voxel = tuple[int, int, int]
_OFFSETS = np.array([o for o in np.ndindex(3, 3, 3) if o != (1, 1, 1)]) - 1


@dataclass(frozen=True)
class Box:
    """A crop of the PET: `slices` into the whole array, `origin` its first voxel."""

    slices: tuple[slice, slice, slice]
    origin: Voxel

    def local(self, voxel: Voxel) -> Voxel:
        return voxel[0] - self.origin[0], voxel[1] - self.origin[1], voxel[2] - self.origin[2]


def box_around(voxel: Voxel, half_mm: float, shape: Voxel, spacing_ijk_mm: tuple[float, float, float]) -> Box:
    """The voxels within half_mm of `voxel` along each axis, cut at the image's border."""
    half = [max(2, int(np.ceil(half_mm / step))) for step in spacing_ijk_mm]
    first = [max(0, v - h) for v, h in zip(voxel, half, strict=True)]
    last = [min(n, v + h + 1) for v, h, n in zip(voxel, half, shape, strict=True)]
    slices = (slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2]))
    return Box(slices, (first[0], first[1], first[2]))


def local_maxima(array: NDArray[np.float32], ks: range, low: float, high: float) -> list[Voxel]:
    """Voxels with low <= value < high on slices `ks` that no voxel of their 26-neighbourhood exceeds, hottest first.

    A plateau of equal voxels is one maximum (its first voxel on `ks`), and none when a neighbour of any of its voxels
    is higher.
    """
    margin = 2
    while True:  # a plateau must be seen whole
        first, last = max(ks.start - margin, 0), min(ks.stop + margin, array.shape[2])
        found, cut = _maxima_in(array, first, last, low, high)
        if not cut or (first, last) == (0, array.shape[2]):
            break
        margin *= 4
    of_plateau: dict[int, Voxel] = {}
    alone = []
    for voxel, plateau in found:
        if voxel[2] in ks and not plateau:
            alone.append(voxel)
        elif voxel[2] in ks:
            of_plateau.setdefault(plateau, voxel)
    return sorted([*alone, *of_plateau.values()], key=lambda v: -float(array[v]))


def _maxima_in(
    array: NDArray[np.float32], first: int, last: int, low: float, high: float
) -> tuple[list[tuple[Voxel, int]], bool]:
    """Maxima on slices first..last with the number of their plateau, 0 for one voxel alone; whether one was cut off."""
    slab = array[:, :, first:last]
    index = np.argwhere((slab >= low) & (slab < high))
    if len(index) == 0:
        return [], False
    index[:, 2] += first
    around = index[:, None, :] + _OFFSETS  # [M, 26, 3]
    inside = ((around >= 0) & (around < array.shape)).all(axis=2)
    clipped = np.clip(around, 0, np.array(array.shape) - 1)
    near = np.where(inside, array[tuple(np.moveaxis(clipped, 2, 0))], -np.inf)
    value = array[tuple(index.T)]
    top = (near <= value[:, None]).all(axis=1)
    equal = near == value[:, None]
    tied = top & equal.any(axis=1)
    alone = [(_voxel(v), 0) for v in index[top & ~tied]]
    if not tied.any():
        return alone, False
    cut = bool(((index[tied][:, 2] == first) & (first > 0)).any())
    cut |= bool(((index[tied][:, 2] == last - 1) & (last < array.shape[2])).any())
    ranks = np.zeros(slab.shape, dtype=np.uint32)
    place = index[tied] - (0, 0, first)
    ranks[tuple(place.T)] = np.unique(value[tied], return_inverse=True)[1].ravel() + 1
    labels = np.asarray(cc3d.connected_components(ranks, connectivity=26))
    plateau = labels[tuple(place.T)]
    beside = clipped[tied] - (0, 0, first)  # a neighbour of the same value that is no maximum: the plateau has a way up
    seen = (beside[..., 2] >= 0) & (beside[..., 2] < slab.shape[2])
    beside[..., 2] = np.clip(beside[..., 2], 0, slab.shape[2] - 1)
    open_side = (equal[tied] & (~seen | (labels[tuple(np.moveaxis(beside, 2, 0))] == 0))).any(axis=1)
    broken = set(np.unique(plateau[open_side]).tolist())
    found = [(_voxel(v), int(n)) for v, n in zip(index[tied], plateau, strict=True) if int(n) not in broken]
    return alone + found, cut


def peaks(
    array: NDArray[np.float32], spacing_ijk_mm: tuple[float, float, float], low: float, radius_mm: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Voxels >= low that none within `radius_mm`, and none of the 26 neighbours, exceeds: indices [M, 3], values [M].

    One pass for every value that may be asked for. The voxels of a plateau are all told.
    """
    reach = [max(1, int(radius_mm / step)) for step in spacing_ijk_mm]
    padded = np.pad(array, [(r, r) for r in reach], constant_values=-np.inf)
    flat, strides = padded.ravel(), np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    offsets = np.array(list(np.ndindex(*(2 * r + 1 for r in reach)))) - reach
    distance = np.linalg.norm(offsets * spacing_ijk_mm, axis=1)
    near = (distance <= radius_mm) | (np.abs(offsets).max(axis=1) <= 1)
    left = np.flatnonzero(flat >= low)
    for offset in offsets[near][np.argsort(distance[near], kind="stable")]:  # the nearest rule out most
        left = left[flat[left + int(offset @ strides)] <= flat[left]]
    index = np.stack(np.unravel_index(left, padded.shape), axis=1) - reach
    return index.astype(np.int64), np.asarray(flat[left], dtype=np.float32)


def component_at(crop: NDArray[np.float32], seed: Voxel, threshold: float, connectivity: int = 18) -> NDArray[np.bool_]:
    """The connected voxels >= threshold that hold `seed`; all False when the seed itself is below."""
    labels = cc3d.connected_components(crop >= threshold, connectivity=connectivity)
    label = labels[seed]
    return np.asarray(labels == label if label else np.zeros(crop.shape, bool), dtype=bool)


def dominance(crop: NDArray[np.float32], seed: Voxel, floor: float = 0.3, steps: int = 5) -> float:
    """The lowest fraction of its own value down to which `seed` is the maximum of its component, in [floor, 1].

    0.4: a peak of its own; 0.95: a bump on the flank of something hotter, or noise. Found by bisection, so within
    (1 - floor) / 2 ** steps.
    """
    value = float(crop[seed])

    def is_top(fraction: float) -> bool:
        inside = component_at(crop, seed, fraction * value)
        return bool(crop[inside].max() <= value)

    if is_top(floor):
        return floor
    low, high = floor, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if is_top(middle) else (middle, high)
    return high


def _voxel(index: NDArray[np.int64]) -> Voxel:
    i, j, k = index
    return int(i), int(j), int(k)
