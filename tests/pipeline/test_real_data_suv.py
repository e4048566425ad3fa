"""Scanners' own files: SUV factors, hottest voxels and places against what is published for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from skimage.draw import polygon2mask

from petground.labeling.errors import SuvError
from petground.labeling.volume import Volume
from petground.pipeline.read import read_ct, read_exam, read_pet

Data = Callable[[str], Path]


def test_acrin_042(shared_data: Data) -> None:
    folder = shared_data("acrin_042")
    exam = read_exam(folder, case="acrin_042")
    assert exam.suv_factor == pytest.approx(0.00042111007, rel=1e-6)
    assert exam.suv_rule == "BQML/START"  # the private date-times, weeks off, play no part
    assert float(exam.pet.array.max()) == pytest.approx(51.1, abs=0.05)
    assert exam.pet_series.startswith("'PET AC' (135 slices) chosen")
    assert "'PET NAC' (135 slices) refused" in exam.pet_series
    assert exam.pet.head_is_last
    assert exam.pet.instance_numbers == tuple(range(135, 0, -1))
    assert len(exam.pet_files) == 135
    assert all(file.parent.name == "PET_AC" for file in exam.pet_files)
    assert exam.ct is not None
    assert exam.ct.shape == (512, 512, 135)
    # the hottest voxel lies 360.2 mm below the origin of the scanner plus ten slices of 3.27 mm
    hottest = np.unravel_index(exam.pet.array.argmax(), exam.pet.shape)
    np.testing.assert_allclose(
        exam.pet.to_world_mm(hottest), [297.65625 - 51 * 4.6875, 297.65625 - 63 * 4.6875, -327.5], atol=0.05
    )
    # the body, seen on the CT, is where the PET takes up tracer
    warm = exam.pet.to_world_mm(np.argwhere(exam.pet.array > 0.5)[::50])
    ijk = np.clip(np.rint(exam.ct.to_index(warm)).astype(int), 0, np.array(exam.ct.shape) - 1)
    assert (exam.ct.array[tuple(ijk.T)] > -300).mean() > 0.75


def test_acrin_042_without_the_corrected_series(shared_data: Data) -> None:
    with pytest.raises(SuvError, match=r"PET NAC.*not attenuation corrected"):
        read_pet(shared_data("acrin_042") / "PET_NAC")


def test_sts_001_whole_body(shared_data: Data) -> None:
    folder = shared_data("sts_001_whole_body")
    expected = json.loads((folder / "expected.json").read_text())
    exam = read_exam(folder, case="sts_001")
    pet = exam.pet
    assert exam.suv_factor == pytest.approx(0.000242902976615, rel=1e-9)
    k, row, column = expected["argmax_raw_zyx"]
    assert pet.array[column, row, k] == pytest.approx(7.9107, abs=5e-5)
    assert pet.instance_numbers is not None
    assert pet.instance_numbers[k] == 239
    tumour = structure_mask(pet, next((folder / "STS_001" / "FDG_PET" / "mask").glob("*.dcm")))
    assert pet.array[tumour].max() == pytest.approx(expected["gtv_suvmax"], abs=5e-5)
    assert pet.array[column, row, k] == pet.array[tumour].max()
    assert tumour.sum() * pet.voxel_ml == pytest.approx(expected["gtv_volume_ml"], rel=0.05)
    # the slices are 3.19 to 3.29 mm apart: each must stay on its place within a twentieth of a millimetre
    places = [pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2] for file in exam.pet_files]
    grid = pet.to_world_mm([[0, 0, index] for index in range(267)])[:, 2]
    assert np.abs(grid - np.array(places, float)).max() < 0.05


def structure_mask(pet: Volume, file: Path) -> np.ndarray:
    """All contours of the first region of an RTSTRUCT on the PET grid."""
    mask = np.zeros(pet.shape, bool)
    for contour in pydicom.dcmread(file).ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3) * [-1, -1, 1]
        index = pet.to_index(points)
        mask[:, :, round(index[0, 2])] ^= polygon2mask(pet.shape[:2], index[:, :2])
    return mask


def test_suv_digital_reference_objects(shared_data: Data) -> None:
    rules = {}
    for folder in sorted(path for path in shared_data("suv_dro").iterdir() if path.is_dir()):
        exam = read_exam(folder / "PT", case=folder.name)
        values = exam.pet.array[mask_on(exam.pet, folder / "mask" / "DRO_mask.nii.gz")]
        found = (values.min(), np.median(values), values.max())
        assert found == pytest.approx((0.20, 1.00, 4.00), abs=0.005), folder.name
        rules[folder.name[4:]] = exam.suv_rule
    assert rules == {
        "0_0": "BQML/START",
        "1_0": "BQML/START",  # RescaleSlope differs by slice
        "2_0": "GML/START",
        "2_1": "GML/LBM by James, coefficient 128",
        "2_4": "CNTS/Philips SUV factor",
        "3_0": "BQML/START (dose in MBq)",
        "3_1": "BQML/ADMIN",
        "4_0": "BQML/START",  # injection as date-time only
        "5_0": "BQML/START",  # Ga-68
    }


def mask_on(pet: Volume, file: Path) -> np.ndarray:
    import nibabel as nib

    image = nib.load(file)
    mask = Volume(np.asanyarray(image.dataobj) > 0, image.affine, "label")
    assert mask.shape == pet.shape
    return mask.array


@pytest.mark.parametrize("modality", ["PET", "CT"])
def test_ibsi_dicom_equals_ibsi_nifti(shared_data: Data, modality: str) -> None:
    dicom = shared_data("ibsi_sts_dicom") / "STS_002"
    nifti = shared_data("ibsi_sts") / "STS_002" / f"{modality}_image.nii.gz"
    read = read_pet if modality == "PET" else read_ct
    ours, theirs = read(dicom), read(nifti)
    assert ours is not None
    assert theirs is not None
    # the same voxel is sought by its place in millimetres, not by its index
    index = np.stack(np.indices(ours.shape), axis=-1)
    other = theirs.to_index(ours.to_world_mm(index))
    nearest = np.rint(other).astype(int)
    assert np.abs(other - nearest).max() < 1e-3
    assert nearest.min() >= 0
    expected = theirs.array[tuple(np.moveaxis(nearest, -1, 0))]
    np.testing.assert_allclose(ours.array, expected, rtol=3e-6, atol=3e-6)


def test_ibsi_dicom_exam(shared_data: Data) -> None:
    exam = read_exam(shared_data("ibsi_sts_dicom"), case="sts_002")
    assert exam.suv_rule == "GML/ADMIN"
    assert exam.pet.instance_numbers == tuple(range(48))  # counted from 0 at the feet
    assert exam.ct is not None
    assert exam.ct.shape[2] == 48
