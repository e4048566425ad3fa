"""Grids and resampling: an off-centre mark ends where it must in millimetres, whatever way the axes run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume
from petground.pipeline.geometry import Grid, axial_last, grid_around, grid_of, resample

TILT = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])


Triple = tuple[float, float, float]


def affine(directions: np.ndarray, spacing: Triple, origin: Triple) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array(spacing)
    matrix[:3, 3] = origin
    return matrix


def ramp(shape: tuple[int, int, int], matrix: np.ndarray, unit: str = "SUVbw") -> Volume:
    """Values x + 10 y + 100 z of the voxel's place: asymmetric, and exact under linear interpolation."""
    empty = Volume(np.zeros(shape, np.float32), matrix, unit)  # type: ignore[arg-type]
    places = empty.to_world_mm(np.stack(np.indices(shape), axis=-1))
    return empty.like((places @ np.array([1.0, 10.0, 100.0])).astype(np.float32), empty.unit)


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_linear_keeps_every_place_for_all_axis_directions(flips: tuple[int, int, int]) -> None:
    source = ramp((9, 10, 11), affine(TILT * np.array(flips), (2.0, 3.0, 4.0), (5.0, -7.0, 11.0)))
    target = Grid((4, 5, 3), affine(np.eye(3), (1.1, 1.3, 1.7), tuple(source.to_world_mm([3, 4, 4]))))
    out = resample(source, target)
    expected = ramp(target.shape, target.affine)
    assert out.unit == "SUVbw"
    np.testing.assert_allclose(out.array, expected.array, atol=0.05)


def test_a_mark_on_the_patients_left_stays_left() -> None:
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[1, 5, 6] = 3
    source = Volume(labels, affine(np.diag([-1.0, -1, 1]), (4, 4, 4), (10, 12, -8)), "label")
    place = source.to_world_mm([1, 5, 6])
    target = grid_around(source, spacing_xyz_mm=(2, 2, 2))
    out = resample(source, target, order="nearest")
    assert out.array.dtype == np.uint8
    marked = out.to_world_mm(np.argwhere(out.array == 3))
    assert len(marked) == 8
    np.testing.assert_allclose(marked.mean(axis=0), place, atol=1e-9)


def test_bool_and_int16_survive_nearest_and_outside_is_filled_by_unit() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 1, 2] = True
    source = Volume(mask, np.eye(4), "label")
    assert (resample(source, source, order="nearest").array == mask).all()
    ct = Volume(np.full((3, 3, 3), 40, np.int16), np.eye(4), "HU")
    out = resample(ct, Grid((2, 1, 1), affine(np.eye(3), (1, 1, 1), (2, 0, 0))), order="nearest")
    assert out.array.ravel().tolist() == [40, -1024]
    assert out.array.dtype == np.int16
    assert resample(ct, Grid((1, 1, 1), affine(np.eye(3), (1, 1, 1), (9, 0, 0))), fill=7).array.item() == 7


def test_labels_are_never_interpolated() -> None:
    with pytest.raises(GeometryError, match="nearest"):
        resample(Volume(np.ones((2, 2, 2), np.uint8), np.eye(4), "label"), Grid((2, 2, 2), np.eye(4)))


def test_grid_around_covers_the_whole_volume_and_no_more() -> None:
    source = ramp((10, 4, 6), affine(np.diag([-1.0, 1, 1]), (2, 5, 3), (100, -20, 7)))
    grid = grid_around(source, spacing_xyz_mm=(2, 5, 3))
    assert grid.shape == (10, 4, 6)
    np.testing.assert_allclose(grid.affine[:3, 3], [82, -20, 7])  # the voxel farthest left of the patient
    np.testing.assert_allclose(resample(source, grid).array, source.array[::-1], atol=1e-3)
    coarse = grid_around(source, spacing_xyz_mm=(3, 3, 4))
    assert coarse.shape == (7, 7, 5)


def test_grid_around_a_centre_with_a_shape() -> None:
    source = ramp((10, 4, 6), np.eye(4))
    grid = grid_around(source, spacing_xyz_mm=(2, 2, 2), shape_xyz=(3, 5, 4), centre_xyz_mm=(1.0, 2.0, 3.0))
    assert grid.shape == (3, 5, 4)
    np.testing.assert_allclose(grid.affine[:3, 3], [-1, -2, 0])
    with pytest.raises(GeometryError):
        grid_around(source, spacing_xyz_mm=(0, 1, 1))


def test_axial_last_moves_axes_but_no_voxel() -> None:
    sagittal = np.array([[0, 0, -1.0], [1, 0, 0], [0, 1, 0]])  # i anterior, j to the head, k to the patient's left
    source = ramp((4, 5, 6), affine(sagittal, (1, 2, 3), (3, 4, 5)))
    out = axial_last(source)
    assert out.shape == (4, 6, 5)
    assert out.head_is_last
    np.testing.assert_array_equal(out.array, ramp(out.shape, out.affine).array)
    assert axial_last(out) is out
    assert grid_of(out).shape == out.shape
