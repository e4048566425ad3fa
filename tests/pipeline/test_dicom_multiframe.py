"""Enhanced PET and what was converted to it: many frames in one file, stored in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_enhanced import ORDER, value_map, write_enhanced, write_legacy
from dicom_series import MARK, SLICES, group, stored, world_of_mark
from pydicom.dataset import Dataset

from petground.labeling.errors import GeometryError, SuvError
from petground.pipeline.read import read_exam, read_pet

K = np.arange(SLICES)


def test_frames_lie_where_they_say_and_not_in_file_order(tmp_path: Path) -> None:
    write_enhanced(tmp_path)
    exam = read_exam(tmp_path, case="e")
    assert tuple(np.unravel_index(exam.pet.array.argmax(), exam.pet.shape)) == MARK
    np.testing.assert_allclose(exam.pet.to_world_mm(MARK), world_of_mark(), atol=1e-6)
    np.testing.assert_allclose(exam.pet.array, stored().transpose(2, 1, 0) * 0.04, rtol=1e-6)
    assert exam.pet.instance_numbers == tuple(ORDER.index(k) + 1 for k in range(SLICES))
    assert exam.suv_rule == "BQML/START"


def test_each_frame_has_its_own_slope(tmp_path: Path) -> None:
    write_enhanced(tmp_path, maps=lambda k: [value_map("Bq/ml", 10.0 * (k + 1))])
    np.testing.assert_allclose(read_pet(tmp_path).array, stored().transpose(2, 1, 0) * 10.0 * (K + 1) * 4e-4, rtol=1e-6)


@pytest.mark.parametrize("unit", ["g/ml{SUVbw}", "{SUVbw}g/ml", "g/mL{SUVBW}"])
def test_the_map_that_is_suv_already_goes_before_activity(tmp_path: Path, unit: str) -> None:
    write_enhanced(tmp_path, maps=lambda k: [value_map("Bq/ml", 1e6), value_map(unit, 0.01), value_map("%", 3.0)])
    exam = read_exam(tmp_path, case="e")
    np.testing.assert_allclose(exam.pet.array, stored().transpose(2, 1, 0) * 0.01, rtol=1e-6)
    assert exam.suv_rule == "GML/START"


def test_frames_that_are_not_decay_corrected_have_their_own_time(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        ds.DecayCorrected = "NO"
        del ds.DecayCorrectionDateTime

    hours = {k: 11 + k // 3 for k in range(SLICES)}
    write_enhanced(tmp_path / "a", content=lambda k: {"FrameReferenceDateTime": f"20240305{hours[k]}0000"}, edit=edit)
    # half-life one hour: at 11:00 half of 400 MBq is left, at 12:00 a quarter
    expected = stored().transpose(2, 1, 0) * 100.0 * np.where(K < 3, 4e-4, 8e-4)
    np.testing.assert_allclose(read_pet(tmp_path / "a").array, expected, rtol=1e-6)

    def timed(k: int) -> dict[str, object]:
        return {"FrameAcquisitionDateTime": f"20240305{hours[k]}0000", "FrameAcquisitionDuration": 3_600_000.0}

    write_enhanced(tmp_path / "b", content=timed, edit=edit)
    gain = np.log(2) / 0.5  # start over mean of a frame that is one half-life long
    np.testing.assert_allclose(read_pet(tmp_path / "b").array, expected * gain, rtol=1e-6)
    write_enhanced(tmp_path / "c", content=lambda k: {"FrameAcquisitionNumber": 1}, edit=edit)
    with pytest.raises(SuvError, match=r"AcquisitionTime \(0008,0032\) None"):
        read_pet(tmp_path / "c")


def test_offsets_from_utc_are_compared_as_instants(tmp_path: Path) -> None:
    """Clocks go forward between injection and scan: 01:30+0100 to 03:00+0200 is half an hour."""

    def edit(ds: Dataset) -> None:
        ds.DecayCorrectionDateTime = "20240331030000+0200"
        ds.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20240331013000+0100"

    write_enhanced(tmp_path, edit=edit, content=lambda k: {"FrameAcquisitionDateTime": "20240331030000+0200"})
    assert read_pet(tmp_path).array.max() == pytest.approx(1000 * 100 * 80_000 / 400e6 * np.sqrt(2))


def test_rescale_type_where_there_is_no_map(tmp_path: Path) -> None:
    def edit(kind: str) -> object:
        def change(ds: Dataset) -> None:
            for frame in ds.PerFrameFunctionalGroupsSequence:
                frame.update(
                    group("PixelValueTransformationSequence", RescaleSlope=0.02, RescaleIntercept=0, RescaleType=kind)
                )

        return change

    write_enhanced(tmp_path / "a", maps=lambda k: [], edit=edit("GML"))  # type: ignore[arg-type]
    assert read_pet(tmp_path / "a").array.max() == pytest.approx(20.0)
    write_enhanced(tmp_path / "b", maps=lambda k: [], edit=edit("US"))  # type: ignore[arg-type]
    with pytest.raises(SuvError, match=r"Units \(0054,1001\) is ''"):
        read_pet(tmp_path / "b")


@pytest.mark.parametrize("unit", ["{counts}/s", "ml/min/g", "%", "{SUVx}g/ml"])
def test_other_units_are_refused_by_name(tmp_path: Path, unit: str) -> None:
    write_enhanced(tmp_path, maps=lambda k: [value_map(unit, 1.0)])
    with pytest.raises(SuvError, match="Units"):
        read_pet(tmp_path)


def test_maps_that_are_no_straight_line_are_refused(tmp_path: Path) -> None:
    def table(k: int) -> list[Dataset]:
        item = value_map("Bq/ml", 1.0)
        del item.RealWorldValueSlope
        return [item]

    write_enhanced(tmp_path / "a", maps=table)
    with pytest.raises(GeometryError, match="RealWorldValueSlope"):
        read_pet(tmp_path / "a")
    write_enhanced(tmp_path / "b", maps=lambda k: [value_map("Bq/ml", 1.0), value_map("Bq/ml", 2.0)])
    with pytest.raises(GeometryError, match="RealWorldValueMappingSequence"):
        read_pet(tmp_path / "b")


def test_frames_with_different_units_are_refused(tmp_path: Path) -> None:
    write_enhanced(tmp_path, maps=lambda k: [value_map("Bq/ml" if k else "{SUVbw}g/ml", 1.0)])
    with pytest.raises(SuvError, match="differ in units"):
        read_pet(tmp_path)


def test_not_attenuation_corrected(tmp_path: Path) -> None:
    write_enhanced(tmp_path, edit=lambda ds: setattr(ds, "AttenuationCorrected", "NO"))
    with pytest.raises(SuvError, match="lacks ATTN"):
        read_pet(tmp_path)


def test_several_time_points_in_a_file_are_refused(tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        for frame, k in zip(ds.PerFrameFunctionalGroupsSequence, (0, 0, 1, 1, 2, 2), strict=True):
            frame.PlanePositionSequence[0].ImagePositionPatient = [-30.0, -20.0, 100.0 + 3.0 * k]

    write_enhanced(tmp_path, edit=edit)
    with pytest.raises(GeometryError, match="3 of 6 slices lie where another lies"):
        read_pet(tmp_path)


def test_legacy_converted_keeps_slopes_units_and_instance_numbers(tmp_path: Path) -> None:
    write_legacy(tmp_path)
    exam = read_exam(tmp_path, case="e")
    np.testing.assert_allclose(exam.pet.array, stored().transpose(2, 1, 0) * 10.0 * (K + 1) * 4e-4, rtol=1e-6)
    assert exam.pet.instance_numbers == (6, 5, 4, 3, 2, 1)
    np.testing.assert_allclose(exam.pet.to_world_mm(MARK), world_of_mark(), atol=1e-6)
    assert exam.suv_rule == "BQML/START"
