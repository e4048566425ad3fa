"""Grids and resampling. SimpleITK counts in LPS+; the one turn between it and RAS+ is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Unit, Volume

__all__ = ["FILL", "Grid", "axial_last", "grid_around", "grid_of", "on_grid_of", "require_voxels", "resample"]

FILL: dict[Unit, float] = {"SUVbw": 0.0, "HU": -1024.0, "label": 0.0, "probability": 0.0}
"""What lies outside an image: no uptake, air, no label."""

SPACING_MM = (0.1, 50.0)  # finer than a micro-PET's voxels, coarser than any scanner's; outside, the unit is wrong
SQUARE = 0.02  # cosine between axes that counts as a right angle, about one degree
SAME_VOXEL = 0.05  # of a voxel: what float32 headers and quaternions lose, and far below half a voxel
_RAS_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels without values: shape along i, j, k and the affine to RAS+ mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


def grid_of(volume: Volume) -> Grid:
    """The grid that a volume lies on."""
    return Grid(volume.shape, volume.affine)


def grid_around(
    volume: Volume,
    *,
    spacing_xyz_mm: Sequence[float],
    shape_xyz: Sequence[int] | None = None,
    centre_xyz_mm: Sequence[float] | None = None,
) -> Grid:
    """A grid along the patient's axes (i right, j anterior, k to the head) around a volume.

    Without `shape_xyz` it just covers all of the volume; with it, that many voxels lie around `centre_xyz_mm`, the
    volume's own centre when not given.
    """
    spacing = np.asarray(spacing_xyz_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise GeometryError(f"spacing {spacing_xyz_mm} is not three positive millimetres")
    edges = [(-0.5, count - 0.5) for count in volume.shape]
    corners = volume.to_world_mm(np.array(list(product(*edges))))
    low, high = corners.min(axis=0), corners.max(axis=0)
    centre = (low + high) / 2 if centre_xyz_mm is None else np.asarray(centre_xyz_mm, dtype=np.float64)
    if shape_xyz is None:
        counts = np.ceil((2 * np.maximum(high - centre, centre - low)) / spacing - 1e-6).astype(int)
    else:
        counts = np.asarray(shape_xyz, dtype=int)
    counts = np.maximum(counts, 1)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre - spacing * (counts - 1) / 2
    return Grid((int(counts[0]), int(counts[1]), int(counts[2])), affine)


def resample(
    volume: Volume, like: Volume | Grid, order: Literal["linear", "nearest"] = "linear", fill: float | None = None
) -> Volume:
    """The volume's values at the voxel centres of `like`; outside the volume `fill` (default by unit, see FILL).

    Linear results are float32; nearest keeps the type. Labels are only taken by nearest neighbour: GeometryError else.
    """
    if volume.unit == "label" and order != "nearest":
        raise GeometryError("a label map cannot be interpolated", fix="use order='nearest'")
    array = volume.array
    kind = array.dtype
    if order == "linear":
        array = array.astype(np.float32, copy=False)
    elif kind == np.bool_:
        array = array.view(np.uint8)
    elif kind == np.float16:
        array = array.astype(np.float32)
    moving = _image(array, volume.affine)
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize([int(count) for count in like.shape])
    origin, spacing, direction = _lps(like.affine)
    filter_.SetOutputOrigin(origin)
    filter_.SetOutputSpacing(spacing)
    filter_.SetOutputDirection(direction)
    filter_.SetInterpolator(sitk.sitkLinear if order == "linear" else sitk.sitkNearestNeighbor)
    filter_.SetDefaultPixelValue(FILL[volume.unit] if fill is None else float(fill))
    values = sitk.GetArrayFromImage(filter_.Execute(moving)).transpose(2, 1, 0)
    if order == "nearest":
        values = values.astype(kind, copy=False)
    return Volume(values, like.affine, volume.unit, frame_of_reference=volume.frame_of_reference)


def on_grid_of(label: Volume, image: Volume) -> Volume:
    """The labelled voxels of a label map on the grid of `image`, voxel by voxel; nothing is resampled.

    Other programs save a label map with its axes in another order or direction, or cut down to what is labelled: its
    voxels must be the image's all the same. Raises GeometryError when they are not, or lie outside of the image.
    """
    found = np.argwhere(label.array != 0)
    out = np.zeros(image.shape, dtype=label.array.dtype)
    if len(found):
        turn = np.linalg.inv(image.affine) @ label.affine  # voxel index of the label -> of the image
        whole = np.rint(turn)
        ends = np.array(list(product(*zip(found.min(axis=0), found.max(axis=0), strict=True))))
        off = np.abs(ends @ (turn - whole)[:3, :3].T + (turn - whole)[:3, 3]).max()
        axes = np.abs(whole[:3, :3])
        if off > SAME_VOXEL or not ((axes.sum(axis=0) == 1).all() and (axes.sum(axis=1) == 1).all()):
            raise GeometryError(
                "its voxels are not those of the PET", fix="draw it on the PET, and save it unresampled"
            )
        index = (found @ whole[:3, :3].T + whole[:3, 3]).astype(int)
        if (index < 0).any() or (index >= np.array(image.shape)).any():
            raise GeometryError("it reaches beyond the PET", fix="draw it on the PET of this exam")
        out[tuple(index.T)] = label.array[tuple(found.T)]
    return image.like(out, "label")


def require_voxels(volume: Volume, name: str) -> Volume:
    """The volume, unless its voxels are none that a scanner makes or its axes are not at right angles.

    Raises GeometryError, as a tilted DICOM stack does: slices of a sheared image are no slices of the body.
    """
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    if not ((spacing >= SPACING_MM[0]) & (spacing <= SPACING_MM[1])).all():
        raise GeometryError(
            f"{name} has voxels of {' x '.join(f'{edge:.3g}' for edge in spacing)} mm, {SPACING_MM[0]:g} to "
            f"{SPACING_MM[1]:g} mm are possible",
            fix="correct the affine and the unit of length (xyzt_units) in its header",
        )
    axes = volume.affine[:3, :3] / spacing
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > SQUARE:
        raise GeometryError(
            f"the axes of {name} are not at right angles (cosine {cosines.max():.2f}): sheared, as by a tilted gantry",
            fix="resample it to a rectangular grid",
        )
    return volume


def axial_last(volume: Volume) -> Volume:
    """The same image with the head-foot axis as the third; only the order of axes changes, nothing is flipped."""
    along_z = np.abs(volume.affine[2, :3]) / np.linalg.norm(volume.affine[:3, :3], axis=0)
    axis = int(along_z.argmax())
    if axis == 2:
        return volume
    order = [other for other in range(3) if other != axis] + [axis]
    affine = volume.affine.copy()
    affine[:, :3] = volume.affine[:, order]
    return replace(volume, array=volume.array.transpose(order), affine=affine, instance_numbers=None)


def _image(array: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    origin, spacing, direction = _lps(affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


def _lps(affine: NDArray[np.float64]) -> tuple[list[float], list[float], list[float]]:
    """Origin, spacing and row-major direction cosines in LPS+ of an affine to RAS+."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = _RAS_LPS[:, None] * affine[:3, :3] / spacing
    return (_RAS_LPS * affine[:3, 3]).tolist(), spacing.tolist(), direction.ravel().tolist()
