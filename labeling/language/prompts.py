"""Text that a model may read: the words of a finding with every SUV and slice cut out by its span."""

from __future__ import annotations

import re
from collections.abc import Iterable

from petground.labeling.finding import Span

__all__ = ["redact"]

_BRACKET = re.compile(r"[(\[{][\s,;:.=/&-]{0,12}(?:(?:and|on|at|in|of|with|now|was|previously|currently|from|to|versus|vs|is|series|respectively|SUV)[\s,;:.=-]{0,6}){0,3}[)\]}]", re.I)
_DANGLING = (
    r"(?:and|or|with|on|at|of|to|from|by|is|was|are|were|has|have|had|an|a|the|in|demonstrat(?:es|ing)|show(?:s|ing|n)?|reach(?:es|ing)?|"
    r"measur(?:es|ing)|best|seen|noted|see|now|today|currently|previously|prior|formerly|earlier|before|versus|vs|compared|than|"
    r"respectively|whose|its|that|which|it|up|as|high|about|approximately|exceeding|reads|reading|down|hottest|values?)"
)
_BEFORE_STOP = re.compile(rf"(?:[\s,;:=~<>(\[-]|\b{_DANGLING}\b\.?){{1,14}}(?=\s{{0,3}}(?:[.;]|$))", re.I)
_BEFORE_MARK = re.compile(rf"\s(?:{_DANGLING}\s?){{1,6}}(?=\s{{0,3}}[,)\]])", re.I)
_START = re.compile(rf"^(?:[\s,;:.=)\]&/>-]|\b(?:and|with|on|of|at|in|is|was|has|from|to|versus|vs|plus|which|that|previously|now|respectively)\b){{1,12}}", re.I)


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text without the characters of the spans, left-over brackets, commas and connecting words tidied.

    Spans may overlap and come in any order; those outside the text are cut to it.
    """
    kept: list[str] = []
    place = 0
    for start, end in sorted((max(0, a), min(len(text), b)) for a, b in spans):
        if end <= place:
            continue
        kept.append(text[place : max(start, place)])
        kept.append(" ")
        place = end
    kept.append(text[place:])
    return tidy("".join(kept)) if place else " ".join(text.split())


def tidy(text: str) -> str:
    """Mends what cutting leaves behind: empty brackets, doubled commas, "with an ," and the like."""
    text = " ".join(text.split())
    for _ in range(3):
        before = text
        text = _BRACKET.sub(" ", text)
        text = _BEFORE_MARK.sub(" ", text)
        text = re.sub(r"([(\[])[\s,;:=]+", r"\1", text)
        text = re.sub(r"[\s,;:=]+([)\]])", r"\1", text)
        text = re.sub(r"(?:\s?[,;](?=\s?[,;.)]))", "", text)
        text = re.sub(r"\s+([,;.:)\]])", r"\1", text)
        text = re.sub(r":\s*,", ":", text)
        text = _BEFORE_STOP.sub("", text)
        text = _START.sub("", text)
        text = " ".join(text.split())
        if text == before:
            break
    return text.strip(" ,;:-=/&")


def make_prompt(text: str) -> str:
    """Any text with its SUV and slice mentions removed, for a user's own sentence. Never raises."""
    from petground.labeling.language.pipeline import build_pipeline

    doc = build_pipeline()(text)
    cut = [(m.start, m.end) for m in doc._.petground_mentions if m.kind in ("suv", "slice", "head", "series")]
    return redact(text, cut)
