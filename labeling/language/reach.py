"""Which sentences can tell of an SUV: those with an SUV word and those that may go on about it.

Most of a report tells of no SUV. Sentences out of reach are not even cut into words unless a finding asks for them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cache
from unicodedata import normalize

from petground.labeling.language.declared import declares_values, takes_bare_values
from petground.labeling.language.lexicon import load_rules, phrases_of
from petground.labeling.language.sentences import Sentence
from petground.labeling.language.spelling import corrections

__all__ = ["find_reach", "has_suv_words", "trigger_words"]

_SHORT = 6  # words between blanks; no sentence of more of them is short by its tokens

_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"[^\W\d_]+")
_NO_LETTERS = {code: " " for code in range(128) if not chr(code).isalpha()}
_SPELT = re.compile(r"s(?:\.\s?u\.\s?v|ub\s+max)")
_VALUE_WORDS = ("value", "values", "val", "unit", "units")
"""Words of the long forms ("standardized uptake value") by which they are noticed; "uptake" alone is everywhere."""


@cache
def trigger_words() -> frozenset[str]:
    """Lower-case words without which a sentence has no SUV word, typing errors among them."""
    phrases = (p for rule in load_rules("mentions") if rule["kind"] == "suv" for p in phrases_of(rule))
    words = {p.lower() for p in phrases if _WORD.fullmatch(p)} | {"suv", "svu", *_VALUE_WORDS}
    return frozenset(words | {wrong for wrong, word in corrections().items() if word in words})


def _words(plain: str) -> list[str]:
    """Runs of letters; of ASCII text by the fast ways of `str`."""
    return plain.translate(_NO_LETTERS).split() if plain.isascii() else _WORD.findall(plain)


def has_suv_words(text: str) -> bool:
    """Whether there may be an SUV word at all: without one a text has no findings."""
    plain = (text if text.isascii() else normalize("NFKC", text)).lower()
    return "suv" in plain or not trigger_words().isdisjoint(_words(plain)) or _SPELT.search(plain) is not None


def _places(text: str) -> list[int]:
    """Where the SUV words of a text begin, in order. A few words are looked for, each by the fast search of `str`."""
    plain = text.lower()
    if len(plain) != len(text):  # a letter that has two in lower case
        plain = "".join(c if len(c.lower()) > 1 else c.lower() for c in text)
    places = [m.start() for m in _SPELT.finditer(plain)]
    for word in trigger_words().intersection(_words(plain)):
        at = plain.find(word)
        while at >= 0:
            end = at + len(word)
            if not (plain[at - 1 : at].isalpha() or plain[end : end + 1].isalpha()):
                places.append(at)
            at = plain.find(word, end)
    return sorted(places)


def find_reach(text: str, sentences: list[Sentence]) -> list[bool]:
    """For each sentence whether an SUV value can stand in it. A superset is harmless, a gap is not."""
    if not text.isascii() and normalize("NFKC", text) != text:
        return [True] * len(sentences)  # full-width letters, subscripts: places cannot be told apart cheaply
    places = _places(text)
    reach = [False] * len(sentences)
    if declares_values(text):
        reach = [takes_bare_values(text, s.start, s.end, s.section) for s in sentences]
    for n, sentence in enumerate(sentences):
        label, group = sentence.label, sentence.group
        if (
            sentence.cells
            or _any_between(places, sentence.start, sentence.end)
            or (label is not None and _any_between(places, *label))
            or (group is not None and _any_between(places, *group))
        ):
            reach[n] = True
            _forward(text, sentences, reach, n)
    return reach


def _any_between(places: list[int], start: int, end: int) -> bool:
    at = bisect_left(places, start)
    return at < len(places) and places[at] < end


def _forward(text: str, sentences: list[Sentence], reach: list[bool], n: int) -> None:
    """Goes on after sentence n as long as the talk of its SUV may: over numbers, over short sentences."""
    first = sentences[n]
    held = _DIGIT.search(text, first.start, first.end) is None  # a heading or a legend: to the end of its section
    for k in range(n + 1, len(sentences)):
        sentence = sentences[k]
        if held and sentence.section == first.section:
            reach[k] = True
            continue
        held = False
        if reach[k] and k > n + 1:
            return
        reach[k] = True
        long = len(text[sentence.start : sentence.end].split(None, _SHORT)) > _SHORT
        if long and _DIGIT.search(text, sentence.start, sentence.end) is None:
            return
