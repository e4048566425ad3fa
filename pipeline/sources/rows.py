"""A report as the sources hand it on: the columns of a report table, or the problem that keeps it from being used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

from petground.labeling.errors import ConfigError, InputError

__all__ = [
    "Row",
    "Version",
    "clean",
    "failed",
    "instant",
    "iso_date",
    "latest",
    "pattern",
    "report_row",
    "source_files",
    "tracer_of",
]

Row = dict[str, str | None]
"""exam_id, report_text, patient_id, tracer, study_date; `problem` is a reason code or None, `problem_detail` tells."""

NOT_FINAL = "not_final"

# Control characters that no report means: they end up in reports through printers, terminals and broken encodings.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
# What a procedure's name says was injected. Only names that leave no doubt: "PET/CT oncology" says nothing.
_TRACERS = (
    ("DOTATATE", r"dotatate|netspot|detectnet"),
    ("DOTATOC", r"dotatoc"),
    ("DOTANOC", r"dotanoc"),
    ("DCFPyL", r"dcfpyl|piflufolastat|pylarify"),
    ("PSMA-1007", r"psma[\s-]*1007"),
    ("PSMA-11", r"psma[\s-]*11|gozetotide|illuccix|locametz"),
    ("PSMA", r"psma"),
    ("fluciclovine", r"fluciclovine|axumin|facbc"),
    ("fluoroestradiol", r"fluoroestradiol|cerianna|\bfes\b"),
    ("FAPI", r"fapi"),
    ("choline", r"choline"),
    ("fluoride", r"sodium fluoride|\bnaf\b"),
    ("FDG", r"fdg|fluorodeoxyglucose|fludeoxyglucose"),
)


@dataclass(frozen=True)
class Version:
    """One edition of a report. key: what makes two editions the same report; order: the later one is greater."""

    key: tuple[str, ...]
    order: tuple[float, ...]
    row: Row


def latest(versions: Iterable[Version]) -> Iterator[Row]:
    """The last edition of each report, reports in the order in which they were first met."""
    kept: dict[tuple[str, ...], Version] = {}
    for version in versions:
        held = kept.get(version.key)
        if held is None or version.order >= held.order:
            kept[version.key] = version
    for version in kept.values():
        yield version.row


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


def tracer_of(procedure: str) -> str | None:
    """The tracer that a procedure's name states, None when it states none."""
    return next((name for name, words in _TRACERS if re.search(words, procedure, re.I)), None)


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
