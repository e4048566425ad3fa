"""Text that a model may read: the words of a finding with every SUV and slice cut out by its span."""

from __future__ import annotations

import re
from collections.abc import Iterable

from petground.labeling.finding import Span
from petground.labeling.language.lexicon import word_set

__all__ = ["make_prompt", "redact"]

_M = "\ue000"  # stands for a cut while the text around it is mended; a private-use character, never in a report


def _any_of(words: Iterable[str]) -> str:
    """An expression for any of the words, what begins alike told once: the engine tries one branch for a letter."""
    after: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        after.setdefault(word[:1], []).append(word[1:])
    ends = after.pop("", None) is not None
    branches = [letter + (_any_of(rest) if any(rest) else "") for letter, rest in after.items()]
    return f"(?:{'|'.join(branches)})" + "?" * ends


_LINKS = word_set(
    "and or to vs versus from then now today currently previously prior formerly earlier before was were is are at on "
    "in of with respectively compared up down also for it the an a both seen best"
)
_LINK = _any_of(_LINKS)
_LINK_OR_CLAUSE = _any_of(_LINKS | {"whereas", "while", "which"})
_MARKS = r"[,;:/&=<>~–—→.-]"
_LEAD = word_set(
    "and with on at of to from by an a the in its whose is was are were has have had having reach reaches reached "
    "reaching show shows showed showing demonstrates demonstrated demonstrating measures measured measuring best "
    "hottest seen noted see now today currently previously prior formerly versus vs compared than about approximately "
    "exceeding reads reading registers up high as axial centered centred located annotated most intense well lies "
    "spans extends over fallen risen went both present whereas while which it"
)
"""Words that lead to a value or a slice and say nothing without it."""
_DAEL = _any_of(word[::-1] for word in _LEAD)
_TWO_CUTS = re.compile(rf"{_M}(?:\s{{0,2}}(?:{_MARKS}|\b{_LINK}\b)){{0,6}}\s{{0,2}}(?={_M})", re.I)
_EMPTY = re.compile(rf"[(\[](?:\s{{0,2}}(?:{_M}|{_MARKS}|\b{_LINK_OR_CLAUSE}\b)){{0,12}}\s{{0,2}}[)\]]", re.I)
_FIRST = re.compile(r"^(?:and|plus|while|whereas|but|with|also|as well as|along with)\s(?=\w)", re.I)
# What leads to a cut is looked for backwards from it, in the text turned around: forwards the engine would try every
# word of the sentence as the first one.
_BEFORE = re.compile(rf"{_M}(?:[\s,]{{1,2}}\b{_DAEL}\b){{1,8}}", re.I)
_ENDS = re.compile(rf"{_M}[\s,;:]{{0,3}}(?:[.)\]]|$)")
_AT_END = re.compile(rf"(?:^|(?<=[.)\]]))[\s,;:]{{0,3}}{_M}(?:[\s,;:=&/–-]|\b{_DAEL}\b){{0,12}}", re.I)
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
_MARK = re.compile(rf" ?{_M} ?")
_HOLLOW = re.compile(r" ?[(\[] ?[)\]]")
_OPENED = re.compile(r"([(\[])[ ,;:=]{1,9}")
_CLOSING = re.compile(r"[ ,;:=]{1,9}([)\]])")
_TWO_SIGNS = re.compile(r"[,;:] ?[,;.:]")
_DOUBLED = re.compile(r"(?: ?[,;:]){1,9}(?= ?[,;.:])")
_SPACED = re.compile(r" ([,;.:)\]])")


def _mend(text: str) -> str:
    """Takes out the marks of the cuts and what hung on them: "with an", empty brackets, doubled commas."""
    bracketed = "(" in text or "[" in text
    several = text.count(_M) > 1
    if several:
        text = _TWO_CUTS.sub("", text)
    if bracketed:
        for _ in range(2):
            text = _without_empty(text)
            text = _TWO_CUTS.sub("", text) if several else text
    turned = _BEFORE.sub(_M, text[::-1])
    if _M in turned[-4:]:
        turned = _AT_START.sub("", turned[::-1])[::-1]
    text = turned[::-1]
    if _ENDS.search(text):
        text = _AT_END.sub("", turned)[::-1]
    text = _MARK.sub(" ", text)
    if bracketed:
        text = _HOLLOW.sub("", text)
    text = _RESPECTIVELY.sub("", text) if "respectively" in text else text
    if first := _FIRST.match(text):
        text = text[first.end() :]
    if bracketed:
        text = _CLOSING.sub(r"\1", _OPENED.sub(r"\1", text))
    if _TWO_SIGNS.search(text):
        text = _DOUBLED.sub("", text)
    text = " ".join(_SPACED.sub(r"\1", text).split())
    return (_balanced(text) if bracketed or ")" in text or "]" in text else text).strip(" ,;:-=/&")


def _without_empty(text: str) -> str:
    """Brackets that hold nothing but cuts and connecting words, replaced by one cut."""
    mark = f" {_M} " if _M in text else " "
    kept, place = [], 0
    for match in _EMPTY.finditer(text):
        kept += [text[place : match.start()].removesuffix(" "), mark]
        place = match.end()
    return "".join([*kept, text[place:]]) if kept else text


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
