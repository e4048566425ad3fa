"""Images and masks on the grid that a data set wants: the PET's, the CT's, or one of a given spacing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume, require_same_grid
from petground.pipeline.geometry import Grid, grid_around, grid_of, resample

__all__ = ["doubtful", "image_on", "mask_on", "ras", "target_grid"]

COARSER = 1.3  # from this ratio of spacings on, an image is smoothed before it is sampled, or fine detail would alias
SIGMA = 0.35  # of the smoothing, in target voxels: attenuates what the coarser grid cannot carry
DOUBT_FRACTION = 0.41  # isocontour of SUVmax (EANM procedure guideline 2.0, Boellaard 2015, section on tumour volume)
DOUBT_RADIUS_MM = 30.0  # as far as that isocontour is followed from the candidate's voxel


def target_grid(
    pet: Volume, ct: Volume | None, *, spacing_xyz_mm: Sequence[float] | None, on_ct: bool, upright: bool
) -> Grid:
    """Where the case will lie. upright: axes along RAS+ (i right, j front, k head), as some readers demand.

    With a spacing the axes are always the patient's. Raises GeometryError when the CT's grid is wanted without a CT.
    """
    if spacing_xyz_mm is not None:
        return grid_around(ct if on_ct and ct is not None else pet, spacing_xyz_mm=spacing_xyz_mm)
    if on_ct:
        if ct is None:
            raise GeometryError("there is no CT whose grid could be used", fix="leave --ct-grid out")
        return grid_of(ras(ct) if upright else ct)
    return grid_of(ras(pet) if upright else pet)


def image_on(volume: Volume, grid: Grid) -> Volume:
    """PET (float32) or CT (HU, int16) on the grid; the voxels themselves where they only change their order."""
    same = _turned(volume, grid)
    if same is not None:
        return same
    array = resample(_smoothed(volume, grid), Grid(grid.shape, grid.affine), order="linear").array
    if volume.unit == "HU":
        array = np.clip(np.rint(array), -32768, 32767).astype(np.int16)
    return Volume(array, grid.affine, volume.unit, frame_of_reference=volume.frame_of_reference)


def mask_on(mask: NDArray[np.bool_], pet: Volume, grid: Grid) -> NDArray[np.bool_]:
    """A mask on the PET's grid -> the voxels of `grid` that it covers by half; never none: the best one stays."""
    if not mask.any():
        return np.zeros(grid.shape, dtype=np.bool_)
    same = _turned(pet.like(mask.astype(np.uint8), "label"), grid)
    if same is not None:
        return np.asarray(same.array > 0)
    share = resample(_smoothed(pet.like(mask.astype(np.float32), "probability"), grid), grid, order="linear").array
    covered: NDArray[np.bool_] = share >= 0.5
    if not covered.any():
        if float(share.max()) <= 0:
            raise GeometryError("the label lies outside of the grid", fix="choose a finer spacing")
        covered = share >= float(share.max())
    return covered


def ras(volume: Volume) -> Volume:
    """The same voxels with axes nearest to RAS+; order and direction of axes change together with the affine."""
    along = np.abs(volume.affine[:3, :3]) / np.linalg.norm(volume.affine[:3, :3], axis=0)
    order = [int(n) for n in along.argmax(axis=1)]
    if sorted(order) != [0, 1, 2]:
        raise GeometryError("the axes run between the patient's axes", fix="export with --spacing instead")
    array = volume.array.transpose(order)
    affine = volume.affine.copy()
    affine[:, :3] = volume.affine[:, order]
    for axis in range(3):
        if affine[axis, axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return replace(volume, array=np.ascontiguousarray(array), affine=affine, instance_numbers=None)


def doubtful(pet: Volume, voxel_ijk: Sequence[int], suv: float) -> NDArray[np.bool_]:
    """[I, J, K]: what hangs together with the voxel at 41 % of its SUV or more, within 30 mm."""
    out = np.zeros(pet.shape, dtype=np.bool_)
    voxel = np.asarray(voxel_ijk)
    if not ((voxel >= 0) & (voxel < pet.shape)).all():
        raise GeometryError(f"candidate voxel {tuple(int(v) for v in voxel)} lies outside of the PET")
    reach = np.ceil(DOUBT_RADIUS_MM / np.asarray(pet.spacing_ijk_mm)).astype(int)
    low, high = np.maximum(voxel - reach, 0), np.minimum(voxel + reach + 1, pet.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    at = tuple(int(v) for v in voxel - low)
    steps = np.meshgrid(*[np.arange(a, b) - v for a, b, v in zip(low, high, voxel, strict=True)], indexing="ij")
    distance = np.sqrt(sum((s * mm) ** 2 for s, mm in zip(steps, pet.spacing_ijk_mm, strict=True)))
    level = DOUBT_FRACTION * min(suv, float(pet.array[tuple(voxel)])) if suv > 0 else float(pet.array[tuple(voxel)])
    regions, _ = ndimage.label((pet.array[box] >= level) & (distance <= DOUBT_RADIUS_MM))
    out[box] = regions == regions[at] if regions[at] else False
    out[tuple(voxel)] = True
    return out


def _turned(volume: Volume, grid: Grid) -> Volume | None:
    """The volume itself, or turned to RAS+, where that is the grid; else None."""
    placed = Volume(np.broadcast_to(np.uint8(0), grid.shape), grid.affine, "label")
    for candidate in (volume, ras(volume)) if _axes_are_clear(volume) else (volume,):
        try:
            require_same_grid(candidate, placed)
        except GeometryError:
            continue
        return replace(candidate, affine=grid.affine)
    return None


def _axes_are_clear(volume: Volume) -> bool:
    along = np.abs(volume.affine[:3, :3]) / np.linalg.norm(volume.affine[:3, :3], axis=0)
    return sorted(along.argmax(axis=1).tolist()) == [0, 1, 2]


def _smoothed(volume: Volume, grid: Grid) -> Volume:
    """The volume as floats, smoothed along the axes on which the grid is clearly coarser."""
    step = np.linalg.norm(np.linalg.inv(volume.affine[:3, :3]) @ grid.affine[:3, :3], axis=1)
    sigma = [float(SIGMA * s) if s > COARSER else 0.0 for s in step]
    array = np.asarray(volume.array, dtype=np.float32)
    if any(sigma):
        array = ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=2.5)
    return volume.like(array, volume.unit)
