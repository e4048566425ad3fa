"""A sentence as a row of items: values, slices, sizes, cues, anatomy, punctuation, words. All reasoning is on it."""

from __future__ import annotations

from dataclasses import dataclass

from petground.labeling.language.context import Cue
from petground.labeling.language.mention import Mention
from petground.labeling.language.tokens import Words

__all__ = ["OWN", "Item", "make_stream"]

OWN = frozenset({"site", "lesion", "sided", "side", "ref", "phys", "another"})
"""Kinds that can begin a lesion of its own."""


@dataclass
class Item:
    """One unit of the sentence.

    kinds: label by kind; "value", "slice", "size", "date", "head", "punct" for mentions and punctuation, the kinds of
    context.json and anatomy.json for cues; empty for any other word. first..last: tokens, end exclusive.
    bracket: number of the innermost bracket it lies in, 0 outside; `depth` how many are open.
    """

    kinds: dict[str, str]
    first: int
    last: int
    text: str
    bracket: int = 0
    depth: int = 0
    mention: Mention | None = None

    def has(self, *kinds: str) -> bool:
        """Whether it is any of the kinds."""
        own = self.kinds
        if own:
            for kind in kinds:
                if kind in own:
                    return True
        return False

    @property
    def own(self) -> bool:
        """Whether it can name a lesion or its place."""
        return not self.kinds.keys().isdisjoint(OWN)


def make_stream(
    words: Words, begin: int, stop: int, mentions: list[Mention], cues: list[Cue], anatomy: list[Cue]
) -> list[Item]:
    """Items of the tokens begin..stop. Mentions win over cues, but plain numbers give way to anatomy ("T12")."""
    items: list[Item | None] = [None] * (stop - begin)
    owner: list[Item] = []

    def place(item: Item) -> None:
        span = range(max(item.first, begin), min(item.last, stop))
        hit = [items[i - begin] for i in span if items[i - begin] is not None]
        first = next((h for h in hit if h is not None), None)
        if first is None:
            owner.append(item)
            for i in span:
                items[i - begin] = item
        elif first.mention is None and item.mention is None:
            first.kinds = {**first.kinds, **item.kinds}
            for i in span:
                if items[i - begin] is None:
                    items[i - begin] = first
                    first.last = max(first.last, i + 1)
                    first.first = min(first.first, i)

    for mention in mentions:
        if mention.kind == "suv":
            core = words.at(mention.core[0])
            after = mention.last
            place(Item({"value": ""}, core, after, "", mention=mention))
        elif mention.kind in ("slice", "size", "date", "series"):
            place(Item({mention.kind: ""}, mention.first, mention.last, "", mention=mention))
        elif mention.kind == "head":
            place(Item({"head": ""}, mention.first, mention.last, "", mention=mention))
    for cue in anatomy:
        place(Item(dict(cue.kinds), cue.first, cue.last, ""))
    for cue in cues:
        place(Item(dict(cue.kinds), cue.first, cue.last, ""))
    for mention in mentions:
        if mention.kind == "number":
            place(Item({"number": ""}, mention.first, mention.last, "", mention=mention))
    return _finish(words, begin, items)


def _finish(words: Words, begin: int, items: list[Item | None]) -> list[Item]:
    row: list[Item] = []
    opened: list[int] = []
    count = 0
    last: Item | None = None
    for offset, item in enumerate(items):
        index = begin + offset
        word = words.lower[index]
        if item is not None:
            if item is last:
                continue
            last = item
        else:
            last = None
            mark = word if not word[0].isalnum() else ""
            item = Item({"punct": word} if mark else {}, index, index + 1, word)
        item.text = " ".join(words.lower[item.first : item.last])
        if word[0] in "([" and "punct" in item.kinds:
            count += 1
            opened.append(count)
        item.bracket, item.depth = (opened[-1], len(opened)) if opened else (0, 0)
        if word[0] in ")]" and "punct" in item.kinds and opened:
            opened.pop()
        row.append(item)
    return row
