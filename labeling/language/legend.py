"""Legends: "[SUVmax (slice)]", "Nodes (SUVmax/slice):" say once what the number pairs of a list mean.

Under a legend, "left iliac 9.9 (248)", "9.9/248" and "9.9, 248" are a value and its slice, without a word at either.
"""

from __future__ import annotations

from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.mention import Scan, is_integer, is_number
from petground.labeling.language.tokens import Words

__all__ = ["find_legend", "take_pairs"]

_SIGNS = word_set("/ , ( ) [ ; : @ and at with - on axial pet number no .")
_COLUMNS = word_set(
    "change changes prior previous size sizes comment comments trend status interval remark remarks old"
)
_LINKS = word_set("( [ / , @ at - on ;")


def find_legend(words: Words, begin: int, stop: int) -> bool:
    """Whether an SUV word is followed by a slice word across signs alone, and no number by that."""
    lower = words.lower
    slices, heads = rule_words("mentions", "slice"), rule_words("mentions", "suv")
    kinds = rule_words("mentions", "qualifier")
    for index in [i for i, word in enumerate(lower[begin:stop], begin) if word in slices]:
        if index + 1 < stop and is_number(lower[index + 1]):
            continue
        back = index - 1
        while back >= begin and lower[back] in _SIGNS:
            back -= 1
        if back >= begin and back < index - 1 and (lower[back] in heads or lower[back] in kinds):
            after = index + 1
            while after < stop and lower[after] in _SIGNS:
                after += 1
            closed = after < stop and (lower[index + 1] in (")", "]", ":") or _heads(lower, index + 1, stop))
            more = after < stop and lower[index + 1] in ("/", ",", ";", "|") and lower[after] in _COLUMNS
            return after >= stop or closed or (more and lower[stop - 1] in (")", "]", ":"))
    return False


def _heads(lower: list[str], index: int, stop: int) -> bool:
    """Whether, as in "SUVmax/slice for the index lesions: adrenal 8.2/141", what it is told for ends in a colon."""
    if lower[index] not in ("for", "of", "in", "at"):
        return False
    told = lower[index : min(index + 8, stop)]
    return ":" in told and not any(is_number(word) or word in (",", ".", ";") for word in told[: told.index(":")])


def take_pairs(scan: Scan) -> None:
    """Takes the index of every "9.9 (248)" as a slice mention; its value is left to `find_values`."""
    for index in range(scan.begin, scan.stop):
        value = scan.word(index)
        if not is_number(value) or is_integer(value) or index in scan.taken or scan.word(index + 1) not in _LINKS:
            continue
        at = index + 2
        ends = scan.word(at + 1)
        if scan.free_int(at) and (ends in (")", "]", ",", ";", ".", "", "[", "and", "(", "/")):
            mention = scan.take("slice", at, at + 1)
            mention.indices, mention.index_spans = (int(scan.word(at)),), ((mention.start, mention.end),)
