"""Component `petground_anatomy`: sites, lesion words, sides, reference tissues and normal organs.

Results: `doc._.petground_anatomy`, a list of Cue in order. Nodal stations
("4R") and sided abbreviations carry their side; vertebrae, ribs and segments are found by their form.
"""

from __future__ import annotations

from spacy.tokens import Doc

from petground.labeling.language.context import Cue
from petground.labeling.language.lexicon import phrase_index, word_set
from petground.labeling.language.mention import is_integer
from petground.labeling.language.tokens import Words, words_of

__all__ = ["anatomy_component", "find_anatomy"]

_ROMAN = word_set("i ii iii iv v vi vii viii ia ib iia iib iva ivb va vb")
_STATIONS = {"2", "4", "10", "11", "12", "13", "14", "1", "3"}
_VERTEBRAE = {"c": 8, "t": 13, "th": 13, "d": 12, "l": 6, "s": 5}


def find_anatomy(words: Words, begin: int, stop: int) -> list[Cue]:
    """Anatomy between two tokens, without overlap, in order."""
    found: list[Cue] = []
    reached = begin
    listed = {a: (a, b, kinds) for a, b, kinds in phrase_index("anatomy").find(words, begin, stop)}
    index = begin
    while index < stop:
        cue = _by_form(words, index, stop)
        if cue is None and index in listed:
            a, b, kinds = listed[index]
            cue = Cue(a, b, kinds)
            if "level" in words.lower[a:b] or words.lower[a] in ("segment", "station", "zone", "segments", "levels"):
                cue = Cue(a, max(b, _after_level(words, b, stop)), kinds)
        if cue is None or cue.first < reached:
            index += 1
            continue
        found.append(cue)
        reached = index = cue.last
    return found


def _after_level(words: Words, index: int, stop: int) -> int:
    if index < stop and (
        words.lower[index] in _ROMAN or (is_integer(words.lower[index]) and len(words.lower[index]) < 3)
    ):
        index += 1
        if index < stop and words.glued(index) and len(words.lower[index]) <= 2 and words.lower[index].isalpha():
            index += 1
    return index


def _by_form(words: Words, index: int, stop: int) -> Cue | None:
    """T8, L3-4, 4R, level IIB, segment 4A, 5th rib, single-letter sides before a noun."""
    word = words.lower[index]
    follows = words.lower[index + 1] if index + 1 < stop else ""
    glued = index + 1 < stop and words.glued(index + 1)
    if word in _VERTEBRAE and glued and is_integer(follows) and 0 < int(follows[:4]) < _VERTEBRAE[word]:
        last = index + 2
        if last + 1 < stop and words.lower[last] in ("-", "/", "–"):
            step = last + 1 + (words.lower[last + 1] in _VERTEBRAE)
            if step < stop and is_integer(words.lower[step]) and words.glued(step):
                last = step + 1
        return Cue(index, last, {"site": "", "midline": "", "spine": ""})
    if (
        word in _STATIONS
        and glued
        and follows in ("r", "l")
        and not (index + 2 < stop and words.glued(index + 2) and words.lower[index + 2].isalnum())
    ):
        return Cue(index, index + 2, {"site": "", "side": "right" if follows == "r" else "left", "station": ""})
    if word in ("level", "levels", "segment", "station", "zone", "stations"):
        last = _after_level(words, index + 1, stop)
        if last == index + 1:
            return None
        kinds = {"site": "", **({"midline": ""} if word == "segment" else {})}
        if last == index + 3 and words.lower[last - 1] in ("r", "l") and word != "segment":
            kinds["side"] = "right" if words.lower[last - 1] == "r" else "left"
        return Cue(index, last, kinds)
    if (
        word in ("r", "l")
        and words.text[words.start[index]].isupper()
        and follows.isalpha()
        and len(follows) > 2
        and not glued
    ):
        return Cue(index, index + 1, {"side": "right" if word == "r" else "left", "letter": ""})
    return None


def anatomy_component(doc: Doc) -> Doc:
    """Finds the anatomy of the whole text."""
    words = words_of(doc)
    found = [cue for begin, stop in words.readable() for cue in find_anatomy(words, begin, stop)]
    doc._.petground_anatomy = found
    return doc
