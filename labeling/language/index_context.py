"""What stands around a slice number: plane, modality, series, and whether it is named as the best of several."""

from __future__ import annotations

from petground.labeling.language.lexicon import load_rules, phrases_of, rule_words
from petground.labeling.language.mention import Mention, Scan, is_integer

__all__ = ["MODALITIES", "PLANES", "look_around", "skip", "words_for"]


def _labels(kind: str) -> dict[str, str]:
    return {
        p: str(rule.get("label")) for rule in load_rules("mentions") if rule["kind"] == kind for p in phrases_of(rule)
    }


PLANES = _labels("plane")
MODALITIES = _labels("modality")


def look_around(scan: Scan, mention: Mention) -> None:
    """Plane, modality, series and `best` from the words before and after the numbers."""
    modifiers = words_for("modifier") | {"(", ",", "ct", "pet", "/", "fused", "series", "attenuation", "corrected"}
    first = mention.first
    for index in range(mention.first, mention.last):
        _note(scan.word(index), mention)
    back = first - 1
    while back >= scan.begin and first - back <= 6 and back not in scan.taken:
        word = scan.word(back)
        if word in PLANES or word in MODALITIES or word in ("/", "ac", "nac", "fused", "attenuation", "corrected", "-"):
            _note(word, mention)
            if word != "-":
                first = back
            back -= 1
        else:
            break
    for index in range(first, mention.first):
        scan.taken[index] = "slice"
    mention.first = first
    mention.start = scan.words.start[first]
    while scan.word(back) in modifiers and back > first - 4:
        back -= 1
    near = [scan.word(i) for i in range(max(scan.begin, back - 4), first)]
    cut = max((i for i, w in enumerate(near) if w in (",", ";", ")", "(", ".") or w[:1].isdecimal()), default=-1)
    mention.best = any(w in words_for("best") for w in near[cut + 1 :])
    _trailing(scan, mention)


def _trailing(scan: Scan, mention: Mention) -> None:
    """Reads "of series 3", "(coronal)", "on the sagittal images", "of 263" after the numbers."""
    index = skip(scan, mention.last, {"of", "in", "on", "the", "(", ",", "from"}, 3)
    word = scan.word(index)
    if word in words_for("series") and scan.free_int(index + 1) and mention.series is None:
        mention.series = int(scan.word(index + 1))
        _stretch(scan, mention, index + 2)
    elif word in PLANES and not mention.plane and scan.word(mention.last) != ",":
        after = scan.word(index + 1)
        if not is_integer(after) and not (after in words_for("slice") and is_integer(scan.word(index + 2))):
            last = (
                index + 2
                if after in words_for("slice") | words_for("series") | {"plane", "view", "views"}
                else index + 1
            )
            mention.plane = "axial" if PLANES[word] == "axial" else "other"
            _stretch(scan, mention, last)


def _stretch(scan: Scan, mention: Mention, last: int) -> None:
    opened = any(scan.word(i) == "(" for i in range(mention.last, last))
    if opened and scan.word(last) == ")":
        last += 1
    for index in range(mention.last, last):
        scan.taken[index] = "slice"
    mention.last = last
    mention.end = scan.words.end[last - 1]


def _note(word: str, mention: Mention) -> None:
    if word in PLANES and mention.plane != "axial":
        mention.plane = "axial" if PLANES[word] == "axial" else "other"
    if word in MODALITIES and mention.modality != "pet":
        mention.modality = "pet" if MODALITIES[word] == "pet" else "ct"


def skip(scan: Scan, index: int, words: frozenset[str] | set[str], most: int) -> int:
    for _ in range(most):
        if scan.word(index) not in words:
            break
        index += 1
    return index


def words_for(kind: str) -> frozenset[str]:
    return rule_words("mentions", kind)
