"""Component `petground_sections`: INDICATION, TECHNIQUE, COMPARISON, FINDINGS, IMPRESSION in their many forms.

Results: `doc._.petground_sections` (a list of Section that covers the text) and the span group `petground_sections`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from spacy.tokens import Doc

from petground.labeling.language.lexicon import load_rules, phrases_of
from petground.labeling.language.preamble import PREAMBLE, end_of_preamble
from petground.labeling.language.tokens import span_of, words_of

__all__ = ["Section", "find_sections", "sections_component"]

# A heading stands at the start of a line, or in capitals or after a full stop within one; what follows it is ":" (or
# the end of the line). Bounded repeats only: linear in the text.
_LINE_HEAD = re.compile(
    r"^[ \t]*(?:[*#_>]{1,3}[ \t]*)?([A-Za-z][A-Za-z/&, \-]{1,60}?)(?:[ \t]*\([^()\n]{0,80}\))?[ \t]*(?:\*\*)?[ \t]*"
    r"(:|-{1,2}(?=[ \t\n])|\.?(?=[ \t]*$))",
    re.M,
)
# These two are looked for in the text turned around, from their colon on: a text has few colons and many words. What
# stands before them is asked after in `_set_apart`.
_INLINE_HEAD = re.compile(r":[ \t]?((?:[A-Za-z/&]{1,20}[ ]){0,4}[A-Za-z/&]{2,20}[A-Z])")
_CAPITALS = re.compile(
    r":[ \t]{0,3}(?:\)[^()\n]{0,60}\()?[ \t]{0,3}((?:[A-Z]{2,20}[ /&]{1,3}){0,4}[A-Z]{4,20})(?![A-Za-z])"
)


_PARAGRAPH = (
    r"[ \t]*(findings|impression|conclusion|technique|comparison|indication|history)"
    r"[ \t]{1,3}([A-Za-z]+)"
)
# Begins with a line end, which the engine finds ten times as fast as one of several beginnings.
_DICTATED = re.compile(r"\n[ \t]*\n" + _PARAGRAPH, re.I)
_DICTATED_FIRST = re.compile(_PARAGRAPH, re.I)
"""A paragraph of run-on dictation that begins with its heading: "impression partial response of ..."."""
_RUNS_ON = frozenset(
    [
        "of",
        "is",
        "are",
        "was",
        "were",
        "be",
        "on",
        "in",
        "at",
        "and",
        "or",
        "that",
        "the",
        "has",
        "have",
        "had",
        "were",
        "remain",
        "remains",
        "may",
        "can",
        "as",
    ]
)


@dataclass(frozen=True)
class Section:
    """name: canonical, lower case; None before the first heading and in a body without one. start..end: its text;
    heading_start: its title."""

    name: str | None
    heading_start: int
    start: int
    end: int


@cache
def _names() -> dict[str, str]:
    return {phrase: rule["name"] for rule in load_rules("sections") for phrase in phrases_of(rule)}


def find_sections(text: str) -> list[Section]:
    """Sections in order; the whole text is one nameless section when no heading is known. Never raises."""
    heads: dict[int, tuple[int, str]] = {}
    names = _names()
    for match in _LINE_HEAD.finditer(text):
        name = names.get(" ".join(match.group(1).lower().split()))
        if name is None and match.group(2) == ":":
            name = _compound(match.group(1))
        if name is not None and not _in_sentence(text, match):
            heads.setdefault(match.start(1), (match.end(), name))
    turned, size = text[::-1], len(text)
    for pattern in (_INLINE_HEAD, _CAPITALS):
        for match in pattern.finditer(turned):
            start, end = size - match.end(1), size - match.start()
            name = names.get(" ".join(match.group(1)[::-1].lower().split()))
            if name is not None and (pattern is _CAPITALS or _set_apart(text, start)):
                heads.setdefault(start, (end, name))
    first = _DICTATED_FIRST.match(text)
    for match in (*([first] if first else ()), *_DICTATED.finditer(text)):
        if match.group(2).lower() not in _RUNS_ON:
            heads.setdefault(match.start(1), (match.end(1), _names()[match.group(1).lower()]))
    sections: list[Section] = []
    places = sorted(heads)
    if not places or text[: places[0]].strip(" \t\n*#_>"):
        sections.append(Section(None, 0, 0, places[0] if places else len(text)))
    last_body = max((place for place in places if heads[place][1] == "findings"), default=-1)
    for place, after in zip(places, [*places[1:], len(text)], strict=False):
        end, name = heads[place]
        start = min(end, after)
        stop = end_of_preamble(text, start, after, findings_follow=place < last_body) if name in PREAMBLE else after
        sections.append(Section(name, place, start, stop))
        if text[stop:after].strip():
            sections.append(Section(None, stop, stop, after))
        elif stop < after:
            sections[-1] = Section(name, place, start, after)
    return sections


def _set_apart(text: str, start: int) -> bool:
    """Whether what begins here stands after two blanks, the end of a sentence, a bracket or a line."""
    lead = start
    while lead and text[lead - 1] in " \t":
        lead -= 1
    return start - lead >= 2 or text[lead - 1 : lead] in tuple(".;!?\n)")


@lru_cache(4096)  # titles recur from report to report
def _compound(title: str) -> str | None:
    """Reads "FDG PET/CT FINDINGS", "Clinical history and indication": the last known word of a short title counts."""
    words = re.split(r"[ /&,]+", title.lower().strip())
    known = [_names()[w] for w in words if w in _names()]
    return known[-1] if len(words) <= 6 and known and (words[-1] in _names() or words[0] in _names()) else None


def _in_sentence(text: str, match: re.Match[str]) -> bool:
    """A title without a colon must be alone on its line and not the tail of a wrapped sentence."""
    if match.group(2) == ":":
        return False
    if match.group(2).startswith("-"):
        return not match.group(1).isupper()
    before = text[max(match.start() - 40, 0) : match.start()].rstrip(" \t")[-2:]
    dictated = before in ("", "\n\n")  # without capitals, on a line of its own after a blank one
    return (bool(before.strip()) and not before.endswith("\n")) or not (dictated or match.group(1)[:1].isupper())


def sections_component(doc: Doc) -> Doc:
    """Finds the sections of the text."""
    found = find_sections(words_of(doc).text)
    doc._.petground_sections = found
    spans = (span_of(doc, s.start, s.end, s.name or "") for s in found)
    doc.spans["petground_sections"] = [span for span in spans if span is not None]
    return doc
