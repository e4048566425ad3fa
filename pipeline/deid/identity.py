"""Who an exam is of and who had to do with it, as its headers and the export's columns say, and where a text says so.

A name of which every word is rare goes wherever it stands. One that is a word of reports too (Long, Head, Hodgkin) goes
where a person is meant: behind a title, beside another of its names, or capitalised within a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from petground.pipeline.deid.compound import whole_compound
from petground.pipeline.deid.people import name_patterns
from petground.pipeline.deid.spans import Span
from petground.pipeline.deid.words import folded, word_list

__all__ = ["NOBODY", "Identity", "identity_spans"]

SHORTEST_ID = 5  # characters; shorter numbers are slices, sizes and SUVs too


@dataclass(frozen=True)
class Identity:
    """What is known: names as DICOM PN (Doe^Jane) or as written, ids, places (institutions, addresses), birth date."""

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    birth: date | None = None

    @cached_property
    def patterns(self) -> tuple[tuple[str, str, str, re.Pattern[str]], ...]:
        """Kind, rule, replacement and pattern of each way in which text may write it; group v is what goes."""
        return tuple(_patterns(self))


NOBODY = Identity()


def identity_spans(text: str, identity: Identity) -> Iterator[Span]:
    """Where the text names the identity."""
    for kind, rule, new, pattern in identity.patterns:
        for found in pattern.finditer(text):
            place = found.span("v")
            yield Span(*(whole_compound(text, *place) if kind == "name" else place), kind, rule, new)


def _patterns(identity: Identity) -> Iterator[tuple[str, str, str, re.Pattern[str]]]:
    for rule, pattern in name_patterns(identity.names):
        yield "name", rule, "[NAME]", pattern
    cores = {core for value in identity.ids if (core := _core(value)) is not None}
    if cores:
        yield "id", "known id", "[ID]", _any(_spaced(core) for core in cores)
    places = {_place(value) for value in identity.places if len(value.strip()) > 3 and not _ordinary(value)}
    if places:
        yield "hospital", "known place", "[HOSPITAL]", _any(places)


def _any(alternatives: Iterator[str] | set[str]) -> re.Pattern[str]:
    longest_first = "|".join(sorted(alternatives, key=lambda form: (-len(form), form)))
    return re.compile(rf"(?<![^\W_])(?P<v>{longest_first})(?![^\W_])", re.IGNORECASE)


def _ordinary(value: str) -> bool:
    """A place that says nothing: Hospital, Department of Radiology; but not Three Rivers Imaging Center."""
    words = [folded(w) for w in re.findall(r"[^\W\d_]+", value)]
    if re.search(r"\d", value) or (
        len(words) > 2 and re.search(r"hospital|clinic|cent(?:er|re)\b|institute", value, re.I)
    ):
        return False
    return all(word in word_list("common") or word in word_list("never") for word in words)


def _place(value: str) -> str:
    return r"[\s,;^.-]{1,4}".join(re.escape(word) for word in re.split(r"[\s,;^.-]+", value.strip()) if word)


def _core(value: str) -> str | None:
    """An id without its signs; None when it is too short to be told from other numbers, or a word."""
    core = re.sub(r"[^0-9A-Za-z]", "", value)
    if not re.search(r"\d", core) or len(core) < SHORTEST_ID - bool(re.search(r"[A-Za-z]", core)):
        return None
    return core


def _spaced(core: str) -> str:
    """An id with signs or single blanks between its characters, leading zeros or not."""
    joint = r"[-/._ ]?" if len(core) > SHORTEST_ID else r"[-/_]?"
    short = core.lstrip("0")
    body = short if core.isdigit() and len(short) >= SHORTEST_ID else core
    zeros = f"(?:0{joint}){{0,8}}" if core.isdigit() else ""
    return zeros + joint.join(map(re.escape, body)) + r"(?!\.\d)"
