"""Slice and series mentions: "slice 104", "series 3, image 104", "(3:104)", "IMA 3-104", "image 41 of 263"."""

from __future__ import annotations

from functools import cache

from petground.labeling.language.index_context import (
    MODALITIES,
    PLANES,
    alone,
    index_like,
    is_length,
    look_around,
    skip,
    two_in_one,
    words_for,
)
from petground.labeling.language.index_forms import (
    SERIES_MAX,
    colon_form,
    letters_form,
    skip_earlier_index,
    skip_position,
)
from petground.labeling.language.lexicon import rule_words, word_set
from petground.labeling.language.mention import Mention, Scan, is_integer

__all__ = ["find_indices"]

_RANGE = {"-", "--", "–", "—", "to", "through", "thru", "until"}
_LIST = {",", "and", "&", "or", "/", ";", "+"}
_ORDINALS = ("th", "st", "nd", "rd")
_BEST_FILL = ("at", "on", "in", ":", "=", "is", "slice", "image", "~", "around", "about", "intense", "avid", "uptake")
_PLURAL = ("slices", "images", "sections", "cuts", "frames", "imgs", "ims", "sls")


def find_indices(scan: Scan) -> None:
    """All slice mentions of the sentence, in order; sets plane, modality, series, range and `best`."""
    heads, series, openers = rule_words("mentions", "slice"), rule_words("mentions", "series"), _openers()
    tokens = enumerate(scan.words.lower[scan.begin : scan.stop], scan.begin)
    reached = scan.begin
    for index, word in [(i, word) for i, word in tokens if word in openers or word[0].isdecimal()]:
        if index < reached or index in scan.taken:
            continue
        found = None
        if word in series:
            found = _series_first(scan, index, heads)
        elif word in heads:
            found = _after_head(scan, index)
        elif word in PLANES or word in ("#", "@"):
            found = _plane_and_number(scan, index)
        elif word == "s" and scan.glued(index + 1):
            found = letters_form(scan, index)
        elif is_integer(word):
            found = colon_form(scan, index) or _modality_and_number(scan, index) or _ordinal(scan, index, heads)
        if found is not None:
            look_around(scan, found)
            skip_earlier_index(scan, found.last)
            reached = found.last
    if any(m.kind == "slice" for m in scan.mentions):
        for index in scan.numbers:
            found = elided_index(scan, index)
            if found is not None:
                look_around(scan, found)
    for mention in scan.mentions:
        if mention.modality == "mr":  # an image of another examination
            mention.kind = "series"
    scan.mentions.sort(key=lambda m: m.start)


@cache
def _openers() -> frozenset[str]:
    """Words, apart from numbers, that a slice mention can begin with."""
    return rule_words("mentions", "slice") | rule_words("mentions", "series") | frozenset(PLANES) | {"#", "@", "s"}


@cache
def _before_number() -> frozenset[str]:
    """What may stand between a slice word and its number."""
    return rule_words("mentions", "modifier") - {"is", "are", "position"}


@cache
def _after_series() -> frozenset[str]:
    """What may stand between the number of a series and the slice word."""
    return rule_words("mentions", "modifier", "plane") | word_set(", : / - ; – ( on at")


def _after_head(scan: Scan, head: int) -> Mention | None:
    """From a slice word to its numbers; None when no index follows (positions in mm, "slice thickness")."""
    if scan.word(head + 1) == "(" and scan.free_int(head + 2) and scan.word(head + 3) == ")":  # "slice (49)"
        return _stretched(scan, _numbers(scan, head, head + 2, scan.word(head)), head + 4)
    if scan.word(head + 1) == "-" and scan.free_int(head + 2) and scan.glued(head + 1) and scan.glued(head + 2):
        return _numbers(scan, head, head + 2, scan.word(head))
    number = skip(scan, head + 1, _before_number(), 4)
    if scan.word(number) in rule_words("mentions", "position") or scan.word(head + 1) in rule_words(
        "mentions", "position"
    ):
        at = skip(scan, head + 2, (":", "no", ".", "number", "#"), 3)
        if scan.word(head + 1) == "position" and scan.free_int(at) and not is_length(scan, at) and alone(scan, at):
            return _numbers(scan, head, at, scan.word(head))  # "axial image position 55"
        skip_position(scan, head)
        return None
    if scan.word(head + 1) == "," and scan.free_int(head + 2) and alone(scan, head + 2):
        number = head + 2  # "axial image, 55"
    if scan.word(number) in rule_words("mentions", "series"):  # "image series 3: 104"
        return None
    if not index_like(scan, number):
        number = skip(scan, head + 1, rule_words("mentions", "modifier"), 5)
        if not (index_like(scan, number) and scan.word(number - 1) in ("is", "are", "position")):
            return None
    if is_length(scan, number):
        return None
    return _numbers(scan, head, number, scan.word(head))


def _stretched(scan: Scan, mention: Mention | None, last: int) -> Mention | None:
    """The mention with its closing bracket."""
    if mention is not None and mention.last < last:
        scan.taken.update(dict.fromkeys(range(mention.last, last), "slice"))
        mention.last, mention.end = last, scan.words.end[last - 1]
    return mention


def _ordinal(scan: Scan, number: int, heads: frozenset[str]) -> Mention | None:
    """Reads "the 128th slice"."""
    if scan.word(number + 1) not in _ORDINALS or not scan.glued(number + 1) or not scan.free_int(number):
        return None
    head = skip(scan, number + 2, set(PLANES) | set(MODALITIES), 2)
    return _stretched(scan, _numbers(scan, number, number, ""), head + 1) if scan.word(head) in heads else None


def _numbers(scan: Scan, first: int, number: int, head: str) -> Mention | None:
    """The list, range or series:image pair that starts at token `number`."""
    found: list[int] = []
    at: list[int] = []
    series: int | None = None
    is_range = False
    index = number
    split = two_in_one(scan.word(number))
    if split:
        mention = scan.take("slice", first, number + 1)
        mention.indices = split
        mention.index_spans = ((scan.words.start[number], scan.words.end[number]),) * 2
        return mention
    found.append(int(scan.word(index)))
    at.append(index)
    index += 1
    while index < scan.stop:
        link, step = scan.word(index), index + 1
        if link == "," and scan.word(step) in ("and", "&", "or"):
            step += 1
        step = skip(scan, step, ("slice", "slices", "image", "images", "on", "#", "also", "im", "img"), 2)
        both = two_in_one(scan.word(step)) if link in _LIST else None
        if both:
            found.extend(both)
            at.extend((step, step))
            index = step + 1
            continue
        if link == "of" and len(found) == 1 and scan.free_int(index + 1) and int(scan.word(index + 1)) >= found[0]:
            index += 2  # image 41 of 263
            break
        if not scan.free_int(step) or is_length(scan, step) or not alone(scan, step):
            break
        value = int(scan.word(step))
        if link == "/" and head in ("slices", "images") and value > found[0] > 20 and scan.slashed_values():
            link = ","
        tight = step == index + 1 and scan.glued(index) and scan.glued(step)
        dashed = link == "-" and tight and found[0] <= 9 and value >= max(21, 10 * found[0])  # "image 3-88" is no range
        if (
            link in (":", "/")
            or (link == "-" and head.startswith("ima") and head not in ("image", "images"))
            or (dashed and head not in _PLURAL and head and scan.word(first - 1) not in ("from", "between"))
        ):
            if len(found) != 1 or series is not None:
                break
            if (link == "/" and found[0] > SERIES_MAX) or (link == "/" and found[0] > 20 and value > found[0]):
                index = step + 1  # image 41/263
                break
            if not tight and link == "/":
                break
            series, found, at = found[0], [value], [step]
        elif link in _RANGE:
            falls = value < found[0] and (head in _PLURAL or scan.word(first - 1) in ("between", "from"))
            if len(found) != 1 or not (value > found[0] or falls):
                break
            found.insert(0 if falls else 1, value)  # "slices 104-98" are those from 98 on
            at.insert(0 if falls else 1, step)
            is_range = True
        elif link in _LIST:
            if step == index + 1 and link == ";":
                break
            found.append(value)
            at.append(step)
        else:
            break
        index = step + 1
    if len(found) == 2 and not is_range and scan.word(first - 1) == "between":
        is_range = found[1] > found[0]
    if is_range and scan.word(first - 1) in ("between", "from") and first - 1 not in scan.taken:
        first -= 1
    mention = scan.take("slice", first, index)
    mention.indices, mention.is_range, mention.series = tuple(found), is_range, series
    mention.index_spans = tuple((scan.words.start[i], scan.words.end[i]) for i in at)
    return mention


def _series_first(scan: Scan, head: int, heads: frozenset[str]) -> Mention | None:
    """Reads "series 3, image 104", "Se 4 Im 133", "series 3/104", "S4 I133"; a series alone is taken as a number."""
    number = skip(scan, head + 1, ("#", "no", "number", "no.", ".", ":", "="), 3)
    if not scan.free_int(number) or len(scan.word(number)) > 4:
        return None
    link = scan.word(number + 1)
    index = skip(scan, number + 1, _after_series(), 5)
    mention = None
    if scan.word(index) in heads:
        inner = skip(scan, index + 1, rule_words("mentions", "modifier"), 3)
        if index_like(scan, inner) and not is_length(scan, inner):
            mention = _numbers(scan, head, inner, "slice")
    elif link in (":", "/", ",", "-") and scan.free_int(number + 2) and alone(scan, number + 2):
        mention = _numbers(scan, head, number + 2, "slice")
    if mention is None:
        scan.take("series", head, number + 1).series = int(scan.word(number))
        return None
    mention.series = int(scan.word(number))
    return mention


def _plane_and_number(scan: Scan, head: int) -> Mention | None:
    number = skip(scan, head + 1, ("#", ":", "no", "number", "=", "ct", "pet", "at", ".", "level", "view"), 3)
    if not index_like(scan, number) or is_length(scan, number) or not alone(scan, number):
        return None
    if scan.word(head) in ("#", "@") and int(scan.word(number)) < 10:
        return None
    return _numbers(scan, head, number, "slice")


def _modality_and_number(scan: Scan, number: int) -> Mention | None:
    """Reads "(PET 104, CT 208)": only inside brackets, since "CT 2019" is a date."""
    name = number - 1 - (scan.word(number - 1) in (":", "="))
    if scan.word(name) not in MODALITIES or not scan.free_int(number) or not alone(scan, number):
        return None
    if name == number - 1 and scan.glued(number) and int(scan.word(number)) < 10:
        return None  # "(PET2)" is the second exam
    if scan.word(number + 1) not in (")", ",", ";", "]", "/") or 1990 <= int(scan.word(number)) <= 2049:
        return None
    depth = [scan.word(i) for i in range(max(scan.begin, number - 12), number) if scan.word(i) in ("(", "[", ")", "]")]
    if not depth or depth[-1] not in ("(", "["):
        return None
    return _numbers(scan, name, number, "slice")


def elided_index(scan: Scan, index: int) -> Mention | None:
    """The bare number of "slice 60 and 5.0 on 64" or "best seen on 131", once a slice was named in the sentence."""
    if not scan.free_int(index) or not alone(scan, index) or int(scan.word(index)) < 2:
        return None
    before, after = scan.word(index - 1), scan.word(index + 1)
    if _best_of_range(scan, index):
        mention = _numbers(scan, index, index, "slice")
        if mention is not None:
            mention.best = True
        return mention
    bracket = before in ("(", "[") and after in (")", "]")
    if not (before in ("on", "at", "@", "#") or bracket):
        return None
    if bracket and not any(m.kind == "slice" and scan.word(m.first - 1) in ("(", "[") for m in scan.mentions):
        return None
    if scan.word(index - 2) in words_for("suv") or scan.word(index - 2) in ("max", "value", "suv"):
        return None
    if 1990 <= int(scan.word(index)) <= 2049:
        return None
    return _numbers(scan, index, index, "slice")


def _best_of_range(scan: Scan, index: int) -> bool:
    """Whether it is the number of "slices 180-188 (max at 183)": called the best, and inside the range."""
    value = int(scan.word(index))
    inside = any(m.is_range and m.indices[0] <= value <= m.indices[-1] for m in scan.mentions if m.kind == "slice")
    if not inside:
        return False
    back = index - 1
    while scan.word(back) in _BEST_FILL:
        back -= 1
    return scan.word(back) in words_for("best")
