"""Contours of an RT Structure Set become the voxels that lie within them, for every direction of a series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from pet_series import HOT_LPS_MM, SERIES, write_series
from rtstruct import contours_of, write_rtstruct

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.dicom.rtstruct import fill_contours, read_rois
from petground.pipeline.read import read_pet

SHAPE = np.array([[-9, -7], [13, -7], [13, 2], [0.7, 2], [0.7, 11], [-9, 11]])  # mm in the plane: an L, no symmetry
HOLE = np.array([[-7, -5], [-1, -5], [-1, -1], [-7, -1]])


def planes(folder: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each file: corner, step per column, step per row (LPS mm), centres of its pixels [rows, columns, 3]."""
    found = []
    for path in sorted(folder.glob("*.dcm")):
        ds = pydicom.dcmread(path)
        corner = np.array(ds.ImagePositionPatient, float)
        row, column = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
        x, y = row * float(ds.PixelSpacing[1]), column * float(ds.PixelSpacing[0])
        r, c = np.mgrid[: ds.Rows, : ds.Columns]
        found.append((corner, x, y, corner + c[..., None] * x + r[..., None] * y))
    return found


@pytest.mark.parametrize("name", SERIES)
def test_the_voxels_within_a_contour_by_the_headers_alone(name: str, tmp_path: Path) -> None:
    write_series(tmp_path / "pet", **SERIES[name])
    pet = read_pet(tmp_path / "pet")
    files = planes(tmp_path / "pet")
    near = sorted(files, key=lambda f: float(np.abs(f[3] - HOT_LPS_MM).sum(axis=-1).min()))[:2]
    contours, wanted = [], []
    for number, (corner, x, y, centres) in enumerate(near):
        across, down = x / np.linalg.norm(x), y / np.linalg.norm(y)
        middle = np.array([(HOT_LPS_MM - corner) @ across, (HOT_LPS_MM - corner) @ down])
        flat = np.stack([(centres - corner) @ across, (centres - corner) @ down], axis=-1).reshape(-1, 2)
        inside = np.zeros(len(flat), dtype=bool)
        for shape in (SHAPE, HOLE)[: 2 - number]:  # the second slice has no hole
            contours.append(
                corner + np.outer(shape[:, 0] + middle[0], across) + np.outer(shape[:, 1] + middle[1], down)
            )
            inside ^= Polygon(shape + middle).contains_points(flat)
        wanted.append(centres.reshape(-1, 3)[inside])
    path = write_rtstruct(tmp_path / "rt.dcm", {"f001": contours}, frame=pet.frame_of_reference)
    (roi,) = read_rois(pydicom.dcmread(path), path.name)
    mask = fill_contours(roi.contours, pet)
    found = pet.to_world_mm(np.argwhere(mask)) * [-1, -1, 1]
    places = np.concatenate(wanted)
    assert len(found) == len(places) > 20
    apart = np.linalg.norm(found[:, None] - places[None], axis=-1)
    assert apart.min(axis=1).max() < 0.15, "bed seams are a tenth of a millimetre"
    assert len(set(apart.argmin(axis=1))) == len(places)


def grid(shape: tuple[int, int, int] = (9, 7, 4)) -> Volume:
    tilt = np.deg2rad(8)
    turn = np.array([[-1, 0, 0], [0, -np.cos(tilt), np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([4.1, 3.7, 3.0]), (101.3, -40.7, 812.9)
    return Volume(np.ones(shape, np.float32), affine, "SUVbw")


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_any_mask_comes_back_from_its_contours_holes_and_all(bits: bytes) -> None:
    pet = grid()
    flat = np.unpackbits(np.frombuffer(bits, np.uint8))[: np.prod(pet.shape)]
    mask = np.resize(flat, pet.shape).astype(bool)
    contours = [np.round(points, 4) for points in contours_of(mask, pet)]
    assert np.array_equal(fill_contours(contours, pet), mask)


def test_contours_through_the_centres_of_the_outer_voxels_keep_them() -> None:
    pet = grid()
    corners = np.array([[2, 1, 1], [6, 1, 1], [6, 5, 1], [2, 5, 1]])
    hole = np.array([[3, 2, 1], [5, 2, 1], [5, 4, 1], [3, 4, 1]])
    points = [np.round(pet.to_world_mm(index) * [-1, -1, 1], 4) for index in (corners, hole)]
    mask = fill_contours(points, pet)
    wanted = np.zeros(pet.shape, dtype=bool)
    wanted[2:7, 1:6, 1] = True
    wanted[4, 3, 1] = False
    assert np.array_equal(mask, wanted)
    keyhole = np.array([[2, 1, 1], [6, 1, 1], [6, 5, 1], [2, 5, 1], [2, 1, 1], [3, 2, 1], [3, 4, 1], [5, 4, 1],
                        [5, 2, 1], [3, 2, 1]])  # fmt: skip
    once = fill_contours([pet.to_world_mm(keyhole) * [-1, -1, 1]], pet)
    assert np.array_equal(once, wanted), "out and in by one line, as PS3.3 describes"


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ([[1, 1, 1.5], [3, 1, 1.5], [3, 3, 1.5]], "between two slices"),
        ([[1, 1, 0], [1, 3, 0], [1, 3, 2], [1, 1, 2]], "does not lie in a slice"),
        ([[1, 1, 9], [3, 1, 9], [3, 3, 9]], "above or below"),
        ([[1, 1, -1], [3, 1, -1], [3, 3, -1]], "above or below"),
        ([[5, 1, 1], [12, 1, 1], [8, 3, 1]], "reaches beyond"),
    ],
)
def test_a_contour_off_the_grid_is_refused(index: list[list[float]], said: str) -> None:
    pet = grid()
    with pytest.raises(GeometryError, match=said):
        fill_contours([pet.to_world_mm(index) * [-1, -1, 1]], pet)


def test_open_contours_and_points_that_are_none_are_refused(tmp_path: Path) -> None:
    line = [np.zeros((4, 3))]
    path = write_rtstruct(tmp_path / "a.dcm", {"f001": line}, kind="OPEN_PLANAR")
    with pytest.raises(InputError, match=r"a\.dcm, ROI 1 has a contour of kind OPEN_PLANAR"):
        read_rois(pydicom.dcmread(path), path.name)
    ds = pydicom.dcmread(write_rtstruct(tmp_path / "b.dcm", {"f001": line}))
    ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    with pytest.raises(InputError, match="no list of points"):
        read_rois(ds, "b.dcm")
