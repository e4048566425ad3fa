"""Headers at random, and bytes changed at random: an image in SUVbw or an error that says why, nothing else."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
from dicom_series import data_set, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from petground.labeling.errors import PetgroundError
from petground.pipeline.read import Exam, read_exam

WORDS = st.one_of(
    st.none(),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=18),
    st.sampled_from(["0", "-1", "1e308", "nan", "inf", "NONE", "ADMIN", "CNTS", "GML", "20240305110000", "110000"]),
)
TOP = (
    "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight", "PatientSize", "PatientSex", "SeriesDate",
    "SeriesTime", "AcquisitionDate", "AcquisitionTime", "FrameReferenceTime", "ActualFrameDuration", "DecayFactor",
    "RescaleSlope", "RescaleIntercept", "NumberOfSlices", "TimezoneOffsetFromUTC", "Manufacturer", "SeriesType",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "InstanceNumber", "SliceThickness",
)  # fmt: skip
INJECTION = (
    "RadionuclideTotalDose", "RadionuclideHalfLife", "RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime",
)  # fmt: skip


def one_slice() -> pydicom.Dataset:
    ds = data_set("PT", generate_uid(), 4, stored()[4])
    ds.NumberOfSlices = 1
    return ds


def read_or_refuse(content: bytes) -> None:
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Path(folder, "a.dcm").write_bytes(content)
        with suppress(PetgroundError):
            exam = read_exam(Path(folder), case="e")
            assert_suv(exam)


def assert_suv(exam: Exam) -> None:
    assert exam.pet.unit == "SUVbw"
    if exam.suv_rule.startswith("BQML"):
        assert exam.suv_factor is not None
        assert 0 < exam.suv_factor < 0.6  # 500 kg over 1 MBq is 0.5; raw activity would be 1


@given(st.dictionaries(st.sampled_from(TOP + INJECTION), WORDS, max_size=6))
@settings(max_examples=150, deadline=None)
def test_attributes_at_random(changes: dict[str, str | None]) -> None:
    ds = one_slice()
    for keyword, value in changes.items():
        data = ds.RadiopharmaceuticalInformationSequence[0] if keyword in INJECTION else ds
        if value is None:
            if keyword in data:
                delattr(data, keyword)
        else:
            data.add_new(keyword, "LO", value)
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    read_or_refuse(buffer.getvalue())


@given(st.lists(st.tuples(st.integers(132, 2400), st.integers(0, 255)), min_size=1, max_size=5))
@settings(max_examples=250, deadline=None)
def test_bytes_at_random(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for place, value in changes:
        content[place % len(content)] = value
    read_or_refuse(bytes(content))


def written() -> bytes:
    buffer = io.BytesIO()
    one_slice().save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


CONTENT = written()
