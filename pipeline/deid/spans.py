"""What was found in a text: where, of which kind, by which rule, and what stands there afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["PLACEHOLDER", "Span", "apply_spans", "merged"]

PLACEHOLDER = r"\[(?:[A-Z]+ )*[A-Z]+\]"


class Span(NamedTuple):
    """text[start:end] is of `kind` (name, date, ...), found by `rule`, and becomes `new`."""

    start: int
    end: int
    kind: str
    rule: str
    new: str


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans in text order without overlap. Overlapping ones become one: earlier given ones say kind and what is put.

    Nothing that any rule found stays because another rule found a part of it.
    """
    ranked = sorted(enumerate(spans), key=lambda item: (item[1].start, -item[1].end))
    out: list[tuple[int, Span]] = []
    for rank, span in ranked:
        if not out or span.start >= out[-1][1].end:
            out.append((rank, span))
            continue
        held_rank, held = out[-1]
        best = span if rank < held_rank else held
        if held.start <= span.start and span.end <= held.end and (best is held or held.kind == span.kind):
            continue
        new = best.new if (best.start, best.end) == (held.start, max(held.end, span.end)) else _placeholder(best)
        out[-1] = min(rank, held_rank), Span(held.start, max(held.end, span.end), best.kind, best.rule, new)
    return [span for _, span in out]


def _placeholder(span: Span) -> str:
    """A shifted date fits its own span only; a wider one gets the kind's placeholder."""
    return span.new if span.new.startswith("[") else f"[{span.kind.upper()}]"


def apply_spans(text: str, spans: Iterable[Span]) -> str:
    """The text with each span (in order, without overlap) replaced."""
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], span.new]
        at = span.end
    return "".join([*parts, text[at:]])
