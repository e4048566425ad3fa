"""DICOM: bytes behind the image go, the image stays; known identities are sought in every kind of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dicom_series as series
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from petground.pipeline.deid.dicom import Removed, Subject, deidentify_dataset, lenient
from petground.pipeline.deid.identity import Identity
from petground.pipeline.deid.images import write_images

SUBJECT = Subject(bytes(range(32)), "pnewid", -700, Identity(("Kowalczyk^Greta",), ("77665544",)))
NEEDLE = b"Kowalczyk Greta 77665544"
CUT = Removed("PixelData", "bytes behind the image cut off")


def image(**changes: Any) -> Dataset:
    ds = series.data_set("PT", "1.2.3", 0, series.stored()[0])
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def written(ds: Dataset, path: Path) -> tuple[Dataset, Any, bytes]:
    with lenient():
        done = deidentify_dataset(ds, SUBJECT)
        ds.save_as(path, enforce_file_format=True)
        return pydicom.dcmread(path), done, path.read_bytes()


def test_native_pixels_are_cut_to_the_image(tmp_path: Path) -> None:
    whole = image()
    series.write(tmp_path / "in", edit=lambda ds, k: setattr(ds, "PixelData", ds.PixelData + NEEDLE))
    images = write_images(tmp_path / "in", tmp_path / "out", SUBJECT)
    assert images.changed[CUT] == series.SLICES
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert NEEDLE not in path.read_bytes()
        ds = pydicom.dcmread(path)
        assert np.array_equal(ds.pixel_array, series.stored()[series.SLICES - int(ds.InstanceNumber)])
    new, done, _ = written(whole, tmp_path / "a.dcm")
    assert CUT not in done
    assert np.array_equal(new.pixel_array, series.stored()[0])


def test_padding_to_an_even_length_is_the_formats_own(tmp_path: Path) -> None:
    values = np.arange(15, dtype=np.uint8).reshape(5, 3)
    ds = image(Columns=3, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=values.tobytes() + b"\0")
    new, done, _ = written(ds, tmp_path / "a.dcm")
    assert CUT not in done
    assert np.array_equal(new.pixel_array, values)


def test_frames_of_an_odd_length_and_of_bits(tmp_path: Path) -> None:
    bits = np.arange(3 * 5 * 3) % 2
    packed = np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
    ds = image(Columns=3, NumberOfFrames=3, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed + NEEDLE)
    new, done, raw = written(ds, tmp_path / "a.dcm")
    assert done[CUT] == 1
    assert b"Kowal" not in raw
    assert new.pixel_array.ravel().tolist() == bits.tolist()


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("where", ["fragment", "in the fragment"])
@pytest.mark.parametrize("frames", [1, 3])
def test_encapsulated_frames_end_where_their_codec_ends(tmp_path: Path, frames: int, where: str, table: bool) -> None:
    stack = series.stored()[:frames]
    ds = image(NumberOfFrames=frames, PixelData=stack.tobytes())
    ds.compress(RLELossless, generate_instance_uid=False)
    whole = list(pydicom.encaps.generate_fragments(ds.PixelData))[1:]
    if where == "fragment":
        ds.PixelData = encapsulate([*whole, NEEDLE], has_bot=table)
    else:
        ds.PixelData = encapsulate([*whole[:-1], whole[-1] + NEEDLE], has_bot=table)
    new, done, raw = written(ds, tmp_path / "a.dcm")
    assert done[CUT] == 1
    assert b"Kowal" not in raw
    assert np.array_equal(new.pixel_array.reshape(stack.shape), stack)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_what_follows_the_end_marker_of_a_code_stream_goes(tmp_path: Path, syntax: str) -> None:
    stream = b"\xff\xd8 a code stream, decoded by nobody here \xff\xd9"
    ds = image(NumberOfFrames=2, PixelData=encapsulate([stream, stream + NEEDLE, NEEDLE], has_bot=False))
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    new, done, raw = written(ds, tmp_path / "a.dcm")
    assert done[CUT] == 1
    assert b"Kowal" not in raw
    assert [part.rstrip(b"\0") for part in pydicom.encaps.generate_frames(new.PixelData)] == [stream, stream]


def test_an_image_whose_size_nobody_tells_and_an_icon_go(tmp_path: Path) -> None:
    ds = image()
    del ds.Rows
    icon = Dataset()
    icon.Rows, icon.Columns, icon.BitsAllocated, icon.PixelData = 1, 24, 8, NEEDLE
    ds.RadiopharmaceuticalInformationSequence[0].update(icon)
    _, done, raw = written(ds, tmp_path / "a.dcm")
    assert b"Kowal" not in raw
    assert done[Removed("PixelData", "removed, unreadable")] == done[Removed("PixelData", "removed")] == 1


def test_known_identities_are_sought_in_every_kind_of_text(tmp_path: Path) -> None:
    """Also where nobody should write them: model, software, kernel, code strings, meanings of public codes."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine Kowalczyk"
    ds = image(
        Manufacturer="SIEMENS", ManufacturerModelName="Biograph Kowalczyk", SoftwareVersions=["VG60", "77665544"],
        ConvolutionKernel="KOWALCZYK", ImageType=["ORIGINAL", "PRIMARY", "KOWALCZYK"], CountsSource="KOWALCZYK",
        PatientPosition="HFS", ReconstructionMethod="OSEM Greta Kowalczyk",
    )  # fmt: skip
    ds.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence = [code]
    new, _, raw = written(ds, tmp_path / "a.dcm")
    assert not [needle for needle in (b"kowalczyk", b"greta", b"77665544") if needle in raw.lower()]
    assert (new.Manufacturer, new.ManufacturerModelName) == ("SIEMENS", "Biograph [NAME]")
    assert list(new.ImageType) == ["ORIGINAL", "PRIMARY", "REMOVED"]
    assert list(new.SoftwareVersions) == ["VG60", "[ID]"]
    kept = new.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence[0]
    assert (kept.CodeValue, kept.CodingSchemeDesignator, kept.CodeMeaning) == ("C-111A1", "SRT", "^18^Fluorine [NAME]")


def test_terms_that_suv_hangs_on_stay_whatever_the_patient_is_called(tmp_path: Path) -> None:
    odd = Subject(bytes(range(32)), "p", -700, Identity(("Bqml^Attn", "Original^Primary", "Start^Decy")))
    ds = image(Units="BQML", DecayCorrection="START", CorrectedImage=["DECY", "ATTN"])
    with lenient():
        deidentify_dataset(ds, odd)
    assert (ds.Units, ds.DecayCorrection, list(ds.CorrectedImage)) == ("BQML", "START", ["DECY", "ATTN"])
    assert list(ds.ImageType) == ["ORIGINAL", "PRIMARY"]
