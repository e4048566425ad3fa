"""Which end the slices are counted from, where a report says so: "slice numbers counted from feet", "caudocranial"."""

from __future__ import annotations

import re
from itertools import islice
from typing import Literal

__all__ = ["slices_counted"]

_REACH = 80  # characters around the word for the end in which slices and their counting must be spoken of
_MOST = 500  # places looked at; no report says it so often
_NOUN = r"(?:slices?|images?|frames?|axials?|cuts?|sections?|planes?|ind(?:ex|ices)|im)"
_COUNTING = r"(?:count(?:s|ed)?|number(?:s|ed)?|order(?:ed)?|enumerated)\b(?!\s(?:of|to)\b)"
_COUNTING = rf"(?:{_COUNTING}|(?:count|number|order|enumerat)ing\b)"
_COUNTED = re.compile(rf"\b(?:{_NOUN}\b[^,:]{{0,40}}?\b{_COUNTING}|{_COUNTING}[^,:]{{0,40}}?\b{_NOUN}\b)", re.I)
_RUN = re.compile(
    rf"\b{_NOUN}\s(?:stack\s|order\s)?(?:runs?|running|ascend\w*|increas\w+|go|goes|start\w*|beg[iu]n\w*)\b",
    re.I,
)
_FIRST = re.compile(rf"\b(?:{_NOUN}\s(?:no\.?\s|number\s|#)?(?:[01]|one|zero)|first\s{_NOUN})\b[^,;]{{0,30}}$", re.I)
_COVERED = re.compile(r"skull|pelvis|thigh|vertex|brain|legs?\b", re.I)
_VALUED = re.compile(rf"\bs(?:uv|tandardi[sz]ed\s)|\b{_NOUN}\s?(?:no\.?|number\w*|#)?\s?(?![01]\b)\d", re.I)
_FROM = r"(?:from|at|with|is|=|:)\s{1,3}(?:the\s{1,3})?(?:patient's\s{1,3})?"
_FEET = re.compile(
    rf"\b(?:{_FROM}(?:feet|foot|toes?|caudal|inferior|bottom|legs?|thighs?|pelvis|below)"
    r"|caudo-?cranial\w*|(?:feet|foot)[- ](?:first|to[- ]head|up)|inferior[- ]to[- ]superior|inferiorly|caudally)\b"
    rf"|=\s?(?:feet|foot|toes)\b",
    re.I,
)
_HEAD = re.compile(
    rf"\b(?:{_FROM}(?:head|vertex|skull|cranial|superior|top|brain|crown|above)"
    r"|cranio-?caudal\w*|head[- ](?:first|to[- ](?:feet|foot|toe))|superior[- ]to[- ]inferior|superiorly|cranially)\b"
    r"|=\s?(?:head|vertex)\b",
    re.I,
)
_LYING = re.compile(r"\b(?:supine|prone|position(?:ed|ing)?|lying|scan(?:ned|ning)?|acquir\w+|acquisition)\b", re.I)
_STOP = re.compile(r"[.;\n](?=\s|$)|\n")
_COUNT_WORDS = ("count", "number", "order", "enumerat")
_AFTER_NOUN = r"\s(?:(?:stack\s|order\s)?(?:run|ascend|increas|go|start|beg[iu]n)|(?:no\.?\s|#)?(?:[01]|one|zero)\b)"
_PHRASES = tuple(
    re.compile(begin)
    for begin in (
        *(noun + _AFTER_NOUN for noun in ("slices?", "images?", "frames?", "axials?", "cuts?", "sections?", "planes?")),
        *(noun + _AFTER_NOUN for noun in ("index", "indices", "im")),
        rf"first\s{_NOUN}",
    )
)
"""With _COUNT_WORDS, what every way to tell the count has, in lower case; few reports have any. Each begins with a
word of its own, which the engine finds ten times as fast as one of many."""


def slices_counted(text: str) -> Literal["head", "feet"] | None:
    """The end that slice 1 lies at, as the report says; None when it says nothing, or both.

    A patient who lies or is scanned feet first says nothing of the count, nor does the extent of a lesion or of the
    scan: slices must be said to be counted, numbered or to run, or the first one to lie at an end, in a sentence that
    gives no SUV and no slice of a lesion. Linear in the text; never raises.
    """
    lower = text.lower()
    if not any(word in lower for word in _COUNT_WORDS) and not any(phrase.search(lower) for phrase in _PHRASES):
        return None
    feet, head = _told(text, _FEET), _told(text, _HEAD)
    if feet == head:
        return None
    return "feet" if feet else "head"


def _told(text: str, end: re.Pattern[str]) -> bool:
    for match in islice(end.finditer(text), _MOST):
        before = _STOP.split(text[max(0, match.start() - _REACH) : match.start()])[-1]
        around = before + match.group() + _STOP.split(text[match.end() : match.end() + _REACH])[0]
        if _LYING.search(around) or _VALUED.search(around):
            continue
        first = _FIRST.search(before) and not match.group().endswith("ly")
        if first or _COUNTED.search(around) or (_RUN.search(before) and not _COVERED.search(around)):
            return True
    return False
