"""Where the SUV and the slice stand in a finding's sentence, so that the page can mark them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Piece", "mark_sentence", "mark_sentences"]

Piece = tuple[str, str]
"""(text, kind); kind is "" for plain text, "suv" or "slice" for a marked value."""

_SLICE_WORD = re.compile(r"\b(?:slices?|images?|img|im|axial|ax|se(?:ries)?)\b[^.;\d]{0,12}(?:\d+\s*[/:]\s*)?$", re.I)


def mark_sentences(findings: Iterable[Mapping[str, Any]]) -> dict[str, list[Piece]]:
    """finding_id -> pieces, for all findings of one exam.

    Two findings of one sentence with the same printed value are told apart by the order of their spans.
    """
    marked: dict[str, list[Piece]] = {}
    seen: dict[tuple[str, str], int] = {}
    for row in sorted(findings, key=lambda r: (r.get("span_start") or 0, str(r["finding_id"]))):
        sentence = row.get("sentence") or ""
        printed = _printed(row)
        nth = seen.get((sentence, printed), 0)
        seen[sentence, printed] = nth + 1
        marked[str(row["finding_id"])] = mark_sentence(sentence, printed, row.get("slice"), nth=nth)
    return marked


def mark_sentence(sentence: str, suv: str, slice_number: int | None, *, nth: int = 0) -> list[Piece]:
    """The sentence in pieces, the nth standing of the SUV as printed and the slice number next to it marked.

    A value that is not found as a number of its own stays unmarked: better no mark than a wrong one. Joined, the
    pieces are the sentence.
    """
    at: list[tuple[int, int, str]] = []
    suv_at = _numbers(sentence, suv)
    if suv_at:
        start, stop = suv_at[min(nth, len(suv_at) - 1)]
        at.append((start, stop, "suv"))
    if slice_number is not None:
        slice_at = [s for s in _numbers(sentence, str(slice_number)) if s not in [(a, b) for a, b, _ in at]]
        named = [s for s in slice_at if _SLICE_WORD.search(sentence[: s[0]])]
        if named or len(slice_at) == 1:
            centre = at[0][0] if at else 0
            start, stop = min(named or slice_at, key=lambda s: abs(s[0] - centre))
            at.append((start, stop, "slice"))
    pieces: list[Piece] = []
    done = 0
    for start, stop, kind in sorted(at):
        pieces += [(sentence[done:start], ""), (sentence[start:stop], kind)]
        done = stop
    return [p for p in [*pieces, (sentence[done:], "")] if p[0]]


def _printed(row: Mapping[str, Any]) -> str:
    decimals = row.get("suv_decimals")
    suv = row.get("suv")
    if suv is None:
        return ""
    return f"{suv:.{decimals}f}" if decimals is not None and decimals >= 0 else f"{suv:g}"


def _numbers(sentence: str, printed: str) -> list[tuple[int, int]]:
    """Places where `printed` stands as a whole number, with point or comma."""
    if not printed:
        return []
    pattern = re.escape(printed).replace(r"\.", "[.,]")
    pattern = pattern.replace("0[.,]", "0?[.,]", 1) if printed.startswith("0.") else pattern
    return [m.span() for m in re.finditer(rf"(?<!\d)(?<!\d[.,]){pattern}(?!\d)(?![.,]\d)", sentence)]
