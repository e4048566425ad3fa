"""DICOM dates and times (VR DA, TM, DT; PS3.5 6.2) as local times without zone, None for what is no time."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone

__all__ = ["joined", "parse_datetime", "parse_time", "zone_of"]

YEARS = (1000, 9000)  # arithmetic must not leave the calendar; no hospital's date, shifted or not, lies outside


def parse_time(value: str | None) -> time | None:
    """TM: HHMMSS.FFFFFF, of which all after HH may be absent; colons of ACR-NEMA are let through."""
    digits, _, fraction = (value or "").replace(":", "").strip().partition(".")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) not in (2, 4, 6):
        return None
    try:
        padded = digits.ljust(6, "0")
        micro = int(fraction[:6].ljust(6, "0")) if fraction.isascii() and fraction.isdecimal() else 0
        return time(int(padded[:2]), int(padded[2:4]), min(int(padded[4:6]), 59), micro)  # 60 is a leap second
    except ValueError:
        return None


def parse_datetime(value: str | None, zone: str | None = None) -> datetime | None:
    """DT, YYYYMMDDHHMMSS.F&ZZXX; `zone` is that of the data set (see `zone_of`).

    A written offset is turned into the data set's zone when that is stated, and is the local one otherwise.
    """
    if not value or len(value) < 10:
        return None
    body, offset = value.strip(), None
    for sign in "+-":
        head, found, tail = body.partition(sign)
        if found:
            body, offset = head, _zone(sign + tail)
    parsed = joined(body[:8], body[8:])
    local = _zone(zone)
    if parsed is None or offset is None or local is None:
        return parsed
    return parsed.replace(tzinfo=offset).astimezone(local).replace(tzinfo=None)


def zone_of(stated: str | None, *date_times: str | None) -> str | None:
    """The data set's zone: TimezoneOffsetFromUTC, or the first offset written in one of its date-times.

    Two date-times with different offsets (a scan on the night when clocks change) are then compared as instants.
    """
    if _zone(stated) is not None:
        return stated
    for value in date_times:
        written = (value or "").strip()[-5:]
        if _zone(written) is not None and len((value or "").strip()) > 5:
            return written
    return None


def joined(date_text: str | None, time_text: str | None) -> datetime | None:
    """DA and TM together, None where either cannot be read."""
    clock = parse_time(time_text)
    day = (date_text or "").replace(".", "")
    if clock is None or len(day) != 8 or not (day.isascii() and day.isdecimal()):
        return None
    if not YEARS[0] <= int(day[:4]) <= YEARS[1]:
        return None
    try:
        return datetime.combine(datetime(int(day[:4]), int(day[4:6]), int(day[6:])), clock)
    except ValueError:
        return None


def _zone(value: str | None) -> timezone | None:
    if not value or len(value) != 5 or value[0] not in "+-" or not (value[1:].isascii() and value[1:].isdecimal()):
        return None
    minutes = int(value[1:3]) * 60 + int(value[3:5])
    if minutes >= 24 * 60:
        return None
    return timezone(timedelta(minutes=-minutes if value[0] == "-" else minutes))
