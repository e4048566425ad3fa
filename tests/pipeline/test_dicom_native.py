"""Pixels read straight from the file are those that pydicom gives, and headers decoded once are each file's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from petground.labeling.errors import InputError
from petground.pipeline.dicom.ct import read_ct_series
from petground.pipeline.dicom.elements import Shared
from petground.pipeline.dicom.outline import outline_of
from petground.pipeline.dicom.pixels import _decode
from petground.pipeline.dicom.series import scan


def write(folder: Path, k: int, pixels: NDArray[Any], syntax: str, bits: int, signed: int, **more: Any) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
    data = FileDataset(str(folder / f"{k}.dcm"), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"1.2.3.{k + 1}"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
    data.Modality, data.SeriesDescription, data.InstanceNumber = "CT", "Körper", k + 1
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 3.0 * k], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.SliceThickness = [2, 1], 3
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, signed
    data.RescaleSlope, data.RescaleIntercept = more.get("slope", 1), more.get("intercept", -1024)
    data.PixelData = pixels.astype("<u2").tobytes()
    if syntax == RLELossless:
        data.compress(RLELossless)
    data.save_as(folder / f"{k}.dcm", enforce_file_format=True)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize(("bits", "signed"), [(16, 0), (16, 1), (12, 0), (12, 1)])
@pytest.mark.parametrize("scale", [{}, {"slope": 2, "intercept": -8192}, {"slope": 0.5, "intercept": -1000.5}])
def test_the_values_are_those_of_pydicom(
    tmp_path: Path, syntax: str, bits: int, signed: int, scale: dict[str, float]
) -> None:
    rng = np.random.default_rng([bits, signed])
    for k in range(3):  # rows and columns differ, and the high bits of 12 hold what is no part of the value
        write(tmp_path, k, rng.integers(0, 1 << 16, (5, 7)), syntax, bits, signed, **scale)
    (series,) = scan(tmp_path)
    assert all((plane.native is None) == (syntax == RLELossless) for plane in series.planes)
    volume = read_ct_series(series)
    for plane in series.planes:
        want = _decode(plane).astype(np.float64) * scale.get("slope", 1) + scale.get("intercept", -1024)
        want = np.clip(want, -1024, 32767)
        got = volume.array[:, :, round(plane.position_lps_mm[2] / 3)].T
        np.testing.assert_array_equal(got, want if volume.array.dtype.kind == "f" else np.rint(want))


def test_each_file_keeps_what_is_its_own(tmp_path: Path) -> None:
    for k in range(4):
        write(tmp_path, k, np.full((2, 3), k), ExplicitVRLittleEndian, 16, 0, intercept=-1000 - k)
    (series,) = scan(tmp_path)
    planes = sorted(series.planes, key=lambda plane: plane.instance_number or 0)
    assert [plane.intercept for plane in planes] == [-1000, -1001, -1002, -1003]
    assert [plane.position_lps_mm[2] for plane in planes] == [0, 3, 6, 9]
    assert len({plane.sop_uid for plane in planes}) == 4
    assert "Körper" in series.name


def test_a_plane_cut_short_is_named_and_not_read_as_zeros(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path, k, np.full((5, 7), k), ExplicitVRLittleEndian, 16, 0)
    whole = (tmp_path / "1.dcm").read_bytes()
    (tmp_path / "1.dcm").write_bytes(whole[:-20])
    assert pydicom.dcmread(tmp_path / "1.dcm", stop_before_pixels=True).Rows == 5
    (series,) = scan(tmp_path)
    with pytest.raises(InputError, match=r"1\.dcm: pixel data cannot be read"):
        read_ct_series(series)


def test_a_header_known_from_others_says_what_a_full_reading_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(6):  # the fourth file is of another description: known, then not known, then known again
        write(tmp_path, k, np.full((2, 3), k), ExplicitVRLittleEndian, 12, k % 2, intercept=-1000 - k)
    other = pydicom.dcmread(tmp_path / "3.dcm")
    other.FrameOfReferenceUID, other.SeriesDescription = "1.2.7", "Thorax"
    other.save_as(tmp_path / "3.dcm")
    quick = [plane for series in scan(tmp_path) for plane in series.planes]
    monkeypatch.setattr(Shared, "quick", lambda *_: None)
    slow = [plane for series in scan(tmp_path) for plane in series.planes]
    assert len({id(series) for series in scan(tmp_path)}) == 2
    for one, two in zip(quick, slow, strict=True):
        for field in dataclasses.fields(one):
            first, second = getattr(one, field.name), getattr(two, field.name)
            assert np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second, field.name


def test_most_headers_of_a_series_are_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(5):
        write(tmp_path, k, np.full((2, 3), k), ExplicitVRLittleEndian, 16, 0)
    calls: list[int] = []
    real = Shared.plain
    monkeypatch.setattr(Shared, "plain", lambda *args: (calls.append(1), real(*args))[1])
    scan(tmp_path)
    assert len(calls) == 1


@pytest.mark.parametrize("cut", [140, 400])
def test_a_header_cut_off_after_a_good_one_is_refused(tmp_path: Path, cut: int) -> None:
    for k in range(2):
        write(tmp_path, k, np.full((2, 3), k), ExplicitVRLittleEndian, 16, 0)
    (tmp_path / "1.dcm").write_bytes((tmp_path / "1.dcm").read_bytes()[:cut])
    with pytest.raises(InputError, match=r"1\.dcm is not readable"):
        scan(tmp_path)


@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=8))
def test_no_bytes_upset_the_outline(tail: bytes, at: int, patch: bytes) -> None:
    head = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\x14\x00" + b"1.2.840.10008.1.2.1\x00" + tail
    outline_of(head[:at] + patch + head[at + len(patch) :], frozenset({0x00080060}))
