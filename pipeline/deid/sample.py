"""For a person's eyes: a sample of reports before and after, and what a run would remove. Patient data; stays here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydicom
from rich.console import Console

from petground.pipeline.deid.burned_in import left_out
from petground.pipeline.deid.case import clean_row
from petground.pipeline.deid.dicom import lenient
from petground.pipeline.deid.images import dicom_files
from petground.pipeline.deid.keys import keyed_id, read_key
from petground.pipeline.deid.known import Headers, read_headers
from petground.pipeline.deid.profile import Profile
from petground.pipeline.deid.rows import rows_of
from petground.pipeline.deid.text import Cleaned
from petground.pipeline.reports import Export

__all__ = ["describe", "write_sample"]


def write_sample(page: Path, export: Export, exams: Path | None, keyfile: Path, profile: Profile, count: int) -> None:
    """Writes `count` reports, original and result with what was replaced marked, readable by the owner alone.

    Which ones depend on the key: the same ones in a second run, none that someone picked.
    """
    from jinja2 import Environment, StrictUndefined

    key = read_key(keyfile)
    chosen = sorted(keyed_id(key, report.exam_id, prefix="sample") for report in export if report.problem is None)[
        :count
    ]
    wanted, cases = set(chosen), []
    for exam_id, row, (text, cleaned) in _cleaned(export, exams, key, profile, wanted):
        cases.append({"old": exam_id, "new": row["exam_id"], "pieces": _pieces(text, cleaned)})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("petground.pipeline.deid").joinpath("sample.html").read_text("utf-8"))
    descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(template.render(cases=cases))


def _cleaned(
    export: Export, exams: Path | None, key: bytes, profile: Profile, wanted: set[str] | None = None
) -> Iterator[tuple[str, dict[str, str | None], tuple[str, Cleaned]]]:
    for report, row in rows_of(export):
        if report.problem is None and (wanted is None or keyed_id(key, report.exam_id, prefix="sample") in wanted):
            source = None if exams is None else exams / report.exam_id
            headers = read_headers(source) if source and source.is_dir() else Headers()
            told = {**row, "exam_id": report.exam_id, "report_text": report.text}
            new, cleaned, _ = clean_row(told, headers, report.exam_id, key, profile)
            yield report.exam_id, new, (report.text, cleaned)


def _pieces(text: str, cleaned: Cleaned) -> list[dict[str, str]]:
    """The text in pieces: kept as it is, or old and new with the kind."""
    pieces, at = [], 0
    for span in cleaned.spans:
        pieces += [
            {"text": text[at : span.start]},
            {"text": text[span.start : span.end], "new": span.new, "kind": span.kind},
        ]
        at = span.end
    return [*pieces, {"text": text[at:]}]


def describe(console: Console, export: Export, exams: Path | None, keyfile: Path, profile: Profile) -> None:
    """Says what a run would do; writes nothing. Images are judged by their headers alone."""
    key, kinds, files_left, images = read_key(keyfile), Counter[str](), Counter[str](), 0
    missing = 0
    for exam_id, _, (_, cleaned) in _cleaned(export, exams, key, profile):
        kinds.update(span.kind for span in cleaned.spans)
        if exams is None:
            continue
        source = exams / exam_id
        missing += not source.is_dir()
        with lenient():
            for _, file, looks in dicom_files(source) if source.is_dir() else ():
                reason = _reason(file, profile) if looks else "not DICOM"
                files_left[reason] += reason != ""
                images += reason == ""
    told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()) or "nothing"
    console.print(f"{export.rows} reports, {export.unusable} of them unusable; to be replaced: {told}", highlight=False)
    left = ", ".join(f"{reason} {count}" for reason, count in files_left.most_common() if count) or "none"
    if exams is None:
        console.print("reports alone: without --exams no image is read or written")
    else:
        console.print(f"{images} DICOM files to clean; left out by their headers: {left}", highlight=False)
    if missing:
        console.print(f"{missing} exams have no folder in {exams}", style="yellow", highlight=False, soft_wrap=True)
    console.print("nothing was written")


def _reason(file: Path, profile: Profile) -> str:
    try:
        header: Any = pydicom.dcmread(file, force=True, stop_before_pixels=True)
        return left_out(header, profile) or ""
    except Exception:  # a file that cannot be read is told by the run itself
        return "unreadable"
