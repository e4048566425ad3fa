"""Study dates as exports and DICOM headers write them."""

from __future__ import annotations

import re

__all__ = ["iso_date"]

_COMPACT, _DASHED = re.compile(r"(\d{4})(\d\d)(\d\d)(?:\D.*)?"), re.compile(r"(\d{4})[-/.](\d\d?)[-/.](\d\d?)(?:\D.*)?")


def iso_date(text: str | None) -> str | None:
    """2015-07-01 from "2015-07-01", "20150701", "2015/7/1" or one with a time behind it; None from other forms.

    Forms that begin with day or month cannot be told from each other, so they are not read.
    """
    plain = (text or "").strip()
    found = _COMPACT.fullmatch(plain) or _DASHED.fullmatch(plain)
    if found is None:
        return None
    year, month, day = (int(part) for part in found.groups())
    if not (1900 <= year <= 2200 and 1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{year:04d}-{month:02d}-{day:02d}"
