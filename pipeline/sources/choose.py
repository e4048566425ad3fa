"""Which series of a study are worth fetching: the corrected PETs and the CT that belongs to them.

Only what the reader would certainly refuse is left out; in doubt a series is fetched and the reader decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from petground.pipeline.dicom.header import number, text
from petground.pipeline.dicom.multiframe import MULTIFRAME_CLASSES
from petground.pipeline.dicom.series import CT_CLASSES, PET_CLASSES

__all__ = ["Offered", "choose_series"]

_NOT_CORRECTED = re.compile(
    r"(?<![a-z])(nac|non?[ _-]?ac|non[ _-]?att\w*|no[ _-]att\w*|un[ _-]?corr\w*)(?![a-z])", re.I
)
SAME_REACH = 0.8  # a CT that covers less of the body than this share of the longest is not that of the whole PET


@dataclass(frozen=True, eq=False)
class Offered:
    """A series as the server describes it. header: of one of its images, None where the server would not give it."""

    uid: str
    modality: str
    number: str | None
    count: int
    header: Any = None


def choose_series(offered: Sequence[Offered]) -> list[tuple[Offered, str | None]]:
    """Each series with why it is left out, None for those to fetch. No CT is fetched without its PET."""
    reasons: dict[str, str | None] = {series.uid: _unfit(series) for series in offered}
    pets = [series for series in offered if series.modality == "PT" and reasons[series.uid] is None]
    frames = {_frame(series) for series in pets}
    candidates = []
    for series in offered:
        if series.modality != "CT" or reasons[series.uid] is not None:
            continue
        if not pets:
            reasons[series.uid] = "no PET to belong to"
        elif None not in frames and _frame(series) is not None and _frame(series) not in frames:
            reasons[series.uid] = "another frame of reference than the PET"
        else:
            candidates.append(series)
    for group in _by_frame(candidates):
        best = _best_ct(group, pets)
        for series in group:
            if series is not best and series.header is not None:
                reasons[series.uid] = "another CT of this frame is fetched"
    return [(series, reasons[series.uid]) for series in offered]


def _unfit(series: Offered) -> str | None:
    if series.modality not in ("PT", "CT"):
        return f"modality {series.modality}"
    header = series.header
    if header is None:
        return None
    kind = text(header, "SOPClassUID")
    if kind is not None and kind not in (PET_CLASSES if series.modality == "PT" else CT_CLASSES):
        return "no image series"
    images = (text(header, "ImageType") or "").upper().split("\\")
    if series.count < 2 and kind not in MULTIFRAME_CLASSES:
        return "a single image"
    if series.modality == "CT":
        return "a localizer" if "LOCALIZER" in images else None if _axial(header) else "not axial"
    if "MIP" in images or "REPROJECTION" in (text(header, "SeriesType") or "").upper():
        return "a projection"
    corrections = (text(header, "CorrectedImage") or "").upper()
    if (corrections and "ATTN" not in corrections) or _NOT_CORRECTED.search(text(header, "SeriesDescription") or ""):
        return "not attenuation corrected"
    return None


def _axial(header: Any) -> bool:
    """True when the images lie across the body, or do not say how they lie (multi-frame: in the frames)."""
    try:
        cosines = [float(part) for part in header.get("ImageOrientationPatient") or ()]
    except (TypeError, ValueError):
        return True
    return len(cosines) != 6 or abs(float(np.cross(cosines[:3], cosines[3:])[2])) > 0.8


def _frame(series: Offered) -> str | None:
    return None if series.header is None else text(series.header, "FrameOfReferenceUID")


def _by_frame(candidates: Sequence[Offered]) -> list[list[Offered]]:
    frames = {_frame(series) for series in candidates}
    return [[series for series in candidates if _frame(series) == frame] for frame in sorted(frames, key=str)]


def _best_ct(group: Sequence[Offered], pets: Sequence[Offered]) -> Offered:
    """As long as the longest, then with as many slices as a PET, then the fewest images: one kernel is enough."""

    def reach(series: Offered) -> float:
        step = None
        if series.header is not None:
            step = number(series.header, "SpacingBetweenSlices") or number(series.header, "SliceThickness")
        return series.count * abs(step or 1.0)

    longest = max(reach(series) for series in group)
    long_enough = [series for series in group if reach(series) >= SAME_REACH * longest]
    counts = {series.count for series in pets}
    return min(long_enough, key=lambda series: (series.count not in counts, series.count, series.uid))
