"""Report exports in: CSV, JSONL or Parquet with `exam_id, report_text` and, where known, who, what and when."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError

__all__ = ["Report", "read_reports"]

REQUIRED = ("exam_id", "report_text")
OPTIONAL = ("patient_id", "tracer", "study_date")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")


@dataclass(frozen=True)
class Report:
    """One row of the export. `problem` is (reason, message) when the row cannot be used; it still gets a row out."""

    exam_id: str
    text: str
    patient_id: str
    tracer: str | None = None
    study_date: str | None = None
    problem: tuple[str, str] | None = None


def read_reports(path: Path) -> list[Report]:
    """All rows of a report export, in file order; unusable ones carry their `problem`.

    Without a `patient_id` an exam is its own patient, so that splits stay honest only when patients are known.
    Raises InputError when the file is missing, of an unknown kind, unreadable, or lacks a required column.
    """
    if not path.is_file():
        raise InputError(f"no report export at {path}", fix="give a CSV, JSONL or Parquet file")
    kinds = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    read = kinds.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path.name}: unknown kind of file '{path.suffix}'", fix=f"one of {', '.join(kinds)}")
    try:
        rows = list(read(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 at byte {error.start}", fix="export it as UTF-8") from None
    if not rows:
        raise InputError(f"{path.name} has no rows", fix="check the export")
    return _checked(rows)


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(1 << 27)  # a report may be longer than the module's default of 128 KiB
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        _require_columns(path, reader.fieldnames or ())
        try:
            yield from reader
        except csv.Error as error:
            raise InputError(f"{path.name}, line {reader.line_num}: {error}", fix="export the file again") from None


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise InputError(f"{path.name}, line {number} is not JSON", fix="one object per line") from None
            if not isinstance(row, dict):
                raise InputError(f"{path.name}, line {number} is not an object", fix="one object per line")
            _require_columns(path, row, place=f", line {number}")
            yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        raise InputError(f"{path.name} is not a readable Parquet file", fix="export it again") from None
    _require_columns(path, file.schema_arrow.names)
    names = [n for n in (*REQUIRED, *OPTIONAL) if n in file.schema_arrow.names]
    for batch in file.iter_batches(columns=names):
        yield from batch.to_pylist()


def _require_columns(path: Path, columns: Iterable[str], place: str = "") -> None:
    have = [str(c) for c in columns]
    missing = [name for name in REQUIRED if name not in have]
    if not missing:
        return
    near = {name: difflib.get_close_matches(name, have, n=1, cutoff=0.5) for name in missing}
    hints = "; ".join(f"rename '{found[0]}' to '{name}'" for name, found in near.items() if found)
    raise InputError(
        f"{path.name}{place} has no column {' and '.join(missing)}",
        fix=hints or f"it has {', '.join(have[:12]) or 'none'}; needed are {', '.join(REQUIRED)}",
    )


def _checked(rows: list[Mapping[str, Any]]) -> list[Report]:
    ids = [_text(row.get("exam_id")) for row in rows]
    counts = Counter(ids)
    # On a case-insensitive disk two such ids are one folder.
    folded = Counter(name.casefold() for name in counts)
    reports = []
    for number, (row, exam_id) in enumerate(zip(rows, ids, strict=True), start=1):
        text = str(row.get("report_text") or "")
        problem: tuple[str, str] | None = None
        if not exam_id:
            exam_id, problem = f"row-{number}", ("no_exam_id", f"row {number} has no exam_id")
        elif not _PLAIN_NAME.fullmatch(exam_id):
            exam_id = f"row-{number}"
            problem = ("bad_exam_id", f"row {number}: an exam_id may hold letters, digits, '.', '_' and '-' only")
        elif counts[exam_id] > 1 or folded[exam_id.casefold()] > 1:
            problem = ("duplicate_exam_id", f"exam_id stands in {max(counts[exam_id], 2)} rows; keep the right report")
        elif not text.strip():
            problem = ("no_report_text", "the report is empty")
        patient = _text(row.get("patient_id")) or exam_id
        tracer, date = _text(row.get("tracer")) or None, _text(row.get("study_date")) or None
        reports.append(Report(exam_id, text, patient, tracer, date, problem))
    return reports


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
