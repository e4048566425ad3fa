"""SUV words that stand behind or apart from their values: "a 5.4 SUVmax", "SUVmax/SUVmean 6.2/3.9"."""

from __future__ import annotations

from petground.labeling.language.mention import Mention, Scan

__all__ = ["join_late_heads", "pair_heads"]


def pair_heads(scan: Scan, heads: list[Mention], values: list[Mention]) -> None:
    """Reads "SUVmax/SUVmean 6.2/3.9", "SUVmax and SUVmean of 6.2 and 3.9": kinds and values in the same order."""
    for row in _rows_of_heads(scan, heads):
        after = [v for v in values if v.core[0] >= scan.words.start[row[-1].first]][: len(row)]
        linked = len(after) == len(row) and all(v.link == "value" for v in after[1:])
        if linked and after[0].first <= row[-1].first + 1:
            for value, head in zip(after, row, strict=True):
                value.suv_kind, value.lean = head.suv_kind, head.lean


def _rows_of_heads(scan: Scan, heads: list[Mention]) -> list[list[Mention]]:
    """SUV words of different kinds with only a slash, a comma or "and" between."""
    rows: list[list[Mention]] = []
    for head in heads:
        last = rows[-1][-1] if rows else None
        joined = last is not None and head.first - last.last == 1 and scan.word(last.last) in ("/", "and", "&", ",")
        if joined and last is not None and head.suv_kind != last.suv_kind:
            rows[-1].append(head)
        else:
            rows.append([head])
    return [row for row in rows if len(row) > 1]


def join_late_heads(scan: Scan, heads: list[Mention], values: list[Mention], qualifiers: dict[str, str]) -> None:
    """The SUV word that follows its value ("a 5.4 SUVmax") joins it; "SUV 5.4 (max)" names its kind."""
    by_last = {value.last: value for value in values}
    for head in heads:
        for gap in (0, 1):
            value = by_last.get(head.first - gap)
            if head.head < 0 and value is not None and (gap == 0 or scan.word(head.first - 1) in ("(", "[", "-")):
                value.suv_kind, value.lean = head.suv_kind, head.lean
                head.head = value.first
                break
    for value in values:
        step = value.last + (scan.word(value.last) in ("(", "[", ","))
        word = scan.word(step)
        ends = scan.word(step + 1)
        if value.suv_kind != "unqualified" or word not in qualifiers or step in scan.taken:
            continue
        if scan.word(value.last) != "," and ends in (")", "]", ",", ".", ";", ""):
            value.suv_kind = qualifiers[word]
            scan.taken[step] = "suv"
            opened = step > value.last
            value.last = step + 1 + (opened and ends in (")", "]"))
            value.end = scan.words.end[min(value.last, scan.stop) - 1]
