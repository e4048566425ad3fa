"""The report as a whole: what a sentence takes over from its neighbours and headings, and what is told twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from petground.labeling.finding import Finding, Laterality
from petground.labeling.language.assign import Placed, resolve
from petground.labeling.language.earlier import settle_before
from petground.labeling.language.mention import Mention
from petground.labeling.language.mentions import find_mentions, scan_sentence
from petground.labeling.language.prompts import redact
from petground.labeling.language.reach import find_reach
from petground.labeling.language.reading import Reading, Told, read_sentence
from petground.labeling.language.records import make_finding, unread_finding
from petground.labeling.language.repeats import mark_repeats
from petground.labeling.language.sentences import Sentence, find_sentences
from petground.labeling.language.sides import find_side, find_site, opposite
from petground.labeling.language.sizes import only_size
from petground.labeling.language.stream import Item, Row
from petground.labeling.language.timepoints import is_delayed
from petground.labeling.language.titles import earlier_titles, heading_kinds, heading_side, interim_is_now
from petground.labeling.language.tokens import Cuts, Words

__all__ = ["read_report"]

_NAMES = ("site", "sided", "ref", "phys", "side", "lesion", "another")
LOOK_BACK = 3
"""Sentences before a value that may tell of its lesion."""
LOOK_AHEAD = 1
"""Sentences after a value that may tell its slice."""
_FRAME_ITEMS = 10
_DIGIT = re.compile(r"\d")


@dataclass
class Topic:
    """The lesion that was spoken of last.

    at: number of its sentence. slices: told without a value so far. valued: a value was told. last: the slice given.
    words: gives what a prompt needs to know of it. framed: only slices were told, of what the next sentence names
    ("PET: image 101. Right hilar mass, SUVmax 9.3.").
    """

    at: int = -9
    side: Laterality | None = None
    site: str | None = None
    slices: list[Mention] = field(default_factory=list)
    words: Callable[[], str] = str
    valued: bool = False
    last: Placed | None = None
    framed: bool = False
    size_mm: float | None = None


def read_report(text: str) -> list[Finding]:
    """Findings of a text, in the order of their values. Never raises; linear in the text."""
    sentences = find_sentences(text)
    cuts = Cuts(text)
    mentions = find_mentions(cuts, sentences, find_reach(text, sentences))
    readings = _read(cuts, sentences, mentions)
    _link(readings)
    findings: list[Finding] = []
    for reading in readings.values():
        findings += [make_finding(text, reading, told) for told in reading.told]
        findings += [unread_finding(reading.sentence, mention) for mention in reading.unread]
    return mark_repeats(findings)


def _read(cuts: Cuts, sentences: list[Sentence], mentions: list[list[Mention] | None]) -> dict[int, Reading]:
    """Readings of the sentences with values, and of those around them that they refer to, in order."""
    readings: dict[int, Reading] = {}
    earlier, interim = earlier_titles(cuts.text, sentences), interim_is_now(cuts.text)
    asking = [n for n, found in enumerate(mentions) if found and any(m.kind == "suv" for m in found)]
    while asking:
        n = asking.pop()
        if n in readings:
            continue
        sentence = sentences[n]
        words = cuts.within(sentence.start, sentence.end)
        found = mentions[n]
        if found is None:
            found = scan_sentence(words, words.at(sentence.start), words.at(sentence.end)).mentions
        heading = heading_kinds(cuts.text, sentence, earlier, interim=interim)
        reading = readings[n] = read_sentence(words, sentence, found, heading)
        behind = range(max(0, n - LOOK_BACK), n)
        waits = any(told.reason == "no_slice" for told in reading.told)
        if _asks_back(reading) or (waits and any(_may_place(cuts.text, sentences[k], mentions[k]) for k in behind)):
            asking.extend(behind)
        ahead = n + LOOK_AHEAD
        if waits and ahead < len(sentences) and _may_place(cuts.text, sentences[ahead], mentions[ahead]):
            asking.append(ahead)
    return dict(sorted(readings.items()))


def _may_place(text: str, sentence: Sentence, found: list[Mention] | None) -> bool:
    """Whether a sentence can tell the slice of a value beside it: it tells one, and no value of its own."""
    if found is None:
        return _DIGIT.search(text, sentence.start, sentence.end) is not None
    kinds = {mention.kind for mention in found}
    return "slice" in kinds and "suv" not in kinds


def _asks_back(reading: Reading) -> bool:
    """Whether the sentence may take something over from those before it."""
    row = reading.row
    if not row or row[0].text == "there" or _one_of(row):
        return True
    if not reading.told:
        return _refers_back(row, None)
    for told in reading.told:
        if _refers_back(row, told) or (told.reason == "no_slice" and (told.site is None or not row.lacks("same"))):
            return True
    return any(told.side is None for told in reading.told) and not row.lacks("ipsi", "contralateral")


def _one_of(row: Row) -> bool:
    """Whether it begins with one of several: "another", "the largest"."""
    return not row.lacks("single", "another") and any(item.has("single", "another") for item in row[:4])


def _link(readings: dict[int, Reading]) -> None:
    """Goes through the sentences in order, filling slices and sides from the lesion spoken of."""
    topic = Topic()
    previous: Reading | None = None
    for n in sorted(readings):
        reading = readings[n]
        sentence = reading.sentence
        if previous is not None and (previous.sentence.section != sentence.section or n - topic.at > LOOK_BACK):
            topic = Topic()
        if previous is not None and sentence.item and previous.sentence.line != sentence.line:
            topic = Topic(side=None)
        if not reading.row:
            topic = Topic()
        elif reading.told:
            _there(reading, previous)
            settle_before(reading, previous)
            for told in reading.told:
                _take_over(reading, told, topic)
            _was(reading, topic)
            _delayed(reading, topic)
            _look_ahead(reading, readings.get(n + 1))
            current = [
                t for t in reading.told if t.reason in (None, "no_slice", "not_axial", "ambiguous", "not_max", "range")
            ]
            if current:
                last = current[-1]
                placed = last.placed if last.reason is None else None
                topic = Topic(
                    n, last.side, last.site or topic.site, [], partial(_clause, reading.words, last), True, placed
                )
                _one_more(reading, topic)
            elif reading.told[-1].reason == "prior":  # "On the prior, the left node had 4.9. Today it is 7.3."
                last = reading.told[-1]
                topic = Topic(n, last.side, last.site or topic.site, [], partial(_clause, reading.words, last))
        else:
            topic = _next_topic(reading, topic, n)
            topic.size_mm = only_size(reading.row) or topic.size_mm
        previous = reading


def _one_more(reading: Reading, topic: Topic) -> None:
    """Takes "... and one on the left on image 277" as the topic of "The latter has an SUVmax of 3.2."."""
    first = reading.groups[-1].last if reading.groups else len(reading.row)
    if len(slices := _slices(reading.row, first)) == 1:
        topic.slices, topic.last = slices, None
        topic.side = find_side(reading.row, list(range(first, len(reading.row))), len(reading.row)) or topic.side


def _slices(row: Row, first: int = 0) -> list[Mention]:
    """The slice mentions of a row, or those from an item on."""
    return [mention for i in row.slices if i >= first and (mention := row[i].mention) is not None]


def _has_slice(reading: Reading) -> bool:
    """Whether a current value of the sentence has a slice already; one of an earlier exam does not count."""
    return any(told.reason is None for told in reading.told)


def _refers_back(row: Row, told: Told | None) -> bool:
    """Whether a sentence goes on about the lesion before: a pronoun at its start, or no place of its own."""
    if not row:
        return False
    pronoun = any(
        (item.has("anaphor") and item.text not in ("which", "that")) or item.text.startswith(("it ", "this "))
        for item in row[:3]
        if item.kinds
    ) or any(item.has("anaphor") and item.has("lesion") for item in row[3:5])  # "the SUVmax of this lesion is"
    if told is not None and told.has_place and not pronoun:
        return False
    if pronoun or (told.bare if told is not None else row.lacks(*_NAMES)):
        return True
    first = row.values[0] if row.values and told is not None else len(row)
    return row[0].text in ("the", "this", "its", "it", "these") and not any(
        item.has("site", "sided", "ref", "phys", "side") for item in row[:first]
    )


def _take_over(reading: Reading, told: Told, topic: Topic) -> None:
    row, words = reading.row, reading.words
    fresh = topic.at >= 0
    back = fresh and _refers_back(row, told)
    one_of = fresh and _one_of(row)
    if told.reason == "no_slice" and back and topic.slices and not _has_slice(reading):
        found = resolve(topic.slices)
        told.placed, told.reason = found, found.reason
    if told.reason == "no_slice" and topic.framed and topic.slices and not _has_slice(reading):
        told.placed = resolve(topic.slices)
        told.reason = told.placed.reason
    if told.reason == "no_slice" and topic.last is not None and any(item.has("same") for item in row):
        told.placed, told.reason = topic.last, None
    if told.side is None and (row.lacks("midline") or not _midline(row, told, words)):
        near = [item for item in row if told.group[0] <= words.start[item.first] < told.group[1]]
        if any(item.has("ipsi") for item in near):
            told.side = topic.side
        elif any(item.has("contralateral") for item in near) and topic.side:
            told.side = opposite(topic.side)
        elif back or one_of:
            told.side = topic.side
        if told.side is None:
            told.side = heading_side(words.text, reading.sentence)
    if back and not told.has_place and topic.site:
        told.site = topic.site
    if back and not told.has_place:
        told.carried = topic.words()
        told.size_mm = told.size_mm or topic.size_mm


def _midline(row: list[Item], told: Told, words: Words) -> bool:
    begin, end = told.group
    return any(item.has("midline") and begin <= words.start[item.first] < end for item in row)


def _there(reading: Reading, previous: Reading | None) -> None:
    """Reads "The outside PET/CT has been received. There, the node had an SUVmax of 5.7."."""
    if previous is None or reading.row[0].text != "there" or reading.row[1:2] == [] or reading.row[1].text != ",":
        return
    if any(item.kinds.get("prior") == "exam" for item in previous.row):
        for told in reading.told:
            if told.tense.when != "current":
                told.reason = "prior"


def _was(reading: Reading, topic: Topic) -> None:
    """Marks "It was 6.8." as earlier after a sentence that gave today's value."""
    for told in reading.told:
        bare = told.tense.sign == "past" and told.reason == "no_slice"
        bare = bare and (told.mention.link != "head" or reading.row[0].text in ("it", "this", "it was", "this was"))
        if bare and topic.valued and len(reading.told) == 1 and _refers_back(reading.row, told):
            told.reason = "prior"


def _delayed(reading: Reading, topic: Topic) -> None:
    """Marks "On delayed images the SUVmax is 7.2." after a sentence that gave the standard value."""
    for told in reading.told:
        mine = told.reason in (None, "no_slice") and topic.valued and len(reading.told) == 1
        if mine and is_delayed(reading.row) and _refers_back(reading.row, told):
            told.reason = "ambiguous"


def _look_ahead(reading: Reading, after: Reading | None) -> None:
    """Reads "SUVmax is 5.4. It is seen on slice 104.": a slice told in the next sentence."""
    waiting = [t for t in reading.told if t.reason == "no_slice"]
    if len(waiting) != 1 or after is None or after.told or _has_slice(reading):
        return
    if after.sentence.section != reading.sentence.section or (
        after.sentence.item and reading.sentence.line != after.sentence.line
    ):
        return
    slices = _slices(after.row)
    if slices and _refers_back(after.row, None):
        found = resolve(slices)
        waiting[0].placed, waiting[0].reason = found, found.reason
        after.spent = True


def _next_topic(reading: Reading, topic: Topic, n: int) -> Topic:
    """What a sentence without values leaves to be spoken of."""
    row, words = reading.row, reading.words
    names = not row.lacks("site", "lesion", "sided", "another", "uptakeword")
    if not row.slices and "correlate" in row.said and any("correlate" in item.text for item in row):
        return topic  # "There is a sclerotic correlate."
    framed = bool(row.slices) and not names and len(row) <= _FRAME_ITEMS
    denies = not row.slices and any(item.has("negation", "negated") for item in row[:6])
    if denies or (not names and not row.slices):
        return topic
    if reading.spent:  # "SUVmax 9.3. Axial 152. Segment 4: SUVmax 7.1.": the slice has its value
        return topic
    indices = list(range(len(row)))
    side = find_side(row, indices, len(row))
    back = topic.at >= 0 and _refers_back(row, None)
    one_of = topic.at >= 0 and _one_of(row)
    if side is None and (back or one_of) and row.lacks("midline"):
        side = topic.side
    if side is None and row.lacks("midline"):
        side = heading_side(words.text, reading.sentence)
    slices = _slices(row) or (topic.slices if back else [])
    site = find_site(row, indices, len(row), words.text, words) or (topic.site if back else None)
    told = topic.words if back and not side and topic.words() else partial(_without_slices, reading, slices)
    return Topic(n, side, site, slices, told, False, None, framed)


def _without_slices(reading: Reading, slices: list[Mention]) -> str:
    start, end = reading.sentence.start, reading.sentence.end
    return redact(reading.words.text[start:end], [(m.start - start, m.end - start) for m in slices if m.start >= start])


def _clause(words: Words, told: Told) -> str:
    start, end = told.group
    return redact(words.text[start:end], [(a - start, b - start) for a, b in told.cut])
