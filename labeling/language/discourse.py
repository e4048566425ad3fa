"""The report as a whole: what a sentence takes over from its neighbours and headings, and what is told twice."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from spacy.tokens import Doc

from petground.labeling.finding import Finding, Laterality
from petground.labeling.language.anatomy import find_anatomy
from petground.labeling.language.assign import Placed, resolve
from petground.labeling.language.context import Cue, find_cues
from petground.labeling.language.mention import Mention
from petground.labeling.language.prompts import redact
from petground.labeling.language.reading import Reading, Told, read_sentence
from petground.labeling.language.repeats import mark_repeats
from petground.labeling.language.sentences import Sentence
from petground.labeling.language.sides import find_side, find_site, opposite
from petground.labeling.language.stream import Item
from petground.labeling.language.tokens import Words, words_of

__all__ = ["read_report"]

_LOOK_BACK = 3
_LOOK_AHEAD = 1


@dataclass
class Topic:
    """The lesion that was spoken of last.

    at: number of its sentence. slices: told without a value so far. valued: a value was told. last: the slice given.
    words: what a prompt needs to know of it.
    """

    at: int = -9
    side: Laterality | None = None
    site: str | None = None
    slices: list[Mention] = field(default_factory=list)
    words: str = ""
    valued: bool = False
    last: Placed | None = None


def read_report(doc: Doc) -> list[Finding]:
    """Findings of a Doc that went through the pipeline."""
    words, sentences = words_of(doc), doc._.petground_sentences
    by_sentence = _split_by(sentences, doc._.petground_mentions, words)
    cues = _split_cues(sentences, doc._.petground_context, words)
    anatomy = _split_cues(sentences, doc._.petground_anatomy, words)
    with_value = [n for n, mentions in enumerate(by_sentence) if any(m.kind == "suv" for m in mentions)]
    active = sorted(
        {k for n in with_value for k in range(max(0, n - _LOOK_BACK), min(len(sentences), n + _LOOK_AHEAD + 1))}
    )
    readings: dict[int, Reading] = {}
    for n in active:
        heading = _heading(words, sentences[n])
        readings[n] = read_sentence(words, sentences[n], by_sentence[n], cues[n], anatomy[n], heading)
    _link(readings, words)
    text = words.text
    findings: list[Finding] = []
    for reading in readings.values():
        findings += [_finding(text, reading, told) for told in reading.told]
        findings += [_unread(reading.sentence, mention) for mention in reading.unread]
    return mark_repeats(findings)


def _split_by(sentences: list[Sentence], mentions: list[Mention], words: Words) -> list[list[Mention]]:
    starts = [s.start for s in sentences]
    split: list[list[Mention]] = [[] for _ in sentences]
    for mention in mentions:
        n = bisect_left(starts, mention.start + 1) - 1
        if n >= 0:
            split[n].append(mention)
    return split


def _split_cues(sentences: list[Sentence], cues: list[Cue], words: Words) -> list[list[Cue]]:
    starts = [s.start for s in sentences]
    split: list[list[Cue]] = [[] for _ in sentences]
    for cue in cues:
        n = bisect_left(starts, words.start[cue.first] + 1) - 1
        if n >= 0 and words.end[cue.last - 1] <= sentences[n].end:
            split[n].append(cue)
    return split


def _heading(words: Words, sentence: Sentence) -> frozenset[str]:
    kinds: set[str] = set()
    for span in (sentence.label, sentence.group):
        if span is not None:
            for cue in find_cues(words, words.at(span[0]), words.at(span[1])):
                kinds.update(cue.kinds)
    return frozenset(kinds)


def _link(readings: dict[int, Reading], words: Words) -> None:
    """Goes through the sentences in order, filling slices and sides from the lesion spoken of."""
    topic = Topic()
    previous: Reading | None = None
    for n in sorted(readings):
        reading = readings[n]
        sentence = reading.sentence
        if previous is not None and (previous.sentence.section != sentence.section or n - topic.at > _LOOK_BACK):
            topic = Topic()
        if previous is not None and sentence.item and previous.sentence.line != sentence.line:
            topic = Topic(side=None)
        if not reading.row:
            topic = Topic()
        elif reading.told:
            for told in reading.told:
                _take_over(reading, told, topic, words)
            _was(reading, topic)
            _look_ahead(reading, readings.get(n + 1))
            current = [
                t for t in reading.told if t.reason in (None, "no_slice", "not_axial", "ambiguous", "not_max", "range")
            ]
            if current:
                last = current[-1]
                placed = last.placed if last.reason is None else None
                topic = Topic(n, last.side, last.site or topic.site, [], _clause(words, last), True, placed)
        else:
            topic = _next_topic(reading, topic, n, words)
        previous = reading


def _slices(row: list[Item]) -> list[Mention]:
    return [item.mention for item in row if "slice" in item.kinds and item.mention is not None]


def _has_slice(reading: Reading) -> bool:
    """Whether a current value of the sentence has a slice already; one of an earlier exam does not count."""
    return any(told.reason is None for told in reading.told)


def _refers_back(row: list[Item], told: Told | None) -> bool:
    """Whether a sentence goes on about the lesion before: a pronoun at its start, or no place of its own."""
    if not row:
        return False
    head = row[:3]
    pronoun = any(item.has("anaphor") and item.text not in ("which", "that") for item in head)
    definite = row[0].text in ("the", "this", "its", "it", "these") and not any(
        item.has("site", "sided", "ref", "phys", "side") for item in row
    )
    bare = not any(item.has("site", "sided", "ref", "phys", "side", "lesion", "another") for item in row)
    if told is not None and told.has_place and not pronoun:
        return False
    return pronoun or definite or bare


def _take_over(reading: Reading, told: Told, topic: Topic, words: Words) -> None:
    row = reading.row
    fresh = topic.at >= 0
    back = fresh and _refers_back(row, told)
    partial = fresh and any(item.has("single", "another") for item in row[:4])
    if told.reason == "no_slice" and back and topic.slices and not _has_slice(reading):
        found = resolve(topic.slices)
        told.placed, told.reason = found, found.reason
    if told.reason == "no_slice" and topic.last is not None and any(item.has("same") for item in row):
        told.placed, told.reason = topic.last, None
    if told.side is None and not _midline(row, told, words):
        if any(item.has("ipsi") for item in row):
            told.side = topic.side
        elif any(item.has("contralateral") for item in row) and topic.side:
            told.side = opposite(topic.side)
        elif back or partial:
            told.side = topic.side
        if told.side is None:
            told.side = _heading_side(words, reading.sentence)
    if back and not told.has_place and topic.site:
        told.site = topic.site
    if back and not told.has_place and topic.words:
        told.carried = topic.words


def _midline(row: list[Item], told: Told, words: Words) -> bool:
    begin, end = told.group
    return any(item.has("midline") and begin <= words.start[item.first] < end for item in row)


def _heading_side(words: Words, sentence: Sentence) -> Laterality | None:
    """The side named in "Right breast: ..." or in the title line above."""
    for span in (sentence.label, sentence.group):
        if span is None:
            continue
        sides = {
            cue.kinds.get("side") or cue.kinds.get("sided")
            for cue in find_anatomy(words, words.at(span[0]), words.at(span[1]))
            if cue.kinds.get("side") or cue.kinds.get("sided")
        }
        if len(sides) == 1:
            side = sides.pop()
            return side if side in ("left", "right", "bilateral") else None  # type: ignore[return-value]
    return None


def _was(reading: Reading, topic: Topic) -> None:
    """Marks "It was 6.8." as earlier after a sentence that gave today's value."""
    for told in reading.told:
        bare = told.tense.sign == "past" and told.reason == "no_slice"
        bare = bare and (told.mention.link != "head" or reading.row[0].text in ("it", "this", "it was", "this was"))
        if bare and topic.valued and len(reading.told) == 1 and _refers_back(reading.row, told):
            told.reason = "prior"


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


def _next_topic(reading: Reading, topic: Topic, n: int, words: Words) -> Topic:
    """What a sentence without values leaves to be spoken of."""
    row = reading.row
    names = any(item.has("site", "lesion", "sided", "another", "uptakeword") for item in row)
    denies = any(item.has("negation", "negated") for item in row[:6]) and not _slices(row)
    if denies or (not names and not _slices(row)):
        return topic
    indices = list(range(len(row)))
    side = find_side(row, indices, len(row))
    back = topic.at >= 0 and _refers_back(row, None)
    partial = topic.at >= 0 and any(item.has("single", "another") for item in row[:4])
    if side is None and (back or partial) and not any(item.has("midline") for item in row):
        side = topic.side
    if side is None and not any(item.has("midline") for item in row):
        side = _heading_side(words, reading.sentence)
    slices = _slices(row) or (topic.slices if back else [])
    start, end = reading.sentence.start, reading.sentence.end
    told = redact(words.text[start:end], [(m.start - start, m.end - start) for m in slices if m.start >= start])
    site = find_site(row, indices, len(row), words.text, words) or (topic.site if back else None)
    return Topic(n, side, site, slices, topic.words if back and topic.words and not side else told, False)


def _clause(words: Words, told: Told) -> str:
    start, end = told.group
    return redact(words.text[start:end], [(a - start, b - start) for a, b in told.cut])


def _finding(text: str, reading: Reading, told: Told) -> Finding:
    sentence, mention = reading.sentence, told.mention
    positive = told.reason is None
    slice_mention = told.placed.mention if positive else None
    spans = slice_mention.index_spans if slice_mention is not None else ()
    kind = mention.suv_kind if mention.suv_kind in ("max", "mean", "peak") else "unqualified"
    return Finding(
        suv=mention.value,
        slice=told.placed.slice if positive else None,
        laterality=told.side,
        site=told.site,
        status="positive" if positive else "excluded",
        reason=told.reason,
        span=(mention.start, mention.end),
        suv_decimals=mention.decimals,
        suv_kind=kind,  # type: ignore[arg-type]
        slice_span=(slice_mention.start, slice_mention.end) if slice_mention is not None and spans else None,
        sentence=text[sentence.start : sentence.end],
        sentence_span=(sentence.start, sentence.end),
        section=sentence.section,
        prompt=_prompt(text, reading, told),
        uncertain=told.uncertain,
        size_mm=told.size_mm,
        series=slice_mention.series if slice_mention is not None else None,
    )


def _unread(sentence: Sentence, mention: Mention) -> Finding:
    """The value of a stretch that is no language, kept without its surroundings."""
    span = (mention.start, mention.end)
    return Finding(
        mention.value, None, None, None, "excluded", "ambiguous", span, mention.decimals, sentence_span=span,
        section=sentence.section,
    )  # fmt: skip


def _prompt(text: str, reading: Reading, told: Told) -> str:
    start, end = told.group
    prompt = redact(text[start:end], [(a - start, b - start) for a, b in told.cut])
    if told.carried:
        carried = told.carried.rstrip(" .;,")
        prompt = f"{carried}. {prompt}" if len(prompt.split()) > 2 else carried
    prompt = prompt or told.site or ""
    if prompt and told.side in ("left", "right") and told.side not in prompt.lower():
        prompt = f"{prompt.rstrip(' .')} ({told.side})"
    return prompt
