"""A sentence as a row of items: values, slices, sizes, cues, anatomy, punctuation, words. All reasoning is on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from petground.labeling.language.context import Cue
from petground.labeling.language.mention import Mention
from petground.labeling.language.tokens import Words

__all__ = ["OWN", "Item", "Row", "make_stream"]

OWN = frozenset({"site", "lesion", "sided", "side", "ref", "phys", "another"})
"""Kinds that can begin a lesion of its own."""


@dataclass(slots=True)
class Item:
    """One unit of the sentence.

    kinds: label by kind; "value", "slice", "size", "date", "head", "punct" for mentions and punctuation, the kinds of
    context.json and anatomy.json for cues; empty for any other word; never changed in place. first..last: tokens, end
    exclusive. bracket: number of the innermost bracket it lies in, 0 outside; `depth` how many are open. own: whether
    it can name a lesion or its place.
    """

    kinds: dict[str, str]
    first: int
    last: int
    text: str
    bracket: int = 0
    depth: int = 0
    mention: Mention | None = None
    own: bool = False

    def has(self, *kinds: str) -> bool:
        """Whether it is any of the kinds."""
        own = self.kinds
        if own:
            for kind in kinds:
                if kind in own:
                    return True
        return False


_Class = TypeVar("_Class", bound=type)


def _interpreted(cls: _Class) -> _Class:
    """Marks a class that mypyc has to leave as it is: it cannot compile a list's, and compiles no decorated one."""
    return cls


@_interpreted
class Row(list[Item]):
    """The items of a sentence.

    kinds: those of all of them but "punct"; most rules ask for kinds that are not there. said: its tokens with a blank
    between; values, slices: indices of the items that are one.
    """

    __slots__ = ("kinds", "said", "slices", "values")

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[str] = set()
        self.said = ""
        self.values: list[int] = []
        self.slices: list[int] = []

    def lacks(self, *kinds: str) -> bool:
        """Whether no item is any of the kinds."""
        return self.kinds.isdisjoint(kinds)


_NONE: dict[str, str] = {}


def make_stream(
    words: Words, begin: int, stop: int, mentions: list[Mention], cues: list[Cue], anatomy: list[Cue]
) -> Row:
    """Items of the tokens begin..stop. Mentions win over cues, but plain numbers give way to anatomy ("T12")."""
    row = Row()
    row.said = " ".join(words.lower[begin:stop])
    items: list[Item | None] = [None] * (stop - begin)

    def place(kinds: dict[str, str], first: int, last: int, mention: Mention | None = None) -> None:
        a, b = max(first, begin) - begin, min(last, stop) - begin
        if b - a == 1 and items[a] is None:
            row.kinds.update(kinds)
            items[a] = Item(kinds, first, last, "", 0, 0, mention)
            return
        for hit in items[a:b]:
            if hit is not None:
                break
        else:
            row.kinds.update(kinds)
            items[a:b] = [Item(kinds, first, last, "", 0, 0, mention)] * (b - a)
            return
        if hit.mention is None and mention is None:
            row.kinds.update(kinds)
            hit.kinds = {**hit.kinds, **kinds}
            for i in range(a, b):
                if items[i] is None:
                    items[i] = hit
                    hit.last = max(hit.last, begin + i + 1)
                    hit.first = min(hit.first, begin + i)

    for mention in mentions:
        if mention.kind == "suv":
            place({"value": ""}, words.at(mention.core[0]), mention.last, mention)
        elif mention.kind != "number":
            place({mention.kind: ""}, mention.first, mention.last, mention)
    for cue in anatomy:
        place(cue.kinds, cue.first, cue.last)
    for cue in cues:
        place(cue.kinds, cue.first, cue.last)
    for mention in mentions:
        if mention.kind == "number":
            place({"number": ""}, mention.first, mention.last, mention)
    _fill(row, words.lower, begin, items)
    return row


def _fill(row: Row, lower: list[str], begin: int, items: list[Item | None]) -> None:
    """Puts the items into the row, with words and punctuation between them, their texts and brackets."""
    opened: list[int] = []
    count = bracket = depth = 0
    last: Item | None = None
    for index, item in enumerate(items, begin):
        word = lower[index]
        if item is not None:
            if item is last:
                continue
            item.text = word if item.last - item.first == 1 else " ".join(lower[item.first : item.last])
            item.bracket, item.depth = bracket, depth
            kinds = item.kinds
            item.own = not OWN.isdisjoint(kinds)
            if item.mention is not None:
                if "value" in kinds:
                    row.values.append(len(row))
                elif "slice" in kinds:
                    row.slices.append(len(row))
            row.append(item)
        elif word[0].isalnum():
            row.append(Item(_NONE, index, index + 1, word, bracket, depth))
        else:
            if word[0] in "([":
                count += 1
                opened.append(count)
                bracket, depth = count, len(opened)
            row.append(Item({"punct": word}, index, index + 1, word, bracket, depth))
            if word[0] in ")]" and opened:
                opened.pop()
                bracket, depth = (opened[-1] if opened else 0), len(opened)
        last = item
