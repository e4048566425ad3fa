"""Forms of series and image without a slice word ("(3:104)", "S4 I155"), and numbers at a slice that are no index."""

from __future__ import annotations

from petground.labeling.language.index_context import MODALITIES, alone
from petground.labeling.language.lexicon import rule_words
from petground.labeling.language.mention import Mention, Scan

__all__ = ["SERIES_MAX", "colon_form", "letters_form", "skip_earlier_index", "skip_position"]

SERIES_MAX = 99  # a series number in "3:104"; a larger first number is an image count ("image 141/263")
_POINTING = ("on", "at", "see", "@", "im", "cf")
_EARLIER = frozenset(("was", "previously", "prior", "formerly", "before", "previous", "earlier", "old"))


def letters_form(scan: Scan, first: int) -> Mention | None:
    """Reads "S4 I155", "S4/I155": series and image by their letters."""
    step = first + 2 + (scan.word(first + 2) in ("/", ",", "-", ":"))
    if not scan.free_int(first + 1) or scan.word(step) not in ("i", "im") or not scan.free_int(step + 1):
        return None
    mention = scan.take("slice", first, step + 2)
    mention.indices, mention.series = (int(scan.word(step + 1)),), int(scan.word(first + 1))
    mention.index_spans = ((scan.words.start[step + 1], scan.words.end[step + 1]),)
    return mention


def colon_form(scan: Scan, first: int) -> Mention | None:
    """Reads "(3:104)", "[3/104]", "3:104", "3-104" only in brackets: series and image without a word."""
    if not (scan.free_int(first) and scan.free_int(first + 2) and scan.glued(first + 1) and scan.glued(first + 2)):
        return None
    link, series, value = scan.word(first + 1), int(scan.word(first)), int(scan.word(first + 2))
    bracketed = scan.word(first - 1) in ("(", "[") and scan.word(first + 3) in (")", "]", ",", ";")
    if link not in (":", "/", "-") or series <= 0 or not alone(scan, first + 2):
        return None
    if link == "/" and bracketed and 20 < series < value and value > SERIES_MAX:  # "(160/344)": image of images
        mention = scan.take("slice", first, first + 3)
        mention.indices, mention.index_spans = (series,), ((scan.words.start[first], scan.words.end[first]),)
        return mention
    if series > (SERIES_MAX if link == "/" or not (bracketed or scan.word(first - 1) in MODALITIES) else 9999):
        return None
    before = scan.word(first - 1)
    pointed = before in _POINTING and value > 31 and series <= 20  # "on 3-104", which is no date
    if link == "/" and not bracketed and not pointed and (before not in (",", "im") or value <= 12):
        return None
    told = before if not bracketed else scan.word(first - 2)
    if link == "/" and value <= 10 and told in rule_words("mentions", "score"):  # "Deauville score (5/5)"
        return None
    if link == "-" and not ((bracketed or pointed) and value > 20 and value > 4 * series):
        return None
    if link == ":" and not bracketed and value < 10 and before not in MODALITIES:
        return None
    mention = scan.take("slice", first, first + 3)
    mention.indices, mention.series = (value,), series
    mention.index_spans = ((scan.words.start[first + 2], scan.words.end[first + 2]),)
    return mention


def skip_earlier_index(scan: Scan, index: int) -> None:
    """Takes the number of "image 256 (was 254)", "slice 88 (90 on the prior)" so that it is nobody's SUV."""
    if scan.word(index) == "," and scan.word(index + 1) in _EARLIER and scan.free_int(index + 2):
        told = scan.word(index - 1)  # "image 95, previously 92"; a far smaller number may be an SUV
        if told.isdecimal() and int(scan.word(index + 2)) >= 20 and abs(int(told) - int(scan.word(index + 2))) <= 20:
            scan.take("number", index + 2, index + 3)
    if scan.word(index) not in ("(", "["):
        return
    close = next((i for i in range(index + 1, min(index + 8, scan.stop)) if scan.word(i) in (")", "]")), -1)
    inside = [scan.word(i) for i in range(index + 1, close)]
    numbers = [i for i in range(index + 1, close) if scan.word(i)[:1].isdecimal()]
    own = rule_words("mentions", "slice") | rule_words("mentions", "suv")
    if (
        len(numbers) == 1
        and scan.free_int(numbers[0])
        and _EARLIER.intersection(inside)
        and not own.intersection(inside)
    ):
        scan.take("number", numbers[0], numbers[0] + 1)


def skip_position(scan: Scan, head: int) -> None:
    """Takes the number of "slice location -412.5 mm" so that it is nobody's SUV."""
    for index in range(head + 1, min(head + 7, scan.stop)):
        if scan.word(index)[:1].isdecimal() and index not in scan.taken:
            scan.take("number", index, index + 1)
            return
