"""Study dates as exports and DICOM headers write them, and whether two are of one day."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date

from petground.labeling.errors import InputError
from petground.labeling.site import Site

__all__ = ["MISMATCH", "days_apart", "iso_date", "mismatch_note", "require_same_day"]

MISMATCH = "study_date_mismatch"

_COMPACT, _DASHED = re.compile(r"(\d{4})(\d\d)(\d\d)(?:\D.*)?"), re.compile(r"(\d{4})[-/.](\d\d?)[-/.](\d\d?)(?:\D.*)?")
_NAMED = re.compile(r"(\d\d?)[-/. ]([A-Za-z]{3})[a-z]*[-/., ]+(\d{4})(?:\D.*)?")
_EITHER = re.compile(r"(\d\d?)[-/.](\d\d?)[-/.](\d{4})(?:\D.*)?")
_PART = re.compile(r"(\d{4})(?:-(\d\d))?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
Days = tuple[date, date]
"""First and last day of what a text says."""


def iso_date(text: str | None) -> str | None:
    """2015-07-01 from "2015-07-01", "20150701", "2015/7/1", "1-JUL-2015" or one with a time behind it; else None.

    "7/1/2015" may begin with the day or the month, so it is not read.
    """
    plain = (text or "").strip()
    found = _COMPACT.fullmatch(plain) or _DASHED.fullmatch(plain)
    if found is not None:
        year, month, day = (int(part) for part in found.groups())
    else:
        named = _NAMED.fullmatch(plain)
        if named is None or named.group(2).lower() not in _MONTHS:
            return None
        year, month, day = int(named.group(3)), _MONTHS.index(named.group(2).lower()) + 1, int(named.group(1))
    if not (1900 <= year <= 2200 and 1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{year:04d}-{month:02d}-{day:02d}"


def days_apart(one: str | None, other: str | None) -> int | None:
    """The fewest days that may lie between two dates as they are written; None where one of them is not understood.

    "7/1/2015" is the first of July or the seventh of January, "2015-07" any day of July: the nearest counts.
    """
    apart = [max(0, (a - d).days, (c - b).days) for a, b in _meanings(one) for c, d in _meanings(other)]
    return min(apart, default=None)


def require_same_day(stated: str | None, imaged: str | None, site: Site) -> None:
    """Raises InputError (reason "study_date_mismatch") when a report's study_date is not the images' StudyDate.

    A date that is missing or not understood contradicts nothing.
    """
    apart = days_apart(stated, imaged) if site.check_study_date else None
    if apart is not None and apart > site.study_date_tolerance_days:
        raise InputError(
            f"the report's study_date lies {apart} days from the StudyDate of the images",
            fix="see that they belong together; where dates were shifted, set check_study_date: false in the site file",
            reason=MISMATCH,
        )


def mismatch_note(compared: int, apart: int) -> str | None:
    """One sentence for an export none of whose dates fit."""
    if not compared or apart < compared:
        return None
    return (
        f"the study_date of none of {compared} reports is that of the images: if a de-identification shifted dates, "
        "set check_study_date: false in the site file"
    )


def _meanings(text: str | None) -> list[Days]:
    plain = (text or "").strip()
    iso = iso_date(plain)
    if iso is not None:
        return _day(*(int(part) for part in iso.split("-")))
    if found := _EITHER.fullmatch(plain):
        first, second, year = (int(part) for part in found.groups())
        return _day(year, first, second) + _day(year, second, first)
    if (found := _PART.fullmatch(plain)) and 1900 <= int(found.group(1)) <= 2200:
        year, month = int(found.group(1)), int(found.group(2) or 0)
        if found.group(2) is None:
            return [(date(year, 1, 1), date(year, 12, 31))]
        return [(date(year, month, 1), date(year, month, monthrange(year, month)[1]))] if 1 <= month <= 12 else []
    return []


def _day(year: int, month: int, day: int) -> list[Days]:
    try:
        return [(date(year, month, day),) * 2]
    except ValueError:
        return []
