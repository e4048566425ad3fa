"""DICOM series written by the test: order, axes, gaps, choice of series, and files that are damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from petground.labeling.errors import GeometryError, InputError, SuvError
from petground.pipeline.dicom.header import parse_datetime, parse_time
from petground.pipeline.read import read_ct, read_exam, read_pet

PET, CT = "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.2"
STUDY, FRAME = "1.2.3.1", "1.2.3.2"
ROWS, COLUMNS, SLICES = 5, 4, 6
MARK = (3, 1, 4)  # column, row, slice from the feet: off centre along every axis
Edit = Callable[[Dataset, int], Any]


def dose(injected: str = "20240305100000") -> Dataset:
    item = Dataset()
    item.RadiopharmaceuticalStartDateTime = injected
    item.RadionuclideTotalDose = 400e6
    item.RadionuclideHalfLife = 3600.0
    return item


def stored() -> np.ndarray:
    """[slices, rows, columns]: 0..100 with one mark of 1000."""
    values = np.arange(SLICES * ROWS * COLUMNS, dtype=np.uint16).reshape(SLICES, ROWS, COLUMNS) % 97
    values[MARK[2], MARK[1], MARK[0]] = 1000
    return values


def data_set(modality: str, uid: str, k: int, values: np.ndarray) -> Dataset:
    """Slice k from the feet; column 0 is the patient's right, row 0 anterior, as usual. Instance 1 is the head."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = PET if modality == "PT" else CT
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = modality, uid, STUDY, FRAME
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.InstanceNumber = SLICES - k
    ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelSpacing = [5.0, 4.0]  # between rows, between columns
    ds.SliceThickness = 3.0
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + 3.0 * k]
    ds.RescaleSlope, ds.RescaleIntercept = ("100", "0") if modality == "PT" else ("1", "-1000")
    ds.SeriesDate = ds.AcquisitionDate = ds.StudyDate = "20240305"
    ds.SeriesTime = ds.AcquisitionTime = "110000"
    ds.PixelData = values.astype(np.uint16).tobytes()
    if modality == "PT":
        ds.SeriesDescription = "PET AC"
        ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["DECY", "ATTN"]
        ds.PatientWeight, ds.ActualFrameDuration, ds.FrameReferenceTime = "80", "60000", "0"
        ds.NumberOfSlices = SLICES
        ds.RadiopharmaceuticalInformationSequence = Sequence([dose()])
    return ds


def write(folder: Path, modality: str = "PT", edit: Edit | None = None, name: str = "", uid: str | None = None) -> str:
    """A series in files of scrambled names; returns its UID. `edit(ds, k)` changes a slice or, by False, omits it."""
    uid = uid or generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    order = list(range(SLICES))
    random.Random(3).shuffle(order)
    for number, k in enumerate(order):
        ds = data_set(modality, uid, k, stored()[k])
        if edit is not None and edit(ds, k) is False:
            continue
        ds.save_as(folder / f"{name or modality}{number}.dcm", enforce_file_format=True)
    return uid


def world_of_mark(k: int = MARK[2]) -> list[float]:
    """Worked by hand, LPS to RAS: x = -(-30 + 4*3), y = -(-20 + 5*1), z = 100 + 3*k."""
    return [18.0, 15.0, 100.0 + 3.0 * k]


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


def test_slopes_differ_by_slice(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.RescaleSlope = str(10.0 * (k + 1))

    write(tmp_path, edit=edit)
    expected = stored().transpose(2, 1, 0) * (10.0 * np.arange(1, SLICES + 1)) * 4e-4
    np.testing.assert_allclose(read_pet(tmp_path).array, expected, rtol=1e-6)


def test_decay_correction_none_differs_by_slice(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.DecayCorrection, ds.CorrectedImage = "NONE", ["ATTN"]
        ds.AcquisitionTime = f"{11 + k // 3:02d}0000"

    write(tmp_path, edit=edit)
    exam = read_exam(tmp_path, case="e")
    ratio = exam.pet.array / np.maximum(stored().transpose(2, 1, 0), 1e-9)
    assert ratio[1, 1, 5] / ratio[1, 1, 0] == pytest.approx(2.0, rel=1e-5)
    assert exam.suv_factor is None


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


def test_the_uncorrected_series_is_refused_by_name(tmp_path: Path) -> None:
    def nac(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.PatientWeight = "WB_NAC 3D", "1"

    def lacks(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.CorrectedImage = "recon 2", ["DECY"]

    write(tmp_path, edit=nac, name="n")
    write(tmp_path, edit=lacks, name="l")
    with pytest.raises(SuvError, match="no PET series can be used"):
        read_exam(tmp_path, case="e")
    write(tmp_path)
    exam = read_exam(tmp_path, case="e")
    assert exam.pet.array.max() == pytest.approx(40.0)
    assert exam.pet_series.startswith("'PET AC' (6 slices) chosen")
    assert "'WB_NAC 3D' (6 slices) refused: named 'NAC'" in exam.pet_series
    assert "'recon 2' (6 slices) refused: CorrectedImage lacks ATTN" in exam.pet_series


def test_the_original_and_longest_series_is_chosen(tmp_path: Path) -> None:
    def derived(ds: Dataset, k: int) -> None:
        ds.SeriesDescription, ds.ImageType = "reformatted", ["DERIVED", "SECONDARY"]

    def bed(ds: Dataset, k: int) -> bool:
        ds.SeriesDescription, ds.NumberOfSlices = "one bed", 2
        ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + 1.0 * k]
        return k < 2

    write(tmp_path, edit=bed, name="b")
    write(tmp_path, edit=derived, name="d")
    write(tmp_path)
    assert read_exam(tmp_path, case="e").pet_series.startswith("'PET AC'")


def test_two_studies_in_a_folder_are_not_chosen_between(tmp_path: Path) -> None:
    def prior(ds: Dataset, k: int) -> None:
        ds.StudyInstanceUID = "1.2.9"

    write(tmp_path / "a")
    write(tmp_path / "b", edit=prior)
    with pytest.raises(InputError, match="2 studies"):
        read_exam(tmp_path, case="e")


def test_ct_of_the_same_frame_of_reference_with_most_overlap(tmp_path: Path) -> None:
    def elsewhere(ds: Dataset, k: int) -> None:
        ds.FrameOfReferenceUID, ds.SeriesDescription = "1.2.99", "elsewhere"

    def short(ds: Dataset, k: int) -> bool:
        ds.SeriesDescription = "short"
        ds.ImagePositionPatient = [-30.0, -20.0, 100.0 + 30.0 * k]
        return k < 2

    def diagnostic(ds: Dataset, k: int) -> None:
        ds.SeriesDescription = "CT"
        ds.PixelData = np.full((ROWS, COLUMNS), 1040 if k == MARK[2] else 0, np.uint16).tobytes()
        ds.RescaleIntercept = "-1000" if k else "-2000"  # outside the field of view

    write(tmp_path)
    write(tmp_path, "CT", edit=elsewhere, name="x")
    assert read_exam(tmp_path, case="e").ct is None
    assert read_ct(tmp_path) is None
    write(tmp_path, "CT", edit=diagnostic, name="c")
    write(tmp_path, "CT", edit=short, name="s")
    exam = read_exam(tmp_path, case="e")
    assert exam.ct is not None
    assert exam.ct_series.startswith("'CT' (6 slices) chosen")
    assert exam.ct.unit == "HU"
    assert exam.ct.array.dtype == np.int16
    assert exam.ct.array[0, 0].tolist() == [-1024, -1000, -1000, -1000, 40, -1000]


def test_an_irregular_ct_does_not_cost_the_exam(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "CT", edit=lambda ds, k: k != 3)
    exam = read_exam(tmp_path, case="e")
    assert exam.ct is None
    assert "missing" in exam.ct_series


def test_run_length_encoding(tmp_path: Path) -> None:
    write(tmp_path)
    plain = read_pet(tmp_path).array
    for file in tmp_path.glob("*.dcm"):
        ds = pydicom.dcmread(file)
        ds.compress(RLELossless)
        ds.save_as(file)
    np.testing.assert_array_equal(read_pet(tmp_path).array, plain)


def test_signed_pixels(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.PixelRepresentation = 1
        ds.PixelData = np.full((ROWS, COLUMNS), -2, np.int16).tobytes()

    write(tmp_path, edit=edit)
    assert read_pet(tmp_path).array.max() == pytest.approx(-0.08)


def test_one_file_alone(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.NumberOfSlices = 1

    write(tmp_path, edit=edit)
    pet = read_pet(next(tmp_path.glob("*.dcm")))
    assert pet.shape == (COLUMNS, ROWS, 1)
    assert pet.spacing_ijk_mm == pytest.approx((4, 5, 3))


@pytest.mark.parametrize(
    ("attribute", "value", "word"),
    [
        ("PatientWeight", None, "PatientWeight"),
        ("Units", "CPS", "CPS"),
        ("Units", "PROPCPS", "PROPCPS"),
        ("RescaleIntercept", "5", "RescaleIntercept"),
        ("RescaleSlope", "0", "RescaleSlope"),
        ("SeriesDate", "20240301", "SeriesTime"),
        ("RadiopharmaceuticalInformationSequence", None, "RadionuclideTotalDose"),
        ("RadiopharmaceuticalInformationSequence", [dose(), dose()], "has 2 items"),
    ],
)
def test_no_suv_is_never_raw_activity(tmp_path: Path, attribute: str, value: Any, word: str) -> None:
    def edit(ds: Dataset, k: int) -> None:
        if value is None:
            delattr(ds, attribute)
        else:
            setattr(ds, attribute, value)

    write(tmp_path, edit=edit)
    with pytest.raises(SuvError, match=word) as error:
        read_exam(tmp_path, case="e3")
    assert str(error.value).startswith("e3: ")
    assert error.value.fix


def test_philips_private_factor_with_and_without_creator(tmp_path: Path) -> None:
    def with_creator(ds: Dataset, k: int) -> None:
        ds.Units = "CNTS"
        block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0.0005")

    def bytes_only(ds: Dataset, k: int) -> None:
        ds.Units = "CNTS"
        ds.add_new(0x70531009, "UN", b"2.0 ")

    write(tmp_path / "a", edit=with_creator)
    assert read_pet(tmp_path / "a").array.max() == pytest.approx(1000 * 100 * 5e-4)
    write(tmp_path / "b", edit=bytes_only)
    assert read_pet(tmp_path / "b").array.max() == pytest.approx(80.0)


def test_no_pet_and_missing_folder(tmp_path: Path) -> None:
    write(tmp_path, "CT")
    with pytest.raises(InputError, match="no PET") as error:
        read_exam(tmp_path, case="e4")
    assert error.value.reason == "no_pet"
    ct = read_ct(tmp_path)
    assert ct is not None
    assert ct.shape == (COLUMNS, ROWS, SLICES)
    with pytest.raises(InputError, match="does not exist"):
        read_exam(tmp_path / "none", case="e4")


def test_a_damaged_file_is_named_not_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    file = sorted(tmp_path.glob("*.dcm"))[2]
    whole = file.read_bytes()
    for length in (0, 60, 200, len(whole) // 2, len(whole) - 7):
        file.write_bytes(whole[:length])
        with pytest.raises((InputError, GeometryError), match=r"PT2\.dcm"):
            read_exam(tmp_path, case="e5")
    file.write_bytes(b"x" * 4000)
    with pytest.raises(InputError, match=r"PT2\.dcm") as error:
        read_exam(tmp_path, case="e5")
    assert error.value.reason == "unreadable"
    file.write_bytes(whole)
    assert read_exam(tmp_path, case="e5").pet.shape[2] == SLICES


def test_files_of_the_file_system_and_captures_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "._PT1.dcm").write_bytes(b"resource fork")
    (tmp_path / "DICOMDIR").write_bytes(b"index")

    def capture(ds: Dataset, k: int) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        del ds.ImagePositionPatient

    write(tmp_path, edit=capture, name="sc")
    assert read_exam(tmp_path, case="e").pet_series == "'PET AC' (6 slices) chosen"


def test_an_image_without_a_place_spoils_its_series_only(tmp_path: Path) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.SeriesDescription = "placeless"
        if k == 3:
            del ds.ImagePositionPatient

    write(tmp_path, edit=edit, name="p")
    with pytest.raises(GeometryError, match="ImagePositionPatient"):
        read_exam(tmp_path, case="e")
    write(tmp_path)
    assert "ImagePositionPatient is missing" in read_exam(tmp_path, case="e").pet_series


def test_enhanced_multi_frame_pet(tmp_path: Path) -> None:
    ds = data_set("PT", generate_uid(), 0, stored()[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.130"
    for keyword in ("Units", "DecayCorrection", "CorrectedImage", "RescaleSlope", "RescaleIntercept", "PixelSpacing"):
        delattr(ds, keyword)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "NumberOfSlices", "AcquisitionTime"):
        delattr(ds, keyword)
    ds.AttenuationCorrected = ds.DecayCorrected = "YES"
    ds.DecayCorrectionDateTime = "20240305110000"
    order = [4, 0, 5, 2, 1, 3]
    ds.NumberOfFrames = SLICES
    ds.PixelData = stored()[order].tobytes()
    ds.SharedFunctionalGroupsSequence = [group("PixelMeasuresSequence", PixelSpacing=[5.0, 4.0], SliceThickness=3.0)]
    ds.SharedFunctionalGroupsSequence[0].update(
        group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    )
    frames = []
    for k in order:
        frame = group("PlanePositionSequence", ImagePositionPatient=[-30.0, -20.0, 100.0 + 3.0 * k])
        frame.update(group("FrameContentSequence", FrameAcquisitionDateTime="20240305110500"))
        unit = Dataset()
        unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "Bq/ml", "UCUM", "Bq/ml"
        frame.update(
            group(
                "RealWorldValueMappingSequence",
                RealWorldValueSlope=100.0,
                RealWorldValueIntercept=0.0,
                MeasurementUnitsCodeSequence=[unit],
            )
        )
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    exam = read_exam(tmp_path, case="e")
    assert tuple(np.unravel_index(exam.pet.array.argmax(), exam.pet.shape)) == MARK
    np.testing.assert_allclose(exam.pet.to_world_mm(MARK), world_of_mark(), atol=1e-6)
    assert exam.pet.array.max() == pytest.approx(40.0)
    np.testing.assert_allclose(exam.pet.array, stored().transpose(2, 1, 0) * 0.04, rtol=1e-6)


def group(sequence: str, **attributes: Any) -> Dataset:
    item, outer = Dataset(), Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    setattr(outer, sequence, [item])
    return outer


@given(st.text(max_size=30), st.one_of(st.none(), st.from_regex(r"[+-][0-9]{4}", fullmatch=True)))
@settings(max_examples=200, deadline=None)
def test_times_of_any_text_are_times_or_missing(value: str, zone: str | None) -> None:
    parse_time(value)
    parse_datetime(value, zone)
    parse_datetime(f"20240305{value}", zone)
    parse_datetime(f"00010101000000{zone}", zone)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))
def test_a_written_time_is_read(moment: datetime) -> None:
    assert parse_datetime(moment.strftime("%Y%m%d%H%M%S.%f")) == moment
    assert parse_time(moment.strftime("%H%M%S.%f")) == moment.time()


def test_times_of_dicom() -> None:
    assert str(parse_time("095947.25")) == "09:59:47.250000"
    assert str(parse_time("0959")) == "09:59:00"
    assert str(parse_time("09")) == "09:00:00"
    assert parse_time("2561") is None
    assert parse_time("") is None
    assert str(parse_datetime("20240305100000.000000")) == "2024-03-05 10:00:00"
    assert str(parse_datetime("20240305100000+0100")) == "2024-03-05 10:00:00"
    assert str(parse_datetime("20240305100000+0000", "+0100")) == "2024-03-05 11:00:00"
    assert str(parse_datetime("20240305003000+0100", "-0200")) == "2024-03-04 21:30:00"
    assert parse_datetime("20240305") is None
    assert parse_datetime("20241305100000") is None
