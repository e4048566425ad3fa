"""Picture layers for the review page: PET and CT as compact data URIs, outlines and marks as SVG geometry.

The page draws every picture as an SVG counted in millimetres, so that outline, crosshair and marks are exact at
any zoom and one PET slice serves grey, hot and fused. Radiological convention as in `petground.pipeline.pictures`:
axial from the feet (patient's right on the left, anterior up), coronal from the front, sagittal with anterior left.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from petground.labeling.volume import Volume

__all__ = ["CT_WINDOW_HU", "SUV_CEILING", "View", "Viewer"]

View = Literal["axial", "coronal", "sagittal"]

CT_WINDOW_HU = (-160.0, 240.0)  # soft tissue: level 40, width 400
SUV_CEILING = 40.0  # stored as the square root over 8 bits: steps of 0.16 SUV at 10, finer below
BODY_SUV = 0.15  # air around the patient lies below, skin and lung above, in every tracer's window
BODY_MARGIN_MM = 20.0
_AXES: dict[View, tuple[int, int, int]] = {"axial": (1, 0, 2), "coronal": (2, 0, 1), "sagittal": (2, 1, 0)}


@dataclass(frozen=True)
class Frame:
    """One view's field: picture size in mm, and pixels (rows, columns) of the PET grid in it."""

    width_mm: float
    height_mm: float
    rows: int
    columns: int


class Viewer:
    """A PET on axes nearest to R, A, S, cropped to the body in x and y, and its CT looked up in millimetres.

    Indices given to its methods are those of the stored PET array, so that callers never handle orientation.
    """

    def __init__(self, pet: Volume, ct: Volume | None, keep: NDArray[np.bool_] | None = None):
        """`keep` [I, J, K] marks voxels that must stay in the field, the labels say."""
        self._pet, self._ct = pet, ct
        self._ornt = orientations.io_orientation(pet.affine)
        self._affine = pet.affine @ orientations.inv_ornt_aff(self._ornt, pet.shape)
        self._ras = self._to_ras(pet.array)
        self._spacing_xyz_mm = np.linalg.norm(self._affine[:3, :3], axis=0)
        self._low, self._high = self._field(keep)

    def frame(self, view: View) -> Frame:
        """The size of every picture of that view."""
        row_axis, column_axis, _ = _AXES[view]
        rows, columns = (int(self._high[a] - self._low[a]) for a in (row_axis, column_axis))
        return Frame(
            float(columns * self._spacing_xyz_mm[column_axis]), float(rows * self._spacing_xyz_mm[row_axis]), rows,
            columns,
        )  # fmt: skip

    def pet_slice(self, k: int) -> str:
        """PET of one stored slice as a data URI (PNG, square root of SUV)."""
        return _pet_png(self._cut(self._ras[:, :, self._along(k)], "axial"))

    def pet_mip(self, view: Literal["coronal", "sagittal"]) -> str:
        """Maximum-intensity projection of the PET as a data URI (PNG, square root of SUV)."""
        return _pet_png(self._cut(self._ras.max(axis=_AXES[view][2]), view))

    def ct_slice(self, k: int, *, pixel_mm: float, quality: int) -> str | None:
        """CT at the millimetres of one stored PET slice as a data URI (JPEG); None for an exam without CT."""
        if self._ct is None:
            return None
        frame, z = self.frame("axial"), self._along(k)
        rows, columns = max(1, round(frame.height_mm / pixel_mm)), max(1, round(frame.width_mm / pixel_mm))
        y = self._high[1] - 0.5 - (np.arange(rows) + 0.5) * frame.rows / rows
        x = self._high[0] - 0.5 - (np.arange(columns) + 0.5) * frame.columns / columns
        grid = np.stack([*np.meshgrid(x, y, indexing="xy"), np.full((rows, columns), float(z))], axis=-1)
        at = self._ct.to_index(grid @ self._affine[:3, :3].T + self._affine[:3, 3])
        hu = ndimage.map_coordinates(
            self._ct.array, np.moveaxis(at, -1, 0), output=np.float32, order=1, mode="constant", cval=-1024.0
        )
        low, high = CT_WINDOW_HU
        grey = np.rint(255 * np.clip((hu - low) / (high - low), 0, 1)).astype(np.uint8)
        return _data_uri(grey, "JPEG", quality=quality)

    def outline(self, mask: NDArray[np.bool_], view: View, k: int | None = None) -> str:
        """SVG path [mm] along the voxel edges of a mask: in slice k, or of its projection when k is None."""
        ras = self._to_ras(mask)
        flat = ras[:, :, self._along(k)] if k is not None else ras.max(axis=_AXES[view][2])
        frame = self.frame(view)
        return _edges(self._cut(flat, view), frame.width_mm / frame.columns, frame.height_mm / frame.rows)

    def point_mm(self, view: View, ijk: tuple[int, int, int]) -> tuple[float, float]:
        """(x, y) of a voxel's centre in the picture of that view, in mm from its upper left corner."""
        ras = [0.0, 0.0, 0.0]
        for stored, (axis, sign) in enumerate(self._ornt):
            n = self._pet.shape[stored]
            ras[int(axis)] = float(ijk[stored]) if sign > 0 else float(n - 1 - ijk[stored])
        row_axis, column_axis, _ = _AXES[view]
        return (
            float((self._high[column_axis] - 0.5 - ras[column_axis]) * self._spacing_xyz_mm[column_axis]),
            float((self._high[row_axis] - 0.5 - ras[row_axis]) * self._spacing_xyz_mm[row_axis]),
        )

    def _to_ras(self, array: NDArray[Any]) -> NDArray[Any]:
        turned: NDArray[Any] = orientations.apply_orientation(array, self._ornt)
        return turned

    def _along(self, k: int) -> int:
        """RAS slice index of a stored slice index on the head-foot axis."""
        stored = int(np.flatnonzero(self._ornt[:, 0] == 2)[0])
        n = self._pet.shape[stored]
        if not 0 <= k < n:
            raise IndexError(f"slice index {k} is not among the {n} slices")
        return k if self._ornt[stored, 1] > 0 else n - 1 - k

    def _field(self, keep: NDArray[np.bool_] | None) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """First and one-past-last RAS index per axis: the body and a margin in x and y, all of z."""
        shape = np.array(self._ras.shape)
        inside = ndimage.binary_opening(self._ras.max(axis=2) > BODY_SUV, iterations=1)
        if keep is not None:
            inside = inside | self._to_ras(keep).any(axis=2)
        low, high = np.zeros(3, dtype=int), shape.copy()
        if inside.any():
            for axis in (0, 1):
                at = np.flatnonzero(inside.any(axis=1 - axis))
                margin = int(np.ceil(BODY_MARGIN_MM / self._spacing_xyz_mm[axis]))
                low[axis], high[axis] = max(0, at[0] - margin), min(shape[axis], at[-1] + 1 + margin)
        return low, high

    def _cut(self, plane: NDArray[Any], view: View) -> NDArray[Any]:
        """A RAS plane [lower axis, higher axis] as the picture [rows, columns], each drawn from its axis' + end."""
        row_axis, column_axis, _ = _AXES[view]  # the column's axis is the lower one in every view
        columns, rows = (
            slice(self._low[column_axis], self._high[column_axis]),
            slice(self._low[row_axis], self._high[row_axis]),
        )
        return plane[columns, rows][::-1, ::-1].T


def _pet_png(suv: NDArray[Any]) -> str:
    level = np.sqrt(np.clip(np.nan_to_num(suv.astype(np.float32)), 0, SUV_CEILING) / SUV_CEILING)
    return _data_uri(np.rint(255 * level).astype(np.uint8), "PNG", optimize=True)


def _data_uri(grey: NDArray[np.uint8], kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _edges(inside: NDArray[Any], column_mm: float, row_mm: float) -> str:
    """Runs of voxel edges between inside and outside, as one SVG path of straight strokes [mm]."""
    padded = np.pad(np.asarray(inside, dtype=bool), 1)
    strokes: list[str] = []
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # [rows + 1, columns]: horizontal edges
    for row, start, stop in _runs(across):
        strokes.append(f"M{start * column_mm:.2f} {row * row_mm:.2f}H{stop * column_mm:.2f}")
    down = padded[1:-1, 1:] != padded[1:-1, :-1]  # [rows, columns + 1]: vertical edges
    for column, start, stop in _runs(down.T):
        strokes.append(f"M{column * column_mm:.2f} {start * row_mm:.2f}V{stop * row_mm:.2f}")
    return "".join(strokes)


def _runs(lines: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """(line, first, one past last) of every run of True along the lines."""
    found = []
    for line in np.flatnonzero(lines.any(axis=1)):
        steps = np.diff(np.pad(lines[line].astype(np.int8), 1))
        found += [
            (int(line), int(a), int(b))
            for a, b in zip(np.flatnonzero(steps > 0), np.flatnonzero(steps < 0), strict=True)
        ]
    return found
