"""From what was read of a value to its record: spans, words of the sentence, and the prompt without the answer."""

from __future__ import annotations

from petground.labeling.finding import Finding
from petground.labeling.language.mention import Mention
from petground.labeling.language.prompts import redact
from petground.labeling.language.reading import Reading, Told
from petground.labeling.language.sentences import Sentence

__all__ = ["make_finding", "unread_finding"]


_NEVER_ASKED = ("prior", "reference", "physiologic", "threshold")
"""Reasons of values that a model is never asked for: no words are prepared for it.

Not `negated`: a model learns from "The left hilar node is not avid." that the answer to it is an empty mask.
"""


def make_finding(text: str, reading: Reading, told: Told) -> Finding:
    sentence, mention = reading.sentence, told.mention
    positive = told.reason is None
    slice_mention = told.placed.mention if positive else None
    spans = slice_mention.index_spans if slice_mention is not None else ()
    kind = mention.suv_kind if mention.suv_kind in ("max", "mean", "peak") else "unqualified"
    return Finding(
        suv=mention.value,
        slice=told.placed.slice if positive else None,
        laterality=told.side,
        site=told.site,
        status="positive" if positive else "excluded",
        reason=told.reason,
        span=(mention.start, mention.end),
        suv_decimals=mention.decimals,
        suv_kind=kind,  # type: ignore[arg-type]
        slice_span=(slice_mention.start, slice_mention.end) if slice_mention is not None and spans else None,
        sentence=text[sentence.start : sentence.end],
        sentence_span=(sentence.start, sentence.end),
        section=sentence.section,
        prompt=_prompt(text, reading, told) if told.reason not in _NEVER_ASKED else "",
        uncertain=told.uncertain,
        size_mm=told.size_mm,
        series=slice_mention.series if slice_mention is not None else None,
        warnings=(mention.warning,) if mention.warning else (),
    )


def unread_finding(sentence: Sentence, mention: Mention) -> Finding:
    """The value of a stretch that is no language, kept without its surroundings."""
    span = (mention.start, mention.end)
    return Finding(
        mention.value, None, None, None, "excluded", "ambiguous", span, mention.decimals, sentence_span=span,
        section=sentence.section,
    )  # fmt: skip


def _prompt(text: str, reading: Reading, told: Told) -> str:
    start, end = told.group
    cells = [c for c in reading.sentence.cells if c.role in ("site", "side")]
    if cells:
        return " ".join(text[c.start : c.end].strip() for c in cells)
    prompt = redact(text[start:end], [(a - start, b - start) for a, b in told.cut])
    if told.carried:
        carried = told.carried.rstrip(" .;,")
        prompt = f"{carried}. {prompt}" if len(prompt.split()) > 2 else carried
    prompt = prompt or told.site or ""
    if prompt and told.side in ("left", "right") and told.side not in prompt.lower():
        prompt = f"{prompt.rstrip(' .')} ({told.side})"
    return prompt
