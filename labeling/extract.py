"""From a report to its findings: one record per SUV value, each with a fate."""

from __future__ import annotations

from petground.labeling.finding import Finding
from petground.labeling.language.discourse import read_report
from petground.labeling.language.pipeline import build_pipeline
from petground.labeling.language.prompts import make_prompt, redact
from petground.labeling.language.tokens import words_of
from petground.labeling.language.values import has_heads
from petground.labeling.site import Site

__all__ = ["extract_findings", "make_prompt", "redact"]


def extract_findings(text: str, *, site: Site | None = None) -> list[Finding]:
    """Findings of a report, in the order of their SUV values. Never raises; linear in the text.

    Positive are current lesions with a maximum (or unqualified) SUV and one axial index; every other value is
    excluded with a key of TEXT_REASONS. site: has no influence on the reading; slice numbers are copied as printed.
    """
    if not text or not text.strip():
        return []
    pipeline = build_pipeline()
    doc = pipeline.make_doc(text)
    return read_report(pipeline(doc)) if has_heads(words_of(doc)) else []
