"""One DICOM header at a time: what lies where, when it was acquired, and what a PET header says about SUV."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.suv import PetFrame, PetHeader

__all__ = ["HEADER_TAGS", "Slice", "number", "parse_datetime", "parse_time", "pet_header", "slice_of", "text"]

HEADER_TAGS: list[Any] = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "SeriesDescription", "SeriesNumber", "SeriesType", "ImageType", "InstanceNumber", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "Rows", "Columns", "SamplesPerPixel", "NumberOfSlices", "NumberOfTimeSlices",
    "RescaleSlope", "RescaleIntercept", "Units", "SUVType", "DecayCorrection", "CorrectedImage",
    "PatientID", "PatientWeight", "PatientSize", "PatientSex", "Manufacturer", "TimezoneOffsetFromUTC",
    "StudyDate", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime",
    "FrameReferenceTime", "ActualFrameDuration", "RadiopharmaceuticalInformationSequence",
    "AttenuationCorrected", "DecayCorrected", "DecayCorrectionDateTime",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    0x00090010, 0x0009100D, 0x70530010, 0x70531000, 0x70531009,
]  # fmt: skip
"""All that is read of a header in the first pass; pixel data and the rest stay on disk."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One image plane. Positions and cosines are DICOM's LPS+ [mm]; spacing is (between rows, between columns).

    frame is its index in a multi-frame file, None in a file that holds one plane.
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
    )


def pet_header(header: Any) -> PetHeader:
    """What a single-frame PET header says about SUV; values that cannot be read count as missing."""
    sequence = header.get("RadiopharmaceuticalInformationSequence") or []
    dose = sequence[0] if len(sequence) > 0 else {}
    zone = text(header, "TimezoneOffsetFromUTC")
    return PetHeader(
        units=(text(header, "Units") or "").upper(),
        decay_correction=(text(header, "DecayCorrection") or "").upper() or None,
        corrections=frozenset(word.upper() for word in _words(header, "CorrectedImage")),
        weight_kg=number(header, "PatientWeight"),
        height_m=number(header, "PatientSize"),
        sex=text(header, "PatientSex"),
        suv_type=(text(header, "SUVType") or "").upper() or None,
        dose_bq=number(dose, "RadionuclideTotalDose"),
        half_life_s=number(dose, "RadionuclideHalfLife"),
        injection_datetime=parse_datetime(text(dose, "RadiopharmaceuticalStartDateTime"), zone),
        injection_time=parse_time(text(dose, "RadiopharmaceuticalStartTime")),
        series_datetime=_joined(text(header, "SeriesDate"), text(header, "SeriesTime")),
        reference_datetime=parse_datetime(text(header, "DecayCorrectionDateTime"), zone),
        private_scan_datetime=parse_datetime(_private(header, 0x0009100D), zone),
        philips_suv_factor=_as_float(_private(header, 0x70531000)),
        philips_bq_factor=_as_float(_private(header, 0x70531009)),
        injections=len(sequence),
    )


def _timing(header: Any) -> PetFrame:
    acquired = _joined(text(header, "AcquisitionDate") or text(header, "SeriesDate"), text(header, "AcquisitionTime"))
    if acquired is None:
        acquired = parse_datetime(text(header, "AcquisitionDateTime"), text(header, "TimezoneOffsetFromUTC"))
    reference, duration = number(header, "FrameReferenceTime"), number(header, "ActualFrameDuration")
    return PetFrame(
        acquired=acquired,
        reference_s=None if reference is None else reference / 1000.0,
        duration_s=None if duration is None else duration / 1000.0,
    )


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


def parse_time(value: str | None) -> time | None:
    """DICOM TM: HHMMSS.FFFFFF, of which all after HH may be absent; colons of ACR-NEMA are let through."""
    digits, _, fraction = (value or "").replace(":", "").strip().partition(".")
    if not digits.isdecimal() or len(digits) not in (2, 4, 6):
        return None
    try:
        padded = digits.ljust(6, "0")
        micro = int(fraction[:6].ljust(6, "0")) if fraction.isdecimal() else 0
        return time(int(padded[:2]), int(padded[2:4]), min(int(padded[4:6]), 59), micro)  # 60 is a leap second
    except ValueError:
        return None


def parse_datetime(value: str | None, zone: str | None = None) -> datetime | None:
    """DICOM DT, YYYYMMDDHHMMSS.F&ZZXX, as a local time without zone; `zone` is TimezoneOffsetFromUTC.

    A written offset is turned into the data set's zone when that is stated, and is the local one otherwise.
    """
    if not value or len(value) < 10:
        return None
    body, offset = value.strip(), None
    for sign in "+-":
        head, found, tail = body.partition(sign)
        if found:
            body, offset = head, _zone(sign + tail)
    parsed = _joined(body[:8], body[8:])
    local = _zone(zone)
    if parsed is None or offset is None or local is None:
        return parsed
    try:
        return parsed.replace(tzinfo=offset).astimezone(local).replace(tzinfo=None)
    except OverflowError:  # the first or last day of the calendar
        return None


def _zone(value: str | None) -> timezone | None:
    if not value or len(value) != 5 or value[0] not in "+-" or not value[1:].isdecimal():
        return None
    minutes = int(value[1:3]) * 60 + int(value[3:5])
    if minutes >= 24 * 60:
        return None
    return timezone(timedelta(minutes=-minutes if value[0] == "-" else minutes))


def _joined(date_text: str | None, time_text: str | None) -> datetime | None:
    clock = parse_time(time_text)
    day = (date_text or "").replace(".", "")
    if clock is None or len(day) != 8 or not day.isdecimal():
        return None
    try:
        return datetime(
            int(day[:4]), int(day[4:6]), int(day[6:]), clock.hour, clock.minute, clock.second, clock.microsecond
        )
    except ValueError:
        return None


def _private(header: Any, tag: int) -> str | None:
    """A private value as text: it comes as bytes (VR UN) where the creator element was removed."""
    element = header.get(tag)
    if element is None or element.value is None:
        return None
    value = element.value
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="ignore").strip("\0 ")
    return str(value).strip() or None


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
