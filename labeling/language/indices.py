"""Slice and series mentions: "slice 104", "series 3, image 104", "(3:104)", "IMA 3-104", "image 41 of 263"."""

from __future__ import annotations

from petground.labeling.language.index_context import MODALITIES, PLANES, look_around, skip, words_for
from petground.labeling.language.lexicon import rule_words
from petground.labeling.language.mention import Mention, Scan, is_integer

__all__ = ["find_indices"]

_RANGE = {"-", "--", "–", "—", "to", "through", "thru", "until"}
_LIST = {",", "and", "&", "or", "/", ";", "+"}
_SERIES_MAX = 99  # a series number in "3:104"; a larger first number is an image count ("image 141/263")


def find_indices(scan: Scan) -> None:
    """All slice mentions of the sentence, in order; sets plane, modality, series, range and `best`."""
    heads, series = rule_words("mentions", "slice"), rule_words("mentions", "series")
    index = scan.begin
    while index < scan.stop:
        word = scan.word(index)
        found = None
        if index not in scan.taken:
            if word in series:
                found = _series_first(scan, index, heads)
            elif word in heads:
                found = _after_head(scan, index)
            elif word in PLANES or word in ("#", "@"):
                found = _plane_and_number(scan, index)
            elif word == "s" and scan.glued(index + 1):
                found = _letters_form(scan, index)
            elif is_integer(word):
                found = _colon_form(scan, index) or _modality_and_number(scan, index)
        if found is not None:
            look_around(scan, found)
            index = found.last
        else:
            index += 1
    if any(m.kind == "slice" for m in scan.mentions):
        for index in range(scan.begin, scan.stop):
            found = _elided(scan, index)
            if found is not None:
                look_around(scan, found)
    scan.mentions.sort(key=lambda m: m.start)


def _after_head(scan: Scan, head: int) -> Mention | None:
    """From a slice word to its numbers; None when no index follows (positions in mm, "slice thickness")."""
    number = skip(scan, head + 1, rule_words("mentions", "modifier") - {"is", "are", "position"}, 4)
    if scan.word(number) in rule_words("mentions", "position") or scan.word(head + 1) in rule_words(
        "mentions", "position"
    ):
        _position(scan, head)
        return None
    if scan.word(number) in rule_words("mentions", "series"):  # "image series 3: 104"
        return None
    if not _index_like(scan, number):
        number = skip(scan, head + 1, rule_words("mentions", "modifier"), 5)
        if not (_index_like(scan, number) and scan.word(number - 1) in ("is", "are", "position")):
            return None
    if _is_length(scan, number):
        return None
    return _numbers(scan, head, number, scan.word(head))


def _numbers(scan: Scan, first: int, number: int, head: str) -> Mention | None:
    """The list, range or series:image pair that starts at token `number`."""
    found: list[int] = []
    at: list[int] = []
    series: int | None = None
    is_range = False
    index = number
    split = _two_in_one(scan.word(number))
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
        step = skip(scan, step, {"slice", "slices", "image", "images", "on", "#", "also", "im", "img"}, 2)
        both = _two_in_one(scan.word(step)) if link in _LIST else None
        if both:
            found.extend(both)
            at.extend((step, step))
            index = step + 1
            continue
        if link == "of" and len(found) == 1 and scan.free_int(index + 1) and int(scan.word(index + 1)) >= found[0]:
            index += 2  # image 41 of 263
            break
        if not scan.free_int(step) or _is_length(scan, step) or not _alone(scan, step):
            break
        value = int(scan.word(step))
        tight = step == index + 1 and scan.glued(index) and scan.glued(step)
        if link in (":", "/") or (link == "-" and head.startswith("ima") and head != "image" and head != "images"):
            if len(found) != 1 or series is not None:
                break
            if (link == "/" and found[0] > _SERIES_MAX) or (link == "/" and found[0] > 20 and value > found[0]):
                index = step + 1  # image 41/263
                break
            if not tight and link == "/":
                break
            series, found, at = found[0], [value], [step]
        elif link in _RANGE:
            if len(found) != 1 or value <= found[0]:
                break
            found.append(value)
            at.append(step)
            is_range = True
        elif link in _LIST:
            if step == index + 1 and link == ";":
                break
            found.append(value)
            at.append(step)
        else:
            break
        index = step + 1
    mention = scan.take("slice", first, index)
    mention.indices, mention.is_range, mention.series = tuple(found), is_range, series
    mention.index_spans = tuple((scan.words.start[i], scan.words.end[i]) for i in at)
    return mention


def _series_first(scan: Scan, head: int, heads: frozenset[str]) -> Mention | None:
    """Reads "series 3, image 104", "Se 4 Im 133", "series 3/104", "S4 I133"; a series alone is taken as a number."""
    number = skip(scan, head + 1, {"#", "no", "number", "no.", ".", ":", "="}, 3)
    if not scan.free_int(number) or len(scan.word(number)) > 4:
        return None
    link = scan.word(number + 1)
    index = skip(
        scan, number + 1, {",", ":", "/", "-", ";", "–", "(", "on", "at"} | words_for("modifier") | set(PLANES), 5
    )
    mention = None
    if scan.word(index) in heads:
        inner = skip(scan, index + 1, rule_words("mentions", "modifier"), 3)
        if _index_like(scan, inner) and not _is_length(scan, inner):
            mention = _numbers(scan, head, inner, "slice")
    elif link in (":", "/", ",", "-") and scan.free_int(number + 2) and _alone(scan, number + 2):
        mention = _numbers(scan, head, number + 2, "slice")
    if mention is None:
        scan.take("series", head, number + 1).series = int(scan.word(number))
        return None
    mention.series = int(scan.word(number))
    return mention


def _plane_and_number(scan: Scan, head: int) -> Mention | None:
    number = skip(scan, head + 1, {"#", ":", "no", "number", "=", "ct", "pet", "at"}, 3)
    if not _index_like(scan, number) or _is_length(scan, number) or not _alone(scan, number):
        return None
    if scan.word(head) in ("#", "@") and int(scan.word(number)) < 10:
        return None
    return _numbers(scan, head, number, "slice")


def _letters_form(scan: Scan, first: int) -> Mention | None:
    """Reads "S4 I155", "S4/I155": series and image by their letters."""
    step = first + 2 + (scan.word(first + 2) in ("/", ",", "-", ":"))
    if not scan.free_int(first + 1) or scan.word(step) not in ("i", "im") or not scan.free_int(step + 1):
        return None
    mention = scan.take("slice", first, step + 2)
    mention.indices, mention.series = (int(scan.word(step + 1)),), int(scan.word(first + 1))
    mention.index_spans = ((scan.words.start[step + 1], scan.words.end[step + 1]),)
    return mention


def _colon_form(scan: Scan, first: int) -> Mention | None:
    """Reads "(3:104)", "[3/104]", "3:104", "3-104" only in brackets: series and image without a word."""
    if not (scan.free_int(first) and scan.free_int(first + 2) and scan.glued(first + 1) and scan.glued(first + 2)):
        return None
    link, series, value = scan.word(first + 1), int(scan.word(first)), int(scan.word(first + 2))
    bracketed = scan.word(first - 1) in ("(", "[") and scan.word(first + 3) in (")", "]", ",", ";")
    if link not in (":", "/", "-") or not 0 < series <= _SERIES_MAX or not _alone(scan, first + 2):
        return None
    before = scan.word(first - 1)
    if link == "/" and ((not bracketed and before not in (",", "im")) or (value <= 12 and not bracketed)):
        return None
    told = before if not bracketed else scan.word(first - 2)
    if link == "/" and value <= 10 and told in rule_words("mentions", "score"):  # "Deauville score (5/5)"
        return None
    if link == "-" and not (bracketed and value > 20 and value > 4 * series):
        return None
    if link == ":" and not bracketed and value < 10:
        return None
    mention = scan.take("slice", first, first + 3)
    mention.indices, mention.series = (value,), series
    mention.index_spans = ((scan.words.start[first + 2], scan.words.end[first + 2]),)
    return mention


def _modality_and_number(scan: Scan, number: int) -> Mention | None:
    """Reads "(PET 104, CT 208)": only inside brackets, since "CT 2019" is a date."""
    if scan.word(number - 1) not in MODALITIES or not scan.free_int(number) or not _alone(scan, number):
        return None
    if scan.word(number + 1) not in (")", ",", ";", "]", "/") or 1990 <= int(scan.word(number)) <= 2049:
        return None
    depth = [scan.word(i) for i in range(max(scan.begin, number - 12), number) if scan.word(i) in ("(", "[", ")", "]")]
    if not depth or depth[-1] not in ("(", "["):
        return None
    return _numbers(scan, number - 1, number, "slice")


def _elided(scan: Scan, index: int) -> Mention | None:
    """The bare number of "slice 60 and 5.0 on 64" or "best seen on 131", once a slice was named in the sentence."""
    if not scan.free_int(index) or not _alone(scan, index) or int(scan.word(index)) < 2:
        return None
    before, after = scan.word(index - 1), scan.word(index + 1)
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


def _position(scan: Scan, head: int) -> None:
    """Takes the number of "slice location -412.5 mm" so that it is nobody's SUV."""
    for index in range(head + 1, min(head + 7, scan.stop)):
        if scan.word(index)[:1].isdecimal() and index not in scan.taken:
            scan.take("number", index, index + 1)
            return


def _index_like(scan: Scan, index: int) -> bool:
    return scan.free_int(index) or (index not in scan.taken and _two_in_one(scan.word(index)) is not None)


def _two_in_one(word: str) -> tuple[int, int] | None:
    """The two indices of "60,64" after a slice word; elsewhere that token is a decimal comma."""
    left, comma, right = word.partition(",")
    if comma and left.isdecimal() and right.isdecimal() and len(left) <= 4 and 2 <= len(right) <= 4:
        return int(left), int(right)
    return None


def _alone(scan: Scan, index: int) -> bool:
    after = scan.word(index + 1)
    if after in ("x", "×", "%") or after in words_for("unit") or after in words_for("length"):
        return False
    return scan.stands_alone(index) or after in words_for("best") or after in PLANES or after in words_for("suv")


def _is_length(scan: Scan, index: int) -> bool:
    unit = scan.word(index + 2) if scan.word(index + 1) == "-" else scan.word(index + 1)
    return unit in words_for("length") or scan.taken.get(index) in ("size", "number", "date")
