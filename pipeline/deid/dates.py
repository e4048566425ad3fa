"""Dates in report text, in every written form, moved by a number of days and written as they were.

A date that no calendar has becomes a placeholder. Years alone move as their first of July does. Times of day stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Literal

from petground.pipeline.deid.date_forms import BIRTH, FORMS, LONE_YEAR, MONTHS, NOT_A_DATE, ORDINALS, ROMAN
from petground.pipeline.deid.spans import Span

__all__ = ["BIRTH_PLACE", "DateOrder", "date_order", "date_spans", "shift_dicom_date"]

DateOrder = Literal["mdy", "dmy"]
_BEFORE_NUMBER = re.compile(r"(?:slices?|images?|img|im|ima|series|no\.?|number|numbers|#|suv\w*|max|x|=|:)\s*$", re.I)
_DATE_PLACE, BIRTH_PLACE = "[DATE]", "[BIRTH DATE]"


def date_order(text: str, default: DateOrder = "mdy") -> DateOrder:
    """How 03/04/2021 is meant in this text: as its other dates are, where one of them has a day over 12."""
    numeric = FORMS["numeric"]
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
    for found in BIRTH.finditer(text):
        yield Span(*found.span("v" if found["v"] else "w"), "birth date", "behind a word of birth", BIRTH_PLACE)
    for name, form in FORMS.items():
        for found in form.finditer(text):
            start, end = found.span()
            if name == "month/day":
                start = found.start("a")
            if not _meant(name, found, text[max(0, start - 12) : start]):
                continue
            yield Span(start, end, "date", name, _moved(name, found, days, order, year, birth, text[start:end]))
    for found in LONE_YEAR.finditer(text):
        if _BEFORE_NUMBER.search(text[max(0, found.start() - 12) : found.start()]) is None:
            yield Span(*found.span(), "date", "year", _moved("year", found, days, order, year, None, found[0]))


def _meant(name: str, found: re.Match[str], before: str) -> bool:
    """Whether what has a date's form is one. before: the text in front of it."""
    if name in ("numeric", "month/year", "roman", "roman, spaced") and NOT_A_DATE.search(before):
        return False
    if name == "numeric":
        return _full(found)
    if name in ("day of month", "month and day"):
        return 1 <= int(found["d"]) <= 31 and _is_month_name(found["month"], before)
    if name in ("month day in words", "day in words"):
        return bool(found["y"]) or _is_month_name(found["month"], before)
    return name != "month year" or len(found["y"]) > 2 or bool(found["month"][0].isupper())


def _full(found: re.Match[str]) -> bool:
    """1.2.14 and 3-4-5 may number anything; with a year of two digits only slashes make a date of single ones."""
    return len(found["y"]) == 4 or found["sep"] == "/" or "'" in found[0] or len(found["a"]) == len(found["b"]) == 2


def _is_month_name(name: str, before: str) -> bool:
    """'may', 'march' and 'mar' without a year are months only when written so, and beside a day of a month."""
    if name.lower().rstrip(".") in ("may", "march", "mar", "dec", "sep", "jun", "jan", "oct"):
        return name[0].isupper() and (name[1:].islower() or before[-3:].lower() == "on ")
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
            return BIRTH_PLACE
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
    elif groups.get("roman"):
        month = 1 + ROMAN.index(str(groups["roman"]).upper())
    elif groups.get("m"):
        month = int(str(groups["m"]))
    else:
        first, second = int(str(groups["a"])), int(str(groups["b"]))
        day_first = _day_first(groups.get("sep") or "/", order, first, second)
        day, month = (first, second) if day_first else (second, first)
        return day, month, y
    word = groups.get("dw")
    return 1 + ORDINALS.index(word.lower().replace(" ", "-")) if word else int(groups.get("d") or 15), month, y


def _day_first(sep: str, order: DateOrder, first: int, second: int) -> bool:
    if (first > 12) != (second > 12):
        return first > 12
    return sep in ".·•∙" or order == "dmy"


def _year(told: str | None, exam: int | None) -> int:
    if told is None:
        return exam or 2001  # no leap year: the 29th of February without a year becomes a placeholder
    number = int(told.strip("'’"))
    if len(told.strip("'’")) > 2:
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
    elif groups.get("roman"):
        told = str(groups["roman"])
        parts.append((*found.span("roman"), ROMAN[new.month - 1] if told.isupper() else ROMAN[new.month - 1].lower()))
    elif groups.get("m"):
        put("m", new.month)
    elif groups.get("a"):
        day_first = _day_first(groups.get("sep") or "/", order, int(str(groups["a"])), int(str(groups["b"])))
        put("a", new.day if day_first else new.month)
        put("b", new.month if day_first else new.day)
    if groups.get("dw"):
        parts.append((*found.span("dw"), _day_word(str(groups["dw"]), new.day)))
    base = found.end() - len(written)
    text = written
    for start, end, value in sorted(parts, reverse=True):
        text = text[: start - base] + value + text[end - base :]
    return _ordinal(text)


def _number(told: str, number: int, *, padded: bool) -> str:
    """As many digits as were written: 03 stays two digits, 3 may become 12, '21 keeps its apostrophe; May 22, May 5."""
    mark = told[0] if told[0] in "'’" else ""
    digits = told.lstrip("'’")
    if len(digits) == 2 and number > 99:
        number %= 100
    return mark + (f"{number:0{len(digits)}d}" if padded and len(digits) > 1 else str(number))


def _month_name(told: str, month: int) -> str:
    plain, name = told.rstrip("."), MONTHS[month - 1]
    short = len(plain) <= 4 and plain.lower() not in MONTHS
    text = name[:3] if short or (plain.lower() == "may" and told != plain) else name
    text = text.upper() if plain.isupper() else text.capitalize() if plain[0].isupper() else text
    return text + ("." if told.endswith(".") else "")


def _day_word(told: str, day: int) -> str:
    word = ORDINALS[day - 1].replace("-", " " if " " in told else "-")
    return word.upper() if told.isupper() else word.capitalize() if told[0].isupper() else word


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
