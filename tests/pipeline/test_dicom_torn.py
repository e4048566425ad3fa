"""A series whose headers differ: the error names the attribute and the parts, not a gap that nobody made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dicom_series as series
import pytest
from pydicom.dataset import Dataset

from petground.labeling.errors import GeometryError, InputError, SuvError
from petground.pipeline.read import read_ct, read_exam


def one_slice(keyword: str, value: Any, at: int = 3) -> series.Edit:
    return lambda ds, k: setattr(ds, keyword, value) if k == at else None


@pytest.mark.parametrize("at", [0, 3, 5])
@pytest.mark.parametrize(
    ("keyword", "value", "told"),
    [
        ("PatientWeight", "70", r"PatientWeight \(0010,1030\) \(5 \+ 1"),
        ("PatientWeight", "", r"PatientWeight \(0010,1030\), empty in a part of them \(5 \+ 1"),
        ("Units", "CNTS", r"Units \(0054,1001\) \("),
        ("Units", "", r"Units \(0054,1001\), empty"),
        ("DecayCorrection", "ADMIN", r"DecayCorrection \(0054,1102\)"),
    ],
)
def test_one_slice_of_another_header(tmp_path: Path, keyword: str, value: str, told: str, at: int) -> None:
    series.write(tmp_path, edit=one_slice(keyword, value, at))
    with pytest.raises(SuvError, match=rf"the 6 slices of 'PET AC' differ in {told}") as error:
        read_exam(tmp_path, case="e")
    assert "missing" not in str(error.value)
    assert "lost on the way" not in str(error.value)


@pytest.mark.parametrize(("keyword", "value"), [("FrameOfReferenceUID", "1.2.9"), ("PixelSpacing", [5.0, 4.1])])
def test_geometry_that_differs_is_a_geometry_error(tmp_path: Path, keyword: str, value: Any) -> None:
    series.write(tmp_path, edit=one_slice(keyword, value))
    with pytest.raises(GeometryError, match=f"differ in {keyword}"):
        read_exam(tmp_path, case="e")


def test_half_a_series_is_never_read_as_a_whole_one(tmp_path: Path) -> None:
    """Without NumberOfSlices a half would pass as an exam; another series may not stand in for it either."""

    def half(ds: Dataset, k: int) -> None:
        ds.PatientWeight = "70" if k < 3 else "80"
        del ds.NumberOfSlices

    def other(ds: Dataset, k: int) -> bool:
        ds.SeriesDescription = "second"
        del ds.NumberOfSlices
        return k < 4

    series.write(tmp_path, edit=half, name="a")
    series.write(tmp_path, edit=other, name="b")
    with pytest.raises(SuvError, match=r"the 6 slices of 'PET AC' differ in PatientWeight \(0010,1030\) \(3 \+ 3"):
        read_exam(tmp_path, case="e")


def test_two_whole_stacks_and_a_scout_under_one_uid_are_no_torn_series(tmp_path: Path) -> None:
    def suv(ds: Dataset, k: int) -> None:
        ds.Units, ds.SeriesDescription, ds.RescaleSlope = "GML", "as SUV", "0.01"

    def scout(ds: Dataset, k: int) -> bool:
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        return k == 0

    uid = series.write(tmp_path, name="a")
    series.write(tmp_path, edit=suv, name="b", uid=uid)
    series.write(tmp_path, "CT", name="c", uid="1.2.3.4.5")
    series.write(tmp_path, "CT", edit=scout, name="d", uid="1.2.3.4.5")
    exam = read_exam(tmp_path, case="e")
    assert exam.pet.shape[2] == series.SLICES
    assert exam.ct is not None
    assert read_ct(tmp_path) is not None


def test_copies_of_files_are_counted_once(tmp_path: Path) -> None:
    series.write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    exam = read_exam(tmp_path, case="e")
    assert exam.pet_series == "'PET AC' (6 slices) chosen"
    assert exam.pet.shape[2] == series.SLICES


@pytest.mark.parametrize(
    ("tag", "keyword"), [(0x00101030, "PatientWeight"), (0x00181074, "RadionuclideTotalDose"), (0x00181075, "HalfLife")]
)
@pytest.mark.parametrize("vr", ["LO", "DS"])
def test_a_number_with_a_comma_is_there_but_no_number(tmp_path: Path, tag: int, keyword: str, vr: str) -> None:
    from petground.pipeline.deid.dicom import lenient

    def comma(ds: Dataset, k: int) -> None:
        place = ds if keyword == "PatientWeight" else ds.RadiopharmaceuticalInformationSequence[0]
        del place[tag]
        place.add_new(tag, "LO", "93,1")

    with lenient():
        series.write(tmp_path, edit=comma)
    if vr == "DS":
        for path in tmp_path.glob("*.dcm"):
            raw = path.read_bytes()
            at = raw.index(b"LO\x04\x0093,1")
            path.write_bytes(raw[:at] + b"DS" + raw[at + 2 :])
    with pytest.raises((SuvError, InputError)) as error:
        read_exam(tmp_path, case="e")
    assert keyword in str(error.value)
    assert "there but no number" in str(error.value)


@pytest.mark.parametrize("units", ["GML", "BQML"])
def test_values_that_no_suv_has_are_refused(tmp_path: Path, units: str) -> None:
    def edit(ds: Dataset, k: int) -> None:
        ds.Units, ds.RescaleSlope = units, "100" if units == "GML" else "1e6"

    series.write(tmp_path, edit=edit)
    with pytest.raises(SuvError, match=r"no SUVbw: maximum .*Units \(0054,1001\) '\w+', PatientWeight.*80 kg") as error:
        read_exam(tmp_path, case="e")
    assert error.value.reason == "not_suv"
