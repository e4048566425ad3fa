"""What a PET header says about SUV, in plain values: the input of `labeling/suv.py`. Pure, no DICOM library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, time

__all__ = ["NO_FALLBACKS", "PetFrame", "PetHeader", "SuvFallbacks", "named", "positive"]

TAGS = {
    "Units": "0054,1001", "SUVType": "0054,1006", "DecayCorrection": "0054,1102", "CorrectedImage": "0028,0051",
    "PatientWeight": "0010,1030", "PatientSize": "0010,1020", "PatientSex": "0010,0040",
    "RadiopharmaceuticalInformationSequence": "0054,0016", "RadionuclideTotalDose": "0018,1074",
    "RadionuclideHalfLife": "0018,1075", "RadionuclideCodeSequence": "0054,0300",
    "RadiopharmaceuticalStartDateTime": "0018,1078", "RadiopharmaceuticalStartTime": "0018,1072",
    "SeriesTime": "0008,0031", "AcquisitionTime": "0008,0032", "FrameReferenceTime": "0054,1300",
    "ActualFrameDuration": "0018,1242", "DecayCorrectionDateTime": "0018,9701",
    "RescaleSlope": "0028,1053", "RescaleIntercept": "0028,1052", "NumberOfSlices": "0054,0081",
    "SeriesType": "0054,1000", "FrameOfReferenceUID": "0020,0052", "PixelSpacing": "0028,0030",
    "Rows": "0028,0010", "Columns": "0028,0011",
}  # fmt: skip


def named(keyword: str) -> str:
    """Keyword and tag of an attribute, as they stand in messages: "PatientWeight (0010,1030)"."""
    return f"{keyword} ({TAGS[keyword]})"


@dataclass(frozen=True)
class PetHeader:
    """What the conversion needs to know of a series; None where the header is silent.

    units, decay_correction, corrections: (0054,1001), (0054,1102), (0028,0051). dose_bq is the number as written in
    (0018,1074). injection_datetime is (0018,1078), injection_time (0018,1072). reference_datetime is an explicit
    decay reference (enhanced PET, (0018,9701)). private_scan_datetime is the scanner's own, by private_scan_tag:
    GE (0009,100D), Siemens (0071,1022). philips_suv_factor is (7053,1000) [g/ml per unit], philips_bq_factor
    (7053,1009) [Bq/ml per unit]. injections counts the items of the radiopharmaceutical sequence. nuclide_coded and
    nuclide_worded: what code value and meaning of (0054,0300) stand for, as in `labeling/nuclides.py`. unreadable:
    keywords of numbers that are there but are none ("93,1").
    """

    units: str
    decay_correction: str | None = None
    corrections: frozenset[str] = frozenset()
    weight_kg: float | None = None
    height_m: float | None = None
    sex: str | None = None
    suv_type: str | None = None
    dose_bq: float | None = None
    half_life_s: float | None = None
    injection_datetime: datetime | None = None
    injection_time: time | None = None
    series_datetime: datetime | None = None
    reference_datetime: datetime | None = None
    private_scan_datetime: datetime | None = None
    private_scan_tag: str = "GE 0009,100D"
    philips_suv_factor: float | None = None
    philips_bq_factor: float | None = None
    injections: int = 1
    manufacturer: str | None = None
    nuclide_coded: str | None = None
    nuclide_worded: str | None = None
    unreadable: frozenset[str] = frozenset()

    def said(self, keyword: str, value: float | None) -> str:
        """What stands there, for messages: a number, nothing, or what is none (which is not quoted)."""
        if value is not None:
            return f"{value}"
        return "there but no number (decimals stand behind a point)" if keyword in self.unreadable else "missing"

    @property
    def from_ge(self) -> bool:
        """GE counts FrameReferenceTime to the start of the frame, others to the time of its mean activity."""
        return (self.manufacturer or "").upper().startswith(("GE ", "GE_", "GEMS", "GENERAL ELECTRIC"))


@dataclass(frozen=True)
class PetFrame:
    """Timing of one slice: start of acquisition, FrameReferenceTime and ActualFrameDuration in seconds.

    decay_factor: (0054,1321), what the values were multiplied by. mean_at: when the activity equals its mean over the
    frame, where the header says so (FrameReferenceDateTime (0018,9151) of enhanced PET).
    """

    acquired: datetime | None = None
    reference_s: float | None = None
    duration_s: float | None = None
    mean_at: datetime | None = None
    decay_factor: float | None = None

    @property
    def has_length(self) -> bool:
        """Whether the duration is there and can be that of one frame."""
        return self.duration_s is not None and 0 < self.duration_s < 86_400.0


@dataclass(frozen=True)
class SuvFallbacks:
    """What may stand in where a header is silent; each use is said in the rule. By default nothing does.

    weight_kg: the patient's weight on the day of the scan, from the site's own records.
    half_life_from_code: whether a missing RadionuclideHalfLife is looked up from RadionuclideCodeSequence.
    """

    weight_kg: float | None = None
    half_life_from_code: bool = False


NO_FALLBACKS = SuvFallbacks()


def positive(value: float | None) -> bool:
    """Whether a value is there, finite and above zero."""
    return value is not None and math.isfinite(value) and value > 0
