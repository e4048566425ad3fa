"""One sentence read: its row of items, its groups, and for each value what it stands for and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field

from petground.labeling.finding import Laterality
from petground.labeling.language.assign import Placed, assign_slices
from petground.labeling.language.context import Cue
from petground.labeling.language.groups import Group, make_groups
from petground.labeling.language.judge import judge
from petground.labeling.language.mention import Mention
from petground.labeling.language.scope import make_scope
from petground.labeling.language.sentences import Sentence
from petground.labeling.language.sides import find_side, find_site, listed_sides, opposite
from petground.labeling.language.stream import Item, make_stream
from petground.labeling.language.tense import Tense, read_tenses
from petground.labeling.language.tokens import Words

__all__ = ["Reading", "Told", "read_sentence"]

MANY = 40
"""Values in one sentence beyond which it is a dump, not language; they are kept as `ambiguous` without analysis."""


@dataclass
class Told:
    """What a sentence tells of one value.

    group: characters of the words that single the lesion out. cut: characters in it that a model must not read.
    carried: words taken over from before, without which the group would say nothing of the place.
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
    cut: list[tuple[int, int]] = field(default_factory=list)
    carried: str = ""


@dataclass
class Reading:
    """A sentence read. row: its items; told: one per value, in order. unread: values of what is no language."""

    sentence: Sentence
    row: list[Item]
    words: Words
    groups: list[Group] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    unread: list[Mention] = field(default_factory=list)


def read_sentence(
    words: Words,
    sentence: Sentence,
    mentions: list[Mention],
    cues: list[Cue],
    anatomy: list[Cue],
    heading: frozenset[str],
) -> Reading:
    """Reads a sentence. mentions, cues, anatomy: those inside it. heading: kinds of cue in the title above it."""
    begin, stop = words.at(sentence.start), words.at(sentence.end)
    values = [m for m in mentions if m.kind == "suv"]
    if len(values) > MANY:
        return Reading(sentence, [], words, unread=values)
    row = make_stream(words, begin, stop, mentions, cues, anatomy)
    reading = Reading(sentence, row, words, make_groups(row))
    if not values:
        return reading
    tenses = read_tenses(row)
    scopes = {v: make_scope(row, group, v, sentence.section, heading) for group in reading.groups for v in group.values}
    reasons = {v: judge(scope, tenses[v]) for v, scope in scopes.items()}
    _normal_side(row, reading.groups, reasons)
    placed = assign_slices(row, reading.groups, reasons, tenses)
    for number, group in enumerate(reading.groups):
        current = [v for v in group.values if reasons[v] is None]
        sides = _group_sides(row, group, current)
        for v in group.values:
            items = [i for i in scopes[v].items if group.first <= i < group.last]
            side = sides[v][1] if v in sides else find_side(row, items, v)
            anchor = sides[v][0] if v in sides else v
            place = placed.get(v, Placed())
            told = Told(
                row[v].mention or values[0],
                reasons[v] or place.reason,
                place,
                side,
                find_site(row, [i for i in items if i >= anchor] if v in sides else items, anchor, words.text, words),
                (words.start[row[group.first].first], words.end[row[group.last - 1].last - 1]),
                tenses[v],
                uncertain=any(row[i].has("uncertain") for i in items),
                size_mm=_size(row, items, v),
                has_place=any(row[i].has("site", "sided", "ref", "phys") for i in items),
            )
            told.side = told.side or _from_sentence(row, reading, number, items)
            told.cut = _cuts(row, words, tenses)
            told.cut += _other_sides(row, words, sides, v) if v in sides else []
            told.cut += [
                (words.start[row[zone[0]].first], words.end[row[zone[-1]].last - 1])
                for zone in scopes[v].remarks
                if any("value" in row[i].kinds for i in zone)
            ]
            if not told.has_place and number and reading.told and any(row[i].has("another") for i in items):
                told.carried = " ".join(filter(None, (reading.told[-1].side, reading.told[-1].site)))
            reading.told.append(told)
    reading.told.sort(key=lambda t: t.mention.core)
    return reading


def _group_sides(row: list[Item], group: Group, values: list[int]) -> dict[int, tuple[int, Laterality]]:
    """Reads "Right and left nodes: 4.1 and 5.0": the item that names the side of each value, and the side."""
    if len(values) < 2:
        return {}
    sides = listed_sides(row, list(range(group.first, group.last)), len(values))
    return dict(zip(values, sides, strict=True)) if sides else {}


def _other_sides(
    row: list[Item], words: Words, sides: dict[int, tuple[int, Laterality]], value: int
) -> list[tuple[int, int]]:
    """Characters of the sides and places that belong to the other values of a list."""
    cut = []
    mine = sides[value][0]
    for i, _ in sides.values():
        if i == mine:
            continue
        last = i
        if row[min(mine + 1, len(row) - 1)].has("site", "lesion"):
            while last + 1 < len(row) and row[last + 1].has("site") and not row[last + 1].has("lesion"):
                last += 1
        first = i - 1 if i > mine and row[i - 1].text in ("and", ",", "&") else i
        after = last + 1 if i < mine and row[last + 1].text in ("and", ",", "&") else last
        cut.append((words.start[row[first].first], words.end[row[after].last - 1]))
    return cut


def _from_sentence(row: list[Item], reading: Reading, number: int, items: list[int]) -> Laterality | None:
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
    if not places or (any(row[i].has("another") for i in items) and not any(p.has("site", "sided") for p in places)):
        return earlier[-1]
    if all(place.text.startswith(("level", "station")) for place in places):
        return earlier[-1]
    head = reading.groups[0]
    colon = next((i for i in range(head.first, head.values[0]) if row[i].text == ":"), None)
    if number and colon is not None and any(row[i].has("plural", "side") for i in range(head.first, colon)):
        return find_side(row, list(range(head.first, colon)), head.values[0])
    return None


def _normal_side(row: list[Item], groups: list[Group], reasons: dict[int, str | None]) -> None:
    """By "...; the left side is normal" the value of that side is a reference, when another side has one too."""
    for i, item in enumerate(row):
        if not item.has("normal") or any(row[k].has("affirmed") for k in range(max(0, i - 3), i)):
            continue
        back = row[max(0, i - 4) : i]
        side = next((b.kinds["side"] for b in reversed(back) if b.kinds.get("side")), None)
        if side is None or not any(b.text in ("is", "are", "was", "appears") for b in back):
            continue
        for group in groups:
            for v in group.values:
                if (
                    reasons[v] is None
                    and v < i
                    and find_side(row, list(range(group.first, v)), v) == side
                    and len(groups) > 1
                ):
                    reasons[v] = "reference"


def _size(row: list[Item], items: list[int], value: int) -> float | None:
    sizes = [i for i in items if "size" in row[i].kinds and row[i].mention and row[i].mention.value > 0]
    if not sizes:
        return None
    now = [i for i in sizes if not any(row[k].has("prior", "from") for k in range(max(0, i - 3), i))] or sizes
    before = [i for i in now if i < value]
    mention = row[(before or now)[-1 if before else 0]].mention
    return mention.value if mention else None


def _cuts(row: list[Item], words: Words, tenses: dict[int, Tense]) -> list[tuple[int, int]]:
    """Characters that must not be read by a model: values and slices, and the words that announce earlier values."""
    cut = []
    for i, item in enumerate(row):
        if item.has("value", "slice", "head", "series") and item.mention is not None:
            cut.append((item.mention.start, item.mention.end))
        tense = tenses.get(i)
        if tense is not None and tense.when == "prior" and tense.cue >= 0:
            low, high = min(tense.cue, i), max(tense.cue, i)
            if high - low <= 6 and not any(row[k].own for k in range(low, high + 1)):
                cut.append((words.start[row[low].first], words.end[row[high].last - 1]))
    return cut
