"""Phantom exams as DICOM: read back by the ordinary reader, in the right place, and valid by dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from petground.labeling.errors import GeometryError
from petground.labeling.volume import Volume
from petground.pipeline.phantom.dicom_out import write_dicom
from petground.pipeline.phantom.records import Patient, PhantomExam
from petground.pipeline.read import read_exam

PET_MARK, CT_MARK = (5, 11, 3), (30, 9, 41)
PATIENT = Patient("P7", "M", 67, 81.5, 178.0, "FDG", "2022-11-30", 371.25, 61.0)


def make_exam(
    exam_id: str = "phantom-0007", *, tracer: str = "FDG", k_up: bool = True, patient_right_first: bool = True
) -> PhantomExam:
    """A noisy block with one hot PET voxel and one dense CT voxel, both off centre on every axis."""
    rng = np.random.default_rng(1)
    pet = rng.uniform(0.0, 3.0, (24, 20, 30)).astype(np.float32)
    pet[PET_MARK] = 40.0
    pet[:, :, 25] = 0.0  # a slice without any counts must not divide by nothing
    ct = rng.integers(-1000, 1500, (40, 36, 60)).astype(np.float32)
    ct[CT_MARK] = 3000.0
    sign_i, sign_k = (-1.0 if patient_right_first else 1.0), (1.0 if k_up else -1.0)
    pet_affine = np.array([[sign_i * 5, 0, 0, 61.5], [0, -5.5, 0, 40.25], [0, 0, sign_k * 4.0, -700.125], [0, 0, 0, 1]])
    ct_affine = np.array([[sign_i * 3, 0, 0, 60.0], [0, -3.0, 0, 41.0], [0, 0, sign_k * 2.0, -699.0], [0, 0, 0, 1]])
    patient = replace(PATIENT, tracer=tracer)
    return PhantomExam(exam_id, patient, Volume(pet, pet_affine, "SUVbw"), Volume(ct, ct_affine, "HU"), ())


def headers(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in sorted(folder.rglob("*.dcm"))]


@pytest.mark.parametrize("k_up", [True, False])
@pytest.mark.parametrize("patient_right_first", [True, False])
def test_suv_and_places_come_back(tmp_path: Path, k_up: bool, patient_right_first: bool) -> None:
    exam = make_exam(k_up=k_up, patient_right_first=patient_right_first)
    write_dicom(exam, tmp_path, uncorrected=True)
    read = read_exam(tmp_path, case="x")
    assert read.suv_rule == "BQML/START"
    assert "'PET AC'" in read.pet_series.split("chosen")[0]
    assert "'PET NAC'" in read.pet_series
    assert read.ct is not None
    for truth, again, mark, atol in ((exam.pet, read.pet, PET_MARK, 40.0 / 32767), (exam.ct, read.ct, CT_MARK, 0.5)):
        hottest = np.unravel_index(int(np.argmax(again.array)), again.shape)
        np.testing.assert_allclose(again.to_world_mm(hottest), truth.to_world_mm(mark), atol=1e-3)
        same = truth.array if k_up else truth.array[:, :, ::-1]
        np.testing.assert_allclose(again.array, same, atol=atol)
    slopes = {float(d.RescaleSlope) for d in headers(tmp_path / "PT" / "WB_AC")}
    assert len(slopes) > 20, "every slice has its own slope"
    quiet = [k for k in range(30) if k != PET_MARK[2]]
    same = exam.pet.array if k_up else exam.pet.array[:, :, ::-1]
    planes = quiet if k_up else [29 - k for k in quiet]
    np.testing.assert_allclose(read.pet.array[:, :, planes], same[:, :, planes], atol=3.0 / 32767)


def test_instance_numbers_count_from_the_head_and_file_names_do_not(tmp_path: Path) -> None:
    write_dicom(make_exam(), tmp_path, uncorrected=True)
    for name in ("PT/WB_AC", "PT/WB_NAC", "CT/WB_LOW_DOSE"):
        images = headers(tmp_path / name)
        by_number = sorted(images, key=lambda d: d.InstanceNumber)
        heights = [float(d.ImagePositionPatient[2]) for d in by_number]
        assert [d.InstanceNumber for d in by_number] == list(range(1, len(images) + 1))
        assert heights == sorted(heights, reverse=True)
        assert [d.InstanceNumber for d in images] not in (
            list(range(1, len(images) + 1)),
            list(range(len(images), 0, -1)),
        )


@pytest.mark.parametrize(
    ("tracer", "half_life"), [("FDG", 6586.2), ("DOTATATE", 4057.74), ("DCFPyL", 6586.2), ("fluciclovine", 6586.2)]
)
def test_pet_headers_say_what_was_injected(tmp_path: Path, tracer: str, half_life: float) -> None:
    exam = make_exam(tracer=tracer)
    write_dicom(exam, tmp_path, uncorrected=False)
    assert not (tmp_path / "PT" / "WB_NAC").exists()
    image = headers(tmp_path / "PT")[0]
    isotope = image.RadiopharmaceuticalInformationSequence[0]
    assert (image.Units, image.DecayCorrection) == ("BQML", "START")
    assert {"ATTN", "DECY", "SCAT"} <= set(image.CorrectedImage)
    assert float(isotope.RadionuclideTotalDose) == 371.25e6
    assert float(isotope.RadionuclideHalfLife) == half_life
    assert isotope.RadiopharmaceuticalStartDateTime[8:14] == isotope.RadiopharmaceuticalStartTime
    assert isotope.RadiopharmaceuticalStartDateTime[:8] == image.SeriesDate == "20221130"
    assert (image.PatientWeight, image.PatientSize, image.PatientAge, image.PatientSex) == (81.5, 1.78, "067Y", "M")
    assert str(image.PatientName).startswith("Phantom^")
    # By hand, from the header alone: SUV = Bq/ml * grams / (dose left at SeriesTime)
    seconds = _seconds(image.SeriesTime) - _seconds(isotope.RadiopharmaceuticalStartTime)
    assert seconds == 61 * 60
    factor = 81500 / (371.25e6 * 0.5 ** (seconds / half_life))
    k = round((float(image.ImagePositionPatient[2]) + 700.125) / 4.0)
    suv = image.pixel_array.T * float(image.RescaleSlope) * factor
    np.testing.assert_allclose(suv, exam.pet.array[:, :, k], atol=40 / 32767)


def _seconds(clock: str) -> int:
    return int(clock[:2]) * 3600 + int(clock[2:4]) * 60 + int(clock[4:6])


def test_bed_positions_are_scanned_one_after_another_from_the_thighs_up(tmp_path: Path) -> None:
    exam = make_exam()
    long = Volume(np.ones((6, 5, 100), np.float32), np.diag([-5.0, -5.0, 4.0, 1.0]), "SUVbw")
    write_dicom(replace(exam, pet=long), tmp_path, uncorrected=False)
    images = sorted(headers(tmp_path / "PT"), key=lambda d: float(d.ImagePositionPatient[2]))
    times = [_seconds(d.AcquisitionTime) for d in images]
    assert times == sorted(times)
    assert times[0] == _seconds(images[0].SeriesTime)
    assert len(set(times)) == 3  # 400 mm in beds of 150 mm
    assert float(images[-1].FrameReferenceTime) > 1000 * (times[-1] - times[0])
    assert float(images[-1].DecayFactor) > float(images[0].DecayFactor) > 1.0


def test_uids_are_stable_unique_and_shared_where_they_must_be(tmp_path: Path) -> None:
    write_dicom(make_exam(), tmp_path / "a", uncorrected=True)
    write_dicom(make_exam(), tmp_path / "b", uncorrected=True)
    write_dicom(make_exam("phantom-0008"), tmp_path / "c", uncorrected=True)
    a, b, c = (headers(tmp_path / name) for name in "abc")
    assert [d.SOPInstanceUID for d in a] == [d.SOPInstanceUID for d in b]
    assert not {d.SOPInstanceUID for d in a} & {d.SOPInstanceUID for d in c}
    assert max(Counter(d.SOPInstanceUID for d in a).values()) == 1
    assert len({d.SeriesInstanceUID for d in a}) == 3
    assert len({d.StudyInstanceUID for d in a}) == len({d.FrameOfReferenceUID for d in a}) == 1
    assert {d.StudyInstanceUID for d in a} != {d.StudyInstanceUID for d in c}
    assert {str(d.file_meta.TransferSyntaxUID) for d in a} == {"1.2.840.10008.1.2.1"}


def test_some_exams_have_the_uncorrected_series(tmp_path: Path) -> None:
    tiny = replace(make_exam(), pet=Volume(np.ones((3, 3, 2), np.float32), np.diag([-5.0, -5, 4, 1]), "SUVbw"))
    tiny = replace(tiny, ct=Volume(np.ones((3, 3, 2), np.float32), np.diag([-5.0, -5, 4, 1]), "HU"))
    for n in range(12):
        write_dicom(replace(tiny, exam_id=f"e{n}"), tmp_path / str(n))
    assert 2 <= sum((tmp_path / str(n) / "PT" / "WB_NAC").is_dir() for n in range(12)) <= 10
    for image in headers(tmp_path):
        if image.Modality == "PT":
            assert ("ATTN" in image.CorrectedImage) == (image.SeriesDescription == "PET AC")


def test_a_sheared_grid_is_refused(tmp_path: Path) -> None:
    exam = make_exam()
    affine = exam.pet.affine.copy()
    affine[0, 1] = 1.0
    with pytest.raises(GeometryError, match="sheared"):
        write_dicom(replace(exam, pet=Volume(exam.pet.array, affine, "SUVbw")), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing half-written"


@pytest.mark.parametrize("tracer", ["FDG", "DOTATATE", "DCFPyL", "fluciclovine"])
def test_dciodvfy_finds_no_error(tmp_path: Path, tracer: str) -> None:
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    write_dicom(make_exam(tracer=tracer), tmp_path, uncorrected=True)
    for name in ("PT/WB_AC", "PT/WB_NAC", "CT/WB_LOW_DOSE"):
        file = sorted((tmp_path / name).iterdir())[0]
        said = subprocess.run([tool, str(file)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr, said.stderr
        assert ("PETImage" if "PT" in name else "CTImage") in said.stderr + said.stdout
