"""RT Structure Sets (DICOM PS3.3 A.19) drawn on a PET: their contours as masks on its grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume

__all__ = ["Roi", "fill_contours", "read_rois"]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")  # PS3.3 C.8.8.6.1
OFF_SLICE = 0.2  # voxels; bed seams of whole-body PET move slices by hundredths
SNAP = 3  # decimals of a voxel: contours through voxel centres must meet them in spite of millimetres as text
_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Roi:
    """One region: its number, the words that name it, its frame of reference, its contours (each [n, 3], LPS mm)."""

    number: int
    words: tuple[str, ...]
    frame_of_reference: str | None
    contours: tuple[NDArray[np.float64], ...]


def read_rois(dataset: Any, name: str) -> list[Roi]:
    """The regions of a structure set. Raises InputError for one whose contours are open or no points."""
    observed: dict[int, list[str]] = {}
    for item in dataset.get("RTROIObservationsSequence") or ():
        told = observed.setdefault(int(item.ReferencedROINumber), [])
        told += [str(item.get(k) or "") for k in ("ROIObservationLabel", "ROIObservationDescription")]
    contours: dict[int, tuple[NDArray[np.float64], ...]] = {}
    for item in dataset.get("ROIContourSequence") or ():
        number = int(item.ReferencedROINumber)
        contours[number] = tuple(_contours(item.get("ContourSequence") or (), f"{name}, ROI {number}"))
    rois = []
    for item in dataset.get("StructureSetROISequence") or ():
        number = int(item.ROINumber)
        words = [str(item.get(keyword) or "") for keyword in ("ROIName", "ROIDescription")] + observed.get(number, [])
        frame = str(item.get("ReferencedFrameOfReferenceUID") or "") or None
        rois.append(Roi(number, tuple(w for w in words if w), frame, contours.get(number, ())))
    return rois


def _contours(items: Iterable[Any], where: str) -> Iterator[NDArray[np.float64]]:
    for item in items:
        kind = str(item.get("ContourGeometricType") or "")
        if kind not in CLOSED:
            raise InputError(f"{where} has a contour of kind {kind or 'unknown'}", fix="close it, or export a mask")
        try:
            points = np.array([float(v) for v in item.get("ContourData") or ()], dtype=np.float64).reshape(-1, 3)
        except (TypeError, ValueError):
            points = np.full((1, 3), np.nan)
        if not np.isfinite(points).all():
            raise InputError(f"{where} has a contour that is no list of points", fix="export it again")
        yield points


def fill_contours(contours: Iterable[NDArray[np.float64]], pet: Volume, name: str = "a contour") -> NDArray[np.bool_]:
    """The voxels of `pet` whose centre lies within the contours ([n, 3], LPS mm), slice by slice.

    Within: in an odd number of contours of the slice, so an inner one cuts a hole (PS3.3 C.8.8.6.3), or on one of them.
    Nothing is drawn between slices that hold contours. Raises GeometryError when a contour does not lie in a slice of
    the grid, or outside of it.
    """
    mask = np.zeros(pet.shape, dtype=np.bool_)
    edges = np.zeros(pet.shape, dtype=np.bool_)
    for points in contours:
        index = pet.to_index(points * _LPS)
        k = _slice_of(index, pet, name)
        if len(index) < 3:  # encloses nothing
            continue
        vertices = np.round(index[:, :2], SNAP)
        low, high = np.floor(vertices.min(axis=0)).astype(int), np.ceil(vertices.max(axis=0)).astype(int)
        if (low < -1).any() or (high > np.array(pet.shape[:2])).any():
            raise GeometryError(f"{name} reaches beyond the PET", fix="draw it on the PET of this exam")
        inside, on_edge = _within(vertices - low, tuple(high - low + 1))
        first, last = np.maximum(low, 0), np.minimum(high, np.array(pet.shape[:2]) - 1)
        place = np.s_[first[0] : last[0] + 1, first[1] : last[1] + 1, k]
        cut = np.s_[first[0] - low[0] : last[0] - low[0] + 1, first[1] - low[1] : last[1] - low[1] + 1]
        mask[place] ^= inside[cut]
        edges[place] |= on_edge[cut]
    return mask | edges


def _within(vertices: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Grid points strictly inside of a polygon (even-odd), and those on its edges or corners."""
    from skimage.measure import grid_points_in_poly

    kind = grid_points_in_poly(shape, vertices, binarize=False)  # 0 outside, 1 inside, 2 corner, 3 edge
    return kind == 1, kind > 1


def _slice_of(index: NDArray[np.float64], pet: Volume, name: str) -> int:
    """The slice of a contour in voxel coordinates. Raises GeometryError when it lies in none."""
    k = round(float(index[:, 2].mean()))
    if np.abs(index[:, 2] - k).max() > OFF_SLICE:
        if np.ptp(index[:, 2]) <= OFF_SLICE:
            raise GeometryError(
                f"{name} lies between two slices of the PET", fix="draw on the PET's slices, not on the CT's"
            )
        raise GeometryError(f"{name} does not lie in a slice of the PET", fix="draw on the PET's axial slices")
    if not 0 <= k < pet.shape[2]:
        raise GeometryError(f"{name} lies above or below the PET", fix="draw it on the PET of this exam")
    return k
