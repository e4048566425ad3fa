"""The two times that SUV depends on: what the image is decay-corrected to, and when the tracer was injected. Pure.

Rules: DICOM PS3.3 C.8.9.1 and C.8.9.4; QIBA FDG-PET/CT profile; IBSI manual on SUV computation (2026).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from petground.labeling.errors import SuvError
from petground.labeling.nuclides import HALF_LIFE_S, agrees
from petground.labeling.suv_header import PetFrame, PetHeader, SuvFallbacks, named

__all__ = ["decay_references", "frame_average_gain", "half_life_s", "injection_to"]

MIDNIGHT_MAX = timedelta(hours=8)  # a time-only injection "later" than the scan was before midnight at most so long ago
# Longer-lived nuclides (Cu-64, Zr-89, I-124) are imaged days later: a time alone is no date (IBSI manual: 41,400 s).
LATE_IMAGING_HALF_LIFE_S = 41_400.0
MAX_HALF_LIVES = 10.0  # a dose decayed to a thousandth: the dates cannot be those of one exam
DATES_APART = timedelta(days=31)  # no scan follows an injection by so much: one of the dates was changed
CLOCK_TOLERANCE = timedelta(seconds=1)  # times are written with and without fractions
SERIES_BEFORE_MAX = timedelta(hours=12)
PRIVATE_BEFORE_MAX, PRIVATE_AFTER_MAX = timedelta(hours=12), timedelta(hours=1)
FRAME_BEFORE_MAX = timedelta(hours=6)
FRAME_AGREEMENT_S = 5.0
CONTRADICTION = 0.01  # of a half-life between two statements of the scan's start: 0.7 % of the SUV
HALF_LIFE_RANGE_S = (10.0, 1e9)  # C-10 to Na-22


def half_life_s(header: PetHeader, fallbacks: SuvFallbacks) -> tuple[float, str]:
    """The nuclide's half-life and a note on what had to be decided. Raises SuvError when it is not known."""
    stated = header.half_life_s
    names = {name for name in (header.nuclide_coded, header.nuclide_worded) if name}
    if stated is not None and HALF_LIFE_RANGE_S[0] < stated < HALF_LIFE_RANGE_S[1]:
        if names and not any(agrees(stated, name) for name in names):
            return stated, f" (half-life of {stated:g} s, the nuclide's code says {' and '.join(sorted(names))})"
        return stated, ""
    if stated is None and fallbacks.half_life_from_code and len(names) == 1:
        name = names.pop()
        return HALF_LIFE_S[name], f" (half-life of {name} by its code)"
    code = named("RadionuclideCodeSequence")
    hint = {
        0: "state the nuclide's half-life in seconds",
        1: f"{code} says {min(names, default='')}; 'half_life_from_code: true' in the site file takes that",
        2: f"{code} names {' and '.join(sorted(names))} at once; state the half-life in seconds",
    }
    shown = header.said("RadionuclideHalfLife", stated)
    raise SuvError(f"{named('RadionuclideHalfLife')} is {shown}", fix=hint[len(names)])


def frame_average_gain(decays: float) -> float:
    """Activity at a frame's start over its mean during the frame: x / (1 - exp(-x)), x = decay constant * length."""
    return decays / -math.expm1(-decays)


def decay_references(
    header: PetHeader, frames: Sequence[PetFrame], decay_per_s: float
) -> tuple[tuple[datetime, ...], str]:
    """For DecayCorrection START the time that each frame is corrected to, and a note when it is not simply SeriesTime.

    A series made anew after the scan carries a SeriesTime later than its acquisition and must not be used
    (QIBA). Then the scanner's own scan time, if it can belong to this scan; then what FrameReferenceTime leads back
    to; then, where there is no FrameReferenceTime, the earliest acquisition. Raises SuvError when none is to be had.
    """
    count = len(frames)
    if header.reference_datetime is not None:
        return (header.reference_datetime,) * count, ""
    acquired = [frame.acquired for frame in frames if frame.acquired is not None]
    first = min(acquired) if acquired else None
    series = header.series_datetime
    if series is not None and (first is None or series <= first + CLOCK_TOLERANCE):
        if first is not None and first - series > SERIES_BEFORE_MAX:
            raise SuvError(
                f"{named('SeriesTime')} {series} is more than half a day before the first "
                f"{named('AcquisitionTime')} {first}",
                fix="the dates were shifted apart when de-identifying; shift them alike",
            )
        if first is None or abs(first - series) <= CLOCK_TOLERANCE:
            return (series,) * count, ""
        return _series_or_frames(header, frames, decay_per_s, series)
    if first is None:
        raise SuvError(
            f"neither {named('SeriesTime')} nor {named('AcquisitionTime')} can be read",
            fix="keep them, with their dates, when de-identifying",
        )
    private = header.private_scan_datetime
    if private is not None and -PRIVATE_AFTER_MAX <= first - private < PRIVATE_BEFORE_MAX:
        return (private,) * count, f" (scan time from {header.private_scan_tag})"
    if not header.from_ge and any(frame.reference_s and not frame.has_length for frame in frames):
        lengths = sorted({str(frame.duration_s) for frame in frames})
        raise SuvError(
            f"{named('SeriesTime')} {series} is later than the first {named('AcquisitionTime')} {first} and "
            f"{named('ActualFrameDuration')} is {', '.join(lengths[:3])}",
            fix="with it FrameReferenceTime would lead back to the start of the scan; state it in milliseconds",
        )
    derived = _from_frame_reference(header, frames, decay_per_s)
    if derived is None:
        return (first,) * count, " (scan time is the earliest AcquisitionTime)"
    if _as_one(derived):
        return (min(derived),) * count, " (scan time from FrameReferenceTime)"
    return derived, " (each slice has its own scan time by FrameReferenceTime)"


def _series_or_frames(
    header: PetHeader, frames: Sequence[PetFrame], decay_per_s: float, series: datetime
) -> tuple[tuple[datetime, ...], str]:
    """SeriesTime, unless FrameReferenceTime and DecayFactor agree on another time: some scanners write that of the CT.

    DecayFactor is what the values were multiplied by, exp(l (t_acq - start)) * lT / (1 - exp(-lT)), and so a second
    witness. Where it is silent SeriesTime stands, and the contradiction is said.
    """
    limit = CONTRADICTION * math.log(2.0) / decay_per_s
    starts = _from_frame_reference(header, frames, decay_per_s)
    if starts is None or not _as_one(starts) or abs((min(starts) - series).total_seconds()) <= limit:
        return (series,) * len(frames), ""
    off = (min(starts) - series).total_seconds()
    seen = [
        (frame.acquired - series).total_seconds() - math.log(frame.decay_factor / gain) / decay_per_s
        for frame in frames
        if frame.acquired is not None and frame.has_length and frame.decay_factor and frame.decay_factor > 0
        for gain in (frame_average_gain(decay_per_s * float(frame.duration_s or 0)),)
    ]
    if len(seen) == len(frames) and all(abs(start - off) <= limit for start in seen):
        return (min(starts),) * len(frames), f" (scan time from FrameReferenceTime and DecayFactor, {off:.0f} s off)"
    if len(seen) == len(frames) and all(abs(start) <= limit for start in seen):
        return (series,) * len(frames), ""
    return (series,) * len(frames), f" (FrameReferenceTime leads to a scan time {abs(off):.0f} s {_side(off)})"


def _side(seconds: float) -> str:
    return "later" if seconds > 0 else "earlier"


def _as_one(starts: Sequence[datetime]) -> bool:
    return (max(starts) - min(starts)).total_seconds() <= FRAME_AGREEMENT_S


def _from_frame_reference(
    header: PetHeader, frames: Sequence[PetFrame], decay_per_s: float
) -> tuple[datetime, ...] | None:
    """Start of the scan by each frame; None where FrameReferenceTime is not given or cannot be what the standard says.

    FrameReferenceTime is when the activity equals its mean over the frame, counted from the scan's start (PS3.3
    C.8.9.4.1.5): start = t_acq + ln(lT / (1 - exp(-lT))) / l - FrameReferenceTime. GE counts to the frame's start.
    """
    starts = []
    for frame in frames:
        if frame.acquired is None or frame.reference_s is None:
            return None
        if not 0 <= frame.reference_s <= FRAME_BEFORE_MAX.total_seconds() + 86_400.0:
            return None
        to_mean = 0.0
        if not header.from_ge:
            if not frame.has_length:
                return None
            to_mean = math.log(frame_average_gain(decay_per_s * float(frame.duration_s or 0))) / decay_per_s
        start = frame.acquired + timedelta(seconds=to_mean - frame.reference_s)
        if not timedelta(0) <= frame.acquired + CLOCK_TOLERANCE - start < FRAME_BEFORE_MAX:
            return None
        starts.append(start)
    return tuple(starts) or None


def injection_to(header: PetHeader, at: datetime, half_life: float) -> tuple[float, str]:
    """Seconds from injection to `at` and a note when a date had to be decided.

    Where the injection's date is weeks or years from the scan's, one of them was changed when de-identifying: the time
    of day is kept and the date set anew (IBSI manual), unless the nuclide lives long enough to be imaged days later.
    The same where the injection has the date of a scan after midnight.
    Raises SuvError with the times when the interval is negative or longer than can be.
    """
    short_lived = half_life < LATE_IMAGING_HALF_LIFE_S
    injected, note = header.injection_datetime, ""
    if injected is not None and abs(at - injected) > DATES_APART and short_lived:
        note = f" (injection date {injected:%Y-%m-%d} is not of this scan, its time is used)"
        injected = _before(injected, at)
    elif injected is not None and short_lived and injected.date() == at.date() and _before(injected, at) != injected:
        note = " (injection was before midnight, its date is a day late)"
        injected = _before(injected, at)
    if injected is None and header.injection_time is not None:
        if not short_lived:
            raise SuvError(
                f"{named('RadiopharmaceuticalStartDateTime')} is missing, {named('RadionuclideHalfLife')} is "
                f"{half_life:.0f} s: {named('RadiopharmaceuticalStartTime')} {header.injection_time} alone does not "
                "tell the day",
                fix="add RadiopharmaceuticalStartDateTime",
            )
        injected = _before(datetime.combine(at.date(), header.injection_time), at)
    if injected is None:
        raise SuvError(
            f"{named('RadiopharmaceuticalStartDateTime')} and {named('RadiopharmaceuticalStartTime')} are missing",
            fix="keep one of them when de-identifying",
        )
    elapsed = (at - injected).total_seconds()
    if elapsed < -CLOCK_TOLERANCE.total_seconds() or elapsed > MAX_HALF_LIVES * half_life:
        raise SuvError(
            f"injection ({named('RadiopharmaceuticalStartDateTime')} or {named('RadiopharmaceuticalStartTime')}) at "
            f"{injected} and scan at {at} are {elapsed / 3600:.2f} h apart, half-life {half_life:.0f} s",
            fix="correct the dates and times of injection, series and acquisition; shift dates alike",
        )
    return max(elapsed, 0.0), note


def _before(injected: datetime, at: datetime) -> datetime:
    """The injection's time of day on the day of `at`, or on the day before where midnight lies between them."""
    moved = datetime.combine(at.date(), injected.time())
    return moved - timedelta(days=1) if at + timedelta(days=1) - moved <= MIDNIGHT_MAX else moved
