"""Planes of a multi-frame file (enhanced PET and CT, DICOM PS3.3 C.7.6.16): each frame as if it were a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from petground.pipeline.dicom.header import Slice, number, slice_of, text

__all__ = ["MULTIFRAME_CLASSES", "frames_of"]

MULTIFRAME_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
)
UCUM_UNITS = {
    "{suvbw}g/ml": ("GML", "BW"),
    "bq/ml": ("BQML", None),
    "{suvlbm(james128)}g/ml": ("GML", "LBMJAMES128"),
    "{suvlbm(janma)}g/ml": ("GML", "LBMJANMA"),
    "{suvlbm}g/ml": ("GML", "LBM"),
    "{suvibw}g/ml": ("GML", "IBW"),
    "{suvbsa}cm2/ml": ("CM2ML", "BSA"),
    "{counts}": ("CNTS", None),
}
"""Units of real-world values (DICOM CID 84) in the words of the PET series module, those that need least first."""
RESCALE_UNITS = ("BQML", "GML", "CM2ML", "CNTS")


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
    _set(frame, "InstanceNumber", index + 1)  # unless a converted frame still has the number of the image it was
    maps: Any = None
    for group in groups:
        for macro in group:
            if macro.VR != "SQ" or len(macro.value) == 0:
                continue
            if macro.keyword == "RealWorldValueMappingSequence":
                maps = macro.value
            else:
                frame.update({element.tag: element for element in macro.value[0]})
    acquired, duration = frame.get("FrameAcquisitionDateTime"), number(frame, "FrameAcquisitionDuration")
    if acquired and not frame.get("AcquisitionTime"):
        _set(frame, "AcquisitionDateTime", acquired)
    if duration is not None and 0 < duration < 1e9 and not frame.get("ActualFrameDuration"):
        _set(frame, "ActualFrameDuration", round(duration))
    if text(frame, "Modality") == "PT":
        _units(frame, maps)
        _corrections(frame)
    return frame


def _units(frame: Any, maps: Any) -> None:
    """Slope, units and SUVType by the real-world-value map, or by RescaleType where there is none.

    Of several maps the one that needs least conversion; one that cannot be converted goes on by its own name.
    """
    if not maps:
        rescale = (text(frame, "RescaleType") or "").upper()
        if not frame.get("Units") and rescale in RESCALE_UNITS:
            _set(frame, "Units", rescale)
        return
    known = list(UCUM_UNITS)
    ranked = sorted(maps, key=lambda item: known.index(_ucum(item)) if _ucum(item) in known else len(known))
    best = ranked[0]
    if sum(_ucum(item) == _ucum(best) for item in ranked) > 1:
        raise ValueError("RealWorldValueMappingSequence with one map for each range of values")
    if best.get("RealWorldValueSlope") is None:
        raise ValueError("RealWorldValueSlope (the map is a table of values)")
    units, suv_type = UCUM_UNITS.get(_ucum(best), (_ucum(best).upper(), None))
    _set(frame, "RescaleSlope", float(best.RealWorldValueSlope))
    _set(frame, "RescaleIntercept", float(best.get("RealWorldValueIntercept") or 0))
    frame.add_new("Units", "LO", units)  # a coded unit that is not convertible is no code string
    if suv_type is not None:
        _set(frame, "SUVType", suv_type)


def _ucum(item: Any) -> str:
    """The map's unit in lower case; before 2013 the annotation in braces came last."""
    codes = item.get("MeasurementUnitsCodeSequence") or [Dataset()]
    code = next((c for k in ("CodeValue", "LongCodeValue", "URNCodeValue") if (c := text(codes[0], k))), "")
    code = "".join(code.split()).lower()
    unit, brace, annotation = code.partition("{")
    return f"{{{annotation}{unit}" if brace and unit else code


def _corrections(frame: Any) -> None:
    """Enhanced PET states each correction as YES or NO where the older series have CorrectedImage."""
    if frame.get("CorrectedImage"):
        return
    pairs = (("ATTN", "AttenuationCorrected"), ("DECY", "DecayCorrected"))
    _set(frame, "CorrectedImage", [word for word, keyword in pairs if text(frame, keyword) == "YES"])
    if text(frame, "DecayCorrected") == "NO":
        _set(frame, "DecayCorrection", "NONE")
    elif text(frame, "DecayCorrectionDateTime"):
        _set(frame, "DecayCorrection", "START")


def _set(frame: Any, keyword: str, value: Any) -> None:
    """A new element: the old one may be the file's own, which all frames share."""
    if keyword in frame:
        delattr(frame, keyword)
    setattr(frame, keyword, value)


def _is_pixels(element: Any) -> bool:
    return bool(element.tag.group == 0x7FE0)
