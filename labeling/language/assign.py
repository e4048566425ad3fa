"""Which slice belongs to which value: within the group of one lesion, in lists, shared, or nobody's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from petground.labeling.language.groups import Group
from petground.labeling.language.mention import Mention
from petground.labeling.language.stream import Item, Row
from petground.labeling.language.tense import Tense

__all__ = ["Placed", "assign_slices", "resolve"]


_FRAME = (",", ":", "shows", "demonstrates", "contains", "depicts", "reveals", "displays", "has", "showing")
"""What follows a slice that is told for the whole sentence: "Image 113 shows ..."."""


@dataclass
class Placed:
    """A slice for a value, or the reason why there is none. mention: the slice mention; at: which of its numbers."""

    slice: int | None = None
    reason: str | None = None
    mention: Mention | None = None
    at: int = 0


def assign_slices(
    row: Row, groups: list[Group], reasons: dict[int, str | None], tenses: dict[int, Tense]
) -> dict[int, Placed]:
    """A slice (or `not_axial`, `ambiguous`, `no_slice`) for each value whose reason is None, by item index."""
    placed: dict[int, Placed] = {}
    used: set[int] = set()
    for group in groups:
        values = [v for v in group.values if reasons[v] is None]
        paired = _paired_slices(row, group, tenses)
        if paired:
            placed.update({v: p for v, p in paired.items() if v in values})
            used.update(i for i in row.slices if group.first <= i < group.last)
            continue
        slices = _own_slices(row, group, values, reasons, tenses)
        used.update(slices if values else [])
        placed.update(_match(row, values, slices))
    _same_as_before(row, groups, placed)
    waiting = [v for v, p in placed.items() if p.reason == "no_slice"]
    if waiting:
        _across_groups(row, groups, reasons, placed, waiting)
    return placed


def _paired_slices(row: Row, group: Group, tenses: dict[int, Tense]) -> dict[int, Placed]:
    """Slices of "slice 133 of the current and slice 130 of the previous exam: 3.0 and 2.1", in their order."""
    if len(group.values) != 2 or any(tenses[v].sign != "paired" for v in group.values):
        return {}
    slices = [i for i in row.slices if group.first <= i < group.last]
    if len(slices) != 2 or any(len(_mention(row, i).indices) != 1 for i in slices):
        return {}
    return {v: _place(row, i, 0) for v, i in zip(group.values, slices, strict=True)}


def _same_structure(row: list[Item], group: Group) -> bool:
    """Whether the group is but the other side of what was measured before ("versus 2.3 on the left")."""
    return not any(row[k].has("ref") for k in range(group.first, group.last))


def _same_as_before(row: Row, groups: list[Group], placed: dict[int, Placed]) -> None:
    """Reads "... and a left one on the same slice": the slice of the group before."""
    for before, group in itertools.pairwise(groups) if not row.lacks("same") else ():
        given = [placed[v] for v in before.values if v in placed and placed[v].slice is not None]
        if given and any(item.has("same") for item in row[group.first : group.last]):
            for v in group.values:
                if v in placed and placed[v].reason == "no_slice":
                    placed[v] = given[-1]


def _own_slices(
    row: Row, group: Group, values: list[int], reasons: dict[int, str | None], tenses: dict[int, Tense]
) -> list[int]:
    """Slice items of the group without those that an earlier or reference value claims."""
    found = [i for i in row.slices if group.first <= i < group.last]
    now = [i for i in found if not _of_then(row, i)]
    found = now or found
    others = [v for v in group.values if reasons[v] in ("prior", "reference", "physiologic")]
    if not others:
        return found
    claimed = {i: strength for i in found for strength in [_claim(row, i, others, values, tenses)] if strength}
    left = [i for i in found if i not in claimed]
    if not left and values:
        left = [i for i in found if claimed[i] == 1]
    return left


def _of_then(row: Row, i: int) -> bool:
    """Whether a slice is where the lesion was: "(previously on slice 146)", "CT of 1 June: image 44; ..."."""
    if row.lacks("date", "prior"):
        return False
    clause = _clause_around(row, i)
    if any(k.has("date") or k.kinds.get("prior") == "exam" for k in clause) and not any(
        k.has("value", "current") for k in clause
    ):
        return True
    back = row[max(0, i - 3) : i]
    cue = next((k for k, item in enumerate(back) if item.has("prior")), None)
    return cue is not None and all(
        item.text in ("on", "at", "was", "in", "") or item.has("past") for item in back[cue + 1 :]
    )


def _clause_around(row: Row, i: int) -> list[Item]:
    """The items between the semicolons around an item; none when there is no semicolon."""
    if ";" not in row.said:
        return []
    stops = [k for k, item in enumerate(row) if item.text == ";"]
    first = max((k + 1 for k in stops if k < i), default=0)
    last = min((k for k in stops if k > i), default=len(row))
    return row[first:last] if stops else []


def _claim(row: list[Item], i: int, others: list[int], values: list[int], tenses: dict[int, Tense]) -> int:
    """2: surely another value's slice; 1: its unless the current value has no other; 0: free."""
    bracket = row[i].bracket
    if bracket:
        inside = [v for v in [*others, *values] if row[v].bracket == bracket]
        if inside and not any(v in values for v in inside):
            first = tenses[inside[0]].cue
            return 0 if i < min(inside[0], first if first >= 0 else inside[0]) and _parted(row, i, inside[0]) else 2
    for v in others:
        tense = tenses[v]
        before = tense.sign in ("adverb", "exam", "clause", "date", "past") and 0 <= tense.cue < i < v
        if before and not any("value" in row[k].kinds for k in range(tense.cue, v)):
            return 2
    nearest = max((v for v in [*others, *values] if v < i), default=-1)
    if nearest in others:
        gap = row[nearest + 1 : i]
        if any(g.text == ";" for g in gap):
            return 0
        if any(g.text in (",", ";") or g.has("current") for g in gap) and not (
            bracket and row[nearest].bracket == bracket
        ):
            return 0
        if any(g.own for g in gap) or (row[nearest].bracket and bracket != row[nearest].bracket):
            return 0
        if len(gap) <= 5:
            told = tenses[nearest].sign in ("adverb", "exam", "clause", "past", "current", "date")
            if any(g.text == "," for g in gap):
                return 1
            return 2 if told and values else 1
    return 0


def _parted(row: list[Item], i: int, v: int) -> bool:
    return any(item.text in (";", ",") for item in row[i + 1 : v])


def _match(row: list[Item], values: list[int], slices: list[int]) -> dict[int, Placed]:
    if not values:
        return {}
    numbers = [(i, at) for i in slices for at in range(len(_mention(row, i).indices)) if not _mention(row, i).is_range]
    axial = [(i, at) for i, at in numbers if _mention(row, i).plane != "other"]
    if len(values) > 1 and len(axial) == len(values):
        return {v: _place(row, i, at) for v, (i, at) in zip(values, axial, strict=True)}
    if len(values) > 1 and len(slices) == len(values):
        return {v: resolve([_mention(row, i)]) for v, i in zip(values, slices, strict=True)}
    one = resolve([_mention(row, i) for i in slices])
    if len(values) > 1 and one.slice is None and slices:
        nearby = _by_bracket(row, values, slices)
        if nearby:
            return nearby
    return dict.fromkeys(values, one)


def _by_bracket(row: list[Item], values: list[int], slices: list[int]) -> dict[int, Placed]:
    """Several values and slices: each value takes the slice before the next value."""
    placed = {}
    for order, v in enumerate(values):
        after = values[order + 1] if order + 1 < len(values) else len(row)
        mine = [i for i in slices if v < i < after]
        placed[v] = resolve([_mention(row, i) for i in mine])
    return placed


def _mention(row: list[Item], i: int) -> Mention:
    mention = row[i].mention
    assert mention is not None
    return mention


def _place(row: list[Item], i: int, at: int) -> Placed:
    mention = _mention(row, i)
    return Placed(mention.indices[at], None, mention, at)


def resolve(mentions: list[Mention]) -> Placed:
    """One slice out of those told of one lesion: axial before others, PET before CT, the named best of a range."""
    if not mentions:
        return Placed(reason="no_slice")
    axial = [m for m in mentions if m.plane != "other"]
    if not axial:
        return Placed(reason="not_axial", mention=mentions[0])
    said = [m for m in axial if m.plane == "axial"]
    if (
        said
        and len(said) < len(axial)
        and len(axial) == len(mentions)
        and not any(m.best for m in axial if m not in said)
    ):
        axial = said if len(mentions) > 1 and any(m.plane == "other" for m in mentions) else axial
    if len(axial) > 1:
        pet = [m for m in axial if m.modality == "pet"]
        other = [m for m in axial if m.modality != "ct"]
        if pet and len(pet) < len(axial):
            axial = pet
        elif other and len(other) < len(axial):
            axial = other
    best = [m for m in axial if m.best and not m.is_range and len(m.indices) == 1]
    if len(axial) > 1 and best and len(best) < len(axial):
        axial = best[:1] if len({m.indices for m in best}) == 1 else best
    lists = [m for m in axial if len(m.indices) > 1 and not m.is_range]
    alone = {m.indices[0] for m in axial if len(m.indices) == 1}
    if lists and len(alone) == 1 and all(alone <= set(m.indices) for m in lists):
        axial = [m for m in axial if m not in lists]  # "on slices 220, 221 and 222 ... at slice 221"
    singles = [m for m in axial if not m.is_range]
    if len({m.indices for m in axial}) == 1 and not axial[0].is_range and len(axial[0].indices) == 1:
        return Placed(axial[0].indices[0], None, axial[0], 0)
    if (
        singles
        and len(singles) < len(axial)
        and len({m.indices for m in singles}) == 1
        and len(singles[0].indices) == 1
    ):
        return Placed(singles[0].indices[0], None, singles[0], 0)  # "slices 120-138 ... slice 131"
    return Placed(reason="ambiguous", mention=axial[0])


def _across_groups(
    row: Row,
    groups: list[Group],
    reasons: dict[int, str | None],
    placed: dict[int, Placed],
    waiting: list[int],
) -> None:
    """Slices told once for several lesions: a list in order, "both on slice 310", "On slice 104 there are ..."."""
    current = [v for group in groups for v in group.values if reasons[v] is None]
    items = [i for i in row.slices if _mention(row, i).plane != "other"]
    listed = [i for i in items if len(_mention(row, i).indices) == len(current) > 1 and not _mention(row, i).is_range]
    ordered = any(item.has("respectively") for item in row)
    if len(listed) == 1 and len(items) == 1 and (ordered or len(current) == len(_mention(row, listed[0]).indices)):
        for at, v in enumerate(current):
            placed[v] = _place(row, listed[0], at)
        return
    if len(items) != 1 or len(_mention(row, items[0]).indices) != 1 or _mention(row, items[0]).is_range:
        return
    i = items[0]
    shared = any(item.has("shared") for item in row) or _mention(row, i).shared
    beyond = [
        item for item in row[i + 1 : i + 3] if item.text not in ("also", "again", "additionally", "now", "further")
    ]
    follows = beyond[0] if beyond else row[i]
    frame = not any(item.own or "value" in item.kinds for item in row[:i]) and (
        follows.text in _FRAME or any(item.has("starter") for item in row[i + 1 : i + 4])
    )
    last = groups[-1]
    tail = i > last.values[-1] and all(reasons[v] == "reference" for v in last.values)
    tail = tail and (
        any(item.text == "and" for item in row[waiting[0] : last.values[0]])
        or (_same_structure(row, last) and not any(item.text == ";" for item in row[waiting[-1] : i]))
    )
    if tail and row[i].bracket and not _same_structure(row, last):
        tail = False
    outside = bool(row[waiting[0]].bracket) and row[i].bracket != row[waiting[0]].bracket and i > last.values[-1]
    if outside and all(row[v].bracket == row[waiting[0]].bracket for v in last.values):
        tail = tail or all(reasons[v] == "reference" for v in last.values)  # "(4.4 vs liver 3.1), image 168"
    if shared or frame or tail:
        for v in waiting:
            placed[v] = _place(row, i, 0)
