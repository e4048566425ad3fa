"""Numbers that are neither SUV nor slice: dates, sizes, doses, levels, ratios, changes."""

from __future__ import annotations

import re

from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.mention import Scan, is_integer, is_number

__all__ = ["find_dates", "find_labelled", "find_sizes"]

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_DATE = re.compile(
    r"(?<![\d.,:])(?:\d{1,2}([/.])\d{1,2}\1(?:19|20)?\d\d(?!\d)|\d{1,2}-\d{1,2}-(?:19|20)?\d\d(?!\d)"
    r"|(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}(?!\d)|\d{1,2}/(?:19|20)\d\d(?!\d)"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?[ -]{{1,2}}(?:of )?{_MONTH}\b\.?(?:,?[ -]{{1,2}}(?:19|20)?\d\d(?!\d))?"
    rf"|\b{_MONTH}\b\.?[ -]{{0,2}}\d{{1,2}}(?:st|nd|rd|th)?,?[ ]{{1,2}}(?:19|20)\d\d(?!\d)"
    rf"|\b{_MONTH}\b\.?[ ]{{1,2}}(?:of )?(?:19|20)\d\d(?!\d)"
    rf"|\b{_MONTH}\b\.?[ ]{{1,2}}\d{{1,2}}(?:st|nd|rd|th)?(?![\d.,:])"
    r"|(?:in|since|of|from|the|on|year|early|late|mid)[ -](?:19[89]|20[0-4])\d(?![\d:]|[.,]\d))",
    re.IGNORECASE,
)
_MAY_BE_DATE = re.compile(r"\d(?:[/-]\d|\.\d\d?\.\d|(?<=[12])[90]\d\d)")
_MONTHS = word_set(
    "jan january feb february mar march apr april may jun june jul july aug august sep sept september oct october "
    "nov november dec december"
)
"""What every date has one of; most sentences have neither and are spared the long pattern."""
_CLOCK = re.compile(r":\d\d")
_MAY_BE_PHONE = re.compile(r"\d{3}[.-]\d{4}")
_TIME = re.compile(
    r"(?<![\d.,:/])(?:at |@ ?)?\d{1,2}:\d\d(?::\d\d)?(?= ?(?:[ap]\.?m\b|h\b|hrs?\b|hours?\b))"
    r"|(?:\bat |@ ?)\d{1,2}:\d\d(?!\d)"
    r"|(?<=(?:19|20)\d\d[ ,T])\d{1,2}:\d\d(?::\d\d)?(?!\d)|(?<![\d.,:/])\d{1,2}:\d\d:\d\d(?![\d:])",
    re.I,
)
_PHONE = re.compile(r"(?<![\w./:-])(?:\+?\d{1,2}[ .-])?(?:\(\d{3}\)[ .-]?|\d{3}[.-])\d{3}[.-]\d{4}(?![\d.]*\d)")
_AFTER_LABEL = word_set("of is was : = a score - ( value at and , / s #")
_COUNTED = word_set(
    "rib ribs level levels segment segments seg station stations zone zones vertebra stage figure fig table"
)
_BY = {"x", "×", "*", "by"}
_JOIN = {"and", "or", "to", "-", "–", ",", "from", "vs", "versus", "->", "→"}


def find_dates(scan: Scan) -> None:
    """Dates, years after a preposition, clock times, telephone numbers."""
    words = scan.words
    if scan.begin >= scan.stop:
        return
    begin, end = words.start[scan.begin], words.end[scan.stop - 1]
    lower = words.lower[scan.begin : scan.stop]
    patterns = [(_TIME, "number")] if ":" in lower and _CLOCK.search(words.text, begin, end) else []
    long = any(len(word) > 3 for i in scan.numbers if (word := words.lower[i]))  # of a year, of the end of a phone
    if long and _MAY_BE_PHONE.search(words.text, begin, end):
        patterns.append((_PHONE, "number"))
    may = long or "/" in lower or "-" in lower or "." in lower[:-1]
    if (may and _MAY_BE_DATE.search(words.text, begin, end)) or not _MONTHS.isdisjoint(lower):
        patterns.append((_DATE, "date"))
    for pattern, kind in patterns:
        for match in pattern.finditer(words.text, begin, end):
            first, last = words.at(match.start()), words.at(match.end())
            while first < last and not any(c.isdigit() for c in words.lower[first]) and kind == "date":
                if words.lower[first][:3] in _MONTHS3:
                    break
                first += 1
            if first < last and not any(i in scan.taken for i in range(first, last)):
                scan.take(kind, first, last)


_MONTHS3 = word_set("jan feb mar apr may jun jul aug sep oct nov dec")


def find_sizes(scan: Scan) -> None:
    """Lengths, "3.2 x 2.4 cm" and "14 x 11 mm" as one each; the value is the largest in mm."""
    lengths = rule_words("mentions", "length")
    reached = scan.begin
    for index in scan.numbers:
        after = scan.word(index + 1)
        if index < reached or index in scan.taken or not (after in lengths or after in _BY or after == "-"):
            continue
        numbers, last = [index], index + 1
        while scan.word(last) in _BY and is_number(scan.word(last + 1)) and len(numbers) < 4:
            numbers.append(last + 1)
            last += 2
        unit = last
        if scan.word(unit) == "-" and scan.word(unit + 1) in lengths:
            unit += 1
        # "1.3 cm x 0.9 cm" and "7 x 5mm"
        while scan.word(unit) in lengths and scan.word(unit + 1) in _BY and is_number(scan.word(unit + 2)):
            numbers.append(unit + 2)
            unit += 3
        if scan.word(unit) in lengths or (len(numbers) > 1 and all("." in scan.word(n) for n in numbers)):
            in_mm = 10.0 if scan.word(unit)[:1] == "c" or scan.word(unit) not in lengths else 1.0
            last = unit + 1 if scan.word(unit) in lengths else last
            if scan.word(index - 1) in ("-", "−", "location", "position", "at") and len(numbers) == 1:
                scan.take("number", index, last)  # a place along the table
                reached = last
                continue
            mention = scan.take("size", index, last)
            mention.value = max(_value(scan.word(n)) for n in numbers) * in_mm
            _earlier_sizes(scan, index)
        reached = last


def _earlier_sizes(scan: Scan, index: int) -> None:
    """The first number of "7 and 9 mm" or "from 1.2 to 1.6 cm" is a length too, but not at an SUV or slice word."""
    before = index - 2
    if scan.word(index - 1) not in _JOIN or not is_number(scan.word(before)) or before in scan.taken:
        return
    heads = rule_words("mentions", "suv", "slice", "plane")
    for back in range(before - 1, max(before - 4, scan.begin - 1), -1):
        if scan.word(back) in heads or scan.word(back) in ("max", "value"):
            return
    scan.take("size", before, before + 1).value = 0.0


def find_labelled(scan: Scan) -> None:
    """Numbers with another unit, after another label, glued to letters, or that are a change."""
    units, labels = rule_words("mentions", "unit"), rule_words("mentions", "label")
    deltas, heads = rule_words("mentions", "delta"), rule_words("mentions", "suv")
    indices = rule_words("mentions", "slice", "series", "qualifier")
    for index in scan.numbers:
        if index in scan.taken:
            continue
        word, after, before = scan.word(index), scan.word(index + 1), scan.word(index - 1)
        gap = 2 if after == "-" else 1
        unit = scan.word(index + gap)
        if unit in units and not (unit in ("x", "×") and not is_integer(word) and scan.word(index + gap + 1) == ""):
            glued_or_word = unit not in ("h", "l", "u", "y", "ma", "mo") or scan.glued(index + gap)
            if glued_or_word:
                scan.take("number", index, index + gap + 1)
                continue
        if scan.glued(index + 1) and after[:1].isalpha() and is_integer(word) and after not in ("g", "and", "suv"):
            scan.take("number", index, index + 2)  # 4R, 5th, 4A
            continue
        glued_letters = scan.glued(index) and before[:1].isalpha() and before not in heads
        if is_integer(word) and glued_letters and before not in indices and before not in ("s", "i"):
            scan.take("number", index, index + 1)  # T12, L4, F18
            continue
        if before in ("+", "±", "+/-") or (_says_change(scan, index, deltas)):
            scan.take("number", index, index + 1)
            continue
        if (
            before in ("-", "−")
            and not scan.glued(index - 1)
            and scan.glued(index)
            and scan.word(index - 2) not in heads
        ) and scan.word(index - 2) not in ("max", "mean", "peak", ":", "=", ")"):
            scan.take("number", index, index + 1)
            continue
        near = scan.words.lower[max(scan.begin, index - 8) : index]
        if "ratio" in near and not any(
            is_number(w) or w in heads or w in (",", ";", ".") for w in near[near.index("ratio") :]
        ):
            scan.take("number", index, index + 1)  # "ratio lesion/liver 2.4"
            continue
        _after_label(scan, index, labels)


def _says_change(scan: Scan, index: int, deltas: frozenset[str]) -> bool:
    """`by 2.1`, `an increase of 2.4`, `delta 1.3`: an amount of change, not a value."""
    before = scan.word(index - 1)
    two = f"{scan.word(index - 2)} {before}"
    return (before in deltas or two in deltas) and scan.word(index - 2) not in ("x", "×")


def _after_label(scan: Scan, index: int, labels: frozenset[str]) -> None:
    """`PSA of 1.9`, `Deauville score 4`, `ratio = 2.1`, `segments 5 and 8`."""
    back = index - 1
    for _ in range(4):
        word = scan.word(back)
        if word in labels and (is_integer(scan.word(index)) or word not in _COUNTED):
            scan.take("number", index, index + 1)
            return
        listed = is_number(word) and scan.taken.get(back) == "number" and is_integer(scan.word(index))
        if (word not in _AFTER_LABEL and not listed) or (word == "," and not is_integer(scan.word(index))):
            return
        back -= 1


def _value(word: str) -> float:
    return float(word.replace(",", "."))
