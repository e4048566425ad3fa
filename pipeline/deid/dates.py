"""Dates in report text, in every written form, moved by a number of days and written as they were.

A date that no calendar has becomes a placeholder. Years alone move as their first of July does. Times of day stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Literal

from petground.pipeline.deid.spans import Span

__all__ = ["DateOrder", "date_order", "date_spans", "shift_dicom_date"]

DateOrder = Literal["mdy", "dmy"]
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
          "november", "december")  # fmt: skip
_MONTH = (
    r"(?P<month>jan(?:uary|\.)?|feb(?:ruary|\.)?|mar(?:ch|\.)?|apr(?:il|\.)?|may|june?|jun\.|july?|jul\.|"
    r"aug(?:ust|\.)?|sept?(?:ember|\.)?|oct(?:ober|\.)?|nov(?:ember|\.)?|dec(?:ember|\.)?)"
)
_YEAR = r"(?:19|20)\d\d"
_EXAM = r"(?:exam(?:ination)?|study|scan|pet(?:/ct)?|ct|mri?|comparison|ultrasound|biopsy|surgery|therapy|visit|report)"
_NOT_A_DATE = r"(?:slices?|images?|img|im|ima|series|cut|#|grade|level)[\s:.#-]*$"

# One pattern per written form; groups d, m, y are digits, month a name. All are anchored by a digit or a month's name.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("iso", rf"(?<![\d./-])(?P<y>{_YEAR})(?P<sep>[-/.])(?P<m>\d\d?)(?P=sep)(?P<d>\d\d?)(?![\d/-]|\.\d)"),
        (
            "numeric",
            rf"(?<![\w./:-])(?P<a>\d\d?)(?P<sep>[/.-])(?P<b>\d\d?)(?P=sep)(?P<y>{_YEAR}|\d\d)(?![\d/-]|\.\d)",
        ),
        ("compact", r"(?<![\d.])(?P<y>(?:19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])(?!\d|\.\d)"),
        ("day month", rf"(?<![\d.,/])(?P<d>\d\d?)(?:st|nd|rd|th)?(?:\s+of)?[\s./-]{{1,3}}{_MONTH}[\s.,/-]{{1,3}}"
                      rf"(?P<y>{_YEAR}|'?\d\d)(?![\d/]|[.,]\d|\s*(?:mm|cm|year|yr|min))"),
        ("month day", rf"(?<![a-z]){_MONTH}\s{{0,3}}(?P<d>\d\d?)(?:st|nd|rd|th)?\s{{0,2}}[,.]?\s{{0,3}}"
                      rf"(?P<y>{_YEAR})(?!\d|[.,]\d)"),
        ("month year", rf"(?<![a-z\d]){_MONTH}(?:\s{{1,3}}of)?[\s,/-]{{1,3}}(?P<y>{_YEAR})(?!\d|[.,]\d)"),
        ("day of month", rf"(?<![\d.,/])(?P<d>\d\d?)(?:st|nd|rd|th|\.)?(?:\s+of)?[\s-]{{1,2}}{_MONTH}(?![a-z])"),
        ("month and day", rf"(?<![a-z]){_MONTH}\s{{1,2}}(?P<d>\d\d?)(?:st|nd|rd|th)?(?![\d/]|[.,]\d|\s*(?:x|mm|cm|%))"),
        ("month/year", rf"(?<![\d/.:-])(?P<m>0?[1-9]|1[0-2])(?P<sep>[/-])(?P<y>{_YEAR})(?![\d/-]|\.\d)"),
        ("month/day", rf"\b(?:dated|since|{_EXAM}\s{{1,3}}(?:of|from|on|dated|performed on))\s{{1,3}}(?:the\s{{1,3}})?"
                      r"(?P<a>\d\d?)/(?P<b>\d\d?)(?![\d/]|\.\d)"),
    )
)  # fmt: skip
_LONE_YEAR = re.compile(
    rf"(?:(?<=\bin )|(?<=\bsince )|(?<=\bfrom )|(?<=\bcirca )|(?<=\byear )|(?<=\bearly )|(?<=\blate )|(?<=\bduring )|"
    rf"(?<=\buntil )|(?<=\bby )|(?<=\bof )|(?<=\bspring )|(?<=\bsummer )|(?<=\bfall )|(?<=\bwinter )|(?<=\bautumn )|"
    rf"(?<=\band )|(?<=\bor )|(?<=\bto )|(?<=\()|(?<=-)|(?<=, )|(?<=s/p )|(?<=tomy )|(?<=apy )|(?<=ction ))"
    rf"(?P<y>{_YEAR})(?!\d|[./:-]\d|\s*(?:ng|mg|mcg|ml|cc|g\b|hu\b|cm|mm|m?iu|pg|u/|%|mbq|kbq|images|slices|cells))",
    re.IGNORECASE,
)
_BEFORE_NUMBER = re.compile(r"(?:slices?|images?|img|im|ima|series|no\.?|number|numbers|#|suv\w*|max|x|=|:)\s*$", re.I)
_DATE_PLACE = "[DATE]"


def date_order(text: str, default: DateOrder = "mdy") -> DateOrder:
    """How 03/04/2021 is meant in this text: as its other dates are, where one of them has a day over 12."""
    numeric = _FORMS[1][1]
    for found in numeric.finditer(text):
        first, second = int(found["a"]), int(found["b"])
        if found["sep"] == "/" and (first > 12) != (second > 12) and max(first, second) <= 31:
            return "dmy" if first > 12 else "mdy"
    return default


def date_spans(
    text: str, days: int, *, order: DateOrder = "mdy", year: int | None = None, birth: date | None = None
) -> Iterator[Span]:
    """Every date in `text` as a span whose `new` is the date `days` later, in the same form.

    order: meaning of 03/04/2021 where nothing else tells; with dots the day comes first, with a year in front ISO.
    year: that of the exam, for dates without one. birth: this day becomes a placeholder in whatever form it stands.
    """
    order = date_order(text, order)
    for name, form in _FORMS:
        for found in form.finditer(text):
            start, end = found.span()
            if name == "month/day":
                start = found.start("a")
            if name == "numeric" and not _full(found):
                continue
            if name in ("numeric", "month/year") and re.search(_NOT_A_DATE, text[max(0, start - 12) : start], re.I):
                continue
            if name in ("day of month", "month and day") and not _is_month_name(found["month"], text, found):
                continue
            yield Span(start, end, "date", name, _moved(name, found, days, order, year, birth, text[start:end]))
    for found in _LONE_YEAR.finditer(text):
        if _BEFORE_NUMBER.search(text[max(0, found.start() - 12) : found.start()]) is None:
            yield Span(*found.span(), "date", "year", _moved("year", found, days, order, year, None, found[0]))


def _full(found: re.Match[str]) -> bool:
    """1.2.14 and 3-4-5 may number anything; with a year of two digits only slashes make a date of single ones."""
    return len(found["y"]) == 4 or found["sep"] == "/" or len(found["a"]) == len(found["b"]) == 2


def _is_month_name(name: str, text: str, found: re.Match[str]) -> bool:
    """'may', 'march' and 'mar' without a year are months only when written so, and beside a day of a month."""
    day = int(found["d"])
    if not 1 <= day <= 31:
        return False
    if name.lower().rstrip(".") in ("may", "march", "mar", "dec", "sep", "jun", "jan", "oct"):
        return name[0].isupper() and (name[1:].islower() or text[found.start() - 3 : found.start()].lower() == "on ")
    return name[0].isupper()


def _moved(
    name: str,
    found: re.Match[str],
    days: int,
    order: DateOrder,
    year: int | None,
    birth: date | None,
    written: str,
) -> str:
    groups = found.groupdict()
    try:
        day, month, y = _parts(name, groups, order, year)
        old = date(y, month, day)
        if old == birth and groups.get("y"):
            return "[BIRTH DATE]"
        new = old + timedelta(days=days)
    except (ValueError, OverflowError):
        return _DATE_PLACE
    return _written(name, groups, found, new, order, written)


def _parts(name: str, groups: dict[str, str | None], order: DateOrder, year: int | None) -> tuple[int, int, int]:
    """Day, month, year; the middle of what is not told. Raises ValueError when it is no date."""
    y = _year(groups.get("y"), year)
    if name == "year":
        return 1, 7, y
    if groups.get("month"):
        month = 1 + next(i for i, m in enumerate(MONTHS) if m.startswith(str(groups["month"]).lower().rstrip(".")[:3]))
    elif groups.get("m"):
        month = int(str(groups["m"]))
    else:
        first, second = int(str(groups["a"])), int(str(groups["b"]))
        day_first = _day_first(groups.get("sep") or "/", order, first, second)
        day, month = (first, second) if day_first else (second, first)
        return day, month, y
    return int(groups.get("d") or 15), month, y


def _day_first(sep: str, order: DateOrder, first: int, second: int) -> bool:
    if (first > 12) != (second > 12):
        return first > 12
    return sep == "." or order == "dmy"


def _year(told: str | None, exam: int | None) -> int:
    if told is None:
        return exam or 2001  # no leap year: the 29th of February without a year becomes a placeholder
    number = int(told.strip("'"))
    if len(told.strip("'")) > 2:
        return number
    return number + (1900 if number > 50 else 2000)


def _written(
    name: str, groups: dict[str, str | None], found: re.Match[str], new: date, order: DateOrder, written: str
) -> str:
    """The written form with its figures and the month's name exchanged."""
    parts: list[tuple[int, int, str]] = []

    def put(group: str, number: int) -> None:
        told = groups.get(group)
        if told is not None:
            named = group == "d" and groups.get("month") is not None
            parts.append((*found.span(group), _number(told, number, padded=told[0] == "0" or not named)))

    put("y", new.year)
    put("d", new.day)
    if groups.get("month"):
        parts.append((*found.span("month"), _month_name(str(groups["month"]), new.month)))
    elif groups.get("m"):
        put("m", new.month)
    elif groups.get("a"):
        day_first = _day_first(groups.get("sep") or "/", order, int(str(groups["a"])), int(str(groups["b"])))
        put("a", new.day if day_first else new.month)
        put("b", new.month if day_first else new.day)
    base = found.end() - len(written)
    text = written
    for start, end, value in sorted(parts, reverse=True):
        text = text[: start - base] + value + text[end - base :]
    return _ordinal(text)


def _number(told: str, number: int, *, padded: bool) -> str:
    """As many digits as were written: 03 stays two digits, 3 may become 12, '21 keeps its apostrophe; May 22, May 5."""
    mark = "'" if told.startswith("'") else ""
    digits = told.lstrip("'")
    if len(digits) == 2 and number > 99:
        number %= 100
    return mark + (f"{number:0{len(digits)}d}" if padded and len(digits) > 1 else str(number))


def _month_name(told: str, month: int) -> str:
    plain, name = told.rstrip("."), MONTHS[month - 1]
    short = len(plain) <= 4 and plain.lower() not in MONTHS
    text = name[:3] if short or (plain.lower() == "may" and told != plain) else name
    text = text.upper() if plain.isupper() else text.capitalize() if plain[0].isupper() else text
    return text + ("." if told.endswith(".") else "")


def _ordinal(text: str) -> str:
    def right(found: re.Match[str]) -> str:
        number = int(found[1])
        ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
        return found[1] + (ending.upper() if found[2].isupper() else ending)

    return re.sub(r"\b(\d\d?)(st|nd|rd|th)\b", right, text, count=1, flags=re.IGNORECASE)


def shift_dicom_date(value: str, days: int) -> str | None:
    """A DICOM DA or DT value (also ACR-NEMA's 2021.03.04) `days` later; what follows the day is kept.

    None when it holds no day: a DT may be a year or a month alone, which moves as its middle does.
    """
    plain = value.strip("\0 ")
    dotted = re.match(r"(\d{4})\.(\d\d)\.(\d\d)", plain)
    compact = re.match(r"(\d{4})(\d\d)?(\d\d)?", plain)
    found = dotted or compact
    if found is None or not re.fullmatch(r"[\d.:+-]+", plain):
        return None
    y, m, d = found.groups()
    try:
        new = date(int(y), int(m or 7), int(d or 15 if m else 1)) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    sep = "." if dotted else ""
    parts = [f"{new.year:04d}", *([f"{new.month:02d}"] if m else []), *([f"{new.day:02d}"] if d else [])]
    return sep.join(parts) + plain[found.end() :]
