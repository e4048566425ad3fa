"""One DICOM header at a time: what lies where, when it was acquired, and what a PET header says about SUV."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.tag import Tag

from petground.labeling.nuclides import nuclide_of_code, nuclide_of_words
from petground.labeling.suv_header import PetFrame, PetHeader
from petground.pipeline.dicom.elements import NATIVE_TAGS, Native, PlainHeader
from petground.pipeline.dicom.times import joined, parse_datetime, parse_time, zone_of

__all__ = ["HEADER_TAGS", "Slice", "number", "pet_header", "slice_of", "text"]

# Private attributes: tag with its block left out, and how the name of its creator begins.
GE_SCAN, SIEMENS_DECAY = (0x0009000D, "GEMS"), (0x00710022, "SIEMENS")
PHILIPS_SUV, PHILIPS_BQ = (0x70530000, "PHILIPS"), (0x70530009, "PHILIPS")
_BLOCKS = (0x10, 0x11, 0x12)

HEADER_TAGS = [Tag(name) for name in (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "SeriesDescription", "SeriesNumber", "SeriesType", "ImageType", "InstanceNumber", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "Rows", "Columns", "SamplesPerPixel", "NumberOfSlices", "NumberOfTimeSlices",
    "RescaleSlope", "RescaleIntercept", "Units", "SUVType", "DecayCorrection", "CorrectedImage",
    "PatientID", "IssuerOfPatientID", "PatientWeight", "PatientSize", "PatientSex", "Manufacturer",
    "TimezoneOffsetFromUTC",
    "StudyDate", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime",
    "FrameReferenceTime", "ActualFrameDuration", "DecayFactor", "RadiopharmaceuticalInformationSequence",
    "AttenuationCorrected", "DecayCorrected", "DecayCorrectionDateTime",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *NATIVE_TAGS,
    *((tag & 0xFFFF0000) + block for tag, _ in (GE_SCAN, SIEMENS_DECAY, PHILIPS_SUV) for block in _BLOCKS),
    *(tag + (block << 8) for tag, _ in (GE_SCAN, SIEMENS_DECAY, PHILIPS_SUV, PHILIPS_BQ) for block in _BLOCKS),
)]  # fmt: skip
"""All that is read of a header in the first pass; pixel data and the rest stay on disk."""


DOSE_NUMBERS = ("RadionuclideTotalDose", "RadionuclideHalfLife")


@dataclass(frozen=True, eq=False)
class Slice:
    """One image plane. Positions and cosines are DICOM's LPS+ [mm]; spacing is (between rows, between columns).

    frame is its index in a multi-frame file, None in a file that holds one plane. suv is what the plane's own header
    says about SUV, None for CT. native: where its pixels can be read straight from the file.
    """

    file: Path
    frame: int | None
    sop_uid: str
    position_lps_mm: NDArray[np.float64]
    orientation_lps: tuple[float, ...]
    spacing_rc_mm: tuple[float, float]
    rows: int
    columns: int
    slope: float | None
    intercept: float | None
    instance_number: int | None
    timing: PetFrame
    thickness_mm: float | None
    suv: PetHeader | None = None
    native: Native | None = None

    @property
    def identity(self) -> tuple[str, int | None]:
        """Of two copies of one image it is the same."""
        return self.sop_uid or str(self.file), self.frame


def slice_of(header: Any, file: Path) -> Slice:
    """The plane of a single-frame header. Raises KeyError or ValueError naming the attribute that is not there."""
    position = _numbers(header, "ImagePositionPatient", 3)
    orientation = _numbers(header, "ImageOrientationPatient", 6)
    spacing = _numbers(header, "PixelSpacing", 2)
    instance = number(header, "InstanceNumber")
    return Slice(
        file=file,
        frame=None,
        sop_uid=text(header, "SOPInstanceUID") or "",
        position_lps_mm=np.array(position),
        orientation_lps=tuple(orientation),
        spacing_rc_mm=(spacing[0], spacing[1]),
        rows=_count(header, "Rows"),
        columns=_count(header, "Columns"),
        slope=number(header, "RescaleSlope"),
        intercept=number(header, "RescaleIntercept"),
        instance_number=None if instance is None else int(instance),
        timing=_timing(header),
        thickness_mm=number(header, "SpacingBetweenSlices") or number(header, "SliceThickness"),
        suv=_suv(header),
        native=header.native if isinstance(header, PlainHeader) else None,
    )


def _suv(header: Any) -> PetHeader | None:
    if text(header, "Modality") != "PT":
        return None
    return header.shared.once(header, pet_header) if isinstance(header, PlainHeader) else pet_header(header)


def pet_header(header: Any) -> PetHeader:
    """What a single-frame PET header says about SUV; values that cannot be read count as missing."""
    sequence = header.get("RadiopharmaceuticalInformationSequence") or []
    dose = sequence[0] if len(sequence) > 0 else {}
    zone = _zone(header)
    scan_time, scan_tag = _private_scan_time(header, zone)
    coded, worded = _nuclides(dose)
    return PetHeader(
        units=(text(header, "Units") or "").upper(),
        decay_correction=(text(header, "DecayCorrection") or "").upper() or None,
        corrections=frozenset(word.upper() for word in _words(header, "CorrectedImage")),
        weight_kg=number(header, "PatientWeight"),
        height_m=number(header, "PatientSize"),
        sex=(text(header, "PatientSex") or "").upper() or None,
        suv_type=(text(header, "SUVType") or "").upper() or None,
        dose_bq=number(dose, "RadionuclideTotalDose"),
        half_life_s=number(dose, "RadionuclideHalfLife"),
        injection_datetime=parse_datetime(text(dose, "RadiopharmaceuticalStartDateTime"), zone),
        injection_time=parse_time(text(dose, "RadiopharmaceuticalStartTime")),
        series_datetime=joined(text(header, "SeriesDate"), text(header, "SeriesTime")),
        reference_datetime=parse_datetime(text(header, "DecayCorrectionDateTime"), zone),
        private_scan_datetime=scan_time,
        private_scan_tag=scan_tag,
        philips_suv_factor=_as_float(_private(header, *PHILIPS_SUV)),
        philips_bq_factor=_as_float(_private(header, *PHILIPS_BQ)),
        injections=len(sequence),
        manufacturer=text(header, "Manufacturer"),
        nuclide_coded=coded,
        nuclide_worded=worded,
        unreadable=frozenset(
            keyword
            for item, keywords in ((header, ("PatientWeight", "PatientSize")), (dose, DOSE_NUMBERS))
            for keyword in keywords
            if text(item, keyword) is not None and number(item, keyword) is None
        ),
    )


def _timing(header: Any) -> PetFrame:
    zone = _zone(header)
    acquired = joined(text(header, "AcquisitionDate") or text(header, "SeriesDate"), text(header, "AcquisitionTime"))
    if acquired is None:
        acquired = parse_datetime(text(header, "AcquisitionDateTime"), zone)
    reference, duration = number(header, "FrameReferenceTime"), number(header, "ActualFrameDuration")
    return PetFrame(
        acquired=acquired,
        reference_s=None if reference is None else reference / 1000.0,
        duration_s=None if duration is None else duration / 1000.0,
        mean_at=parse_datetime(text(header, "FrameReferenceDateTime"), zone),
        decay_factor=number(header, "DecayFactor"),
    )


def _zone(header: Any) -> str | None:
    sequence = header.get("RadiopharmaceuticalInformationSequence") or []
    injected = text(sequence[0], "RadiopharmaceuticalStartDateTime") if len(sequence) > 0 else None
    return zone_of(text(header, "TimezoneOffsetFromUTC"), injected, text(header, "DecayCorrectionDateTime"))


def _private_scan_time(header: Any, zone: str | None) -> tuple[datetime | None, str]:
    """The scanner's own statement of what START means, and its tag; a time alone is of the day of acquisition."""
    for private, tag in ((GE_SCAN, "GE 0009,100D"), (SIEMENS_DECAY, "Siemens 0071,1022")):
        value = _private(header, *private)
        day = text(header, "AcquisitionDate") or text(header, "SeriesDate")
        found = parse_datetime(value, zone) or joined(day, value)
        if found is not None:
            return found, tag
    return None, "GE 0009,100D"


def _nuclides(dose: Any) -> tuple[str | None, str | None]:
    sequence = dose.get("RadionuclideCodeSequence") or []
    if len(sequence) == 0:
        return None, None
    code = sequence[0]
    coded = nuclide_of_code(text(code, "CodingSchemeDesignator"), text(code, "CodeValue"))
    return coded, nuclide_of_words(text(code, "CodeMeaning"))


def text(header: Any, keyword: str) -> str | None:
    """An attribute as stripped text, None when absent or empty; several values are joined as in the file."""
    value = header.get(keyword)
    if value is None:
        return None
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        value = "\\".join(str(part) for part in value)
    return str(value).strip() or None


def number(header: Any, keyword: str) -> float | None:
    """An attribute as a finite number, None when absent, empty or not a number."""
    return _as_float(text(header, keyword))


def _private(header: Any, tag: int, creator: str) -> str | None:
    """A private value as text, from the block that its creator reserved.

    De-identification often takes the creators away and leaves the values: then the first block is believed.
    """
    group, offset = tag & 0xFFFF0000, tag & 0xFF
    names = {block: _plain(header.get(group + block)) for block in _BLOCKS}
    ours = [block for block, name in names.items() if name and name.upper().startswith(creator)]
    if not ours and names[_BLOCKS[0]] is None:
        ours = [_BLOCKS[0]]
    for block in ours:
        value = _plain(header.get(group + (block << 8) + offset))
        if value is not None:
            return value
    return None


def _plain(element: Any) -> str | None:
    """The text of an element, which comes as bytes (VR UN) where its meaning is not known."""
    if element is None or element.value is None:
        return None
    value = element.value
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="ignore")
    return str(value).strip("\0 ") or None


def _as_float(value: str | None) -> float | None:
    try:
        parsed = float(value) if value is not None else None
    except ValueError:
        return None
    return parsed if parsed is not None and np.isfinite(parsed) else None


def _words(header: Any, keyword: str) -> list[str]:
    return [word.strip() for word in (text(header, keyword) or "").split("\\") if word.strip()]


def _count(header: Any, keyword: str) -> int:
    value = number(header, keyword)
    if value is None or value < 1:
        raise KeyError(keyword)
    return int(value)


def _numbers(header: Any, keyword: str, count: int) -> list[float]:
    value = header.get(keyword)
    if value is None:
        raise KeyError(keyword)
    numbers = [float(part) for part in value]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(keyword)
    return numbers
