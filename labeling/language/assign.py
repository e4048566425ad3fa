"""Which slice belongs to which value: within the group of one lesion, in lists, shared, or nobody's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from petground.labeling.language.groups import Group
from petground.labeling.language.mention import Mention
from petground.labeling.language.stream import Item
from petground.labeling.language.tense import Tense

__all__ = ["Placed", "assign_slices", "resolve"]


@dataclass
class Placed:
    """A slice for a value, or the reason why there is none. mention: the slice mention; at: which of its numbers."""

    slice: int | None = None
    reason: str | None = None
    mention: Mention | None = None
    at: int = 0


def assign_slices(
    row: list[Item], groups: list[Group], reasons: dict[int, str | None], tenses: dict[int, Tense]
) -> dict[int, Placed]:
    """A slice (or `not_axial`, `ambiguous`, `no_slice`) for each value whose reason is None, by item index."""
    placed: dict[int, Placed] = {}
    used: set[int] = set()
    for group in groups:
        values = [v for v in group.values if reasons[v] is None]
        slices = _own_slices(row, group, values, reasons, tenses)
        used.update(slices if values else [])
        placed.update(_match(row, values, slices))
    _same_as_before(row, groups, placed)
    waiting = [v for v, p in placed.items() if p.reason == "no_slice"]
    if waiting:
        _across_groups(row, groups, reasons, placed, waiting)
    return placed


def _same_as_before(row: list[Item], groups: list[Group], placed: dict[int, Placed]) -> None:
    """Reads "... and a left one on the same slice": the slice of the group before."""
    for before, group in itertools.pairwise(groups):
        given = [placed[v] for v in before.values if v in placed and placed[v].slice is not None]
        if given and any(item.has("same") for item in row[group.first : group.last]):
            for v in group.values:
                if v in placed and placed[v].reason == "no_slice":
                    placed[v] = given[-1]


def _own_slices(
    row: list[Item], group: Group, values: list[int], reasons: dict[int, str | None], tenses: dict[int, Tense]
) -> list[int]:
    """Slice items of the group without those that an earlier or reference value claims."""
    found = [i for i in range(group.first, group.last) if "slice" in row[i].kinds]
    others = [v for v in group.values if reasons[v] in ("prior", "reference", "physiologic")]
    if not others:
        return found
    claimed = {i: strength for i in found for strength in [_claim(row, i, others, values, tenses)] if strength}
    left = [i for i in found if i not in claimed]
    if not left and values:
        left = [i for i in found if claimed[i] == 1]
    return left


def _claim(row: list[Item], i: int, others: list[int], values: list[int], tenses: dict[int, Tense]) -> int:
    """2: surely another value's slice; 1: its unless the current value has no other; 0: free."""
    bracket = row[i].bracket
    if bracket:
        inside = [v for v in [*others, *values] if row[v].bracket == bracket]
        if inside and not any(v in values for v in inside):
            return 2
    for v in others:
        tense = tenses[v]
        before = tense.sign in ("adverb", "exam", "clause", "date", "past") and 0 <= tense.cue < i < v
        if before and not any("value" in row[k].kinds for k in range(tense.cue, v)):
            return 2
    nearest = max((v for v in [*others, *values] if v < i), default=-1)
    if nearest in others:
        gap = row[nearest + 1 : i]
        if any(g.text == "," or g.has("current") for g in gap) and not (bracket and row[nearest].bracket == bracket):
            return 0
        if any(g.own for g in gap) or (row[nearest].bracket and bracket != row[nearest].bracket):
            return 0
        if len(gap) <= 5:
            told = tenses[nearest].sign in ("adverb", "exam", "clause", "past", "current", "date")
            if any(g.text == "," for g in gap):
                return 1
            return 2 if told and values else 1
    return 0


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
    row: list[Item],
    groups: list[Group],
    reasons: dict[int, str | None],
    placed: dict[int, Placed],
    waiting: list[int],
) -> None:
    """Slices told once for several lesions: a list in order, "both on slice 310", "On slice 104 there are ..."."""
    current = [v for group in groups for v in group.values if reasons[v] is None]
    items = [i for i, item in enumerate(row) if "slice" in item.kinds and _mention(row, i).plane != "other"]
    listed = [i for i in items if len(_mention(row, i).indices) == len(current) > 1 and not _mention(row, i).is_range]
    ordered = any(item.has("respectively") for item in row)
    if len(listed) == 1 and len(items) == 1 and (ordered or len(current) == len(_mention(row, listed[0]).indices)):
        for at, v in enumerate(current):
            placed[v] = _place(row, listed[0], at)
        return
    if len(items) != 1 or len(_mention(row, items[0]).indices) != 1 or _mention(row, items[0]).is_range:
        return
    i = items[0]
    shared = any(item.has("shared") for item in row)
    frame = not any(item.own or "value" in item.kinds for item in row[:i]) and (
        row[min(i + 1, len(row) - 1)].text == "," or any(item.has("starter") for item in row[i + 1 : i + 4])
    )
    last = groups[-1]
    tail = i > last.values[-1] and row[i].bracket == 0 and all(reasons[v] == "reference" for v in last.values)
    tail = tail and any(item.text == "and" for item in row[waiting[0] : last.values[0]])
    if shared or frame or tail:
        for v in waiting:
            placed[v] = _place(row, i, 0)
