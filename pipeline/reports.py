"""Report exports in: exam and report and, where known, who, what and when. A bad row is a row with its problem."""

from __future__ import annotations

import hashlib
import itertools
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.errors import InputError
from petground.pipeline.report_files import HIDES, RAGGED, STATED, report_rows

__all__ = ["Export", "IdCounts", "Reading", "Report", "judged", "open_export", "read_reports", "stream_reports"]

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,199}")
LONGEST_REPORT = 10_000_000  # characters; a report has thousands, a whole archive in one field has more


Reading = tuple[tuple[int, int, tuple[tuple[float, int], ...] | None], ...]
"""Per sentence: its characters, and the pairs of SUV and slice in it; None where the reader gave no answer."""


@dataclass(frozen=True)
class Report:
    """One row of the export. `problem` is (reason, message) when the row cannot be used; it still gets a row out.

    hides: how many drafts, withdrawn and superseded reports of the exam stand behind it.
    """

    exam_id: str
    text: str
    patient_id: str
    tracer: str | None = None
    study_date: str | None = None
    problem: tuple[str, str] | None = None
    scanner: str | None = None
    weight_kg: float | None = None  # from the site's table of weights
    second: Reading | None = None  # what a second reader read, where one was asked for
    hides: int = 0


class IdCounts:
    """How often each exam id stands in the export, in eight bytes per row.

    Ids that differ in case only count as one: on a case-insensitive disk they are one folder. Two ids share a digest
    of 64 bits with a chance of 3e-8 among a million.
    """

    def __init__(self) -> None:
        self._digests = array("Q")
        self._repeated: dict[int, int] | None = None

    def add(self, exam_id: str) -> None:
        self._digests.append(_digest(exam_id))
        self._repeated = None

    def repeats(self) -> int:
        """How many of the added ids were added more than once."""
        return sum(self._counts().values())

    def problem(self, exam_id: str) -> tuple[str, str] | None:
        """What is wrong with an id that was added more than once."""
        count = self._counts().get(_digest(exam_id))
        if count is None:
            return None
        return "duplicate_exam_id", f"exam_id stands in {count} rows; keep the right report"

    def _counts(self) -> dict[int, int]:
        if self._repeated is None:
            values, counts = np.unique(np.frombuffer(self._digests, np.uint64), return_counts=True)
            again = counts > 1
            self._repeated = dict(zip(values[again].tolist(), counts[again].tolist(), strict=True))
        return self._repeated


@dataclass(frozen=True)
class Export:
    """A report export that was read to its end once: `rows` in it, `unusable` among them. Iterating reads it again.

    second: readings by exam id, where a second reader must agree; an exam that is not in it was not read. hidden: how
    many drafts, withdrawn and superseded reports of exams that have another one.
    """

    path: Path
    rows: int
    unusable: int
    counts: IdCounts
    second: Mapping[str, Reading] | None = None
    hidden: int = 0

    def __iter__(self) -> Iterator[Report]:
        for report in stream_reports(self.path):
            second = None if self.second is None else self.second.get(report.exam_id, ())
            yield replace(report, problem=self.counts.problem(report.exam_id) or report.problem, second=second)


def open_export(path: Path) -> Export:
    """Reads an export to its end without keeping the texts: what cannot be read is known before anything is written.

    Raises InputError as `stream_reports`.
    """
    counts, problems, rows, hidden = IdCounts(), [], 0, 0
    for report in stream_reports(path):
        rows, hidden = rows + 1, hidden + report.hides
        counts.add(report.exam_id)
        if report.problem is not None:
            problems.append(report.exam_id)
    repeated = counts.repeats()
    others = sum(counts.problem(exam_id) is None for exam_id in problems)
    return Export(path, rows, repeated + others, counts, hidden=hidden)


def stream_reports(path: Path) -> Iterator[Report]:
    """Rows of a report export one after the other; ids that come again are for `IdCounts` to find.

    Without a `patient_id` an exam is its own patient, so that splits stay honest only when patients are known.
    Raises InputError at once when the file is missing, of an unknown kind, empty or lacks a required column; and where
    it cannot be read further.
    """
    rows = report_rows(path)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path.name} has no rows", fix="check the export")
    return (_report(number, row) for number, row in enumerate(itertools.chain([first], rows), start=1))


def read_reports(path: Path) -> list[Report]:
    """All rows at once, repeated exam ids marked: for small exports. Raises as `stream_reports`."""
    return list(open_export(path))


def judged(rows: Iterable[Mapping[str, Any]]) -> list[Report]:
    """Rows as an export with them would be read: the one rule on ids and texts, for what is still to be written."""
    reports = [_report(number, row) for number, row in enumerate(rows, start=1)]
    counts = IdCounts()
    for report in reports:
        counts.add(report.exam_id)
    return [replace(report, problem=counts.problem(report.exam_id) or report.problem) for report in reports]


def _report(number: int, row: Mapping[str, Any]) -> Report:
    exam_id = _text(row.get("exam_id"))
    text = row.get("report_text")
    text = "" if text is None else text if isinstance(text, str) else str(text)
    problem: tuple[str, str] | None = None
    if not exam_id:
        problem = ("no_exam_id", f"row {number} has no exam_id")
    elif not _PLAIN_NAME.fullmatch(exam_id):
        problem = ("bad_exam_id", f"row {number}: an exam_id may hold letters, digits, '.', '_' and '-' only")
    if problem is not None:
        exam_id = f"row#{number}"  # no exam can be called so
    if STATED in row:
        problem = row[STATED]
    elif problem is not None:
        pass
    elif RAGGED in row:  # a comma in an unquoted report: what is left of the text may end anywhere
        problem = ("ragged_row", f"row {number}: {row[RAGGED]}; put the report in quotes")
    elif isinstance(row.get("report_text"), bytes | list | dict):
        problem = ("no_report_text", f"row {number}: report_text is no text")
    elif not text.strip():
        problem = ("no_report_text", "the report is empty")
    elif "\0" in text or _mended(text) != text:
        problem = ("damaged_report_text", f"row {number}: NUL or broken characters in the text; export it again")
    elif len(text) > LONGEST_REPORT:
        problem = ("report_too_long", f"row {number}: {len(text)} characters; is it one report?")
    patient = _text(row.get("patient_id")) or exam_id
    tracer, date = _text(row.get("tracer")) or None, _text(row.get("study_date")) or None
    scanner = _text(row.get("scanner")) or None
    return Report(
        exam_id, "" if problem else text, patient, tracer, date, problem, scanner, hides=int(row.get(HIDES, 0))
    )


def _text(value: Any) -> str:
    return "" if value is None else _mended(str(value).strip())


def _mended(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can hold and no file."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _digest(exam_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(exam_id.casefold().encode(), digest_size=8).digest(), "big")
