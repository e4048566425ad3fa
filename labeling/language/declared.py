"""A report that says once, for all of it, that its bare numbers are SUVs: "All values are SUVmax."

Told anywhere, also at the end. It covers sentences that have a slice, or are but a label with a number ("Liver: 2.6"),
so that a serum level or a version number does not become an SUV.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["declares_values", "takes_bare_values"]

_SUV = r"(?:bw[ -]?)?(?:max(?:imum|imal)?\.? )?suv[ -]?(?:bw)?[ -]?\(?(?:max(?:imum)?)?\)?s?(?: values?)?"
_NUMBERS = r"(?:values?|numbers?|figures?|measurements?|suvs?|uptake values?|intensit(?:y|ies)|decimals?)"
_DECLARED = re.compile(
    rf"\b{_NUMBERS}(?: \w+){{0,5}} (?:are|is|refer to|represent|denote|indicate|mean|=) "
    rf"(?:all |always |the |given as )*{_SUV}(?=[ .;,)\n]|$)(?! (?:of|at)\b)"
    rf"|\b(?:all |the )?{_NUMBERS} ?[:=] ?{_SUV}(?=[ .;,)\]\n]|$)"
    rf"|\b(?:format|notation|legend|key)\W{{1,3}}{_SUV} ?[/,(] ?(?:axial )?(?:slice|image|im)\b"
    rf"|\b{_SUV} (?:values? )?(?:is|are|was|were) (?:given|listed|quoted|stated|reported|provided|shown|used)\b"
    r"(?! (?:as|at|of|below)\b)[^.\n\d]{0,60}(?=[.;\n]|$)"
    rf"|\b{_SUV} (?:is |are |given |listed |shown )?in (?:round |square )?(?:parenthes[ie]s|brackets)\b",
    re.I,
)
_INDEX = re.compile(
    r"\b(?:slices?|images?|im|img|ima|sl|axial|cut)\b|\(\d{1,2}:\d{1,4}\)"
    r"|\d[.,]\d\d?(?:/\d{2,4}\b| ?[(\[]\d{2,4}[)\]])",
    re.I,
)
_LABELLED = re.compile(r"\W{0,4}[A-Za-z][^:\n\d]{1,50}(?::| -| –) ?\(?\d{1,3}[.,]\d\d?\)?[ .;]*$")
_DECIMAL = re.compile(r"(?<![\d.,/])\d{1,3}[.,]\d{1,2}(?![\d/]|[.,]\d)")
_NO_BODY = frozenset({"indication", "technique", "comparison"})


_AFTER_SUV = re.compile(
    r"suv[ -]?(?:bw)?[ -]?\(?(?:max(?:imum)?)?\)?s?(?: values?){0,2} "
    r"(?:(?:is|are|was|were) [glqsrpu]|(?:(?:is|are|given|listed|shown) )?in [rspb])"
)
_BEFORE_SUV = re.compile(
    r"vus(?: \.?(?:mumi|lami)?xam)?(?:[ -]?wb)?(?:(?: lla| syawla| eht| sa nevig)* "
    r"(?:era|si|ot refer|tneserper|etoned|etacidni|naem|=) "
    r"| ?[:=] ?(?:s?(?:eulav|rebmun|erugif|tnemerusaem|vus|lamiced|ytisnetni)|seitisnetni)"
    r"|\W{1,3}(?:tamrof|noitaton|dnegel|yek))"
)
"""What every such sentence has after or, turned around, before its SUV word; few reports have it, and the search
for what begins with SUV is ten times as fast."""


@lru_cache(2)  # asked twice of every report
def declares_values(text: str) -> bool:
    """Whether the text says that its numbers are SUVs."""
    lower = text.lower()
    may = _AFTER_SUV.search(lower) is not None or _BEFORE_SUV.search(lower[::-1]) is not None
    return may and _DECLARED.search(text) is not None


def takes_bare_values(text: str, start: int, end: int, section: str | None) -> bool:
    """Whether the sentence at start..end of such a text can hold a bare SUV."""
    if section in _NO_BODY or _DECIMAL.search(text, start, end) is None:
        return False
    return _INDEX.search(text, start, end) is not None or _LABELLED.match(text[start:end]) is not None
