"""The written forms of dates: one pattern each, anchored by a digit or a month's name.

Groups d, m, y are digits, month a name, roman a month in Roman numerals, dw a day in words; a and b are day and month
in an order that the form does not tell. A month and a short year that only a stroke parts (4/51) are a date behind a
word of birth alone: slices, series and biopsies are written so too.
"""

from __future__ import annotations

import re

__all__ = ["BIRTH", "FORMS", "LONE_YEAR", "MONTHS", "NOT_A_DATE", "ORDINALS", "ROMAN"]

MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
          "november", "december")  # fmt: skip
ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
_ONES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
ORDINALS = (*_ONES, "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth",
            "eighteenth", "nineteenth", "twentieth", *(f"twenty-{one}" for one in _ONES), "thirtieth",
            "thirty-first")  # fmt: skip

_MONTH_NAME = (
    r"(?:jan(?:uary|\.)?|feb(?:ruary|\.)?|mar(?:ch|\.)?|apr(?:il|\.)?|may|june?|jun\.|july?|jul\.|"
    r"aug(?:ust|\.)?|sept?(?:ember|\.)?|oct(?:ober|\.)?|nov(?:ember|\.)?|dec(?:ember|\.)?)"
)
_MONTH = rf"(?P<month>{_MONTH_NAME})"
_DAY_WORD = "(?:" + "|".join(word.replace("-", "[ -]") for word in reversed(ORDINALS)) + ")"
_DW = rf"(?P<dw>{_DAY_WORD})\b"
_ROMAN = r"(?:XII|XI|IX|IV|VI{0,3}|I{1,3}|X)"
_YEAR = r"(?:19|20)\d\d"
_SHORT = r"['’]\d\d"  # of a year, with the sign that says so
_QUANTITY = r"\s*(?:mm|cm|ml|mg|mci|mbq|kg|years?|yrs?|months?|weeks?|days?|min(?:utes)?)\b|\s*%"
_EXAM = r"(?:exam(?:ination)?|study|scan|pet(?:/ct)?|ct|mri?|comparison|ultrasound|biopsy|surgery|therapy|visit|report)"
NOT_A_DATE = re.compile(
    r"(?:slices?|images?|img|im|ima|series|cut|#|grades?|levels?|stages?|nerves?|cn)[\s:.#-]*$", re.IGNORECASE
)

_SOURCES = {
    "iso": rf"(?<![\d./-])(?P<y>{_YEAR})(?P<sep>[-/.])(?P<m>\d\d?)(?P=sep)(?P<d>\d\d?)(?![\d/-]|\.\d)",
    "numeric": rf"(?<![\w./:·•∙-])(?P<a>\d\d?)(?P<sep>[/.·•∙–-])(?P<b>\d\d?)(?:(?P=sep)['’]?|['’])(?P<y>{_YEAR}|\d\d)"
               rf"(?![\d/-]|\.\d|{_QUANTITY})",
    "numeric, spaced": rf"(?<![\w./:·•∙-])(?P<a>\d\d?)[ ]?(?P<sep>[/.·•∙–-])[ ]?(?P<b>\d\d?)[ ]?(?P=sep)[ ]?"
                       rf"(?P<y>{_YEAR})(?![\d/-]|\.\d)",
    "compact": r"(?<![\d.])(?P<y>(?:19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])(?!\d|\.\d)",
    "day month": rf"(?<![\d.,/])(?P<d>\d\d?)(?:st|nd|rd|th)?(?:\s+of)?[\s./-]{{0,3}}{_MONTH}[\s.,/-]{{0,3}}"
                 rf"(?P<y>{_YEAR}|['’]?\d\d)(?![\d/]|[.,]\d|{_QUANTITY})",
    "month day": rf"(?<![a-z]){_MONTH}\s{{0,3}}(?P<d>\d\d?)(?:st|nd|rd|th)?\s{{0,2}}[,.]?\s{{0,3}}"
                 rf"(?P<y>{_YEAR}|{_SHORT})(?!\d|[.,]\d)",
    "month day in words": rf"(?<![a-z]){_MONTH}\s{{1,3}}(?:the\s)?{_DW}"
                          rf"(?:,?\s{{1,3}}(?P<y>{_YEAR}|{_SHORT})(?!\d|[.,]\d))?",
    "day in words": rf"\b{_DW}\s+(?:of\s+)?{_MONTH}(?![a-z])(?:,?\s{{1,3}}(?P<y>{_YEAR}|{_SHORT})(?!\d|[.,]\d))?",
    "roman": rf"(?<![\w.,/-])(?P<d>\d\d?)[ ]?(?P<sep>[./-])[ ]?(?P<roman>{_ROMAN})[ ]?(?P=sep)[ ]?"
             rf"(?P<y>{_YEAR}|['’]?\d\d)(?![\d/]|[.,]\d|{_QUANTITY})",
    "roman, spaced": rf"(?<![\w.,/-])(?P<d>\d\d?)[ ](?P<roman>{_ROMAN})[ ](?P<y>{_YEAR}|{_SHORT})"
                     rf"(?!\d|[.,]\d|{_QUANTITY})",
    "roman and year": rf"(?<![\w./-])(?-i:(?P<roman>{_ROMAN}))[./](?P<y>{_YEAR})(?![\d/-]|\.\d)",
    "month year": rf"(?<![a-z\d]){_MONTH}(?:\s{{1,3}}of)?[\s,/-]{{1,3}}(?P<y>{_YEAR}|{_SHORT}|(?<=[a-z.][/-])\d\d)"
                  rf"(?![\d/-]|[.,]\d|{_QUANTITY})",
    "day of month": rf"(?<![\d.,/])(?P<d>\d\d?)(?:st|nd|rd|th|\.)?(?:\s+of)?[\s-]{{1,2}}{_MONTH}(?![a-z])",
    "month and day": rf"(?<![a-z]){_MONTH}\s{{1,2}}(?P<d>\d\d?)(?:st|nd|rd|th)?(?![\d/]|[.,]\d|\s*(?:x|mm|cm|%))",
    "month/year": rf"(?<![\d/.:-])(?P<m>0?[1-9]|1[0-2])(?P<sep>[/-])(?P<y>{_YEAR})(?![\d/-]|\.\d)",
    "month/day": rf"\b(?:dated|since|{_EXAM}\s{{1,3}}(?:of|from|on|dated|performed on))\s{{1,3}}(?:the\s{{1,3}})?"
                 r"(?P<a>\d\d?)/(?P<b>\d\d?)(?![\d/]|\.\d)",
}  # fmt: skip
FORMS = {name: re.compile(source, re.IGNORECASE) for name, source in _SOURCES.items()}

LONE_YEAR = re.compile(
    rf"(?:(?<=\bin )|(?<=\bsince )|(?<=\bfrom )|(?<=\bcirca )|(?<=\byear )|(?<=\bearly )|(?<=\blate )|(?<=\bduring )|"
    rf"(?<=\buntil )|(?<=\bby )|(?<=\bof )|(?<=\bspring )|(?<=\bsummer )|(?<=\bfall )|(?<=\bwinter )|(?<=\bautumn )|"
    rf"(?<=\band )|(?<=\bor )|(?<=\bto )|(?<=\()|(?<=-)|(?<=, )|(?<=s/p )|(?<=tomy )|(?<=apy )|(?<=ction ))"
    rf"(?P<y>{_YEAR})(?!\d|[./:-]\d|\s*(?:ng|mg|mcg|ml|cc|g\b|hu\b|cm|mm|m?iu|pg|u/|%|mbq|kbq|images|slices|cells))",
    re.IGNORECASE,
)

_PART = rf"(?:\d\d?(?:st|nd|rd|th)?|{_DAY_WORD}|{_MONTH_NAME}|{_ROMAN})"
_JOINT = r"(?:[ \t]?[./·•∙–,-][ \t]?['’]?|['’]|[ \t](?:of[ \t]|the[ \t])?['’]?|(?<=\d)(?=[a-z])|(?<=[a-z])(?=\d))"
_BORN = rf"""
    (?:\b(?:D\.?O\.?B\b\.?|date\ of\ birth|birth\ ?da(?:te|y)|born(?:\ (?:on|in))?(?:\ the)?
       |geb(?:\.|oren)(?:\ (?:am|im))?)
       [ \t]{{0,3}}[:.=-]?[ \t]{{0,3}}
       (?P<v>{_PART}{_JOINT}{_PART}{_JOINT}(?:\d{{4}}|\d\d)|{_YEAR}{_JOINT}{_PART}{_JOINT}{_PART}
         |{_PART}(?:{_JOINT}{_YEAR}|[ \t]?[/.'’·-][ \t]?['’]?\d\d|[ \t]{_SHORT})|{_MONTH_NAME}{_JOINT}{_PART}
         |{_PART}{_JOINT}{_MONTH_NAME}|{_YEAR}|{_SHORT})
    |(?<=[^\s\d.][ ,(;])(?:b\.|\*)[ ]?
       (?P<w>{_PART}{_JOINT}{_PART}{_JOINT}(?:{_YEAR}|{_SHORT})|{_PART}{_JOINT}{_MONTH_NAME}{_JOINT}\d\d
         |(?:{_MONTH_NAME}|\d\d?[/.]){_JOINT}?(?:{_YEAR}|{_SHORT})|\d\d?[/.·]\d\d?[/.·]\d\d|{_YEAR}))
    (?![\d/]|[.,]\d|{_QUANTITY})
"""
BIRTH = re.compile(re.sub(r"\n\s*", "", _BORN), re.IGNORECASE)
"""What stands behind a word of birth: group v, behind the short b. and the asterisk w, in whatever form."""
