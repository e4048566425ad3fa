"""The one image type: an array, where it lies in the patient, and in what unit it counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError

__all__ = ["Unit", "Volume", "require_same_grid", "same_grid"]

Unit = Literal["SUVbw", "HU", "label", "probability"]


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image on a regular grid in the patient.

    array: [I, J, K]; index order is that of the affine's columns, the third axis is the stack of
        (roughly) axial slices. Either direction of each axis is allowed; ask the affine, never assume.
    affine: [4, 4] float64, voxel index (i, j, k, 1) -> millimetres in RAS+ patient space (+x to the
        patient's right, +y anterior, +z to the head), as in the NIfTI-1 standard. DICOM counts in LPS; the
        readers and writers of `pipeline` convert, nothing else does.
    unit: what a value means. A PET volume is always "SUVbw" [g/ml].
    frame_of_reference: the DICOM Frame of Reference UID, where known.
    instance_numbers: DICOM InstanceNumber of each k, where known: some sites' "slice" means that number.
    series_number: DICOM SeriesNumber, where known: "series 3, image 104" names it.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    unit: Unit
    frame_of_reference: str | None = None
    instance_numbers: tuple[int, ...] | None = None
    series_number: int | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or 0 in self.array.shape:
            raise GeometryError(f"an image needs three non-empty axes, this has shape {self.array.shape}")
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise GeometryError(
                "the affine is not an invertible 4x4 matrix", fix="write it anew from the scanner's data"
            )
        if self.instance_numbers is not None and len(self.instance_numbers) != self.array.shape[2]:
            raise GeometryError(f"{len(self.instance_numbers)} instance numbers for {self.array.shape[2]} slices")
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing_ijk_mm(self) -> tuple[float, float, float]:
        """Voxel size along the array's axes (not x, y, z: an axis may run along any direction)."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def head_is_last(self) -> bool:
        """True when k counts from the feet to the head. Raises GeometryError when k is not roughly axial."""
        direction = self.affine[2, 2] / np.linalg.norm(self.affine[:3, 2])
        if abs(direction) < 0.7:  # more than 45 degrees off the body axis
            raise GeometryError(
                "the third axis is not the head-foot axis", fix="reorient the image so that slices are axial"
            )
        return bool(direction > 0)

    def to_world_mm(self, ijk: Any) -> NDArray[np.float64]:
        """Voxel indices [..., 3] -> RAS+ millimetres [..., 3]."""
        return np.asarray(ijk, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, xyz_mm: Any) -> NDArray[np.float64]:
        """RAS+ millimetres [..., 3] -> continuous voxel indices [..., 3]."""
        offset = np.asarray(xyz_mm, dtype=np.float64) - self.affine[:3, 3]
        return offset @ np.linalg.inv(self.affine[:3, :3]).T

    def like(self, array: NDArray[Any], unit: Unit) -> Volume:
        """Another array on this grid, e.g. a mask. Raises GeometryError when the shape differs."""
        if array.shape != self.array.shape:
            raise GeometryError(f"array {array.shape} does not fit the grid {self.array.shape}")
        return replace(self, array=array, unit=unit)


def same_grid(a: Volume, b: Volume, *, atol_mm: float = 1e-3) -> bool:
    """True when both have one shape and no voxel centre of the one lies further than `atol_mm` from the other's."""
    if a.shape != b.shape:
        return False
    corners = np.array([[i, j, k] for i in (0, a.shape[0]) for j in (0, a.shape[1]) for k in (0, a.shape[2])])
    return bool(np.abs(a.to_world_mm(corners) - b.to_world_mm(corners)).max() <= atol_mm)


def require_same_grid(image: Volume, label: Volume, *, case: str | None = None, atol_mm: float = 1e-3) -> None:
    """Raises GeometryError naming both grids when they differ; a mismatch is never resampled silently."""
    if not same_grid(image, label, atol_mm=atol_mm):
        raise GeometryError(
            f"image grid {image.shape} at {np.round(image.affine[:3, 3], 2).tolist()} mm and label grid "
            f"{label.shape} at {np.round(label.affine[:3, 3], 2).tolist()} mm differ",
            case=case,
            fix="resample the label to the image's grid and check the outcome by eye",
        )
