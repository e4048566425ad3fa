"""A known name in a compound takes its neighbour with it: of Kowalczyk-Nowak or Kowalczyk/Nowak no half may stay.

What hyphen and stroke join to a name in reports is else a word of reports (Doe-like, right/left): it stays.
"""

from __future__ import annotations

import re

from petground.pipeline.deid.bare import looks_medical
from petground.pipeline.deid.people import is_word
from petground.pipeline.deid.words import folded, word_list

__all__ = ["whole_compound"]

_SMALL = "|".join(sorted(word_list("small")))
_WORD = rf"(?:(?:{_SMALL})[ -]){{0,3}}(?:[^\W\d_]\.[ ]?)?(?P<word>(?:[^\W\d_]['’])?[^\W\d_]{{2,}}(?:['’][^\W\d_]+)*)"
_JOINT = r"[ ]?[-‐‑–/][ ]?|[ ,(]{1,2}(?:née|nee|formerly)[ ]"
_AFTER = re.compile(rf"(?P<joint>{_JOINT}){_WORD}(?![^\W\d_])", re.IGNORECASE)
_BEFORE = re.compile(rf"(?<![^\W_]){_WORD}(?P<joint>{_JOINT})$", re.IGNORECASE)
_TITLED = re.compile(r"\b(?:mr|mrs|ms|miss|dr|prof|patient|pt|name|herr|frau)\b[.:]{0,2}[ ]{1,2}$", re.IGNORECASE)
_FARTHEST = 48  # characters looked at on a side
_SIDES = frozenset(("left", "right", "bilateral", "anterior", "posterior", "superior", "inferior"))


def whole_compound(text: str, start: int, end: int) -> tuple[int, int]:
    """Start and end of the compound that the known name text[start:end] is a part of."""
    own = text[start:end]
    while found := _BEFORE.search(text[max(0, start - _FARTHEST) : start]):
        first = start - len(found[0])
        if not _goes_along(found["word"], found["joint"], own, titled=_is_titled(text, first)):
            break
        start = first
    titled = _is_titled(text, start)
    while found := _AFTER.match(text, end, end + _FARTHEST):
        if not _goes_along(found["word"], found["joint"], own, titled=titled):
            break
        end = found.end()
    return start, end


def _is_titled(text: str, start: int) -> bool:
    return _TITLED.search(text[max(0, start - 12) : start]) is not None


def _goes_along(word: str, joint: str, own: str, *, titled: bool) -> bool:
    """Whether the neighbour is a name, written as the known one is. own: the known name in the text.

    titled: Mrs. or the like stands before the compound, so that what is joined without blanks is a name, too.
    """
    low, bare = folded(word), joint.strip(" ,(")
    if low in _SIDES or (low in word_list("protected") and not titled):
        return False
    tight, small = joint == bare, word.islower()
    core = re.sub(r"^(?:Ma?c|[^\W\d_]['’])(?=[A-Z])", "", word)  # McDonald, O'Brien, d'Aubigny
    capital = core[0].isupper() and core[1:].islower()
    if bare.isalpha():  # née Nowak
        return True
    if tight and titled:  # MRS. BUSH/RICH
        return True
    if low in word_list("body") or low in word_list("never"):
        return False
    if tight and bare == "-" and capital and not own.isupper():
        return True  # Doe-Long: no report writes a word with a capital behind a hyphen
    if is_word(low):
        return False
    if tight:
        return capital or (len(low) > 3 and (own.isupper() or (own.islower() and not looks_medical(low))))
    alike = titled and small == own.islower() and word.isupper() == own.isupper()
    return (capital or alike) and not looks_medical(low)  # a dash between blanks parts sentences, too
