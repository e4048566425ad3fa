"""Names that are known, and every way in which a report may write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from petground.pipeline.deid.words import folded, plain_letters, word_list

__all__ = ["is_word", "name_patterns"]

MOST_NAMES = 200  # per exam; a PACS that lists more operators than that is broken
_TITLE = (
    r"(?:(?:mr|mrs|ms|miss|dr|drs|prof|professor|doctor|mister|sir|herr|frau|patient|pt|name|family)\b\.?:?|"
    r"(?:by|physician|provider|clinician|radiologist|oncologist|surgeon|resident|fellow|attending|technologist|cc|to)"
    r"[ \t]?:)[ \t]{0,3}"
)
_SEP = r"(?:[ \t]{1,3}|[ \t]{0,2}[,^_][ \t]{0,2}|-|[ \t]?\n[ \t]{0,3})"
_UMLAUTS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ø": "oe", "Ø": "Oe", "å": "aa", "Å": "Aa"}
)

Patterns = Iterator[tuple[str, re.Pattern[str]]]


def name_patterns(names: Iterable[str]) -> Patterns:
    """Rule and pattern (group v is the name) for names as DICOM PN or as people write them."""
    told = [person for name in dict.fromkeys(names) for person in _people(name)][:MOST_NAMES]
    if not told:
        return
    people = [parts for parts, _ in told]
    several = [_together(*person) for person in told if len(person[0]) > 1 or not is_word(person[0][0])]
    if several:
        yield "known name, full", _whole_words("|".join(several))
    words = {part for parts in people for part in parts}
    sure = {part for part in words if not is_word(part)} | {made for parts in people for made in _log_ins(parts)}
    if sure:
        yield "known name", _whole_words(_written(sure))
    unsure = words - sure
    if unsure:
        yield (
            "known name, titled",
            re.compile(rf"(?<![^\W_]){_TITLE}(?P<v>{_written(unsure)})(?![^\W_])", re.IGNORECASE),
        )
    persons = {part for part in unsure if not _of_the_body(part)}
    if persons:
        yield "known name, in a sentence", re.compile(rf"(?<=[a-z,] )(?P<v>{_written(persons)})(?![^\W_]|:)")


def _together(parts: list[str], initials: set[str]) -> str:
    """Two or more of a person's names or initials side by side, in any order."""
    piece = rf"(?:{_written(parts)})"
    letters = initials | {letter.upper() for part in parts for letter in (part[0], plain_letters(part)[0])}
    either = "".join(sorted(letters))
    letter = rf"(?:(?-i:[{either}])\.?|[{either}]\.)"
    small = rf"(?:(?:{'|'.join(sorted(word_list('small')))})[ ]){{0,2}}"
    behind = rf"{piece}(?:{_SEP}{small}(?:{piece}|{letter}(?![^\W\d_]))){{1,5}}"
    before = rf"{letter}(?:[ -]?{letter})?[ \t]{{0,2}}{small}{piece}"
    # a middle initial is often in the text alone: Jane Q. Doe
    middle = rf"{piece} [^\W\d_]\.? {small}{piece}"
    return f"{middle}|{behind}|{before}"


def _log_ins(parts: list[str]) -> set[str]:
    """jdoe: the first letter of one name and another."""
    return {
        plain_letters(a)[0] + b
        for a in parts
        for b in parts
        if a != b and len(b) > 2 and " " not in b and not is_word(a[0] + b)
    }


def _whole_words(alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_])(?P<v>{alternatives})(?![^\W_])", re.IGNORECASE)


def _people(name: str) -> Iterator[tuple[list[str], set[str]]]:
    """Names and lone initials of each person, in DICOM's component groups, in "Doe, Jane" or "Dr. Jane A. Doe, MD"."""
    for group in re.split(r"[=\\;/&]| and ", name):
        whole: list[str] = []
        pieces: list[str] = []
        initials: set[str] = set()
        before = ""
        for word in re.findall(r"[^\W\d_]+(?:['’`-][^\W\d_]+)*", group):
            low = folded(word)
            if low in word_list("small"):
                before += f"{word} "
                continue
            if len(word) == 1:
                initials.add(word.upper())
            elif low not in word_list("noise") and low not in word_list("nobody"):
                whole.append(word)
                pieces += [before + word] if before else []
                pieces += [piece for piece in word.split("-") if len(piece) > 2 and "-" in word]
            before = ""
        found = list(dict.fromkeys([*whole, *pieces]))
        if found:
            yield found, initials


def _written(parts: Iterable[str]) -> str:
    forms = {form for part in parts for form in _spellings(part)}
    escaped = (re.escape(form) for form in sorted(forms, key=lambda f: (-len(f), f)))
    return "|".join(form.replace("'", "['’`]").replace(r"\ ", r"[\s-]{1,2}") for form in escaped)


@cache
def _spellings(part: str) -> tuple[str, ...]:
    """A name with and without accents, umlauts spelt out, with and without apostrophe and hyphen."""
    plain = part.replace("’", "'").replace("`", "'")
    forms = {plain, plain_letters(plain), plain_letters(plain.translate(_UMLAUTS))}
    for mark in "'-":
        if mark in plain:
            forms |= {form.replace(mark, other) for form in tuple(forms) for other in ("", " ")}
    return tuple(sorted(form for form in forms if form.strip()))


def is_word(part: str) -> bool:
    """Whether reports use it for something else."""
    low = folded(part.split()[-1])
    return len(low) < 3 or low in word_list("common") or low in word_list("protected") or low in word_list("never")


def _of_the_body(part: str) -> bool:
    low = folded(part.split()[-1])
    return low in word_list("protected") or low in word_list("body") or low in word_list("never")
