"""A sentence asked for by itself: its place, and its value and slice, whether or not it tells all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from petground.labeling.finding import Finding, Laterality
from petground.labeling.language.assign import resolve
from petground.labeling.language.mention import Mention
from petground.labeling.language.mentions import scan_sentence
from petground.labeling.language.overlong import LIMIT
from petground.labeling.language.reading import Reading, read_sentence
from petground.labeling.language.sentences import find_sentences
from petground.labeling.language.sides import find_place
from petground.labeling.language.titles import heading_side
from petground.labeling.language.tokens import Cuts

__all__ = ["AskedFor", "read_asked"]

_T = TypeVar("_T")
_HAS_MAXIMUM = (None, "no_slice", "not_axial")
_LESION = (*_HAS_MAXIMUM, "not_max", "range", "ambiguous")
"""Reasons of values of a lesion of this exam."""


@dataclass(frozen=True)
class AskedFor:
    """What a sentence says of the one thing that it asks for; None where it does not say, or says several."""

    site: str | None = None
    laterality: Laterality | None = None
    suv: float | None = None
    slice: int | None = None
    series: int | None = None


def read_asked(text: str, findings: Iterable[Finding]) -> AskedFor:
    """Reads a sentence that a user asks for. findings: of this text (`extract_findings`). Never raises.

    Side and site are those of its values, as in a report; where it tells no value of a lesion ("avid left axillary
    node"), those of its words. Where the sides of several lesions differ, there is none to hold a mask against.
    """
    findings = list(findings)
    lesions = [f for f in findings if f.reason in _LESION] or [f for f in findings if f.reason == "negated"]
    maxima = [f for f in lesions if f.reason in _HAS_MAXIMUM]
    one = _only([f for f in maxima if f.reason is None] or maxima)
    readings = _readings(text)
    told = [(f.site, f.laterality) for f in maxima or lesions]
    sides: set[Laterality | None]
    if any(any(place) for place in told):
        site, sides = _only(list({site for site, _ in told})), {side for _, side in told}
    else:
        places = [_place(reading) for reading in readings]
        places = [place for place in places if place[0]] or places  # not "The right side is clear."
        site = next((site for site, _ in places if site), None)
        sides = {side for _, side in places if side}
    side = _only(list(sides))
    if one is not None:
        return AskedFor(site, side, one.suv, one.slice, one.series)
    slices = [m for reading in readings for m in _slices(reading)] if not lesions else []
    placed = resolve(slices) if slices else None
    if placed is None or placed.slice is None or placed.mention is None:
        return AskedFor(site, side)
    return AskedFor(site, side, None, placed.slice, placed.mention.series)


def _readings(text: str) -> list[Reading]:
    """Its sentences. Without a full stop a few words would be taken for a title ("LUL nodule")."""
    text = text.strip()
    if not text or len(text) > LIMIT:
        return []
    text = text if text[-1] in ".!?:" else f"{text}."
    cuts, readings = Cuts(text), []
    for sentence in find_sentences(text):
        words = cuts.within(sentence.start, sentence.end)
        mentions = scan_sentence(words, words.at(sentence.start), words.at(sentence.end)).mentions
        readings.append(read_sentence(words, sentence, mentions, frozenset()))
    return readings


def _place(reading: Reading) -> tuple[str | None, Laterality | None]:
    site, side = find_place(reading.row, reading.words)
    if reading.row.lacks("side", "sided", "midline"):
        side = heading_side(reading.words.text, reading.sentence)
    return site, side


def _slices(reading: Reading) -> list[Mention]:
    return [mention for i in reading.row.slices if (mention := reading.row[i].mention) is not None]


def _only(values: list[_T]) -> _T | None:
    return values[0] if len(values) == 1 else None
