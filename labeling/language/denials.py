"""Sentences that deny a lesion or uptake at places, without any value: "No avid cervical or axillary nodes."

A sentence counts only if every word of it is known to keep to a plain denial: whatever hedges, compares, excepts or
looks back ("no other", "no longer", "except") is not among the words of `denied_words`, so it needs no rule; and only
if nothing else in the report tells of uptake where it denies it. What CT alone denies ("no enlarged nodes") does not
count, for a node may be small and avid.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from petground.labeling.finding import Denial
from petground.labeling.language.denied_places import find_places
from petground.labeling.language.denied_words import denies, tells_things
from petground.labeling.language.overlong import find_overlong
from petground.labeling.language.sections import Section, find_sections
from petground.labeling.language.sentences import Sentence, find_sentences
from petground.labeling.language.titles import earlier_titles, heading_kinds, heading_side
from petground.labeling.language.tokens import split_words
from petground.labeling.places import Place, is_part_of_body, may_lie_in, place_stems

__all__ = ["find_denials"]

LONGEST = 600
"""Characters of a sentence beyond which it is no plain denial."""
_SECTIONS = (None, "findings", "impression")
_MAY_DENY = re.compile(r"\b(?:no|not|non\w*|without|neither|negative|free)\b", re.I)
_TAKES_BACK = re.compile(
    r"\b(?:however|but|except\w*|although|though|only|one exception|aside from|apart from|other than|save for|besides|"
    r"excluding|barring|nevertheless|nonetheless|notwithstanding|yet|still)\b",
    re.I,
)
_TELLS_UPTAKE = re.compile(r"\b(?:uptake|activity|avid\w*|hypermetaboli\w+|accumulation|metasta\w+|suv\w*)\b", re.I)
_NOT_AVID = re.compile(
    r"\b(?:not?|non|without|never)[ -]+(?:(?:is|are|been|be|any|fdg|pet|tracer|radiotracer|significant\w*|"
    r"appreciabl\w*|definite\w*|abnormal\w*)[ -]+){0,3}(?:uptake|activity|avid\w*|hypermetaboli\w+|accumulation)\b",
    re.I,
)
_SAYS_NORMAL = re.compile(
    r"\b(?:physiolog\w+|excret\w+|expected|normal|unremarkable|reference|background|blood pool|symmetric|homogen\w+)",
    re.I,
)
_NODE = re.compile(r"\b(?:lymph|nod(?:e|es|al)\b|adenopath)", re.I)
_OTHER = re.compile(r"\b(?:lesion|mass|nodul|foc(?:us|i)\b|bon[ey]|osseous)", re.I)
_SAYS_MORE = re.compile(
    r"\b(?:avid|hypermetaboli\w+|abnormal|above|over|exceed\w*|focal|focus|foci|lesions?|nod(?:e|es|al|ule|ules|ular)|mass(?:es)?|"
    r"adenopathy|lymphadenopathy|metasta\w+|malignan\w+|tumou?rs?|neoplas\w+|recurren\w+|disease|suspicious|"
    r"asymmetric\w*|intense\w*|but|except\w*|however)\b",
    re.I,
)
_RANGE = re.compile(
    r"\b(?:[ivx]+[ab]?|[a-z]?\d{1,2}(?:st|nd|rd|th|[a-z])?) ?[-‐-―] ?(?:[ivx]+[ab]?\b|[a-z]?\d{1,2}(?!\d))", re.I
)
"""From one to another, "L1-L5": places between are not named."""
_ANATOMIC = re.compile(r"\b(?:CT\w?|CECT|LDCT|MRI?|MRT|computed tomograph\w+|ultraso\w+|radiograph\w*)\b", re.I)
_PET = re.compile(r"\bPET", re.I)
_BAD_TITLE = frozenset(
    ("prior", "then", "reference", "threshold", "versus", "change", "uncertain", "condition", "physio", "compare")
)


class _Read(NamedTuple):
    """A sentence that denies. denial: None where it names no place, or its heading does not let it count.

    whole: it speaks for all that lies under its heading, as its place is the heading's, or a part of the body.
    """

    sentence: Sentence
    denial: Denial | None
    whole: bool = False


def find_denials(text: str) -> list[Denial]:
    """Denials of a report, in order. Never raises; linear in the text; lines above `overlong.LIMIT` are not read."""
    for start, end in find_overlong(text):
        text = text[:start] + " " * (end - start - 1) + "\n" + text[end:]
    if _MAY_DENY.search(text) is None:
        return []
    read = [(one, _is_anatomic(text, of)) for of in find_sections(text) for one in find_sentences(text, [of])]
    earlier = earlier_titles(text, [sentence for sentence, _ in read])
    found: list[_Read] = []
    affirming: list[Sentence] = []
    for n, (sentence, anatomic) in enumerate(read):
        if sentence.section not in _SECTIONS:
            continue
        told = _read(text, sentence, earlier)
        if told is None and _affirms(text, sentence):
            affirming.append(sentence)
        if told is not None and told.denial is not None and not anatomic:
            behind = read[n + 1][0] if n + 1 < len(read) else None
            if behind is None or _TAKES_BACK.search(text, behind.start, behind.end) is None:
                found.append(told)
    return _not_told(text, found, affirming) if found else []


def _not_told(text: str, found: list[_Read], affirming: list[Sentence]) -> list[Denial]:
    """Those of which no other sentence says the contrary: at any of its places, or under the heading it speaks for."""
    titles = {title for one in affirming for title in _titles(one)}
    places = {place for one in affirming for place in _told_at(text, one)}
    told_of: dict[Place, bool] = {}
    denials = []
    for sentence, denial, whole in found:
        if denial is None or (whole and not titles.isdisjoint(_titles(sentence))):
            continue
        denied = [(site, side or "") for site, side in denial.places]
        for place in denied:
            if place not in told_of:
                told_of[place] = may_lie_in(place, places)
        if not any(told_of[place] for place in denied):
            denials.append(denial)
    return denials


def _is_anatomic(text: str, section: Section) -> bool:
    """Whether a section is of CT or MRI alone: "CT findings:", of which "findings" alone names the section."""
    before = re.split(r"[.:\n]", text[max(section.heading_start - 60, 0) : section.heading_start])[-1]
    return _of_ct(before + text[section.heading_start : section.start])


def _of_ct(title: str) -> bool:
    return _ANATOMIC.search(title) is not None and _PET.search(title) is None


def _affirms(text: str, sentence: Sentence) -> bool:
    """Whether a sentence that is no denial tells of uptake, and not plainly that it is normal."""
    span = (sentence.start, sentence.end)
    if _TELLS_UPTAKE.search(_NOT_AVID.sub("", text[slice(*span)])) is None:
        return False
    return _SAYS_NORMAL.search(text, *span) is None or _SAYS_MORE.search(text, *span) is not None


def _titles(sentence: Sentence) -> list[tuple[int, int]]:
    return [title for title in (sentence.label, sentence.group) if title is not None]


def _told_at(text: str, sentence: Sentence) -> list[Place]:
    """Places at which a sentence tells of uptake; where it names none, or "segment 4" alone, those of its heading."""
    span = (sentence.start, sentence.end)
    told = _places(text, span)
    if told and sentence.label is not None and span[0] <= sentence.label[0]:  # its own beginning
        told = _places(text, (sentence.label[1], span[1])) or told
    for title in () if told else _titles(sentence):
        told = told or _places(text, title)
    nodal = _NODE.search(text, *span) is not None and _OTHER.search(text, *span) is None
    return [(f"{site} node", side) for site, side in told] if nodal else told


def _places(text: str, span: tuple[int, int]) -> list[Place]:
    words = split_words(text, span)
    found = find_places(words, 0, len(words.lower)).found
    return [(site, side or "") for site, side in found if place_stems(site)]


def _read(text: str, sentence: Sentence, earlier: frozenset[tuple[int, int]]) -> _Read | None:
    """What a sentence denies; None where it is no plain denial."""
    span = (sentence.start, sentence.end)
    if sentence.cells or span[1] - span[0] > LONGEST or _MAY_DENY.search(text, *span) is None:
        return None
    words = split_words(text, span)
    title = sentence.label
    begin = 0
    if title is not None and span[0] <= title[0] and title[1] < span[1]:
        begin = words.at(title[1]) + 1  # behind its colon
    places = find_places(words, begin, len(words.lower))
    if not places.known or _RANGE.search(text, *span) is not None or tells_things(words.lower[:begin]):
        return None
    if not denies(words, begin, places.covered):
        return None
    nothing = _Read(sentence, None)
    if any(_of_ct(text[slice(*one)]) for one in _titles(sentence)):
        return nothing
    if not _BAD_TITLE.isdisjoint(heading_kinds(text, sentence, earlier)):
        return nothing
    told = " ".join(text[slice(*span)].split())
    found = places.found
    if not found:
        title = title or sentence.group
        if title is None:
            return nothing
        head = split_words(text, title)
        while head.lower and head.lower[-1] == ":":
            head.lower.pop()
        found = find_places(head, 0, len(head.lower), title=True).found
        if title[1] < span[0]:
            told = f"{' '.join(text[slice(*title)].split()).rstrip(' :')}: {told}"
    if not found or (heading_side(text, sentence) is not None and any(side is None for _, side in found)):
        return nothing  # "Left neck: No avid node at level II." does not say of which side level II is
    whole = not places.found or any(is_part_of_body(site) for site, _ in found)
    return _Read(sentence, Denial(tuple(found), span, text[slice(*span)], sentence.section, told), whole)
