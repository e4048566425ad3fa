"""Dual-time-point imaging: one lesion measured on the standard and on delayed images of one exam is one finding.

"SUVmax 5.1 at 60 min and 7.2 at 120 min": the standard value is kept; the delayed one belongs to another acquisition
and cannot be assigned to the same voxels, so it is `ambiguous`. A delayed value alone is the finding.
"""

from __future__ import annotations

import itertools
import re

from petground.labeling.language.stream import Item, Row
from petground.labeling.language.told import Tense

__all__ = ["is_delayed", "settle_timepoints"]

_REACH = 6  # items between a value and what says when it was measured
_CLOCK = re.compile(r"(\d{1,3}) ?(?:-|post)? ?(min|mins|minute|minutes|h|hr|hrs|hour|hours)\b")
_LATE = 90  # minutes; the standard acquisition begins about an hour after injection


def settle_timepoints(row: Row, values: list[int], tenses: dict[int, Tense]) -> None:
    """Marks the values of delayed images that stand beside a standard value of the same lesion."""
    if len(values) < 2 or row.lacks("timepoint", "number"):
        return
    when = {v: _minutes(row, values, n) for n, v in enumerate(values)}
    for early, late in itertools.pairwise(values):
        if when[late] is None and when[early] is None:
            continue
        first, second = when[early], when[late]
        if first is not None and (second is None or first > second) and first >= _LATE:
            early, late, first, second = late, early, second, first
        if second is None or second <= (first or 60) or second < _LATE or _kind(row, early) != _kind(row, late):
            continue
        if any(item.own and not item.has("another") for item in row[min(early, late) + 1 : max(early, late)]):
            continue
        told = tenses[early]
        if told.when == "prior" and (told.cue < 0 or not row[told.cue].text.startswith(("initial", "early"))):
            continue  # an earlier exam's value beside a delayed one of today
        tenses[early] = Tense()
        tenses[late] = Tense("", "delayed", pair=early)


def is_delayed(row: list[Item]) -> bool:
    """Whether a sentence speaks of delayed images."""
    return any(item.kinds.get("timepoint") == "late" for item in row)


def _minutes(row: list[Item], values: list[int], order: int) -> float | None:
    """When a value was measured after injection [min]: 60 for early images, 120 for delayed ones, None if not said."""
    v = values[order]
    low = values[order - 1] if order else -1
    high = values[order + 1] if order + 1 < len(values) else len(row)
    left = [i for i in range(v - 1, max(low, v - _REACH), -1) if _says(row[i]) is not None]
    right = []
    for i in range(v + 1, min(high, v + _REACH)):
        if row[i].text in (";", ",", ".") or row[i].has("coord"):
            break
        if _says(row[i]) is not None:
            right.append(i)
    found = right[:1] or left[:1]
    return _says(row[found[0]]) if found else None


def _says(item: Item) -> float | None:
    label = item.kinds.get("timepoint")
    if label:
        return 60.0 if label == "early" else 120.0
    if "number" in item.kinds and (match := _CLOCK.search(item.text)) is not None:
        return float(match.group(1)) * (60.0 if match.group(2).startswith("h") else 1.0)
    return None


def _kind(row: list[Item], index: int) -> str:
    mention = row[index].mention
    return mention.suv_kind if mention is not None else ""
