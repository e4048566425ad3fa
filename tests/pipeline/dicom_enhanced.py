"""Enhanced and legacy-converted multi-frame PET made by the tests, with the voxels of `dicom_series`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_series import SLICES, data_set, group, stored
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

ENHANCED, LEGACY = "1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"
ORDER = (4, 0, 5, 2, 1, 3)  # the slice, from the feet, that each frame shows
SINGLE_FRAME = (
    "RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "NumberOfSlices", "AcquisitionTime", "AcquisitionDate", "InstanceNumber", "SliceThickness",
)  # fmt: skip
SERIES_ATTRIBUTES = ("Units", "DecayCorrection", "CorrectedImage", "ActualFrameDuration", "FrameReferenceTime")


def value_map(unit: str, slope: float) -> Dataset:
    """An item of the real-world-value mapping sequence."""
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 0.0
    item.MeasurementUnitsCodeSequence = [code]
    return item


def frames_base(values: np.ndarray | None = None) -> Dataset:
    """One file with a frame for each slice, its geometry in functional groups; values [slices, rows, columns]."""
    values = stored() if values is None else values
    ds = data_set("PT", generate_uid(), 0, values[0])
    for keyword in SINGLE_FRAME:
        delattr(ds, keyword)
    ds.InstanceNumber, ds.NumberOfFrames = 1, SLICES
    ds.PixelData = values[list(ORDER)].astype(np.uint16).tobytes()
    shared = group("PixelMeasuresSequence", PixelSpacing=[5.0, 4.0], SliceThickness=3.0)
    shared.update(group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [
        group("PlanePositionSequence", ImagePositionPatient=[-30.0, -20.0, 100.0 + 3.0 * k]) for k in ORDER
    ]
    return ds


def write_enhanced(
    folder: Path,
    maps: Callable[[int], list[Dataset]] = lambda k: [value_map("Bq/ml", 100.0)],
    content: Callable[[int], dict[str, Any]] = lambda k: {"FrameAcquisitionDateTime": "20240305110500"},
    edit: Callable[[Dataset], Any] = lambda ds: None,
    values: np.ndarray | None = None,
) -> None:
    """Enhanced PET, decay corrected to 11:00. maps, content: value maps and frame content of slice k from the feet."""
    ds = frames_base(values)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ENHANCED
    for keyword in SERIES_ATTRIBUTES:
        delattr(ds, keyword)
    ds.AttenuationCorrected = ds.DecayCorrected = "YES"
    ds.DecayCorrectionDateTime = "20240305110000"
    for k, frame in zip(ORDER, ds.PerFrameFunctionalGroupsSequence, strict=True):
        if maps(k):
            frame.RealWorldValueMappingSequence = maps(k)
        frame.update(group("FrameContentSequence", **content(k)))
    edit(ds)
    folder.mkdir(parents=True, exist_ok=True)
    ds.save_as(folder / "enhanced.dcm", enforce_file_format=True)


def write_legacy(folder: Path, edit: Callable[[Dataset], Any] = lambda ds: None) -> None:
    """Legacy Converted Enhanced PET: what was in the single images lies in the sequences of unassigned attributes."""
    ds = frames_base()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = LEGACY
    unassigned = Dataset()
    for keyword in ("Units", "DecayCorrection", "CorrectedImage", "SeriesTime"):
        setattr(unassigned, keyword, ds[keyword].value)
        delattr(ds, keyword)
    ds.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence = [unassigned]
    for k, frame in zip(ORDER, ds.PerFrameFunctionalGroupsSequence, strict=True):
        slope = 10.0 * (k + 1)
        frame.update(group("PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=0.0))
        frame.update(
            group(
                "UnassignedPerFrameConvertedAttributesSequence",
                AcquisitionDate="20240305",
                AcquisitionTime="110000",
                InstanceNumber=SLICES - k,
            )
        )
    edit(ds)
    folder.mkdir(parents=True, exist_ok=True)
    ds.save_as(folder / "legacy.dcm", enforce_file_format=True)
