"""The places that a plain denial names: "left axillary, hilar or mediastinal nodes" are three, one with a side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from petground.labeling.finding import Laterality
from petground.labeling.language.anatomy import find_anatomy
from petground.labeling.language.lexicon import word_set
from petground.labeling.language.tokens import Words

__all__ = ["PARTS", "Places", "find_places"]

MANY = 20
"""Places beyond which a sentence is none."""
_KINDS = frozenset(("site", "sided", "ref", "phys"))
_NO_PLACE = word_set("blood pool background port stent graft phantom nodal pooling")
"""Anatomy that is no place of a lesion: what is compared with, what was put in, and what lies anywhere."""
PARTS = word_set(
    "gland glands lobe lobes wall walls segment segments joint joints head base apex apical back cord lip fissure dome "
    "floor tail body sinus anastomosis upper lower superior inferior anterior posterior proximal distal mid middle "
    "medial lateral internal external deep common muscle muscles marrow axial appendicular"
)
"""Words that tell a place only with another one: "the tail of the pancreas", "proximal femora"."""
_MORE = word_set("femora extremities extremity")
"""Places that no value is told of in these words."""
_JOINS = word_set("or and / &")
_IN_TITLES = _JOINS | word_set(", region regions area the soft tissue tissues structures lymph node nodes -")


@dataclass
class Places:
    """The anatomy of a stretch of words.

    found: places in order, each once. covered: by token, whether it tells a place or a side. known: False where a
    place is none by itself ("the wall"), or there are too many.
    """

    found: list[tuple[str, Laterality | None]] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    known: bool = True


@dataclass
class _Run:
    """Neighbouring words of one place. first, last: tokens, end exclusive; named: those of its name, vague or not."""

    first: int
    last: int
    named: list[int] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)


def find_places(words: Words, begin: int, stop: int, *, title: bool = False) -> Places:
    """Places between two tokens. title: that must be all there is; none otherwise."""
    marks, sides = _marked(words, begin, stop)
    places = Places(covered=[mark in ("site", "side", "vague") for mark in marks])
    if title and any(not mark and words.lower[begin + n] not in _IN_TITLES for n, mark in enumerate(marks)):
        return places
    runs = _runs(words, begin, marks, sides)
    told = [run for run in runs if "site" in run.marks]
    alone = [run for run in runs if run.marks == {"side"}]
    places.known = len(told) <= MANY and not any("vague" in run.marks and "site" not in run.marks for run in runs)
    for run in told if places.known else ():
        labels = set(run.sides)
        labels |= {label for one in alone for label in one.sides if _joined(words, one.last, run.first)}
        if not labels and len(told) == 1:
            labels = {label for one in alone for label in one.sides}  # "in the neck on the left"
        side = None if not labels else labels.pop() if len(labels) == 1 else "bilateral"
        site = " ".join(words.text[words.start[run.named[0]] : words.end[run.named[-1]]].lower().split())
        place = (site, cast("Laterality | None", side))
        if place not in places.found:
            places.found.append(place)
    return places


def _marked(words: Words, begin: int, stop: int) -> tuple[list[str], dict[int, str]]:
    """By token "site", "side", "vague" (anatomy that needs another word), "part" or "", and the sides by token."""
    lower = words.lower
    marks = ["part" if word in PARTS else "" for word in lower[begin:stop]]
    sides: dict[int, str] = {}
    for cue in find_anatomy(words, begin, stop):
        kinds = cue.kinds
        label = kinds.get("side") or kinds.get("sided")
        both = lower[cue.first] == "both" and cue.last - cue.first > 1 and lower[cue.last - 1] != "sides"
        place = both or "noside" in kinds or not _KINDS.isdisjoint(kinds)
        if not (place or label) or not _NO_PLACE.isdisjoint(lower[cue.first : cue.last]):
            continue
        for index in range(cue.first, cue.last):
            vague = marks[index - begin] in ("part", "vague")
            marks[index - begin] = "side" if not place else "vague" if vague else "site"
        if both:
            marks[cue.first - begin] = "side"
        if label and "noside" not in kinds:
            sides[cue.first] = label
    for index in range(begin, stop):
        if lower[index] in _MORE:
            marks[index - begin] = "site"
    for index in range(begin + 1, stop - 1):
        if lower[index] in _JOINS and (lower[index - 1], lower[index + 1]) == ("head", "neck"):
            marks[index - begin] = "part"  # one place
    return marks, sides


def _runs(words: Words, begin: int, marks: list[str], sides: dict[int, str]) -> list[_Run]:
    runs: list[_Run] = []
    for index, mark in enumerate(marks, begin):
        if not mark:
            continue
        if not runs or not _goes_on(words, runs[-1].last, index):
            runs.append(_Run(index, index + 1))
        run = runs[-1]
        run.last = index + 1
        run.marks.add(mark)
        if mark != "side":
            run.named.append(index)
        if index in sides:
            run.sides.append(sides[index])
    return runs


def _goes_on(words: Words, last: int, index: int) -> bool:
    """Whether nothing lies between, a hyphen, or the "of the" of "the tail of the pancreas"."""
    between = words.lower[last:index]
    hyphen = between == ["-"] and words.glued(last) and words.glued(index)
    return not between or hyphen or between in (["of"], ["of", "the"])


def _joined(words: Words, last: int, first: int) -> bool:
    """Whether a side and a place share the place's name: "in the left or right axilla"."""
    return first - last == 1 and words.lower[last] in _JOINS
