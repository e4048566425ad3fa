"""A second reader of the same sentences: what a language model is asked, and what its agreement is worth.

The published method lets three language models read each sentence and keeps a pair of SUV and slice on which two agree
(arXiv 2502.00528). Here a model is the second of two readers: the grammar is the first. A finding stays positive when
both read the same pair; where they differ it is kept with the reason `disagreement`, for a physician.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from petground.labeling.finding import Finding, Span

__all__ = ["Asked", "consensus", "pairs_of", "questions"]

Pair = tuple[float, int]

SYSTEM = """You read one sentence of a PET/CT report. List each lesion of the CURRENT exam that has both a maximum SUV
and an axial slice (image) number in the sentence or its neighbours, as pairs of that SUV and that slice. Leave out
values of earlier exams, of reference tissue (liver, blood pool), of normal organs, of lesions that are said to be
absent, means, thresholds, and coronal or sagittal slices. No such lesion: an empty list.

Sentence: Left axillary node, SUVmax 5.5 (previously 7.1), axial slice 104.
JSON: {"pairs": [{"suv": 5.5, "slice": 104}]}
Sentence: Two foci in the right lobe of the liver show SUV max of 6.1 and 4.0 on images 88 and 93, respectively.
JSON: {"pairs": [{"suv": 6.1, "slice": 88}, {"suv": 4.0, "slice": 93}]}
Sentence: Mediastinal blood pool has an SUVmax of 2.1 (image 60).
JSON: {"pairs": []}
Sentence: No abnormal uptake in the spleen, SUVmax 3.0 on slice 120.
JSON: {"pairs": []}"""

_NUMBER = re.compile(r"(?<![\d.,])\d{1,4}(?:[.,]\d{1,3})?(?![\d]|[.,]\d)|(?<![\d.,])[.,]\d{1,3}(?!\d)")
_SUV = re.compile(r"\bsuv|uptake\s+value", re.I)
MOST = 16
"""Pairs that one sentence may hold."""


@dataclass(frozen=True)
class Asked:
    """One question: characters of the sentence it is about, what the model is told, and the schema of its answer."""

    span: Span
    user: str
    schema: dict[str, Any]


def questions(text: str) -> list[Asked]:
    """One question for each sentence that speaks of an SUV. Numbers in an answer can only be numbers of the text.

    The schema is JSON Schema; the SUVs it admits stand in the sentence, the slices in the sentence or its neighbours.
    """
    from petground.labeling.language.pipeline import build_pipeline

    doc = build_pipeline()(text)
    sentences = doc._.petground_sentences
    values = sorted(m.core[0] for m in doc._.petground_mentions if m.kind == "suv")
    asked = []
    for n, sentence in enumerate(sentences):
        words = text[sentence.start : sentence.end]
        if not _SUV.search(words) and not any(sentence.start <= at < sentence.end for at in values):
            continue
        before = text[sentences[n - 1].start : sentences[n - 1].end] if n else ""
        after = text[sentences[n + 1].start : sentences[n + 1].end] if n + 1 < len(sentences) else ""
        suvs = sorted({v for v in map(_value, _NUMBER.findall(words)) if v > 0})
        around = _NUMBER.findall(" \n ".join((before, words, after)))
        slices = sorted({int(number) for number in around if number.isdecimal()})
        if not suvs or not slices:
            continue
        lines = [f"Section: {sentence.section}"] if sentence.section else []
        lines += [f"Sentence before: {_line(before)}"] if before else []
        lines += [f"Sentence after: {_line(after)}"] if after else []
        lines.append(f"Sentence: {_line(words)}")
        asked.append(Asked((sentence.start, sentence.end), "\n".join(lines), _schema(suvs, slices)))
    return asked


def _line(text: str) -> str:
    return " ".join(text.split())


def _value(number: str) -> float:
    return float(number.replace(",", "."))


def _schema(suvs: Sequence[float], slices: Sequence[int]) -> dict[str, Any]:
    pair = {
        "type": "object",
        "properties": {"suv": {"enum": list(suvs)}, "slice": {"enum": list(slices)}},
        "required": ["suv", "slice"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"pairs": {"type": "array", "items": pair, "maxItems": min(MOST, len(suvs) * len(slices))}},
        "required": ["pairs"],
        "additionalProperties": False,
    }


def pairs_of(answer: Any) -> list[Pair] | None:
    """The pairs of a parsed answer, each once; None when there is no answer (it was cut off) or it is no such thing."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("pairs"), list):
        return None
    try:
        return list(dict.fromkeys((float(pair["suv"]), int(pair["slice"])) for pair in answer["pairs"]))
    except (KeyError, TypeError, ValueError):
        return None


def consensus(findings: Iterable[Finding], readings: Mapping[Span, Sequence[Pair] | None]) -> list[Finding]:
    """Findings on which both readers agree stay positive; the others are excluded with `disagreement`.

    readings: pairs of the second reader by characters of the sentence; None or no entry: it gave no reading there, and
    a positive finding is then not agreed upon either. Excluded findings stay as they are: the second reader can only
    take away, never add.
    """
    agreed = []
    for finding in findings:
        if finding.status == "positive":
            pairs = next((p for span, p in readings.items() if _within(finding.span, span)), None) or ()
            if not any(abs(suv - finding.suv) < 1e-6 and number == finding.slice for suv, number in pairs):
                finding = replace(finding, status="excluded", reason="disagreement")
        agreed.append(finding)
    return agreed


def _within(inner: Span, outer: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
