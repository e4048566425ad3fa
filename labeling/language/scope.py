"""What speaks of a value: its group without side remarks ("than liver (2.3)") and without what lies next to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from petground.labeling.language.groups import Group
from petground.labeling.language.stream import Item, Row

__all__ = ["CLOSERS", "Scope", "goes_on_bare", "make_scope"]

CLOSERS = frozenset({",", ";", ")", "]", ".", ":"})


@dataclass
class Scope:
    """The items of a group that speak of one value: those in a side remark ("than liver (2.3)") belong to it alone.

    value: item index. zone: items of the side remark that the value lies in, empty outside; remarks: the others.
    items: what may speak of the value. label: kinds found in the heading the sentence stands under.
    """

    row: Row
    value: int
    items: list[int]
    zone: list[int] = field(default_factory=list)
    heading: frozenset[str] = frozenset()
    section: str | None = None
    remarks: list[list[int]] = field(default_factory=list)

    def before(self) -> list[Item]:
        """Items of the scope before the value."""
        return [self.row[i] for i in self.items if i < self.value]

    def after(self) -> list[Item]:
        """Items of the scope after the value."""
        return [self.row[i] for i in self.items if i > self.value]

    def any(self, *kinds: str) -> bool:
        """Whether an item of the scope has one of the kinds."""
        row = self.row
        if row.lacks(*kinds):
            return False
        for i in self.items:
            own = row[i].kinds
            if own and not own.keys().isdisjoint(kinds):
                return True
        return False


def make_scope(row: Row, group: Group, value: int, section: str | None, heading: frozenset[str]) -> Scope:
    """The scope of one value of a group."""
    zones = _zones(row, group)
    mine = next((zone for zone in zones if value in zone), [])
    if mine:
        return Scope(row, value, list(mine), mine, heading, section, [zone for zone in zones if zone is not mine])
    hidden = {i for zone in zones for i in zone}
    hidden |= _relations(row, group, value)
    items = [i for i in range(group.first, group.last) if i not in hidden]
    return Scope(row, value, items, [], heading, section, zones)


def _zones(row: Row, group: Group) -> list[list[int]]:
    """Side remarks that compare: from "than", "above", "versus" to the end of the phrase and its bracket."""
    zones: list[list[int]] = []
    if row.lacks("compare") and "between" not in row.said:
        return zones
    i = group.first
    while i < group.last:
        if not _compares(row, i) or _measures(row, i, group):
            i += 1
            continue
        j = i + 1
        seen_value = False
        leading = not any(row[k].own for k in range(group.first, i))
        while j < group.last:
            item = row[j]
            if "value" in item.kinds:
                if seen_value:
                    break
                seen_value = True
            if item.text in ("(", "["):
                if not seen_value and (_has_slice_inside(row, j, group.last) or _compares_inside(row, j, len(row))):
                    break  # "below liver (1.9 on slice 60; liver 2.6)": the bracket is about the lesion
                j = _close(row, j, group.last)
                seen_value = seen_value or any("value" in row[k].kinds for k in range(i, j))
                continue
            if (
                item.text == ","
                and j + 1 < group.last
                and row[j + 1].text in ("which", "with", "whose", "having", "measuring")
            ):
                if not seen_value and row[j + 1].text == "which":
                    j += 1
                    continue
                break
            if item.text in (";", ",", ")", "]", ":") or (
                item.has("coord") and (seen_value or not _more_tissue(row, j, group.last))
            ):
                break
            if item.text in ("in", "within", "of", "at") and j > i + 1 and _lesion_follows(row, j, group.last):
                break  # "exceeds liver in a left neck node"
            if item.text in ("of", "in") and seen_value and leading and _lesion_ahead(row, j, group.last):
                break  # "SUVmax 4.4 today versus 5.8 of the left node"
            if item.has("slice") and not seen_value and not any("value" in row[k].kinds for k in range(j, group.last)):
                break
            j += 1
        if leading and group.first and _begins_lesion(row, i, j, group.last):
            i = j
            continue
        background = any(row[k].text == "background" for k in range(i, j))
        if not background or any(row[k].own for k in range(i, j)):  # "no uptake above background (1.0)" is the lesion's
            zones.append(list(range(i, j)))
        i = j
    return zones


def _begins_lesion(row: list[Item], i: int, j: int, last: int) -> bool:
    """Whether "more on the left (...) than on the right (SUVmax 3.2, image 106)" goes on to a lesion of its own."""
    own = [k for k in range(i, j) if row[k].own]
    told = j < last and row[j].text in ("(", "[") and _has_slice_inside(row, j, last)
    return bool(own) and told and not any(row[k].has("ref") for k in own)


def _compares(row: list[Item], i: int) -> bool:
    """A comparing word, or the "between" of "between blood pool (2.1) and liver (3.1)"."""
    item = row[i]
    if not item.kinds and item.text != "between":
        return False
    return "compare" in item.kinds or (item.text == "between" and any(k.has("ref") for k in row[i + 1 : i + 4]))


def _has_slice_inside(row: list[Item], opening: int, last: int) -> bool:
    """Whether a bracket tells a value and a slice before it names any other tissue."""
    value = False
    for item in row[opening + 1 : _close(row, opening, last)]:
        value = value or "value" in item.kinds
        if item.own:
            return False
        if item.has("slice"):
            return value
    return False


def _compares_inside(row: list[Item], opening: int, last: int) -> bool:
    """Whether a bracket sets a value against that of a tissue: "relative to liver (4.4 vs liver 3.1)"."""
    inside = row[opening + 1 : _close(row, opening, last)]
    values = [k for k, item in enumerate(inside) if "value" in item.kinds]
    if len(values) < 2 or any(item.own for item in inside[: values[0]]):
        return False
    told = inside[values[0] : values[1]]
    return any(item.has("versus", "compare") for item in told)


def _lesion_follows(row: list[Item], j: int, last: int) -> bool:
    return row[j - 1].has("ref", "phys") and any(row[k].has("lesion") for k in range(j + 1, min(j + 6, last)))


def _lesion_ahead(row: list[Item], j: int, last: int) -> bool:
    return any(row[k].has("lesion") for k in range(j + 1, min(j + 7, last)))


def _more_tissue(row: list[Item], coord: int, last: int) -> bool:
    """Whether "liver and spleen" goes on after the coordinator, rather than the sentence."""
    return any(row[j].own or row[j].has("normal") for j in range(coord + 1, min(coord + 3, last)))


def _measures(row: list[Item], i: int, group: Group) -> bool:
    """Whether, as in "above SUV 2.5" or "greater than 5", it bounds the value itself and is no other tissue."""
    nearby = row[i + 1 : min(i + 4, group.last)]
    if row[i].has("versus"):
        return False
    for item in nearby:
        if item.own:
            return False
        if "value" in item.kinds:
            return not row[i].has("compare") or row[i].text not in ("compared with", "compared to")
    return False


def _told_of_itself(row: list[Item], i: int, group: Group, value: int) -> bool:
    """Whether, as in "Adjacent to the right hilar mass (SUVmax 16.1) is a node", the value is the neighbour's."""
    if any(row[k].own for k in range(group.first, i)) or not row[value].depth:
        return False
    opening = next((k for k in range(i, value) if row[k].text in ("(", "[")), None)
    return opening is not None and row[opening].bracket == row[value].bracket and row[opening - 1].has("lesion")


def _close(row: list[Item], opening: int, last: int) -> int:
    depth = 0
    for j in range(opening, last):
        depth += row[j].text in ("(", "[")
        depth -= row[j].text in (")", "]")
        if depth == 0:
            return j + 1
    return last


def _relations(row: Row, group: Group, value: int) -> set[int]:
    """What a lesion lies next to: "adjacent to the left psoas"."""
    hidden: set[int] = set()
    if row.lacks("relation"):
        return hidden
    for i in range(group.first, group.last):
        if row[i].has("relation") and not _told_of_itself(row, i, group, value):
            j = i + 1
            while j < min(group.last, i + 9) and j != value:
                item = row[j]
                if (
                    item.text in CLOSERS
                    or item.text == "("
                    or item.has("coord", "head", "slice", "anaphor", "starter", "size")
                ):
                    break
                if item.text in (
                    "with",
                    "on",
                    "is",
                    "has",
                    "measuring",
                    "measures",
                    "shows",
                    "demonstrates",
                    "at",
                    "and",
                ):
                    break
                hidden.add(j)
                j += 1
    return hidden


def goes_on_bare(scope: Scope, between: list[Item]) -> list[Item]:
    """The items without the semicolon of "is not avid; SUVmax 0.9", behind which no other lesion is named."""
    if not between or (between[-1].text != ";" and not (len(between) > 1 and between[-2].text == ";")):
        return between
    last = between[-1]
    if (last.text != ";" and not last.has("head")) or any(item.own for item in scope.row[scope.value + 1 :]):
        return between
    return [item for item in between if item.text != ";"]
