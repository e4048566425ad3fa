"""Where the talk before the findings ends in a report that has no FINDINGS heading.

A heading such as COMPARISON speaks for what follows it, up to the next known heading. Many reports go from it straight
into the body ("COMPARISON: None.\\n\\nChest: ..."), and a value of the body must not be read as one of an earlier exam.
"""

from __future__ import annotations

import re

from petground.labeling.language.anatomy import find_anatomy
from petground.labeling.language.lexicon import word_set
from petground.labeling.language.tokens import split_words

__all__ = ["PREAMBLE", "end_of_preamble"]

PREAMBLE = frozenset({"indication", "technique", "comparison"})
"""Sections whose values are not this exam's."""

_END = re.compile(r"[.;!?][\"')\]]?(?=[ \t]+[A-Z0-9(])|[.!?]?[ \t]*\n(?=[ \t]*\n|[ \t]*[A-Z0-9(<\[*•-])")
_LABEL = re.compile(
    r"[\n.;](?:(?<=\n)[ \t]*(?:[-*•<\[]{1,3}[ \t]*)?|(?<=[.;])[ \t]+)"
    r"([A-Za-z][A-Za-z/&,() \-]{2,40}?)[>\]]?:(?!\d)"
)
_MODALITIES = word_set("ct mri mr pet petct spect ultrasound us xray radiograph mammogram scan biopsy surgery")


def end_of_preamble(text: str, start: int, end: int, *, findings_follow: bool) -> int:
    """Character in start..end at which a section of PREAMBLE gives way to the body; `end` when it does not.

    findings_follow: a FINDINGS heading comes later, so that only a label naming a part of the body ("Chest:") ends it;
    else its first sentence or line ends it.
    """
    begin = start + len(text[start:end]) - len(text[start:end].lstrip())
    places = [end]
    for match in _LABEL.finditer(text, begin, end):
        words = split_words(match.group(1))
        if _MODALITIES.isdisjoint(words.lower) and find_anatomy(words, 0, len(words.lower)):
            places.append(match.start(1))
            break
    if not findings_follow:
        ends = _END.search(text, begin, end)
        if ends is not None:
            places.append(ends.end())
    return min(places)
