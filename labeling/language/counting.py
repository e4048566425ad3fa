"""Which end the slices are counted from, where a report says so: "slice numbers counted from feet", "caudocranial"."""

from __future__ import annotations

import re
from itertools import islice
from typing import Literal

__all__ = ["slices_counted"]

_REACH = 80  # characters around the word for the end in which slices and their counting must be spoken of
_MOST = 500  # places looked at; no report says it so often
_INDEX = re.compile(r"\b(?:slices?|images?|frames?|axials?|cuts?|sections?|planes?|ind(?:ex|ices)|im)\b", re.I)
_COUNT = re.compile(
    r"\b(?:count\w*|number\w*|start\w*|beg[aiu]n\w*|order\w*|runs?|running|ascend\w*|increas\w*|go|goes|one|first|zero"
    r"|[01])\b",
    re.I,
)
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


def slices_counted(text: str) -> Literal["head", "feet"] | None:
    """The end that slice 1 lies at, as the report says; None when it says nothing, or both.

    A patient who lies or is scanned feet first says nothing of the count: a slice word and a word of counting must
    stand in the same sentence, near the end that is named. Linear in the text; never raises.
    """
    feet, head = _told(text, _FEET), _told(text, _HEAD)
    if feet == head:
        return None
    return "feet" if feet else "head"


def _told(text: str, end: re.Pattern[str]) -> bool:
    for match in islice(end.finditer(text), _MOST):
        before = _STOP.split(text[max(0, match.start() - _REACH) : match.start()])[-1]
        around = before + match.group() + _STOP.split(text[match.end() : match.end() + _REACH])[0]
        if _INDEX.search(around) and _COUNT.search(around) and not _LYING.search(around):
            return True
    return False
