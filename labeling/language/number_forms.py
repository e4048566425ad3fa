"""Numbers that are not simply what is printed: bounds ("> 20") and decimals across a blank ("5. 4")."""

from __future__ import annotations

import re

from petground.labeling.language.lexicon import rule_words
from petground.labeling.language.mention import Scan, is_integer

__all__ = ["bound_of", "split_fraction"]

_AT_LEAST = frozenset(
    ("> =", ">=", ">", "≥", "exceeding", "exceeds", "exceed", "exceeded", "over", "above", "at least")
)
_AT_MOST = frozenset(("< =", "<=", "<", "≤", "below", "under", "not exceeding", "no more than", "at most"))
_THAN = {"greater": "at_least", "more": "at_least", "higher": "at_least", "less": "at_most", "lower": "at_most"}


def bound_of(scan: Scan, start: int, after: int) -> str:
    """`at_least` for "> 20", "at least 9.4", "20+"; `at_most` for "< 3", "less than 3"; else nothing."""
    back = start - 1 - (scan.word(start - 1) in ("an", "a", "suv", "suvmax", "of"))
    one, two = scan.word(back), f"{scan.word(back - 1)} {scan.word(back)}"
    if one in ("suvmax", "max"):  # "at least SUVmax 9.4"
        back -= 1 + (scan.word(back - 1) == "suv")
        two = f"{scan.word(back - 1)} {scan.word(back)}"
    if two == "not exceeding" or two in _AT_MOST or one in _AT_MOST:
        return "at_most"
    if one in _AT_LEAST or two in _AT_LEAST or (scan.word(after) == "+" and scan.glued(after)):
        return "at_least"
    return _THAN.get(scan.word(back - 1), "") if one == "than" else ""


def split_fraction(scan: Scan, index: int) -> str:
    """The decimals of "5. 4, slice 70" and "5 .4", a blank beside the point."""
    digits = scan.word(index + 2)
    if scan.word(index + 1) != "." or not is_integer(digits) or len(digits) > 2 or index + 2 in scan.taken:
        return ""
    if scan.glued(index + 2):
        return "" if scan.glued(index + 1) else digits
    if not scan.glued(index + 1):
        return ""
    after = scan.word(index + 3)
    if after == "." or not after:  # "SUVmax 5. 4.": 5.4, unless a list goes on with its fourth item
        return "" if _next_item(scan, index + 2) else digits
    return digits if after in (",", "(", ")", ";", "on", "at") or after in rule_words("mentions", "slice") else ""


def _next_item(scan: Scan, index: int) -> bool:
    """Whether the number is the marker of a list item: a capital follows it, and the item before it was numbered."""
    text, number = scan.words.text, int(scan.word(index))
    follows = text[scan.words.end[index] + 1 : scan.words.end[index] + 4].lstrip(" ")[:1]
    before = re.compile(rf"(?:^|[\s(]){number - 1}[.)]\s").search(text, max(0, scan.words.start[index] - 2000))
    earlier = before is not None and before.start() < scan.words.start[index - 2]
    return follows.isupper() and (number == 1 or earlier)
