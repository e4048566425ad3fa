"""Report text without identities: names, numbers, places go, dates move, and the clinical language stays as it was.

Rules, no model: what is known of the exam is removed wherever it stands; what is not known, by its form or by what
stands around it (`rules/`). No automatic method is perfect: docs/deidentification.md has the figures and the limits.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from petground.pipeline.deid.bare import bare_name_spans
from petground.pipeline.deid.dates import BIRTH_PLACE, DateOrder, date_spans
from petground.pipeline.deid.hospitals import hospital_spans
from petground.pipeline.deid.identity import NOBODY, Identity, identity_spans
from petground.pipeline.deid.names import is_flat, name_spans
from petground.pipeline.deid.spans import PLACEHOLDER, Span, apply_spans, merged
from petground.pipeline.deid.words import Words, load_rules

__all__ = ["Cleaned", "clean_text"]

AGE_CAP = 90  # 45 CFR 164.514(b)(2)(i)(C): ages over 89 are one group
_BIRTH = re.compile(
    r"\b(?:DOB|D\.O\.B\.?|date of birth|birth\s?date|born(?: on| in)?|geb\.?|geboren(?: am)?)\s{0,3}[:.]?\s{0,3}$",
    re.IGNORECASE,
)
_STAYS = re.compile(rf"{PLACEHOLDER}|(?i:sister (?:mary )?joseph)")
"""Placeholders of an earlier pass, and an eponym that is a person's name in all its words."""


@dataclass(frozen=True)
class Cleaned:
    """The text that may leave, and what was replaced, as spans of the original text."""

    text: str
    spans: tuple[Span, ...]


def clean_text(
    text: str,
    identity: Identity = NOBODY,
    *,
    days: int = 0,
    order: DateOrder = "mdy",
    year: int | None = None,
) -> Cleaned:
    """Removes what identifies. Never raises on text; linear in its length.

    identity: of the exam that the text is about. days: by how many its dates move. order: how 03/04/2021 is meant
    where the text itself does not tell. year: that of the exam, for dates written without one.

    What an earlier pass put in brackets stays as it is.
    """
    held = [found.span() for found in _STAYS.finditer(text)]
    words, flat = Words(text), is_flat(text)
    numbers = list(_number_spans(text))
    found = [
        *identity_spans(text, identity),
        *(span for span in numbers if span.kind != "number"),
        *_dates(text, identity, days, order, year),
        *(span for span in numbers if span.kind == "number"),  # 20210304 is a date first
        *name_spans(text, words, flat=flat),
        *hospital_spans(text, words, flat=flat),
        *bare_name_spans(text, words, flat=flat),
    ]
    spans = tuple(span for span in merged(_outside(found, held)) if text[span.start : span.end] != span.new)
    return Cleaned(apply_spans(text, spans), spans)


def _dates(text: str, identity: Identity, days: int, order: DateOrder, year: int | None) -> Iterator[Span]:
    for span in date_spans(text, days, order=order, year=year, birth=identity.birth):
        before = text[max(0, span.start - 20) : span.start]
        if span.new == BIRTH_PLACE or _BIRTH.search(before):
            span = span._replace(kind="birth date", new=BIRTH_PLACE)
        yield span


@cache
def _rules() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    return tuple(
        (rule["kind"], rule["name"], re.compile(rule["pattern"], re.IGNORECASE if "i" in rule["flags"] else 0))
        for rule in load_rules("numbers")["rules"]
    )


def _number_spans(text: str) -> Iterator[Span]:
    for kind, name, pattern in _rules():
        for found in pattern.finditer(text):
            span = found.span("v") if "v" in pattern.groupindex else found.span()
            yield Span(*span, kind, name, str(AGE_CAP) if kind == "age" else f"[{kind.upper()}]")


def _outside(spans: list[Span], held: list[tuple[int, int]]) -> Iterator[Span]:
    """Spans that touch nothing of what stays."""
    if not held:
        yield from spans
        return
    ends = [end for _, end in held]
    for span in spans:
        index = bisect_right(ends, span.start)
        if index == len(held) or held[index][0] >= span.end:
            yield span
