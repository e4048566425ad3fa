"""DICOM Real World Value Mapping (PS3.3 A.46): how the PET's stored pixels become SUVbw, for viewers and for the SR."""

from __future__ import annotations

import copy
from datetime import datetime, timezone
from typing import Any

from petground.labeling.errors import InputError
from petground.pipeline.dicom.codes import SUV_BW, SUV_BW_UNIT
from petground.pipeline.dicom.objects import DEVICE, SourcePet, device_uid, version

__all__ = ["build_value_map"]

STORAGE = "1.2.840.10008.5.1.4.1.1.67"
SERIES_NUMBER = 8003
_PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyInstanceUID", "StudyID", "PatientIdentityRemoved",
    "DeidentificationMethod",
)  # fmt: skip


def build_value_map(source: SourcePet, suv_factor: float, *, case: str) -> Any:
    """A mapping of every source image: SUVbw = (RescaleSlope * suv_factor) * stored value.

    suv_factor: SUVbw per rescaled unit, one number for the series; RescaleSlope differs from slice to slice.
    Raises InputError for a multi-frame series, whose slopes lie in its frames.
    """
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    if source.frame_of_k is not None:
        raise InputError("a value map of a multi-frame PET is not written", case=case)
    first, now = source.datasets[0], datetime.now(timezone.utc)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = STORAGE, generate_uid(prefix=None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword in _PATIENT_AND_STUDY:
        if keyword in first:
            setattr(ds, keyword, copy.deepcopy(first[keyword].value))
    ds.SOPClassUID, ds.SOPInstanceUID = STORAGE, meta.MediaStorageSOPInstanceUID
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = generate_uid(prefix=None), SERIES_NUMBER, 1
    ds.Modality, ds.SeriesDescription, ds.Laterality = "RWV", "petground SUVbw", ""
    ds.Manufacturer = ds.ManufacturerModelName = DEVICE
    ds.DeviceSerialNumber, ds.SoftwareVersions = device_uid()[-16:], version()
    ds.ContentDate = ds.InstanceCreationDate = now.strftime("%Y%m%d")
    ds.ContentTime = ds.InstanceCreationTime = now.strftime("%H%M%S")
    ds.ContentLabel, ds.ContentDescription, ds.ContentCreatorName = "SUVBW", "SUV body weight", ""
    references, items = [], []
    for image in source.datasets:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        references.append(reference)
        item = Dataset()
        item.ReferencedImageSequence = [copy.deepcopy(reference)]
        item.RealWorldValueMappingSequence = [_mapping(Dataset(), image, suv_factor)]
        items.append(item)
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = first.SeriesInstanceUID, references
    ds.ReferencedSeriesSequence = [series]
    ds.ReferencedImageRealWorldValueMappingSequence = items
    return ds


def _mapping(item: Any, image: Any, suv_factor: float) -> Any:
    signed = int(image.get("PixelRepresentation", 0)) == 1
    bits = int(image.get("BitsStored", 16))
    first, last = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    tags = ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped")
    for keyword, value in zip(tags, (first, last), strict=True):
        item.add_new(keyword, "SS" if signed else "US", value)
    item.RealWorldValueSlope = float(image.RescaleSlope) * suv_factor
    item.RealWorldValueIntercept = 0.0  # PS3.3 C.8.9.4: RescaleIntercept of a PET is 0; the reader refuses others
    item.LUTExplanation, item.LUTLabel = "SUVbw from stored value", "SUVBW"
    item.MeasurementUnitsCodeSequence = [_coded(type(item), SUV_BW_UNIT)]
    quantity = type(item)()
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [_coded_words(type(item), "246205007", "SCT", "Quantity")]
    quantity.ConceptCodeSequence = [_coded(type(item), SUV_BW)]
    item.QuantityDefinitionSequence = [quantity]
    return item


def _coded(kind: Any, code: Any) -> Any:
    return _coded_words(kind, code.value, code.scheme_designator, code.meaning)


def _coded_words(kind: Any, value: str, scheme: str, meaning: str) -> Any:
    item = kind()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
