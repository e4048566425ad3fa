"""Bounds told in words: "biopsy if SUVmax is above 2.5", "(normal < SUVmax 2.5)", "values above 2.5 are suspicious"."""

from __future__ import annotations

from petground.labeling.language.lexicon import word_set
from petground.labeling.language.stream import Row

__all__ = ["bounded_at", "has_kind", "tells_bound"]

_PLACES = ("site", "sided", "side", "ref", "phys")
_BOUNDS = word_set(
    "over above below under than > >= ≥ < <= ≤ exceeds exceed exceeding exceeded reaches reach reaching reached rises "
    "rise rising falls fall drops drop surpasses surpass least most beyond"
)
_ANY = word_set("values anything uptake suvs suvmax suv readings activity")
_OR_MORE = word_set("more higher above greater over less below lower")
_BEHIND_BOUND = word_set("of to a an the is : =")


def has_kind(row: Row, first: int, last: int, *kinds: str) -> bool:
    """Whether one of the items first..last is any of the kinds."""
    return any(item.has(*kinds) for item in row[first:last])


def bounded_at(row: Row, first: int, last: int) -> int:
    """Item of the "if" or "when" that puts a bound: "biopsy if SUVmax is above 2.5"; -1 without one."""
    if row.lacks("condition"):
        return -1
    for i in range(first, last):
        if row[i].has("condition") and not has_kind(row, i, last, "slice"):
            value = next((v for v in range(i + 1, last) if "value" in row[v].kinds), -1)
            if value >= 0 and not has_kind(row, i + 1, value, "prior") and _bound_at(row, value, i, last):
                return i
    return -1


def _bound_at(row: Row, value: int, first: int, last: int) -> bool:
    """Whether a word that bounds stands right before the value, or "or more" behind it."""
    mention = row[value].mention
    if mention is not None and mention.warning in ("at_least", "at_most"):
        return True
    i = value - 1
    while i > first and (row[i].has("head") or row[i].text in _BEHIND_BOUND):
        i -= 1
    if i >= first and (row[i].has("compare") or not _BOUNDS.isdisjoint(row[i].text.split())):
        return True
    behind = [item.text for item in row[value + 1 : min(value + 3, last)]]
    return behind[:1] in (["or"], ["and"]) and behind[-1] in _OR_MORE


def tells_bound(row: Row, first: int, last: int) -> bool:
    """Whether it tells which values are normal: "(normal < SUVmax 2.5)", "(values exceeding 2.5 are suspicious)"."""
    if not has_kind(row, first, last, "verdict") or has_kind(row, first, last, "slice", *_PLACES):
        return False
    anything = row[first].text in _ANY or (first + 1 < last and row[first].text in ("all", "any", "an", "a"))
    if not has_kind(row, 0, first, "value") and not (anything and not has_kind(row, first, last, "lesion")):
        return False
    values = [i for i in range(first, last) if "value" in row[i].kinds]
    return bool(values) and all(_bound_at(row, v, first, last) for v in values[:1])
