"""From the planes of a series to a stack on a regular grid, or an error that says where it is not regular."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError
from petground.pipeline.dicom.header import Slice

__all__ = ["LPS_TO_RAS", "sort_slices", "stack_affine", "stack_normal"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
STEP_TOLERANCE = 0.1  # of the usual step: bed seams of whole-body PET deviate by 2-3 %, a missing slice by 100 %
PLACE_TOLERANCE_MM = 0.5  # how far a slice may lie from its place on the regular grid; a tenth of a PET voxel
SHEAR_TOLERANCE_MM = 0.1  # sideways drift per step, as of a tilted gantry
AXIAL_COSINE = 0.7071  # the stack must run within 45 degrees of the body axis


def stack_normal(plane: Slice) -> NDArray[np.float64]:
    """Unit normal of a plane in LPS+, turned towards the head. Raises GeometryError when it is not roughly axial."""
    row, column = np.array(plane.orientation_lps[:3]), np.array(plane.orientation_lps[3:])
    if abs(np.linalg.norm(row) - 1) > 1e-3 or abs(np.linalg.norm(column) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        raise GeometryError(f"ImageOrientationPatient {plane.orientation_lps} is not two perpendicular unit vectors")
    normal: NDArray[np.float64] = np.cross(row, column)
    if abs(normal[2]) < AXIAL_COSINE:
        raise GeometryError("the slices are not axial", fix="take the axial series")
    return normal if normal[2] > 0 else -normal


def sort_slices(planes: Sequence[Slice]) -> list[Slice]:
    """Planes by their place along the normal, feet first; a file that is there twice counts once.

    Raises GeometryError when two different planes lie at one place (gated, dynamic or doubled series).
    """
    unique = list({plane.identity: plane for plane in planes}.values())
    normal = stack_normal(unique[0])
    ordered = sorted(unique, key=lambda plane: float(plane.position_lps_mm @ normal))
    places = np.array([float(plane.position_lps_mm @ normal) for plane in ordered])
    steps = np.diff(places)
    if len(steps) and steps.min() < 0.01:
        at = int(steps.argmin())
        raise GeometryError(
            f"{int((steps < 0.01).sum())} of {len(ordered)} slices lie where another lies, first at "
            f"{places[at]:.2f} mm ({_named(ordered[at])} and {_named(ordered[at + 1])})",
            fix="a gated, dynamic or doubled series: export one time point",
        )
    return ordered


def stack_affine(ordered: Sequence[Slice]) -> NDArray[np.float64]:
    """[4, 4] (column, row, slice) -> RAS+ mm of sorted planes.

    The stack axis is the least-squares line through the slice positions, so steps that differ by hundredths of a
    millimetre (bed seams) are read, each slice staying within PLACE_TOLERANCE_MM of its true place.
    Raises GeometryError naming the place of a gap, of uneven spacing or of a shear.
    """
    first = ordered[0]
    normal = stack_normal(first)
    positions = np.array([plane.position_lps_mm for plane in ordered])
    if len(ordered) == 1:
        if not first.thickness_mm or first.thickness_mm <= 0:
            raise GeometryError("a single slice without SliceThickness has no third voxel size")
        step, origin = normal * first.thickness_mm, positions[0]
    else:
        _check_steps(ordered, positions @ normal)
        index = np.arange(len(ordered), dtype=np.float64)
        centred = index - index.mean()
        step = centred @ (positions - positions.mean(axis=0)) / (centred @ centred)
        origin = positions.mean(axis=0) - index.mean() * step
        offset = np.linalg.norm(positions - (origin + index[:, None] * step), axis=1)
        if offset.max() > PLACE_TOLERANCE_MM:
            at = int(offset.argmax())
            raise GeometryError(
                f"slice at {_mm(positions[at])} mm ({_named(ordered[at])}) is {offset.max():.2f} mm off a regular grid",
                fix="the spacing is uneven; export the series from the scanner anew",
            )
    shear = float(np.linalg.norm(step - (step @ normal) * normal))
    if shear > SHEAR_TOLERANCE_MM:
        raise GeometryError(
            f"each slice is shifted sideways by {shear:.2f} mm against the one below (gantry tilt)",
            fix="resample the series to a rectangular grid",
        )
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation_lps[:3]) * first.spacing_rc_mm[1]
    affine[:3, 1] = np.array(first.orientation_lps[3:]) * first.spacing_rc_mm[0]
    affine[:3, 2], affine[:3, 3] = step, origin
    return np.asarray(LPS_TO_RAS @ affine, dtype=np.float64)


def _check_steps(ordered: Sequence[Slice], places: NDArray[np.float64]) -> None:
    steps = np.diff(places)
    usual = float(np.median(steps))
    wrong = np.flatnonzero(np.abs(steps - usual) > STEP_TOLERANCE * usual)
    if len(wrong):
        at = int(wrong[0])
        what = f"about {round(steps[at] / usual) - 1} slices missing" if steps[at] > 1.5 * usual else "uneven spacing"
        raise GeometryError(
            f"{what} between {places[at]:.2f} and {places[at + 1]:.2f} mm ({_named(ordered[at])} and "
            f"{_named(ordered[at + 1])}): step {steps[at]:.2f} mm, usual is {usual:.2f} mm; {len(wrong)} such places",
            fix="fetch the series anew; slices were lost on the way",
        )


def _named(plane: Slice) -> str:
    return f"InstanceNumber {plane.instance_number}, {plane.file.name}"


def _mm(position: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 2) for value in position]
