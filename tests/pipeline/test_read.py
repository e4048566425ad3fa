"""Exam folders of NIfTI files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.read import read_ct, read_exam, read_pet

AFFINE = np.array([[-4.0, 0, 0, 90], [0, 4, 0, -70], [0, 0, 3, -360], [0, 0, 0, 1]])


def pet() -> Volume:
    array = np.zeros((4, 5, 6), np.float32)
    array[3, 1, 4] = 12.5
    return Volume(array, AFFINE, "SUVbw", instance_numbers=(6, 5, 4, 3, 2, 1))


def test_pet_and_ct(tmp_path: Path) -> None:
    write_nifti(tmp_path / "pet.nii.gz", pet())
    exam = read_exam(tmp_path, case="a")
    assert exam.ct is None
    assert read_ct(tmp_path) is None
    write_nifti(tmp_path / "ct.nii.gz", Volume(np.full((8, 9, 7), -700, np.int16), np.eye(4), "HU"))
    exam = read_exam(tmp_path, case="a")
    assert exam.source == "nifti"
    assert (exam.suv_rule, exam.suv_factor, exam.pet_files) == ("NIfTI/SUVbw", None, ())
    assert exam.pet.array[3, 1, 4] == 12.5
    assert exam.pet.instance_numbers == (6, 5, 4, 3, 2, 1)
    assert exam.ct is not None
    assert exam.ct.unit == "HU"
    assert exam.ct.array.dtype == np.int16


def test_one_file(tmp_path: Path) -> None:
    write_nifti(tmp_path / "any_name.nii", pet())
    np.testing.assert_array_equal(read_pet(tmp_path / "any_name.nii").array, pet().array)


def test_the_head_foot_axis_becomes_the_third(tmp_path: Path) -> None:
    order = [2, 0, 1]
    affine = AFFINE.copy()
    affine[:, :3] = AFFINE[:, order]
    turned = Volume(pet().array.transpose(order), affine, "SUVbw")
    write_nifti(tmp_path / "pet.nii.gz", turned)
    out = read_pet(tmp_path)
    np.testing.assert_array_equal(out.array, pet().array)
    np.testing.assert_allclose(out.affine, AFFINE)


def test_activity_is_refused_with_the_case(tmp_path: Path) -> None:
    hot = pet()
    write_nifti(tmp_path / "pet.nii.gz", hot.like(hot.array * 5000, "SUVbw"))
    with pytest.raises(InputError, match=r"exam9: pet\.nii\.gz does not hold SUVbw") as error:
        read_exam(tmp_path, case="exam9")
    assert error.value.reason == "not_suv"
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.case, again.reason, str(again)) == ("exam9", "not_suv", str(error.value))


@pytest.mark.parametrize("edge_mm", [1e-9, 0.004, 400.0])
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("name", ["pet", "ct"])
def test_voxels_that_no_scanner_makes_are_refused(tmp_path: Path, edge_mm: float, axis: int, name: str) -> None:
    write_nifti(tmp_path / "pet.nii.gz", pet())
    affine = AFFINE.copy()
    affine[:3, axis] *= edge_mm / np.linalg.norm(affine[:3, axis])
    unit = "SUVbw" if name == "pet" else "HU"
    write_nifti(tmp_path / f"{name}.nii.gz", Volume(pet().array, affine, unit))
    with pytest.raises(GeometryError, match=rf"{name}\.nii\.gz has voxels of .*{edge_mm:.3g}") as error:
        read_exam(tmp_path, case="e")
    assert error.value.reason == "geometry"


@pytest.mark.parametrize(("shear_mm", "refused"), [(0.05, False), (0.5, True)])
def test_a_sheared_image_is_refused_as_a_tilted_stack_is(tmp_path: Path, shear_mm: float, refused: bool) -> None:
    affine = AFFINE.copy()
    affine[1, 2] += shear_mm
    write_nifti(tmp_path / "pet.nii.gz", Volume(pet().array, affine, "SUVbw"))
    if not refused:
        assert read_exam(tmp_path, case="e").pet.shape == pet().shape
        return
    with pytest.raises(GeometryError, match="not at right angles"):
        read_exam(tmp_path, case="e")


def test_two_pets_of_one_name(tmp_path: Path) -> None:
    write_nifti(tmp_path / "pet.nii.gz", pet())
    write_nifti(tmp_path / "pet.nii", pet())
    with pytest.raises(InputError, match="both"):
        read_pet(tmp_path)


def test_an_empty_folder_has_no_pet(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_exam(tmp_path, case="a")
    assert error.value.reason == "no_pet"
    assert read_ct(tmp_path) is None
