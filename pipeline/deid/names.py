"""Names of people that nobody told us, by what stands before or behind them.

A name is believed where the place says that a person stands there: behind a title, in a signature, after "discussed
with", before a degree. How sure the place is decides which words are believed (`_Place`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from petground.pipeline.deid.spans import Span
from petground.pipeline.deid.words import Word, Words, load_rules, word_list

__all__ = ["NAME", "goes_on", "is_flat", "name_spans", "particles"]

LONGEST = 6  # words of one name, initials and particles included
NAME = "[NAME]"
FLAT = 0.005  # share of capitals below which a text makes no use of them
_GAP = re.compile(r"[ \t]{1,3}|\.[ \t]{0,2}|, ?|\^|-| ?[(\"] ?")
_LEAD = re.compile(r"[\s:._*#>=-]{0,24}")
_HEADING = re.compile(r"[ \t]{0,3}[:=]")
_LINE = re.compile(
    r"[^\S\n]{0,3}(?:[^\W\d_][^\W\d_'’.-]{0,30}(?:, | |\. ?|$)?){1,4}(?=\s{0,3}(?:$|\n|\d|\(|\[|,|on\b|ON\b))"
)


@cache
def _triggers() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    rules = load_rules("names")["rules"]
    return tuple((rule["name"], rule["strength"], re.compile(rule["pattern"], re.IGNORECASE)) for rule in rules)


@cache
def _degrees() -> re.Pattern[str]:
    return re.compile(rf"(?P<comma>,? )(?P<degree>{load_rules('names')['credentials']})(?![\w'’])")


@cache
def particles() -> frozenset[str]:
    """Small words within names: van, de, al."""
    return frozenset(load_rules("names")["particles"].split())


def is_flat(text: str) -> bool:
    """Whether a text is written in small letters throughout."""
    letters = sum(map(str.isalpha, text))
    return letters > 0 and sum(map(str.isupper, text)) <= FLAT * letters


def name_spans(text: str, words: Words, *, flat: bool) -> Iterator[Span]:
    """Names by their surroundings. flat: see `is_flat`."""
    for name, strength, trigger in _triggers():
        for found in trigger.finditer(text):
            span = _behind(text, words, found.end(), strength, flat)
            if span is not None:
                yield Span(*span, "name", name, NAME)
    for found in _degrees().finditer(text):
        start = _before(text, words, found)
        if start is not None:
            yield Span(start, found.start(), "name", "degree", NAME)


def _behind(text: str, words: Words, place: int, strength: str, flat: bool) -> tuple[int, int] | None:
    """The name that begins at `place`, after titles and signs; None when none does."""
    lead = _LEAD.match(text, place)
    place = lead.end() if lead else place
    at = words.first_at(place)
    while at < len(words.all) and words.all[at].start == place and words.all[at].low in word_list("titles"):
        strength = strength if words.all[at].low in word_list("degrees") else "title"
        place = _skipped(text, words.all[at].end)
        at += 1
    if at >= len(words.all) or words.all[at].start != place:
        return None
    taken = _taken(text, words, at, strength, flat, alone=strength == "label" and _alone(text, words, at, place, flat))
    if not taken or not any(len(word.text) > 1 and word.low not in particles() for word in taken):
        return None
    return taken[0].start, _end(text, taken[-1])


def _skipped(text: str, place: int) -> int:
    found = re.compile(r"[.,]{0,2}[ \t]{0,3}").match(text, place)
    return found.end() if found else place


def _alone(text: str, words: Words, at: int, place: int, flat: bool) -> bool:
    """A label whose line holds nothing but up to four (capitalised) words, none of them a role: that is a name."""
    line = _LINE.match(text, place)
    if line is None:
        return False
    inside = [word for word in words.all[at : at + 5] if word.end <= line.end()]
    return 0 < len(inside) <= 4 and all(
        (word.capital or flat or word.low in particles())
        and word.low not in word_list("roles")
        and word.low not in word_list("never")
        for word in inside
    )


def _taken(text: str, words: Words, at: int, strength: str, flat: bool, *, alone: bool) -> list[Word]:
    """The words of the name that begins with word `at`."""
    taken: list[Word] = []
    comma = False
    for word in words.all[at : at + LONGEST]:
        if taken:
            gap = text[taken[-1].end : word.start]
            if not goes_on(gap, taken[-1]) or ("," in gap and (comma or not _given_name(text, word, flat))):
                break
            comma = comma or "," in gap
        if not _believed(text, word, taken, strength, flat, alone):
            break
        taken.append(word)
    while taken and taken[-1].low in particles() and not taken[-1].capital:
        taken.pop()
    return taken


def goes_on(gap: str, last: Word) -> bool:
    """Whether what stands between two words lets a name go on; a full stop does behind an initial only."""
    if _GAP.fullmatch(gap) is None:
        return False
    return not gap.startswith(".") or len(last.text) <= 2 or last.low in ("jr", "sr", "st")


def _given_name(text: str, word: Word, flat: bool) -> bool:
    """DOE, JANE: what may stand behind the comma. No degree, no word of reports."""
    if word.low in word_list("titles") or (
        word.low in word_list("common") and word.low not in word_list("first_names")
    ):
        return False
    if _degrees().match(" " + text[word.start : word.start + 12]):
        return False
    return word.capital or flat or word.low in word_list("first_names")


def _believed(text: str, word: Word, before: list[Word], strength: str, flat: bool, alone: bool) -> bool:
    """Whether a word is (part of) a name in a place of this strength, behind the words already taken."""
    low, first = word.low, not before
    if _HEADING.match(text, word.end) and not (strength == "title" and first):
        return False
    if len(word.text) == 1:
        return word.text.isupper() or (flat and (not first or text[word.end : word.end + 2] == ". "))
    if low in particles():
        return not first or word.capital or strength != "weak"
    if low in word_list("titles") and not first:
        return False
    if alone:
        return low not in word_list("never") and low not in word_list("roles")
    plain = low not in word_list("common") and low not in word_list("protected")
    if word.capital:
        if first and strength == "title":
            return not word.capitals or low not in word_list("never") | word_list("not_second")
        if strength == "weak":
            given = any(w.low in word_list("first_names") for w in before) and low in word_list("protected")
            return (plain or given) and low not in word_list("never")
        if plain:
            return True
        return (
            bool(before)
            and len(before) < 3
            and low not in word_list("never")
            and low not in word_list("not_second")
            and (low in word_list("protected") or not word.capitals)
        )
    if strength == "weak" and not (
        flat and (low in word_list("first_names") or (before and plain and before[0].low in word_list("first_names")))
    ):
        return False
    if before and before[-1].capital and before[-1].low not in particles():
        return False
    if low in word_list("protected") and before:
        return True
    return (
        (plain or low in word_list("first_names")) and not low.endswith(("ing", "ed", "ly", "tion")) and len(before) < 5
    )


def _end(text: str, last: Word) -> int:
    """Without the 's of the owner."""
    return last.end - 2 if last.text.lower().endswith(("'s", "’s")) and len(last.text) > 3 else last.end


def _before(text: str, words: Words, found: re.Match[str]) -> int | None:
    """Where the name before a degree (", MD") begins. Without a comma or stops, MD and DO are words like others."""
    place = found.start()
    sure = "," in found["comma"] or "." in found["degree"]
    index = words.first_at(place) - 1
    if index < 0 or text[words.all[index].end : place].strip(" .") != "":
        return None
    start, taken, real = None, 0, 0
    while index >= 0 and taken < 5:
        word = words.all[index]
        if taken and not goes_on(text[word.end : words.all[index + 1].start], word):
            break
        named = word.low not in word_list("common") and word.low not in word_list("never")
        family = taken == 0 and sure and word.capital and not word.capitals and _name_before(words, index, text)
        if word.low in word_list("titles") or not (named or family or len(word.text) == 1):
            break
        if not (word.capital or word.low in particles() or (sure and word.low in word_list("first_names"))):
            break
        if not sure and not (word.capital and not word.capitals):
            break
        start = word.start if word.capital or word.low not in particles() else start
        real += len(word.text) > 1
        index, taken = index - 1, taken + 1
    return start if real else None


def _name_before(words: Words, index: int, text: str) -> bool:
    """'Jane Long, MD': a common word is a family name when a capitalised rare word stands before it."""
    if index == 0 or text[words.all[index - 1].end : words.all[index].start].strip(" .") != "":
        return False
    word = words.all[index - 1]
    return word.capital and (word.low not in word_list("common") or word.low in word_list("first_names"))
