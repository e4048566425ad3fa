"""Names that nothing announces: a first name with another name behind it, or two capitalised words no report uses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from petground.pipeline.deid.names import NAME, particles
from petground.pipeline.deid.spans import Span
from petground.pipeline.deid.words import Word, Words, word_list

__all__ = ["bare_name_spans", "looks_medical"]

_NEXT = re.compile(r"[ \t]{1,2}|\.[ \t]{1,2}|-")
_MEDICAL = re.compile(
    r"(?:itis|oma|omas|omata|osis|oses|ectomy|otomy|ostomy|emia|pathy|plasia|trophy|graphy|gram|scopy|ide|ine|mab|nib|tide|"
    r"rubicin|platin|taxel|al|ic|ical|ous|tion|sion|ary|ular|eal|oid|ase|ing|ed|ly|able|ible|ness|ment|ity|ism|scan|"
    r"logy|metry|therapy|static|genic|lytic|philic|avid|ation|iform|ostatic|ium|ate|uide|sis|tis|cyte|cytic|graft)$"
)


def bare_name_spans(text: str, words: Words, *, flat: bool) -> Iterator[Span]:
    """Names without surroundings; see above. flat: capitals tell nothing, so only first names do."""
    taken = -1
    for index, word in enumerate(words.all):
        if index <= taken or not (word.capital or flat):
            continue
        if word.low in word_list("first_names"):
            found = _behind_first_name(text, words, index, flat)
            if found is not None:
                last = found[1]
                taken = last
                yield Span(words.all[found[0]].start, words.all[last].end, "name", "first name", NAME)
        elif not flat and _strange(word) and index + 1 < len(words.all):
            at = index + 1
            while at + 1 < min(len(words.all), index + 4) and words.all[at].low in particles():
                at += 1
            other = words.all[at]
            gap = text[word.end : other.start]
            if re.fullmatch(r" (?:[^\W\d_]+[ '’-]){0,3}", gap) and _strange(other):
                if text[other.end : other.end + 2].strip(" ").startswith(":"):
                    continue
                taken = at
                yield Span(word.start, other.end, "name", "two rare words", NAME)


def _behind_first_name(text: str, words: Words, index: int, flat: bool) -> tuple[int, int] | None:
    """First and last word of a name that holds the first name `index`; None without a family name."""
    last, real = index, 0
    for at in range(index + 1, min(index + 5, len(words.all))):
        word, gap = words.all[at], text[words.all[last].end : words.all[at].start]
        if not _NEXT.fullmatch(gap) or (gap[0] == "." and len(words.all[last].text) > 1):
            break
        small = word.low in particles() or (len(word.text) == 1 and (word.text.isupper() or flat))
        eponym = at == index + 1 and word.low in word_list("protected")  # Thomas Hodgkin
        if not small and (not (word.capital or flat) or not (_rare(word) or eponym)):
            break
        if not small and flat and len(word.text) < 3:
            break
        real += not small
        last = at
        if real == 2:
            break
    first = index
    if index and text[words.all[index - 1].end : words.all[index].start] == ", ":
        family = words.all[index - 1]
        if family.capital and _rare(family) and len(family.text) > 1:
            first, real = index - 1, real + 1
    while last > index and words.all[last].low in particles() and not words.all[last].capital:
        last -= 1
    return (first, last) if real and not (word_list("never") & {words.all[last].low}) else None


def _rare(word: Word) -> bool:
    return (
        word.low not in word_list("common")
        and word.low not in word_list("protected")
        and word.low not in word_list("never")
    )


def _strange(word: Word) -> bool:
    """Begins with one capital, is known from no report and does not end like a medical word."""
    if not word.capital or word.capitals or len(word.text) < 3 or not _rare(word):
        return False
    if re.search(r"[^\W\d_][A-Z]", word.text) and not re.match(r"(?:Mc|Mac|O['’]|D['’]|[A-Z][^\W\d_]+-)", word.text):
        return False  # RadioGenix, NetSpot
    return not looks_medical(word.low) and word.low.rstrip("s") not in word_list("common")


def looks_medical(low: str) -> bool:
    """Whether a folded word ends like those of medicine: -itis, -oma, -ectomy, -mab."""
    return _MEDICAL.search(low.rstrip("s")) is not None
