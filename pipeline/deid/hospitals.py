"""Hospitals and practices in a text: the words around "Hospital", "Medical Center" and the like."""

from __future__ import annotations

import re
from collections.abc import Iterator

from petground.pipeline.deid.spans import Span
from petground.pipeline.deid.words import Word, Words, word_list

__all__ = ["hospital_spans"]

_PLACE = re.compile(
    r"\b(?:hospitals?|clinics?|medical (?:cent(?:er|re)|group|associates)|cancer (?:cent(?:er|re)|institute)|"
    r"health(?:care)? (?:system|network|partners|cent(?:er|re))|healthcare|infirmary|"
    r"imaging (?:cent(?:er|re)|associates|partners)|radiology (?:associates|group|partners|cent(?:er|re))|"
    r"oncology (?:associates|cent(?:er|re))|university|institute|universit(?:ä|ae?)tsklinikum|klinik(?:um|en)?|"
    r"krankenhaus|hôpital|ospedale|clínica|clinique|sanatorium)\b",
    re.IGNORECASE,
)
_OF = re.compile(r" (?:of|de|del|di|for|at) (?:the )?[^\W\da-zß-ÿ_][\w’'-]{1,30}(?: [^\W\da-zß-ÿ_][\w’'-]{1,30}){0,2}")
_NAME_BEHIND = re.compile(r" [^\W\da-zß-ÿ_][^\W\d_’'-]{2,30}")  # Klinikum Rosenhof
_FOREIGN = ("klinik", "univers", "hôp", "osp", "clín", "cliniq", "krank", "sanat")
_GAP = re.compile(r"[ \t]{1,2}|\. ?| ?& ?|-|, (?=univ)", re.IGNORECASE)
MOST_WORDS = 6


def hospital_spans(text: str, words: Words, *, flat: bool) -> Iterator[Span]:
    """Names of hospitals. flat: the text makes no use of capitals, so that capitals tell nothing."""
    for found in _PLACE.finditer(text):
        small = found[0].islower()
        if small and not flat:
            continue
        start, taken = _start(text, words, found, small)
        end = found.end()
        foreign = found[0].lower().startswith(_FOREIGN)
        behind = None if small else (_OF.match(text, end) or (_NAME_BEHIND.match(text, end) if foreign else None))
        if behind is not None and not _plain_word(behind[0]):
            end, taken = behind.end(), taken + 1
        if taken:
            yield Span(start, end, "hospital", "hospital", "[HOSPITAL]")


def _start(text: str, words: Words, found: re.Match[str], small: bool) -> tuple[int, int]:
    """Where the name begins, and how many of its words stand before the place word."""
    index, start, place, taken = words.first_at(found.start()) - 1, found.start(), found.start(), 0
    while index >= 0 and taken < MOST_WORDS:
        word = words.all[index]
        if not _GAP.fullmatch(text[word.end : place]):
            break
        if _of_name(word, small):
            start, taken = word.start, taken + 1
        elif not (word.low in word_list("hospital_links") and taken):
            break
        index, place = index - 1, word.start
    return start, taken


def _of_name(word: Word, small: bool) -> bool:
    if (
        word.low in word_list("not_hospital")
        or word.low in word_list("hospital_links")
        or word.low in word_list("never")
        or len(word.text) < 2
    ):
        return False
    if word.low in word_list("hospital_words"):
        return small or word.capital
    if small or word.capitals:
        return word.low not in word_list("common")
    return word.capital


def _plain_word(behind: str) -> bool:
    """'Hospital For Findings': what follows is no name."""
    last = behind.split()[-1].lower()
    return last in word_list("never") or last in word_list("common")
