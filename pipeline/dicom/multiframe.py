"""Planes of a multi-frame file (enhanced PET and CT, DICOM PS3.3 C.7.6.16): each frame as if it were a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from petground.pipeline.dicom.header import Slice, slice_of, text

__all__ = ["MULTIFRAME_CLASSES", "frames_of"]

MULTIFRAME_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
)
UCUM_UNITS = {
    "Bq/ml": ("BQML", None),
    "{counts}": ("CNTS", None),
    "{SUVbw}g/ml": ("GML", "BW"),
    "g/ml{SUVbw}": ("GML", "BW"),
    "{SUVlbm}g/ml": ("GML", "LBM"),
    "g/ml{SUVlbm}": ("GML", "LBM"),
    "{SUVlbm(James128)}g/ml": ("GML", "LBMJAMES128"),
    "{SUVlbm(Janma)}g/ml": ("GML", "LBMJANMA"),
    "{SUVibw}g/ml": ("GML", "IBW"),
    "g/ml{SUVibw}": ("GML", "IBW"),
    "{SUVbsa}cm2/ml": ("CM2ML", "BSA"),
    "cm2/ml{SUVbsa}": ("CM2ML", "BSA"),
}
"""Units of real-world values (DICOM CID 84, and the forms before 2013) in the words of the PET series module."""


def frames_of(header: Any, file: Path) -> tuple[Any, list[Slice]]:
    """Header of the first frame in single-frame terms, and one Slice per frame.

    Raises KeyError or ValueError naming the attribute that is missing.
    """
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        raise KeyError("PerFrameFunctionalGroupsSequence")
    shared = header.get("SharedFunctionalGroupsSequence") or []
    flat = [_flat(header, [*shared, group], index) for index, group in enumerate(groups)]
    return flat[0], [replace(slice_of(frame, file), frame=index) for index, frame in enumerate(flat)]


def _flat(header: Any, groups: list[Any], index: int) -> Any:
    """Top-level attributes and those of all functional groups in one data set, the frame's own last."""
    frame = Dataset()
    frame.update({e.tag: e for e in header if "FunctionalGroups" not in e.keyword and not _is_pixels(e)})
    for group in groups:
        for macro in group:
            if macro.VR == "SQ" and len(macro.value) > 0:
                frame.update({element.tag: element for element in macro.value[0]})
    frame.InstanceNumber = index + 1
    acquired, duration = frame.get("FrameAcquisitionDateTime"), frame.get("FrameAcquisitionDuration")
    if acquired and not frame.get("AcquisitionTime"):
        frame.AcquisitionDateTime = acquired
    if duration and not frame.get("ActualFrameDuration"):
        frame.ActualFrameDuration = round(float(duration))
    _real_world_values(frame)
    _corrections(frame)
    return frame


def _real_world_values(frame: Any) -> None:
    """A real-world-value map, where there is one, says which values and units are meant."""
    slope = frame.get("RealWorldValueSlope")
    codes = frame.get("MeasurementUnitsCodeSequence")
    if text(frame, "Modality") != "PT" or slope is None or not codes:
        return
    units, suv_type = UCUM_UNITS.get(text(codes[0], "CodeValue") or "", (text(codes[0], "CodeValue") or "", None))
    frame.RescaleSlope, frame.RescaleIntercept = float(slope), float(frame.get("RealWorldValueIntercept") or 0)
    frame.Units = units[:16]
    if suv_type is not None:
        frame.SUVType = suv_type


def _corrections(frame: Any) -> None:
    """Enhanced PET states each correction as YES or NO where the older series have CorrectedImage."""
    if frame.get("CorrectedImage") or text(frame, "Modality") != "PT":
        return
    pairs = (("ATTN", "AttenuationCorrected"), ("DECY", "DecayCorrected"))
    frame.CorrectedImage = [word for word, keyword in pairs if text(frame, keyword) == "YES"]
    if text(frame, "DecayCorrected") == "NO":
        frame.DecayCorrection = "NONE"
    elif text(frame, "DecayCorrectionDateTime"):
        frame.DecayCorrection = "START"


def _is_pixels(element: Any) -> bool:
    return bool(element.tag.group == 0x7FE0)
