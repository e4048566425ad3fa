"""One sentence read: its row of items, its groups, and for each value what it stands for and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from petground.labeling.finding import Laterality
from petground.labeling.language.anatomy import find_anatomy
from petground.labeling.language.assign import Placed, assign_slices, resolve
from petground.labeling.language.context import find_cues
from petground.labeling.language.groups import Group, make_groups
from petground.labeling.language.judge import judge
from petground.labeling.language.mention import Mention
from petground.labeling.language.remarks import find_remarks, part_of, without
from petground.labeling.language.scope import Scope, make_scope
from petground.labeling.language.sentences import Sentence
from petground.labeling.language.sides import find_side, find_site, listed_places, listed_side, opposite
from petground.labeling.language.sizes import current_size
from petground.labeling.language.stream import Item, Row, make_stream
from petground.labeling.language.tense import Tense, read_tenses
from petground.labeling.language.tokens import Words

__all__ = ["Reading", "Told", "read_sentence"]

_PLACES = ("site", "sided", "ref", "phys")
_PARTS = ("component", "portion", "part", "extension", "rim", "margin")
MANY = 40
"""Values in one sentence beyond which it is a dump, not language; they are kept as `ambiguous` without analysis."""


@dataclass
class Told:
    """What a sentence tells of one value.

    group: characters of the words that single the lesion out. cut: characters in it that a model must not read.
    bare: nothing in its scope names a lesion or a place. carried: words taken over from before, without which the
    group would say nothing of the place.
    """

    mention: Mention
    reason: str | None
    placed: Placed
    side: Laterality | None
    site: str | None
    group: tuple[int, int]
    tense: Tense
    uncertain: bool = False
    size_mm: float | None = None
    has_place: bool = False
    bare: bool = False
    cut: list[tuple[int, int]] = field(default_factory=list)
    carried: str = ""


@dataclass
class Reading:
    """A sentence read. row: its items; told: one per value, in order. unread: values of what is no language.

    spent: its slice was given to a value of the sentence before.
    """

    sentence: Sentence
    row: Row
    words: Words
    groups: list[Group] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    unread: list[Mention] = field(default_factory=list)
    spent: bool = False


def read_sentence(
    words: Words,
    sentence: Sentence,
    mentions: list[Mention],
    heading: frozenset[str],
) -> Reading:
    """Reads a sentence. mentions: those inside it. heading: kinds of cue in the title above it."""
    begin, stop = words.at(sentence.start), words.at(sentence.end)
    values = [m for m in mentions if m.kind == "suv"]
    if len(values) > MANY:
        return Reading(sentence, Row(), words, unread=values)
    dump = (begin, stop) in words.dumps
    cues = [] if dump else find_cues(words, begin, stop)
    if "interim" in heading:
        cues = [cue for cue in cues if "prior" not in cue.kinds or "interim" not in words.lower[cue.first : cue.last]]
    row = make_stream(words, begin, stop, mentions, cues, [] if dump else find_anatomy(words, begin, stop))
    remarks = [] if sentence.cells else find_remarks(row)
    asides = [(remark.kind, part_of(row, remark)) for remark in remarks]
    cut = [(words.start[row[remark.told].first], words.end[row[remark.last - 1].last - 1]) for remark in remarks]
    row = without(row, remarks) if remarks else row
    reading = Reading(sentence, row, words, _row_group(row) if sentence.cells else make_groups(row))
    if not values:
        return reading
    tenses = read_tenses(row)
    scopes = {v: make_scope(row, group, v, sentence.section, heading) for group in reading.groups for v in group.values}
    reasons = {v: judge(scope, tenses[v]) for v, scope in scopes.items()}
    _normal_side(row, reading.groups, reasons)
    if sentence.cells:
        slices = [m for i in row.slices if (m := row[i].mention)]
        placed = {v: resolve(slices) for v in reasons}
    else:
        placed = assign_slices(row, reading.groups, reasons, tenses)
    cuts = _cuts(row, words, tenses) + cut
    for group in reading.groups:
        current = [v for v in group.values if reasons[v] is None]
        members = _members(row, group, current)
        for v in group.values:
            at = current.index(v) if members and v in current else -1
            told = _tell(reading, group, scopes[v], tenses[v], members or [], at)
            told.placed = placed.get(v, told.placed)
            told.reason = reasons[v] or told.placed.reason
            told.cut += cuts
            reading.told.append(told)
    for kind, part in asides:
        reading.told += _read_aside(reading, kind, part, heading)
    reading.told.sort(key=lambda t: t.mention.core)
    return reading


def _read_aside(reading: Reading, kind: str, part: Row, heading: frozenset[str]) -> list[Told]:
    """The values of a remark, which is read by itself: they are `kind`, unless they are an earlier exam's or normal."""
    aside = Reading(reading.sentence, part, reading.words, make_groups(part))
    tenses = read_tenses(part) if aside.groups else {}
    for group in aside.groups:
        for v in group.values:
            scope = make_scope(part, group, v, reading.sentence.section, heading)
            told = _tell(aside, group, scope, tenses[v], [], -1)
            found = judge(scope, tenses[v])
            kept = found == "prior" or (found == "physiologic" and part.lacks("normal", "reference"))
            told.reason = found if kind == "reference" and kept else kind
            aside.told.append(told)
    return aside.told


def _row_group(row: Row) -> list[Group]:
    """A row of a table is about one lesion."""
    return [Group(0, len(row), list(row.values))] if row.values else []


def _tell(reading: Reading, group: Group, scope: Scope, tense: Tense, members: list[list[int]], at: int) -> Told:
    """What is told of one value. members, at: the list that it is told in, and which member of it is meant (or -1)."""
    row, words, v = reading.row, reading.words, scope.value
    items = [i for i in scope.items if group.first <= i < group.last]
    about = items if at < 0 else members[at]
    if at >= 0 and not _has_place(row, about):
        about = [i for i in items if i >= about[0]] or about
    mention = row[v].mention
    assert mention is not None
    kinds = row.kinds if len(items) == len(row) else {kind for i in items for kind in row[i].kinds}
    told = Told(
        mention,
        None,
        Placed(),
        find_side(row, items, v) if at < 0 else listed_side(row, members, at),
        find_site(row, about, v if at < 0 else about[0], words.text, words),
        (words.start[row[group.first].first], words.end[row[group.last - 1].last - 1]),
        tense,
        uncertain="uncertain" in kinds,
        size_mm=_size(row, about if at >= 0 else items, items, v),
        has_place=not kinds.isdisjoint(_PLACES),
        bare=kinds.isdisjoint((*_PLACES, "side", "lesion", "another")),
    )
    number = reading.groups.index(group)
    told.side = told.side or _cell_side(reading) or (_from_sentence(row, reading, number, items) if at < 0 else None)
    told.cut = _other_members(row, words, members, at) if at >= 0 else []
    told.cut += [
        (words.start[row[zone[0]].first], words.end[row[zone[-1]].last - 1])
        for zone in scope.remarks
        if any("value" in row[i].kinds for i in zone)
    ]
    if not told.has_place and number and reading.told and "another" in kinds:
        told.carried = " ".join(filter(None, (reading.told[-1].side, reading.told[-1].site)))
    return told


def _cell_side(reading: Reading) -> Laterality | None:
    """The side in a table's column of its own."""
    sides: dict[str, Laterality] = {"l": "left", "r": "right", "b": "bilateral"}
    cells = [cell for cell in reading.sentence.cells if cell.role == "side"]
    return sides.get(reading.words.text[cells[0].start : cells[0].end].strip().lower()[:1]) if cells else None


def _size(row: Row, about: list[int], items: list[int], value: int) -> float | None:
    """Today's size [mm] of the member of a list, or else of all that is told."""
    if row.lacks("size"):
        return None
    return current_size(row, about if about is not items and current_size(row, about, len(row)) else items, value)


def _has_place(row: list[Item], items: list[int]) -> bool:
    return any(row[i].has(*_PLACES, "lesion") for i in items)


def _members(row: list[Item], group: Group, values: list[int]) -> list[list[int]] | None:
    """The places of a list with as many values: named before the first value, or after the last."""
    if len(values) < 2:
        return None
    colon = max((i for i in range(group.first, values[0]) if row[i].text == ":"), default=group.first)
    before = listed_places(row, colon, values[0], len(values)) or listed_places(
        row, group.first, values[0], len(values)
    )
    return before or listed_places(row, values[-1] + 1, group.last, len(values))


def _other_members(row: list[Item], words: Words, members: list[list[int]], at: int) -> list[tuple[int, int]]:
    """Characters of the members of a list that belong to its other values."""
    mine = members[at]
    own = _has_place(row, mine)
    cut = []
    for other in members:
        if other is mine:
            continue
        span = other if own else [i for i in other if row[i].has("side")] or other[:0]
        if not span:
            continue
        first, last = span[0], span[-1]
        if first > mine[0] and first > 0 and row[first - 1].text in ("and", ",", "&", "plus"):
            first -= 1
        elif last < mine[0] and row[last + 1].text in ("and", ",", "&", "plus"):
            last += 1
        cut.append((words.start[row[first].first], words.end[row[last].last - 1]))
    return cut


def _from_sentence(row: Row, reading: Reading, number: int, items: list[int]) -> Laterality | None:
    """Side taken over from earlier in the sentence: "a second one", "ipsilateral", "Two left nodes: axillary ..."."""
    earlier = [t.side for t in reading.told if t.side in ("left", "right")]
    if not earlier:
        return None
    if any(row[i].has("ipsi") for i in items):
        return earlier[-1]
    if any(row[i].has("contralateral") for i in items):
        return opposite(earlier[-1])
    if any(row[i].has("midline") for i in items):
        return None
    places = [row[i] for i in items if row[i].has("site", "sided", "lesion", "ref", "phys")]
    part = any(row[i].text in _PARTS for i in items) and not any(p.has("site", "sided", "ref", "phys") for p in places)
    if (
        not places
        or part
        or (any(row[i].has("another") for i in items) and not any(p.has("site", "sided") for p in places))
    ):
        return earlier[-1]
    if all(place.text.startswith(("level", "station")) for place in places):
        return earlier[-1]
    head = reading.groups[0]
    colon = next((i for i in range(head.first, head.values[0]) if row[i].text == ":"), None)
    if number and colon is not None and any(row[i].has("plural", "side") for i in range(head.first, colon)):
        return find_side(row, list(range(head.first, colon)), head.values[0])
    return None


def _normal_side(row: Row, groups: list[Group], reasons: dict[int, str | None]) -> None:
    """By "...; the left side is normal" the value of that side is a reference, when another side has one too."""
    if row.lacks("normal"):
        return
    for i, item in enumerate(row):
        if not item.has("normal") or any(row[k].has("affirmed") for k in range(max(0, i - 3), i)):
            continue
        back = row[max(0, i - 4) : i]
        side = next((b.kinds["side"] for b in reversed(back) if b.kinds.get("side")), None)
        if side is None or not any(b.text in ("is", "are", "was", "appears") for b in back):
            continue
        for group in groups:
            for v in group.values:
                there = find_side(row, list(range(group.first, v)), v)
                told = any(row[k].has("normal", "reference") for k in range(group.first, v))
                if (
                    reasons[v] == "reference"
                    and v < i
                    and len(groups) > 1
                    and there == opposite(cast(Laterality, side))
                    and not told
                ):
                    reasons[v] = None  # "left parotid 6.2, right parotid 2.4; the right gland is normal"
                if (
                    reasons[v] is None
                    and v < i
                    and find_side(row, list(range(group.first, v)), v) == side
                    and len(groups) > 1
                ):
                    reasons[v] = "reference"


def _cuts(row: list[Item], words: Words, tenses: dict[int, Tense]) -> list[tuple[int, int]]:
    """Characters that must not be read by a model: values and slices, and the words that announce earlier values."""
    cut = []
    for i, item in enumerate(row):
        if item.mention is None:
            continue
        if item.has("value", "slice", "head", "series"):
            cut.append((item.mention.start, item.mention.end))
        tense = tenses.get(i)
        if tense is not None and tense.when == "prior" and tense.cue >= 0:
            low, high = min(tense.cue, i), max(tense.cue, i)
            if high - low <= 6 and not any(row[k].own for k in range(low, high + 1)):
                cut.append((words.start[row[low].first], words.end[row[high].last - 1]))
    return cut
