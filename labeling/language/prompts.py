"""Text that a model may read: the words of a finding with every SUV and slice cut out by its span."""

from __future__ import annotations

import re
from collections.abc import Iterable

from petground.labeling.finding import Span

__all__ = ["make_prompt", "redact"]

_M = "\ue000"  # stands for a cut while the text around it is mended; a private-use character, never in a report
_LINK = (
    r"(?:and|or|to|vs|versus|from|then|now|today|currently|previously|prior|formerly|earlier|before|was|were|is|are|at|on|in|"
    r"of|with|respectively|compared|up|down|also|for|it|the|an|a|both|seen|best)"
)
_MARKS = r"[,;:/&=<>~–—→.-]"
_LEAD = (
    r"(?:and|with|on|at|of|to|from|by|an|a|the|in|its|whose|is|was|are|were|has|have|had|having|reach(?:es|ed|ing)?|show(?:s|ed|ing)?|"
    r"demonstrat(?:es|ed|ing)|measur(?:es|ed|ing)|best|hottest|seen|noted|see|now|today|currently|previously|prior|formerly|"
    r"versus|vs|compared|than|about|approximately|exceeding|reads|reading|registers|up|high|as|axial|centered|centred|located|"
    r"annotated|most|intense|well|lies|spans|extends|over|fallen|risen|went|to|both|present|reaching|whereas|while|which|it)"
)
_TWO_CUTS = re.compile(rf"{_M}(?:\s{{0,2}}(?:{_MARKS}|\b{_LINK}\b)){{0,6}}\s{{0,2}}(?={_M})", re.I)
_EMPTY = re.compile(
    rf"\s?[(\[](?:\s{{0,2}}(?:{_M}|{_MARKS}|\b(?:{_LINK}|whereas|while|which)\b)){{0,12}}\s{{0,2}}[)\]]", re.I
)
_FIRST = re.compile(r"^(?:and|plus|while|whereas|but|with|also|as well as|along with)\s(?=\w)", re.I)
_BEFORE = re.compile(rf"(?:\b{_LEAD}\b[\s,]{{1,2}}){{1,8}}(?={_M})", re.I)
_AT_END = re.compile(rf"(?:[\s,;:=&/–-]|\b{_LEAD}\b){{0,12}}{_M}[\s,;:]{{0,3}}(?=[.)\]]|$)", re.I)
_AT_START = re.compile(
    rf"^\W{{0,3}}{_M}(?:[\s,;:=.&/–-]|\b(?:of|in|is|was|are|noted|seen|on|at|with|within|for|and|the)\b){{0,8}}", re.I
)


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text without the characters of the spans, left-over brackets, commas and connecting words tidied.

    Spans may overlap and come in any order; what of them lies outside the text is ignored. Linear in the text.
    """
    kept: list[str] = []
    place = 0
    for start, end in sorted((max(0, a), min(len(text), b)) for a, b in spans):
        if end <= max(place, start):
            continue
        kept.append(text[place : max(start, place)])
        kept.append(f" {_M} ")
        place = end
    if not kept:
        return " ".join(text.split())
    kept.append(text[place:])
    return _mend(" ".join("".join(kept).split()))


_RESPECTIVELY = re.compile(r"[\s,;]{0,3}\brespectively\b")
_MARK = re.compile(rf"\s?{_M}\s?")
_BRACKETS = (
    (re.compile(r"\s?[(\[]\s?[)\]]"), ""),
    (re.compile(r"([(\[])[\s,;:=]{1,9}"), r"\1"),
    (re.compile(r"[\s,;:=]{1,9}([)\]])"), r"\1"),
)
_DOUBLED = re.compile(r"(?:\s?[,;:]){1,9}(?=\s?[,;.:])")
_SPACED = re.compile(r"\s([,;.:)\]])")


def _mend(text: str) -> str:
    """Takes out the marks of the cuts and what hung on them: "with an", empty brackets, doubled commas."""
    bracketed = "(" in text or "[" in text
    several = text.count(_M) > 1
    if several:
        text = _TWO_CUTS.sub("", text)
    if bracketed:
        for _ in range(2):
            text = _EMPTY.sub(f" {_M} " if _M in text else " ", text)
            text = _TWO_CUTS.sub("", text) if several else text
    text = _BEFORE.sub("", text)
    if _M in text[:4]:
        text = _AT_START.sub("", text)
    text = _AT_END.sub("", text)
    text = _MARK.sub(" ", text)
    if bracketed:
        text = _BRACKETS[0][0].sub("", text)
    text = _FIRST.sub("", _RESPECTIVELY.sub("", text) if "respectively" in text else text)
    if bracketed:
        for pattern, kept in _BRACKETS[1:]:
            text = pattern.sub(kept, text)
    text = _DOUBLED.sub("", text)
    text = _SPACED.sub(r"\1", text)
    text = " ".join(text.split())
    return (_balanced(text) if bracketed or ")" in text or "]" in text else text).strip(" ,;:-=/&")


def _balanced(text: str) -> str:
    """Drops brackets that lost their partner."""
    drop: set[int] = set()
    opened: list[int] = []
    for i, char in enumerate(text):
        if char in "([":
            opened.append(i)
        elif char in ")]":
            if opened:
                opened.pop()
            else:
                drop.add(i)
    drop.update(opened)
    return "".join(char for i, char in enumerate(text) if i not in drop) if drop else text


def make_prompt(text: str) -> str:
    """Any text with its SUV and slice mentions removed, for a user's own sentence. Never raises."""
    from petground.labeling.language.pipeline import build_pipeline

    doc = build_pipeline()(text)
    cut = [(m.start, m.end) for m in doc._.petground_mentions if m.kind in ("suv", "slice", "head", "series")]
    return redact(text, cut)
