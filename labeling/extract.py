"""From a report to its findings: one record per SUV value, each with a fate."""

from __future__ import annotations

from dataclasses import replace

from petground.labeling.finding import Finding
from petground.labeling.language.counting import slices_counted
from petground.labeling.language.discourse import read_report
from petground.labeling.language.overlong import find_overlong, overlong_values
from petground.labeling.language.prompts import make_prompt, redact
from petground.labeling.language.reach import has_suv_words
from petground.labeling.site import Site

__all__ = ["extract_findings", "make_prompt", "redact"]


def extract_findings(text: str, *, site: Site | None = None) -> list[Finding]:
    """Findings of a report, in the order of their SUV values. Never raises; linear in the text.

    Positive are current lesions with a maximum (or unqualified) SUV and one axial index; every other value is
    excluded with a key of TEXT_REASONS. A line above `overlong.LIMIT` characters is no report: its values are
    `ambiguous`. site: has no influence on the reading; slice numbers are copied as printed.
    """
    if not text or not text.strip():
        return []
    unread: list[Finding] = []
    for start, end in find_overlong(text):
        unread.extend(overlong_values(text, start, end))
        text = text[:start] + " " * (end - start - 1) + "\n" + text[end:]
    findings = read_report(text) if has_suv_words(text) else []
    if any(f.status == "positive" for f in findings) and (end_named := slices_counted(text)) is not None:
        findings = [replace(f, counted_from=end_named) if f.status == "positive" else f for f in findings]
    if not findings or not unread:
        return findings or unread
    return sorted(findings + unread, key=lambda f: f.span)
