"""What stands around a slice number: plane, modality, series, and whether it is named as the best of several."""

from __future__ import annotations

from collections.abc import Container
from functools import cache

from petground.labeling.language.lexicon import load_rules, phrases_of, rule_words, word_set
from petground.labeling.language.mention import Mention, Scan, is_integer

__all__ = [
    "MODALITIES",
    "PLANES",
    "alone",
    "index_like",
    "is_length",
    "look_around",
    "skip",
    "two_in_one",
    "words_for",
]


_ONE = ("same", "single", "identical", "one")
_VIEWS = ("series", "view", "views", "images", "image", "plane", "reformat", "reformats", "reconstruction", "slices")
_OTHER_IMAGES = ("mri", "mr", "t1", "t2", "dwi", "adc", "flair", "mrcp", "ultrasound", "stir")


def _labels(kind: str) -> dict[str, str]:
    return {
        p: str(rule.get("label")) for rule in load_rules("mentions") if rule["kind"] == kind for p in phrases_of(rule)
    }


PLANES = _labels("plane")
MODALITIES = _labels("modality")


@cache
def _around() -> frozenset[str]:
    return words_for("modifier") | word_set("( , ct pet / fused series attenuation corrected")


@cache
def _of_slice() -> frozenset[str]:
    return words_for("slice") | word_set("# no number . :")


def look_around(scan: Scan, mention: Mention) -> None:
    """Plane, modality, series and `best` from the words before and after the numbers."""
    modifiers = _around()
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
        elif word in _VIEWS and scan.word(back - 1) in PLANES:
            back -= 1  # "on the sagittal view image 65"
        else:
            break
    for index in range(first, mention.first):
        scan.taken[index] = "slice"
    mention.first = first
    mention.start = scan.words.start[first]
    _named_before(scan, mention, first - 1)
    while scan.word(back) in modifiers and back > first - 4:
        back -= 1
    near = [scan.word(i) for i in range(max(scan.begin, back - 4), first)]
    cut = max((i for i, w in enumerate(near) if w in (",", ";", ")", "(", ".") or w[:1].isdecimal()), default=-1)
    mention.best = any(w in words_for("best") for w in near[cut + 1 :])
    mention.shared = any(w in _ONE for w in near[cut + 1 :]) or any(w in _ONE for w in near[-2:])
    _trailing(scan, mention)


def _named_before(scan: Scan, mention: Mention, back: int) -> None:
    """Reads "on CT (slice 64)", "PET: image 101", "sagittal series (image 77)", "T2 image 19"."""
    weighted = scan.word(back) in ("1", "2") and scan.word(back - 1) == "t" and scan.glued(back)
    if weighted or scan.word(back) in _OTHER_IMAGES:
        mention.modality = "mr"
        mention.first = back - weighted
        mention.start = scan.words.start[mention.first]
        return
    if mention.plane or mention.modality or scan.word(back) not in ("(", ":", "[", ","):
        return
    bare = scan.word(back) != ","
    back -= 1
    while scan.word(back) in _VIEWS:
        back -= 1
        bare = True
    word = scan.word(back)
    if bare and (word in PLANES or word in MODALITIES):
        _note(word, mention)
    elif bare and word in _OTHER_IMAGES:
        mention.modality = "mr"


def _trailing(scan: Scan, mention: Mention) -> None:
    """Reads "of series 3", "(coronal)", "on the sagittal images", "of 263" after the numbers."""
    if len(mention.indices) > 1 and not mention.is_range:
        _one_of_list(scan, mention)
    index = skip(scan, mention.last, ("of", "in", "on", "the", "(", ",", "from"), 3)
    word = scan.word(index)
    if (
        word in MODALITIES
        and not mention.modality
        and index > mention.last
        and scan.word(mention.last) in ("of", "on", "in", "(")
    ):
        _note(word, mention)
        return
    if word in words_for("series") and scan.free_int(index + 1) and mention.series is None:
        mention.series = int(scan.word(index + 1))
        _stretch(scan, mention, index + 2)
    elif word in PLANES and not mention.plane and scan.word(mention.last) != ",":
        after = scan.word(index + 1)
        own = skip(scan, index + 1, _of_slice(), 4)
        if not is_integer(scan.word(own)):
            last = (
                index + 2
                if after in rule_words("mentions", "slice", "series") or after in ("plane", "view", "views")
                else index + 1
            )
            mention.plane = "axial" if PLANES[word] == "axial" else "other"
            _stretch(scan, mention, last)


_ORDER = {"latter": -1, "last": -1, "former": 0, "first": 0, "second": 1, "third": 2}


def _one_of_list(scan: Scan, mention: Mention) -> None:
    """Reads "slices 170, 171 and 172, hottest on the latter": of several indices the one called the best."""
    step = skip(scan, mention.last, (",", "(", "-", "–", ";"), 1)
    if scan.word(step) not in words_for("best"):
        return
    step = skip(scan, step + 1, ("on", "at", "in", "seen", "appreciated", "the", "uptake"), 4)
    at = _ORDER.get(scan.word(step), len(mention.indices))
    if at < len(mention.indices):
        mention.indices, mention.index_spans = (mention.indices[at],), (mention.index_spans[at],)
        mention.best = True


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


def skip(scan: Scan, index: int, words: Container[str], most: int) -> int:
    for _ in range(most):
        if scan.word(index) not in words:
            break
        index += 1
    return index


def words_for(kind: str) -> frozenset[str]:
    return rule_words("mentions", kind)


def index_like(scan: Scan, index: int) -> bool:
    return scan.free_int(index) or (index not in scan.taken and two_in_one(scan.word(index)) is not None)


def two_in_one(word: str) -> tuple[int, int] | None:
    """The two indices of "60,64" after a slice word; elsewhere that token is a decimal comma."""
    left, comma, right = word.partition(",")
    if comma and left.isdecimal() and right.isdecimal() and len(left) <= 4 and 2 <= len(right) <= 4:
        return int(left), int(right)
    return None


def alone(scan: Scan, index: int) -> bool:
    after = scan.word(index + 1)
    if after in ("x", "×", "%") or after in words_for("unit") or after in words_for("length"):
        return False
    return scan.stands_alone(index) or after in words_for("best") or after in PLANES or after in words_for("suv")


def is_length(scan: Scan, index: int) -> bool:
    unit = scan.word(index + 2) if scan.word(index + 1) == "-" else scan.word(index + 1)
    return unit in words_for("length") or scan.taken.get(index) in ("size", "number", "date")
