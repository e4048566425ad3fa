"""SUV arithmetic: from what a PET header says to the factor that makes SUVbw of its values. Pure, no files.

Rules: QIBA FDG-PET/CT profile, vendor-neutral SUV pseudo-code; DICOM PS3.3 C.8.9.1 (PET series); the IBSI manual on SUV
computation (Vácha et al. 2026); body-size formulas in `suv_size.py`, times in `suv_times.py`. Nothing is assumed where
a header is silent: what cannot be converted raises SuvError with the attribute, its tag and its value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from petground.labeling.errors import SuvError
from petground.labeling.suv_header import NO_FALLBACKS, PetFrame, PetHeader, SuvFallbacks, named, positive
from petground.labeling.suv_size import from_suv, size_mass_kg, weight_kg
from petground.labeling.suv_times import decay_references, frame_average_gain, half_life_s, injection_to

__all__ = [
    "PetFrame",
    "PetHeader",
    "SuvConversion",
    "SuvFallbacks",
    "frame_average_gain",
    "named",
    "refusal",
    "size_mass_kg",
    "suv_conversion",
]

CONVERTIBLE_UNITS = ("BQML", "CNTS", "GML", "CM2ML")
MEGABECQUEREL_BELOW = 1e4  # no patient is given 0.01 MBq, none 10 GBq: below, the number can only be in MBq
AMBIGUOUS_DOSE_BELOW = 40.0  # 1-30 is usual in mCi, 40-1000 in MBq; a wrong guess is a factor of 37
DOSE_RANGE_BQ = (1e6, 1e10)
PHILIPS_AGREEMENT = 0.05


@dataclass(frozen=True)
class SuvConversion:
    """factors: SUVbw per rescaled value, one per frame. rule: e.g. "BQML/START", with what had to be decided."""

    rule: str
    factors: tuple[float, ...]


def refusal(header: PetHeader) -> str | None:
    """Why a series is not quantitative at all, naming attribute and value; None when nothing speaks against it."""
    listed = "\\".join(sorted(header.corrections)) or "empty"
    if header.units not in CONVERTIBLE_UNITS:
        return f"{named('Units')} is '{header.units}', which has no conversion to SUV"
    if "ATTN" not in header.corrections:
        return f"{named('CorrectedImage')} lacks ATTN (it is {listed}): not attenuation corrected"
    if header.decay_correction == "NONE":
        if "DECY" in header.corrections:
            return f"{named('DecayCorrection')} is 'NONE' but {named('CorrectedImage')} names DECY"
    elif "DECY" not in header.corrections:
        return f"{named('CorrectedImage')} lacks DECY (it is {listed}): not decay corrected"
    return None


def suv_conversion(
    header: PetHeader, frames: Sequence[PetFrame], fallbacks: SuvFallbacks = NO_FALLBACKS
) -> SuvConversion:
    """Factors that turn the rescaled values of each frame into SUVbw [g/ml].

    Raises SuvError naming the DICOM attribute when neither the header nor `fallbacks` allow it.
    """
    reason = refusal(header)
    if reason is not None:
        raise SuvError(reason, fix="take the attenuation- and decay-corrected series in Bq/ml")
    if header.units in ("GML", "CM2ML"):
        factor, rule = from_suv(header, fallbacks)
        return SuvConversion(rule, (factor,) * len(frames))
    if header.units == "CNTS":
        return _from_counts(header, frames, fallbacks)
    factors, rule = _from_activity(header, frames, fallbacks)
    return SuvConversion(f"BQML/{rule}", tuple(factors))


def _from_counts(header: PetHeader, frames: Sequence[PetFrame], fallbacks: SuvFallbacks) -> SuvConversion:
    """Counts by Philips' private factors.

    The SUV factor is one number, so it cannot stand for frames that are not decay corrected: then the Bq factor.
    """
    suv, bq = header.philips_suv_factor, header.philips_bq_factor
    by_suv = positive(suv) and header.decay_correction != "NONE"
    if not by_suv and not positive(bq):
        frame_wise = f", {named('DecayCorrection')} 'NONE' needs the latter" if positive(suv) else ""
        raise SuvError(
            f"{named('Units')} is 'CNTS' and Philips' factor is not given: (7053,1000) is {suv}, (7053,1009) is "
            f"{bq}{frame_wise}",
            fix="keep the private group 7053 when de-identifying",
        )
    if not by_suv:
        factors, rule = _from_activity(header, frames, fallbacks)
        return SuvConversion(f"CNTS/Philips Bq factor/{rule}", tuple(float(bq or 0) * f for f in factors))
    return SuvConversion(
        "CNTS/Philips SUV factor" + _other_factor(header, frames, fallbacks), (float(suv or 0),) * len(frames)
    )


def _other_factor(header: PetHeader, frames: Sequence[PetFrame], fallbacks: SuvFallbacks) -> str:
    """A note where the Bq factor with weight, dose and times leads elsewhere than the SUV factor."""
    if not positive(header.philips_bq_factor) or not frames:
        return ""
    try:
        factors, _ = _from_activity(header, frames, fallbacks)
    except SuvError:
        return ""  # the scanner's SUV factor needs none of what is missing here
    ratio = float(header.philips_bq_factor or 0) * factors[0] / float(header.philips_suv_factor or 1)
    if abs(ratio - 1.0) <= PHILIPS_AGREEMENT:
        return ""
    return f" (the Bq factor (7053,1009) leads to {ratio:.2f} times as much)"


def _from_activity(header: PetHeader, frames: Sequence[PetFrame], fallbacks: SuvFallbacks) -> tuple[list[float], str]:
    """Factors per Bq/ml: weight [g] over the dose at the time the image is corrected to."""
    if header.injections > 1:
        raise SuvError(
            f"{named('RadiopharmaceuticalInformationSequence')} has {header.injections} items",
            fix="which injection the image shows is not known; keep that one",
        )
    dose, dose_note = _dose_bq(header)
    weight, weight_note = weight_kg(header, fallbacks)
    per_bq = 1000.0 * weight / dose
    notes = dose_note + weight_note
    if header.decay_correction == "ADMIN":
        return [per_bq] * len(frames), "ADMIN" + notes
    if header.decay_correction not in ("START", "NONE"):
        raise SuvError(
            f"{named('DecayCorrection')} is {header.decay_correction or 'missing'}",
            fix="START, ADMIN or NONE is needed",
        )
    half_life, half_life_note = half_life_s(header, fallbacks)
    decay_per_s = math.log(2.0) / half_life
    notes = half_life_note + notes
    if header.decay_correction == "START":
        references, note = decay_references(header, frames, decay_per_s)
        timed = {at: injection_to(header, at, half_life) for at in dict.fromkeys(references)}
        notes = note + next((said for _, said in timed.values() if said), "") + notes
        return [per_bq * math.exp(decay_per_s * timed[at][0]) for at in references], "START" + notes
    factors, moved = [], ""
    for frame in frames:
        elapsed, said = _mean_activity_after(header, frame, half_life)
        moved = moved or said
        factors.append(per_bq * math.exp(decay_per_s * elapsed))
    return factors, "NONE" + moved + notes


def _mean_activity_after(header: PetHeader, frame: PetFrame, half_life: float) -> tuple[float, str]:
    """Seconds from injection to when a frame that is not decay corrected had its mean activity, and a note."""
    if frame.mean_at is not None:
        return injection_to(header, frame.mean_at, half_life)
    if frame.acquired is None or not frame.has_length:
        raise SuvError(
            f"{named('DecayCorrection')} is 'NONE', {named('AcquisitionTime')} {frame.acquired}, "
            f"{named('ActualFrameDuration')} {frame.duration_s} s",
            fix="both are needed for every slice",
        )
    elapsed, note = injection_to(header, frame.acquired, half_life)
    decay_per_s = math.log(2.0) / half_life
    return elapsed + math.log(frame_average_gain(decay_per_s * float(frame.duration_s or 0))) / decay_per_s, note


def _dose_bq(header: PetHeader) -> tuple[float, str]:
    """RadionuclideTotalDose is what was given to the patient (PS3.3 C.8.9.2): no residual activity is taken off."""
    dose, note = header.dose_bq, ""
    if dose is not None and 0 < dose < AMBIGUOUS_DOSE_BELOW:
        raise SuvError(
            f"{named('RadionuclideTotalDose')} is {dose:g}: millicurie or megabecquerel?",
            fix="write the injected activity in becquerel into the header",
        )
    if dose is not None and 0 < dose < MEGABECQUEREL_BELOW:
        dose, note = dose * 1e6, " (dose in MBq)"
    if dose is None or not DOSE_RANGE_BQ[0] <= dose <= DOSE_RANGE_BQ[1]:
        raise SuvError(
            f"{named('RadionuclideTotalDose')} is {header.said('RadionuclideTotalDose', header.dose_bq)}",
            fix="it must be the injected activity in becquerel",
        )
    return dose, note
