"""Compressed pixel data: what is written by an encoder is read back bit by bit, series by series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import COLUMNS, MARK, ROWS, write
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder, get_encoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from petground.labeling.errors import InputError
from petground.pipeline.read import read_pet


def widen(ds: Dataset, k: int) -> None:
    """A picture of 64 x 48 with all 16 bits in use: wavelets need more than five rows."""
    rows, columns = 64, 48
    values = (np.arange(rows * columns, dtype=np.int64) * 137 + 31 * k) % 60_000
    ds.Rows, ds.Columns, ds.PixelData = rows, columns, values.astype(np.uint16).tobytes()
    ds.RescaleSlope = 1  # to 24 SUV: more than a thousand would be refused


def signed(ds: Dataset, k: int) -> None:
    widen(ds, k)
    values = np.frombuffer(ds.PixelData, np.uint16).astype(np.int32) - 30_000
    ds.PixelRepresentation, ds.PixelData = 1, values.astype(np.int16).tobytes()
    ds.RescaleSlope = 0.04  # down to -0.48 SUV


def compress(folder: Path, syntax: UID, **options: object) -> None:
    encoder = get_encoder(syntax)
    if not encoder.is_available:
        pytest.skip(f"no encoder for {syntax.name} is installed")
    for file in folder.glob("*.dcm"):
        ds = pydicom.dcmread(file)
        ds.compress(syntax, **options)
        ds.save_as(file)


@pytest.mark.parametrize("edit", [widen, signed])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_lossless(tmp_path: Path, syntax: UID, edit: object) -> None:
    write(tmp_path, edit=edit)  # type: ignore[arg-type]
    plain = read_pet(tmp_path).array
    compress(tmp_path, syntax)
    assert pydicom.dcmread(next(tmp_path.glob("*.dcm"))).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_pet(tmp_path).array, plain)


def test_near_lossless(tmp_path: Path) -> None:
    write(tmp_path, edit=widen)
    plain = read_pet(tmp_path).array
    compress(tmp_path, JPEGLSNearLossless, jls_error=2)
    difference = np.abs(read_pet(tmp_path).array - plain)
    assert 0 < difference.max() <= 2 * 4e-4 * 1.01


def test_jpeg_lossless(tmp_path: Path) -> None:
    """The compression most archives use (process 14, first-order prediction); written by GDCM."""
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm is not installed")
    write(tmp_path, edit=widen)
    plain = read_pet(tmp_path).array
    for file in tmp_path.glob("*.dcm"):
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    assert pydicom.dcmread(next(tmp_path.glob("*.dcm"))).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(read_pet(tmp_path).array, plain)


@pytest.mark.parametrize(
    "syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.keyword
)
def test_other_encodings_of_the_file(tmp_path: Path, syntax: UID) -> None:
    write(tmp_path)
    plain = read_pet(tmp_path).array
    for file in tmp_path.glob("*.dcm"):
        ds = pydicom.dcmread(file)
        values = ds.pixel_array
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = values.astype(">u2").tobytes()
            ds["PixelData"].VR = "OW"
        pydicom.dcmwrite(
            file,
            ds,
            enforce_file_format=True,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
        )
    pet = read_pet(tmp_path)
    np.testing.assert_array_equal(pet.array, plain)
    assert pet.array[MARK] == pytest.approx(40.0)
    assert pet.shape[:2] == (COLUMNS, ROWS)


def test_a_missing_decoder_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    compress(tmp_path, RLELossless)
    monkeypatch.setattr(type(get_decoder(RLELossless)), "is_available", property(lambda self: False))
    with pytest.raises(InputError, match=r"RLE Lossless, and no decoder") as error:
        read_pet(tmp_path)
    assert "pip install" in str(error.value.fix)
    assert error.value.reason == "unreadable"
