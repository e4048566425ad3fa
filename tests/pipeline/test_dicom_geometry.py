"""Where slices lie: order, axes, oblique and tilted stacks, gaps, cuts, bed seams, doubled slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import (
    COLUMNS,
    FRAME,
    MARK,
    ROWS,
    SLICES,
    world_of_mark,
    write,
)
from pydicom.dataset import Dataset

from petground.labeling.errors import GeometryError
from petground.pipeline.read import read_exam, read_pet


def test_the_mark_lies_where_the_header_says(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "er")
    (tmp_path / "notes.txt").write_text("not an image")
    exam = read_exam(tmp_path, case="e1")
    pet = exam.pet
    assert pet.shape == (COLUMNS, ROWS, SLICES)
    assert pet.head_is_last
    assert tuple(np.unravel_index(pet.array.argmax(), pet.shape)) == MARK
    np.testing.assert_allclose(pet.to_world_mm(MARK), world_of_mark(), atol=1e-6)
    # 400 MBq, one half-life: 80000 g / 200e6 Bq = 4e-4 per Bq/ml; 1000 * slope 100 * 4e-4 = 40
    assert pet.array.max() == pytest.approx(40.0)
    assert pet.array.dtype == np.float32
    assert (exam.suv_rule, exam.suv_factor, exam.source) == ("BQML/START", pytest.approx(4e-4), "dicom")
    assert pet.instance_numbers == (6, 5, 4, 3, 2, 1)
    assert pet.frame_of_reference == FRAME
    numbers = [int(pydicom.dcmread(file).InstanceNumber) for file in exam.pet_files]
    assert numbers == [6, 5, 4, 3, 2, 1]
    assert exam.ct is None


@pytest.mark.parametrize("orientation", [[-1, 0, 0, 0, -1, 0], [-1, 0, 0, 0, 1, 0], [0, 1, 0, -1, 0, 0]])
def test_other_in_plane_directions(tmp_path: Path, orientation: list[int]) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.ImageOrientationPatient = orientation

    write(tmp_path, edit=edit)
    pet = read_pet(tmp_path)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lps = np.array([-30.0, -20.0, 112.0]) + 4.0 * 3 * row + 5.0 * 1 * column
    index = np.unravel_index(pet.array.argmax(), pet.shape)
    assert pet.head_is_last
    np.testing.assert_allclose(pet.to_world_mm(index), lps * [-1, -1, 1], atol=1e-6)


def test_an_oblique_series_gets_its_true_affine(tmp_path: Path) -> None:
    angle = 0.3
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.cross(row, column)

    def edit(ds: Dataset, k: int) -> None:
        ds.ImageOrientationPatient = [f"{v:.10f}" for v in [*row, *column]]
        ds.ImagePositionPatient = [f"{v:.10f}" for v in np.array([-30.0, -20.0, 100.0]) + 3.0 * k * normal]

    write(tmp_path, edit=edit)
    pet = read_pet(tmp_path)
    lps = np.array([-30.0, -20.0, 100.0]) + 12.0 * row + 5.0 * column + 12.0 * normal
    np.testing.assert_allclose(
        pet.to_world_mm(np.argwhere(pet.array == pet.array.max())[0]), lps * [-1, -1, 1], atol=1e-6
    )


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.ImagePositionPatient = [-30.0, -20.0 + 0.5 * k, 100.0 + 3.0 * k]

    write(tmp_path, edit=edit)
    with pytest.raises(GeometryError, match=r"sideways by 0\.50 mm"):
        read_pet(tmp_path)


def test_a_missing_slice_is_named_by_place(tmp_path: Path) -> None:
    write(tmp_path, edit=lambda ds, k: k != 2)
    with pytest.raises(GeometryError, match=r"1 slices missing between 103\.00 and 109\.00 mm \(InstanceNumber 5"):
        read_exam(tmp_path, case="e7")


def test_a_series_cut_off_at_its_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path, edit=lambda ds, k: k < 4)
    with pytest.raises(GeometryError, match="4 of 6 slices") as error:
        read_exam(tmp_path, case="e7")
    assert error.value.reason == "incomplete"
    assert error.value.case == "e7"


def test_a_cut_that_no_attribute_tells_of_shows_in_the_numbers(tmp_path: Path) -> None:
    """Instance 1 is at the head: without NumberOfSlices a stack that lost its head looks whole but for its numbers."""

    def headless(ds: Dataset, k: int) -> bool:
        del ds.NumberOfSlices
        return k < 4

    def footless(ds: Dataset, k: int) -> bool:
        del ds.NumberOfSlices
        return k > 1

    write(tmp_path / "a", edit=headless)
    exam = read_exam(tmp_path / "a", case="e")
    assert "InstanceNumber starts at 3: slices may be missing at that end" in exam.pet_series
    write(tmp_path / "b", edit=footless)
    assert "InstanceNumber" not in read_exam(tmp_path / "b", case="e").pet_series


def test_file_names_and_instance_numbers_play_no_part_in_the_order(tmp_path: Path) -> None:
    numbers = [3, 3, 1, 6, 2, 9]

    def shuffled(ds: Dataset, k: int) -> None:
        ds.InstanceNumber = numbers[k]
        ds.PixelData = np.full((ROWS, COLUMNS), 10 * k, np.uint16).tobytes()

    write(tmp_path, edit=shuffled)
    pet = read_pet(tmp_path)
    np.testing.assert_allclose(pet.array[1, 2], 10 * np.arange(SLICES) * 0.04)
    assert pet.instance_numbers == tuple(numbers)


def test_bed_seams_are_read_and_uneven_spacing_is_not(tmp_path: Path) -> None:
    def seams(ds: Dataset, k: int) -> None:
        ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + 3.0 * k + (0.05 if k > 2 else 0.0)]

    write(tmp_path / "a", edit=seams)
    pet = read_pet(tmp_path / "a")
    np.testing.assert_allclose(pet.to_world_mm(MARK), np.add(world_of_mark(), [0, 0, 0.05]), atol=0.03)

    def uneven(ds: Dataset, k: int) -> None:
        ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + 3.0 * k + (0.8 if k > 2 else 0.0)]

    write(tmp_path / "b", edit=uneven)
    with pytest.raises(GeometryError, match=r"uneven spacing between 106\.00 and 109\.80 mm"):
        read_pet(tmp_path / "b")


def test_doubled_slices_are_refused_but_copied_files_are_not(tmp_path: Path) -> None:
    uid = write(tmp_path)
    copy = next(tmp_path.glob("*.dcm"))
    (tmp_path / "copy.dcm").write_bytes(copy.read_bytes())
    assert read_pet(tmp_path).shape == (COLUMNS, ROWS, SLICES)
    write(tmp_path, uid=uid, name="gate")
    with pytest.raises(GeometryError, match="6 of 12 slices lie where another lies"):
        read_pet(tmp_path)
