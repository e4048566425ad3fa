"""DICOM series made by the tests: a PET or CT of 4 x 5 x 6 voxels with one mark, off centre along every axis."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

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


def group(sequence: str, **attributes: Any) -> Dataset:
    item, outer = Dataset(), Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    setattr(outer, sequence, [item])
    return outer
