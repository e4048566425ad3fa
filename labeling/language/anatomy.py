"""Component `petground_anatomy`: sites, lesion words, sides, reference tissues and normal organs.

Results: `doc._.petground_anatomy`, a list of Cue in order. Nodal stations
("4R") and sided abbreviations carry their side; vertebrae, ribs and segments are found by their form.
"""

from __future__ import annotations

from spacy.tokens import Doc

from petground.labeling.language.context import Cue
from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.mention import is_integer
from petground.labeling.language.phrases import phrase_index
from petground.labeling.language.tokens import Words, words_of

__all__ = ["POSITIONS", "anatomy_component", "find_anatomy"]

_ROMAN = word_set("i ii iii iv v vi vii viii ia ib iia iib iva ivb va vb")
_STATIONS = {"2", "4", "10", "11", "12", "13", "14", "1", "3", "8", "9"}
_SEGMENTS = ("segment", "segments")
_UNPAIRED = frozenset("56789")  # nodal stations without a side
_LESION_CODES = frozenset(("nt", "ntl", "tl"))  # "NT2": the second non-target lesion
_NUMBERED_MANY = ("levels", "stations", "segments", "zones")
_NUMBERED = ("level", "segment", "station", "zone", "seg", "segs", *_NUMBERED_MANY)
_VERTEBRAE = {"c": 8, "t": 13, "th": 13, "d": 12, "l": 6, "s": 5}


_ORDINALS = ("st", "nd", "rd", "th")
POSITIONS = rule_words("anatomy", "position")
"""Where at a place: "ant", "lat", "ax"."""

_OPENERS = frozenset({*_STATIONS, *_LESION_CODES, *_VERTEBRAE, *_NUMBERED, "r", "l", "both"})
"""First words of what `_by_form` reads, and of `_both`."""


def find_anatomy(words: Words, begin: int, stop: int) -> list[Cue]:
    """Anatomy between two tokens, without overlap, in order."""
    found: list[Cue] = []
    reached = begin
    listed = {a: (a, b, kinds) for a, b, kinds in phrase_index("anatomy").find(words, begin, stop)}
    first = begin
    if stop - begin > 2 and words.lower[begin] in _UNPAIRED and words.lower[begin + 1] in (":", "/", "|"):
        found.append(Cue(begin, begin + 1, {"site": "", "midline": "", "station": ""}))  # "7: SUVmax 5.5"
        reached = first = begin + 1
    lower = words.lower
    for index in [i for i, word in enumerate(lower[first:stop], first) if i in listed or word in _OPENERS]:
        if index < reached:
            continue
        cue = None
        if lower[index] in _OPENERS:
            cue = _both(words, index, listed) if lower[index] == "both" else _by_form(words, index, stop)
        if index in listed and (cue is None or cue.last < listed[index][1]):
            a, b, kinds = listed[index]
            cue = Cue(a, b, kinds)
            if "level" in lower[a:b] or lower[a] in _NUMBERED or lower[b - 1] in _SEGMENTS:
                if lower[b - 1] in _SEGMENTS and a < b - 1:
                    kinds = {**kinds, "midline": "", "segment": ""}  # "liver segment 6"
                cue = Cue(a, max(b, _after_level(words, b, stop)), kinds)
        if cue is not None and lower[index] == "d" and found and _is_score(words, index, stop):
            cue = None
        if cue is None or cue.first < reached:
            continue
        found.append(cue)
        found += _listed_stations(words, cue, stop)
        reached = found[-1].last
    return found


def _is_score(words: Words, index: int, stop: int) -> bool:
    """Whether "D5" behind a value, "SUVmax 6.6 (img 240) - D5", is a Deauville score and no vertebra."""
    lower = words.lower
    after = lower[index + 2] if index + 2 < stop else ""
    apart = lower[index - 1] in ("-", "–", "—", ",", ";", "(", ")", "=") and lower[index - 3] != "d"
    told = any(word.startswith("suv") for word in lower[max(0, index - 20) : index])
    return lower[index + 1] in ("1", "2", "3", "4", "5") and apart and told and after in ("", ".", ",", ";", ")", "]")


def _both(words: Words, index: int, listed: dict[int, tuple[int, int, dict[str, str]]]) -> Cue | None:
    """The side of "both hips", "both sacroiliac joints", "both lower lobes": a place in the plural."""
    if index in listed:
        return None
    place = next((listed[i] for i in (index + 1, index + 2) if i in listed), None)
    if place is None or "lesion" in place[2] or not {"site", "ref", "phys"} & place[2].keys():
        return None
    ends = words.lower[place[1] - 1 : place[1] + 1]
    return Cue(index, index + 1, {"side": "bilateral"}) if any(_plural(word) for word in ends) else None


def _plural(word: str) -> bool:
    return len(word) > 3 and word.endswith(("s", "ae", "a", "i")) and not word.endswith(("is", "us", "ss"))


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
    if word in _LESION_CODES:
        return Cue(index, index + 2, {"lesion": ""}) if glued and is_integer(follows) else None
    if word in _NUMBERED:
        named = index + 1 + (words.lower[index + 1 : index + 2] == ["."])
        last = _after_level(words, named, stop)
        return None if last == named else Cue(index, last, _numbered(words, word, last, last - named))
    if word in ("r", "l") and words.text[words.start[index]].isupper() and _stands_for_a_side(words, index, stop):
        return Cue(index, index + 1, {"side": "right" if word == "r" else "left", "letter": ""})
    return None


def _stands_for_a_side(words: Words, index: int, stop: int) -> bool:
    """Whether a capital R or L stands by itself: "R iliac", "L inf. ramus", "R 5th rib", "node (R)", "R: node"."""
    lower = words.lower
    before = lower[index - 1] if index else ""
    follows = lower[index + 1 : min(index + 3, stop)]
    if not follows:
        return False
    glued = words.glued(index + 1)
    if before in ("(", "[") and follows[0] in (")", "]"):
        return True
    if words.glued(index) and before not in ("(", "["):
        return False
    if glued:  # "R: node" opens a line or an item; "R.", "R/L" and "R>L" do not
        return follows[0] == ":" and before in ("", ".", ";", ",", "-", "•", "(", "*")
    if len(follows) > 1 and follows[0].isdecimal():
        return follows[1] in _ORDINALS
    return follows[0].isalpha() and (len(follows[0]) > 2 or follows[0] in POSITIONS)


def _numbered(words: Words, word: str, last: int, length: int) -> dict[str, str]:
    """Kinds of "segment 7", "station 4R", "level IIB" of which `length` tokens are the number."""
    if word.startswith("seg"):
        return {"site": "", "midline": "", "segment": ""}
    if length == 2 and words.lower[last - 1] in ("r", "l"):
        return {"site": "", "side": "right" if words.lower[last - 1] == "r" else "left", "station": ""}
    return {"site": "", "station": ""}


def _listed_stations(words: Words, cue: Cue, stop: int) -> list[Cue]:
    """The others of "stations 4R, 7 and 11L", "levels II and III"."""
    found: list[Cue] = []
    word = words.lower[cue.first]
    if word not in _NUMBERED_MANY:
        return found
    index = cue.last
    while index + 1 < stop and words.lower[index] in (",", "and", "&", "/", "or"):
        named = index + 1 + (words.lower[index] == "," and words.lower[index + 1] in ("and", "or"))
        last = _after_level(words, named, stop)
        if last == named:
            break
        kinds = _numbered(words, word, last, last - named)
        if word == "stations" and words.lower[last - 1] == "7":
            kinds["midline"] = ""  # subcarinal
        found.append(Cue(named, last, kinds))
        index = last
    return found


def anatomy_component(doc: Doc) -> Doc:
    """Finds the anatomy of the whole text."""
    words = words_of(doc)
    found = [cue for begin, stop in words.readable() for cue in find_anatomy(words, begin, stop)]
    doc._.petground_anatomy = found
    return doc
