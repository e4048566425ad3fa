"""How large a lesion is today, of the lengths that stand around its value; rules and examples are in sizes.json.

A length that was measured earlier, a distance to a landmark, a change and the size of a part are not the lesion's size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from petground.labeling.language.stream import Item

__all__ = ["current_size", "only_size"]

Phrases = frozenset[tuple[str, ...]]
_LEFT, _RIGHT = 5, 5
_PAST = frozenset(("was", "were"))
_ENDS = frozenset((";", ".", "?", "!"))


def current_size(row: Sequence[Item], items: Sequence[int], value: int) -> float | None:
    """Largest extent [mm] of the lesion that the value at `value` belongs to: the last before it, or the next.

    items: indices of what tells of this lesion. None where no size is told, or only earlier ones.
    """
    now = _current(row, items)
    if not now:
        return None
    before = [i for i in now if i < value]
    return _millimetres(row[before[-1] if before else now[0]])


def only_size(row: Sequence[Item]) -> float | None:
    """The size that a sentence gives, if it gives one only: what a following sentence may take over."""
    now = _current(row, range(len(row)))
    return _millimetres(row[now[0]]) if len(now) == 1 else None


def _current(row: Sequence[Item], items: Sequence[int]) -> list[int]:
    sizes = [i for i in items if "size" in row[i].kinds and _millimetres(row[i])]
    sizes = [i for i in sizes if not _beside(row, i) and not _earlier(row, i)]
    if len(sizes) > 1:  # "1.5 cm, was 2.1 cm"; alone it is a report in the past tense
        sizes = [i for i in sizes if row[i - 1].text not in _PAST] or sizes
    return sizes


def _millimetres(item: Item) -> float | None:
    return item.mention.value if item.mention is not None and item.mention.value > 0 else None


def _beside(row: Sequence[Item], at: int) -> bool:
    """Whether it is a distance, a change or a part: by the words right after and right before it."""
    after, before = _phrases()
    following = _words(row, at + 1, at + 4)
    leading = _words(row, max(0, at - 3), at)
    if any(following[:n] in after for n in range(1, len(following) + 1)):
        return not _compares(row, at)
    return any(leading[-n:] in before for n in range(1, len(leading) + 1))


def _compares(row: Sequence[Item], at: int) -> bool:
    """ "1.5 cm from 2.1 cm": today's before the earlier one, no distance."""
    near = row[at + 1 : at + 4]
    return bool(near) and near[0].text == "from" and any(item.has("size", "date", "prior") for item in near[1:])


def _words(row: Sequence[Item], first: int, last: int) -> tuple[str, ...]:
    return tuple(word for item in row[first:last] for word in item.text.split())


def _earlier(row: Sequence[Item], at: int) -> bool:
    """Whether it was measured on an earlier exam, as the words to its left or right say."""
    for i in range(at - 1, max(at - 1 - _LEFT, -1), -1):
        item = row[i]
        if item.has("current") or "value" in item.kinds or "size" in item.kinds or item.text in _ENDS:
            break
        if item.has("prior", "date"):
            return not _describes(row, i, at)
        if item.has("versus") or (item.has("from") and _ends_in_size(row, at)):
            return True
        if item.text in (",", "(", ")") or item.own:
            break
    for i in range(at + 1, min(at + 1 + _RIGHT, len(row))):
        item = row[i]
        if item.has("current", "versus") or "value" in item.kinds or "size" in item.kinds or item.text in _ENDS:
            return False
        if item.has("prior", "date"):
            return not _leads(row, i)
        if item.text in (",", "(", ")") or item.own:
            return False
    return False


def _ends_in_size(row: Sequence[Item], at: int) -> bool:
    """ "from 2.1 cm to 1.5 cm"."""
    return any(item.text in ("to", "now") or item.has("size") for item in row[at + 1 : at + 4])


def _describes(row: Sequence[Item], cue: int, at: int) -> bool:
    """ "previously biopsied 1.5 cm node": the word tells of the node, not of the size."""
    between = row[cue + 1 : at]
    return bool(between) and between[0].text.endswith(("ed", "wn", "en")) and between[0].text != "measured"


def _leads(row: Sequence[Item], cue: int) -> bool:
    """ "1.5 cm previously 2.1 cm": the word belongs to the next size."""
    return any("size" in item.kinds for item in row[cue + 1 : cue + 4])


@cache
def _phrases() -> tuple[Phrases, Phrases]:
    text = files("petground.labeling.language").joinpath("sizes.json").read_text(encoding="utf-8")
    rules = json.loads(text)["rules"]
    after, before = (frozenset(tuple(p.split()) for rule in rules for p in rule[side]) for side in ("after", "before"))
    return after, before
