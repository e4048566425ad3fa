"""The table of a second reader, joined with the export that it was made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from petground.labeling.errors import InputError
from petground.pipeline.reports import Export, Reading
from petground.pipeline.schemas import read_table
from petground.pipeline.stage import content_hash

__all__ = ["read_second_reading", "report_hash", "with_second_reading"]


def report_hash(text: str) -> str:
    """Digest of a report's text: a reading of another version of it is not used."""
    return content_hash(["report", text])


def read_second_reading(path: Path) -> dict[str, tuple[str, Reading]]:
    """Digest of the report that was read, and its reading, by exam id. Raises as `read_table`."""
    exams: dict[str, tuple[str, dict[tuple[int, int], list[tuple[float, int]] | None]]] = {}
    for row in read_table(path, "second_reading"):
        _, sentences = exams.setdefault(row["exam_id"], (row["report_hash"], {}))
        span = (row["sentence_start"], row["sentence_end"])
        if not row["answered"]:
            sentences[span] = None
        elif (pairs := sentences.setdefault(span, [])) is not None and row["suv"] is not None:
            pairs.append((row["suv"], row["slice"]))
    return {
        exam_id: (digest, tuple((*span, None if p is None else tuple(p)) for span, p in sentences.items()))
        for exam_id, (digest, sentences) in exams.items()
    }


def with_second_reading(export: Export, path: Path) -> Export:
    """The export, each report with what the second reader read in it.

    Raises InputError when reports were changed since they were read, before anything is labelled.
    """
    readings = read_second_reading(path)
    changed = sum(
        report.problem is None
        and report.exam_id in readings
        and readings[report.exam_id][0] != report_hash(report.text)
        for report in export
    )
    if changed:
        raise InputError(
            f"{changed} reports have changed since the second reader read them",
            fix="run `petground second-reading` again: it reads only what is new",
        )
    return replace(export, second={exam_id: reading for exam_id, (_, reading) in readings.items()})
