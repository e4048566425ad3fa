"""A report as the sources hand it on: the columns of a report table, or the problem that keeps it from being used."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

from petground.labeling.errors import ConfigError, InputError

__all__ = [
    "NOT_FINAL",
    "NO_CANDIDATE",
    "OTHER",
    "SUPERSEDED",
    "WITHDRAWN",
    "Row",
    "Version",
    "candidates",
    "clean",
    "failed",
    "instant",
    "iso_date",
    "latest",
    "pattern",
    "report_row",
    "source_files",
]

Row = dict[str, str | None]
"""exam_id, report_text, patient_id, tracer, study_date; `problem` is a reason code or None, `problem_detail` tells."""

NOT_FINAL, WITHDRAWN, OTHER, SUPERSEDED = "not_final", "withdrawn", "other_procedure", "superseded"
NO_CANDIDATE = frozenset((NOT_FINAL, WITHDRAWN, OTHER, SUPERSEDED))
"""Reasons of rows that do not want to be the exam's report: another row of it stands as if they were not there."""

# Control characters that no report means: they end up in reports through printers, terminals and broken encodings.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")


@dataclass(frozen=True)
class Version:
    """One edition of a report. key: what makes two editions the same report; order: the later one is greater.

    amends: its status says that it corrects a report that was final; about: the procedure; issued: seconds since 1970,
    -inf where it is not stated.
    """

    key: tuple[str, ...]
    order: tuple[float, ...]
    row: Row
    amends: bool = False
    about: str = ""
    issued: float = float("-inf")


def latest(versions: Iterable[Version]) -> Iterator[Row]:
    """The last edition of each report, reports in the order in which they were first met.

    Some systems file a corrected report as a report of its own: the one that it corrects ends as "superseded".
    """
    kept: dict[tuple[str, ...], Version] = {}
    for version in versions:
        held = kept.get(version.key)
        if held is None or version.order >= held.order:
            kept[version.key] = version
    corrected = _corrected(kept.values())
    for version in kept.values():
        if id(version) in corrected:
            why = SUPERSEDED, "a later report of the exam corrects it"
            yield report_row(version.row["exam_id"], None, patient_id=version.row["patient_id"], problem=why)
        else:
            yield version.row


def _corrected(versions: Iterable[Version]) -> set[int]:
    """Identities (`id`) of the versions that an amended one of the same exam, procedure and patient takes the place of.

    A report that is no amendment and was issued later is no earlier edition of anything: both stay.
    """
    found: dict[tuple[str, str], list[Version]] = defaultdict(list)
    for version in versions:
        exam_id = version.row["exam_id"]
        if exam_id and version.row["problem"] not in NO_CANDIDATE:
            found[exam_id, version.about].append(version)
    corrected: set[int] = set()
    for group in found.values():
        amending = [version for version in group if version.amends]
        if not amending or len({version.row["patient_id"] for version in group} - {None}) > 1:
            continue
        last = max(amending, key=lambda version: (version.issued, version.order))
        for version in group:
            known = last.issued > float("-inf")
            if version is not last and (version.amends or not known or version.issued <= last.issued):
                corrected.add(id(version))
    return corrected


def candidates(rows: Iterable[Row]) -> Iterator[tuple[Row, int]]:
    """Rows that must be told apart from each other by their exam_id, each with how many others of the exam it hides.

    Hidden are drafts, withdrawn and superseded reports, where the exam has another row.
    """
    found = list(rows)
    of_exam: dict[str, list[Row]] = defaultdict(list)
    for row in found:
        if row["exam_id"]:
            of_exam[row["exam_id"].casefold()].append(row)
    hidden: dict[int, int] = {}  # by id of the row that stands for them, the first that wants to
    for group in of_exam.values():
        aside = [row for row in group if row["problem"] in NO_CANDIDATE]
        first = next((row for row in group if row["problem"] not in NO_CANDIDATE), None)
        first = first or min(aside, key=lambda row: row["problem"] == SUPERSEDED)
        hidden |= {id(row): -1 for row in aside}
        hidden[id(first)] = sum(row is not first for row in aside)
    for row in found:
        if hidden.get(id(row), 0) >= 0:
            yield row, hidden.get(id(row), 0)


def report_row(
    exam_id: str | None,
    text: str | None,
    *,
    patient_id: str | None = None,
    tracer: str | None = None,
    study_date: str | None = None,
    problem: tuple[str, str] | None = None,
) -> Row:
    """A row; one with a problem carries no text: nothing of it may be used."""
    return {
        "exam_id": _word(exam_id),
        "report_text": None if problem or text is None else clean(text),
        "patient_id": _word(patient_id),
        "tracer": tracer,
        "study_date": study_date,
        "problem": problem[0] if problem else None,
        "problem_detail": problem[1] if problem else None,
    }


def failed(reason: str, detail: str) -> Row:
    """A row for what could not even be told apart as a report; `detail` names file and place, never content."""
    return report_row(None, None, problem=(reason, detail))


def clean(text: str) -> str:
    """Line ends as \\n, no control characters, no lone surrogates (they cannot be written as UTF-8)."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text.encode("utf-8", "replace").decode("utf-8")).strip()


def iso_date(value: str | None) -> str | None:
    """YYYY-MM-DD of a FHIR date or dateTime or an HL7 TS (YYYYMMDD...); None when the day is not stated or no day."""
    found = re.match(r"(\d{4})-?(\d{2})-?(\d{2})", value or "", re.ASCII)
    if not found:
        return None
    try:
        return date(*map(int, found.groups())).isoformat()
    except ValueError:
        return None


def instant(value: str | None) -> float:
    """Seconds since 1970 of an ISO 8601 or HL7 time stamp, for comparing editions; -inf when there is none.

    A stamp without a zone is taken as UTC: within one system's export all stamps are alike.
    """
    found = re.match(
        r"(\d{4})-?(\d{2})?-?(\d{2})?[T ]?(\d{2})?:?(\d{2})?:?(\d{2})?(\.\d+)?\s*(Z|[+-]\d{2}:?\d{2})?",
        value or "",
        re.ASCII,
    )
    if not found:
        return float("-inf")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        moment = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), min(int(second or 0), 59),
            tzinfo=timezone.utc,
        )  # fmt: skip
    except ValueError:
        return float("-inf")
    offset = 0
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "")
        offset = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)
    return moment.timestamp() + float(fraction or 0) - offset


def pattern(procedure: str | None) -> re.Pattern[str] | None:
    """The user's filter on procedure names, case-insensitive. Raises ConfigError when it is no regular expression."""
    if procedure is None:
        return None
    try:
        return re.compile(procedure, re.I)
    except re.error as error:
        raise ConfigError(f"the procedure filter is no regular expression: {error}", fix="e.g. 'PET|PSMA'") from None


def source_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The file, or the folder's files of these kinds at any depth, by name. Raises InputError when there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"no report export at {path}", fix="give a file or a folder")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.name.lower().endswith(suffixes) and not file.name.startswith(".") and file.is_file()
    )
    if not found:
        raise InputError(f"no file in {path} ends in {', '.join(suffixes)}", fix="check the export's folder")
    return found


def _word(value: str | None) -> str | None:
    cleaned = clean(value).replace("\n", " ") if value else ""
    return cleaned or None
