"""SUV arithmetic: from what a PET header says to the factor that makes SUVbw of its values. Pure, no files.

Rules: QIBA FDG-PET/CT profile, vendor-neutral SUV pseudo-code; DICOM PS3.3 C.8.9.1 (PET series); body-size
formulas: DICOM PS3.16, codes 126401 to 126406 (SUV size corrections). Nothing is assumed where a header is silent:
what cannot be converted raises SuvError with the attribute and its value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from petground.labeling.errors import SuvError

__all__ = ["PetFrame", "PetHeader", "SuvConversion", "refusal", "size_mass_kg", "suv_conversion"]

CONVERTIBLE_UNITS = ("BQML", "CNTS", "GML", "CM2ML")
MEGABECQUEREL_BELOW = 1e4  # no patient is given 0.01 MBq, none 10 GBq: below, the number can only be in MBq
AMBIGUOUS_DOSE_BELOW = 40.0  # 1-30 is usual in mCi, 40-1000 in MBq; a wrong guess is a factor of 37
DOSE_RANGE_BQ = (1e6, 1e10)
WEIGHT_RANGE_KG = (0.3, 500.0)
HEIGHT_RANGE_M = (0.2, 2.6)
MIDNIGHT_MAX = timedelta(hours=8)  # a time-only injection "later" than the scan was before midnight at most so long ago
LATE_IMAGING_HALF_LIFE_S = (
    86_400.0  # longer-lived nuclides (Zr-89, I-124) are imaged days later: a time alone is no date
)
MAX_HALF_LIVES = 10.0  # a dose decayed to a thousandth: the dates cannot be those of one exam
CLOCK_TOLERANCE = timedelta(seconds=1)  # times are written with and without fractions
FRAME_AGREEMENT_S = 5.0


@dataclass(frozen=True)
class PetHeader:
    """What the conversion needs to know of a series; None where the header is silent.

    units, decay_correction, corrections: (0054,1001), (0054,1102), (0028,0051). dose_bq is the number as written in
    (0018,1074). injection_datetime is (0018,1078), injection_time (0018,1072). reference_datetime is an explicit
    decay reference (enhanced PET, (0018,9701)); private_scan_datetime GE's (0009,100D). philips_suv_factor
    is (7053,1000) [g/ml per unit], philips_bq_factor (7053,1009) [Bq/ml per unit]. injections counts the items of the
    radiopharmaceutical sequence.
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
    philips_suv_factor: float | None = None
    philips_bq_factor: float | None = None
    injections: int = 1


@dataclass(frozen=True)
class PetFrame:
    """Timing of one slice: start of acquisition, FrameReferenceTime and ActualFrameDuration in seconds."""

    acquired: datetime | None = None
    reference_s: float | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class SuvConversion:
    """factors: SUVbw per rescaled value, one per frame. rule: e.g. "BQML/START", with what had to be decided."""

    rule: str
    factors: tuple[float, ...]


def refusal(header: PetHeader) -> str | None:
    """Why a series is not quantitative at all, naming attribute and value; None when nothing speaks against it."""
    if header.units not in CONVERTIBLE_UNITS:
        return f"Units is '{header.units}', which has no conversion to SUV"
    if "ATTN" not in header.corrections:
        return f"CorrectedImage lacks ATTN (it is {_listed(header.corrections)}): not attenuation corrected"
    if header.decay_correction == "NONE":
        if "DECY" in header.corrections:
            return "DecayCorrection is 'NONE' but CorrectedImage names DECY"
    elif "DECY" not in header.corrections:
        return f"CorrectedImage lacks DECY (it is {_listed(header.corrections)}): not decay corrected"
    return None


def suv_conversion(header: PetHeader, frames: Sequence[PetFrame]) -> SuvConversion:
    """Factors that turn the rescaled values of each frame into SUVbw [g/ml].

    Raises SuvError naming the DICOM attribute when the header does not allow it.
    """
    reason = refusal(header)
    if reason is not None:
        raise SuvError(reason, fix="take the attenuation- and decay-corrected series in Bq/ml")
    if header.units in ("GML", "CM2ML"):
        factor, rule = _from_suv(header)
        return SuvConversion(rule, (factor,) * len(frames))
    per_unit, rule = 1.0, "BQML"
    if header.units == "CNTS":
        if _positive(header.philips_suv_factor):
            return SuvConversion("CNTS/Philips SUV factor", (float(header.philips_suv_factor or 0),) * len(frames))
        if not _positive(header.philips_bq_factor):
            raise SuvError(
                "Units is 'CNTS' and neither Philips factor is given: (7053,1000) is "
                f"{header.philips_suv_factor}, (7053,1009) is {header.philips_bq_factor}",
                fix="keep the private group 7053 when de-identifying",
            )
        per_unit, rule = float(header.philips_bq_factor or 0), "CNTS/Philips Bq factor"
    factors, decay_rule = _from_activity(header, frames)
    return SuvConversion(f"{rule}/{decay_rule}", tuple(per_unit * factor for factor in factors))


def size_mass_kg(kind: str, weight_kg: float, height_m: float, sex: str | None) -> float:
    """The "mass" that a size correction puts in the place of body weight, so SUVbw = SUVkind * weight / mass.

    kind: LBM (James, 120 in the male formula), LBMJAMES128 (128), LBMJANMA (Janmahasatian 2005), IBW, or BSA
    (DuBois 1916; then the result is tenths of a square metre, cm2/ml and g/ml being 1e4 and 1e3 to m2 and kg).
    """
    height_cm = 100.0 * height_m
    if kind == "BSA":
        return 10.0 * 0.007184 * math.pow(weight_kg, 0.425) * math.pow(height_cm, 0.725)
    if sex not in ("M", "F"):
        raise SuvError(f"PatientSex is '{sex}' and the values are SUV by {kind}", fix="M or F is needed to make SUVbw")
    male, bmi = sex == "M", weight_kg / height_m**2
    if kind in ("LBM", "LBMJAMES128"):
        factor = (128.0 if kind == "LBMJAMES128" else 120.0) if male else 148.0
        return (1.10 if male else 1.07) * weight_kg - factor * (weight_kg / height_cm) ** 2
    if kind == "LBMJANMA":
        return 9270.0 * weight_kg / (6680.0 + 216.0 * bmi if male else 8780.0 + 244.0 * bmi)
    if kind == "IBW":
        return 48.0 + 1.06 * (height_cm - 152.0) if male else 45.5 + 0.91 * (height_cm - 152.0)
    raise SuvError(f"SUVType is '{kind}'", fix="known: BW, LBM, LBMJAMES128, LBMJANMA, IBW, BSA")


def _from_suv(header: PetHeader) -> tuple[float, str]:
    """GML and CM2ML are SUV already; an absent SUVType means body weight with GML (PS3.3 C.8.9.1.1.3)."""
    kind = header.suv_type or ("BSA" if header.units == "CM2ML" else "BW")
    if (kind == "BSA") != (header.units == "CM2ML"):
        raise SuvError(f"Units is '{header.units}' but SUVType is '{kind}'", fix="the series contradicts itself")
    if kind == "BW":
        return 1.0, f"GML/{header.decay_correction or 'unstated'}"
    weight, height = _weight_kg(header), header.height_m
    if height is None or not HEIGHT_RANGE_M[0] < height < HEIGHT_RANGE_M[1]:
        raise SuvError(f"PatientSize is {height} and the values are SUV by {kind}", fix="state the height in metres")
    mass = size_mass_kg(kind, weight, height, header.sex)
    if mass <= 0:
        raise SuvError(f"{kind} of PatientWeight {weight} kg, PatientSize {height} m is {mass:.1f} kg")
    name = {"LBM": "LBM by James, coefficient 120", "LBMJAMES128": "LBM by James, coefficient 128"}.get(kind, kind)
    return weight / mass, f"{header.units}/{name}"


def _from_activity(header: PetHeader, frames: Sequence[PetFrame]) -> tuple[list[float], str]:
    """Factors per Bq/ml: weight [g] over the dose at the time the image is corrected to."""
    if header.injections > 1:
        raise SuvError(
            f"RadiopharmaceuticalInformationSequence has {header.injections} items",
            fix="which injection the image shows is not known; keep that one",
        )
    dose, dose_note = _dose_bq(header)
    per_bq = 1000.0 * _weight_kg(header) / dose
    if header.decay_correction == "ADMIN":
        return [per_bq] * len(frames), "ADMIN" + dose_note
    if header.decay_correction not in ("START", "NONE"):
        raise SuvError(f"DecayCorrection is '{header.decay_correction}'", fix="START, ADMIN or NONE is needed")
    half_life = header.half_life_s
    if half_life is None or half_life <= 0:
        raise SuvError(f"RadionuclideHalfLife is {half_life}", fix="state the nuclide's half-life in seconds")
    decay_per_s = math.log(2.0) / half_life
    if header.decay_correction == "START":
        reference, note = _reference_datetime(header, frames, decay_per_s)
        elapsed = _seconds_since_injection(header, reference, half_life)
        return [per_bq * math.exp(decay_per_s * elapsed)] * len(frames), "START" + note + dose_note
    factors = []
    for frame in frames:
        if frame.acquired is None or not _positive(frame.duration_s):
            raise SuvError(
                f"DecayCorrection is 'NONE', AcquisitionTime {frame.acquired}, "
                f"ActualFrameDuration {frame.duration_s} s",
                fix="both are needed for every slice",
            )
        elapsed = _seconds_since_injection(header, frame.acquired, half_life)
        mean = frame_average_gain(decay_per_s * float(frame.duration_s or 0))
        factors.append(per_bq * mean * math.exp(decay_per_s * elapsed))
    return factors, "NONE" + dose_note


def frame_average_gain(decays: float) -> float:
    """Activity at a frame's start over its mean during the frame: x / (1 - exp(-x)), x = decay constant * length."""
    return decays / -math.expm1(-decays)


def _reference_datetime(header: PetHeader, frames: Sequence[PetFrame], decay_per_s: float) -> tuple[datetime, str]:
    """The time that START corrects to, and a note when it is not simply SeriesTime.

    A series made anew after the scan carries a SeriesTime later than its acquisition and must not be used
    (QIBA). Then GE's own scan time, if it can belong to this scan; then what FrameReferenceTime leads back to,
    when all slices agree on it; then the earliest acquisition.
    """
    if header.reference_datetime is not None:
        return header.reference_datetime, ""
    acquired = [frame.acquired for frame in frames if frame.acquired is not None]
    first = min(acquired) if acquired else None
    series = header.series_datetime
    if series is not None and (first is None or series <= first + CLOCK_TOLERANCE):
        if first is not None and first - series > timedelta(hours=12):
            raise SuvError(
                f"SeriesTime {series} is more than half a day before the first AcquisitionTime {first}",
                fix="the dates were shifted apart when de-identifying; shift them alike",
            )
        return series, ""
    if first is None:
        raise SuvError("neither SeriesTime nor AcquisitionTime can be read", fix="keep them when de-identifying")
    private = header.private_scan_datetime
    if private is not None and timedelta(0) <= first + CLOCK_TOLERANCE - private < timedelta(hours=12):
        return private, " (scan time from GE 0009,100D)"
    derived = _from_frame_reference(frames, decay_per_s)
    if derived is not None and timedelta(0) <= first + CLOCK_TOLERANCE - derived < timedelta(hours=6):
        return derived, " (scan time from FrameReferenceTime)"
    return first, " (scan time is the earliest AcquisitionTime)"


def _from_frame_reference(frames: Sequence[PetFrame], decay_per_s: float) -> datetime | None:
    """t_acq + ln(lT / (1 - exp(-lT))) / l - FrameReferenceTime, where every slice gives the same within seconds."""
    starts = []
    for frame in frames:
        if frame.acquired is None or not _positive(frame.duration_s) or not _positive(frame.reference_s):
            return None
        to_mean = math.log(frame_average_gain(decay_per_s * float(frame.duration_s or 0))) / decay_per_s
        starts.append(frame.acquired + timedelta(seconds=to_mean - float(frame.reference_s or 0)))
    if not starts or (max(starts) - min(starts)).total_seconds() > FRAME_AGREEMENT_S:
        return None
    return min(starts)


def _seconds_since_injection(header: PetHeader, at: datetime, half_life_s: float) -> float:
    """From injection to `at`. Raises SuvError with the times when that is negative or longer than can be."""
    injected = header.injection_datetime
    if injected is None and header.injection_time is not None:
        if half_life_s > LATE_IMAGING_HALF_LIFE_S:
            raise SuvError(
                f"RadiopharmaceuticalStartDateTime is missing, RadionuclideHalfLife is {half_life_s:.0f} s: "
                f"RadiopharmaceuticalStartTime {header.injection_time} alone does not tell the day",
                fix="add RadiopharmaceuticalStartDateTime (0018,1078)",
            )
        injected = datetime.combine(at.date(), header.injection_time)
        if at + timedelta(days=1) - injected <= MIDNIGHT_MAX:
            injected -= timedelta(days=1)
    if injected is None:
        raise SuvError(
            "RadiopharmaceuticalStartDateTime (0018,1078) and RadiopharmaceuticalStartTime (0018,1072) are missing",
            fix="keep one of them when de-identifying",
        )
    elapsed = (at - injected).total_seconds()
    if elapsed < 0 or elapsed > MAX_HALF_LIVES * half_life_s:
        raise SuvError(
            f"injection at {injected} and scan at {at} are {elapsed / 3600:.2f} h apart, half-life {half_life_s:.0f} s",
            fix="correct the dates and times of injection, series and acquisition; shift dates alike",
        )
    return elapsed


def _dose_bq(header: PetHeader) -> tuple[float, str]:
    dose, note = header.dose_bq, ""
    if dose is not None and 0 < dose < AMBIGUOUS_DOSE_BELOW:
        raise SuvError(
            f"RadionuclideTotalDose is {dose:g}: millicurie or megabecquerel?",
            fix="write the injected activity in becquerel into the header",
        )
    if dose is not None and 0 < dose < MEGABECQUEREL_BELOW:
        dose, note = dose * 1e6, " (dose in MBq)"
    if dose is None or not DOSE_RANGE_BQ[0] <= dose <= DOSE_RANGE_BQ[1]:
        raise SuvError(
            f"RadionuclideTotalDose is {header.dose_bq}", fix="it must be the injected activity in becquerel"
        )
    return dose, note


def _weight_kg(header: PetHeader) -> float:
    weight = header.weight_kg
    if weight is None or not WEIGHT_RANGE_KG[0] < weight < WEIGHT_RANGE_KG[1]:
        raise SuvError(
            f"PatientWeight (0010,1030) is {'missing' if weight is None else weight}",
            fix="it must be the patient's weight in kilograms",
        )
    return weight


def _positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _listed(corrections: frozenset[str]) -> str:
    return "\\".join(sorted(corrections)) or "empty"
