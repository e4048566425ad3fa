"""What physicians' decisions mean for the labels: the one rule of pages, SEG and SR, exports, training, evaluation.

Rows of WORK/decisions.csv are events: none is ever changed. Of a finding the newest counts, whoever made it and on
whichever version of the label: one that was made anew after its rejection stays out until it is decided anew.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from petground.labeling.errors import InputError, SchemaError

__all__ = [
    "COLUMNS", "DECISIONS", "KEPT_OUT", "RETRACT", "Row", "checked_words", "decided", "decisions_of", "kept_out",
    "newest", "read_rows", "standing", "text_of", "time_in", "time_of",
]  # fmt: skip

Row = Mapping[str, str]
Key = tuple[str, str]

COLUMNS = ("exam_id", "finding_id", "decision", "reason", "reviewer", "time", "version", "label_hash")
DECISIONS: dict[str, str] = {
    "accept": "right lesion, right outline",
    "adjust": "right lesion, the outline needs an edit",
    "wrong_lesion": "the outline lies on another lesion than the sentence tells of",
    "not_lesion": "the outline lies on normal uptake or an artefact",
    "unsure": "cannot be decided on these pictures",
}
KEPT_OUT = {"wrong_lesion": "wrong lesion", "not_lesion": "not a lesion", "unsure": "unsure"}
"""Decisions by which a label teaches nothing, measures nothing and leaves in no file, in words."""

RETRACT = "retract"
"""Takes back the reviewer's own decision on the finding made at the time that the row's reason tells. It names one row
instead of being the newest word, so that what stood before counts again and files may come in any order."""


def standing(rows: Iterable[Row]) -> list[Row]:
    """Decisions that were not taken back, the oldest first, the later row of equal times as the newer.

    Raises ValueError for a time that is none.
    """
    given = [row for row in rows if row["decision"]]
    back = {(_key(r), r["reviewer"], time_in(r["reason"])) for r in given if r["decision"] == RETRACT}
    made = [row for row in given if row["decision"] != RETRACT]
    return sorted((r for r in made if (_key(r), r["reviewer"], time_of(r)) not in back), key=time_of)


def newest(rows: Iterable[Row]) -> dict[Key, Row]:
    """The decision that counts, by (exam_id, finding_id)."""
    return {_key(row): row for row in standing(rows)}


def kept_out(rows: Iterable[Row]) -> dict[Key, str]:
    """Findings whose label must not be used as a lesion's: the decision by (exam_id, finding_id)."""
    return {key: row["decision"] for key, row in newest(rows).items() if row["decision"] in KEPT_OUT}


def decided(decision: str) -> bool:
    """Whether a decision settles its finding: who is unsure leaves it to be decided."""
    return decision != "unsure"


def decisions_of(work: Path) -> list[dict[str, str]]:
    """Every event of WORK/decisions.csv in its order, none without the file.

    Raises InputError for a file that is not readable, SchemaError naming the line of a row that is no decision.
    """
    path = work / "decisions.csv"
    found = [(line, row) for line, row in read_rows(path, text_of(path)) if row["decision"]] if path.is_file() else []
    for line, row in found:
        checked_words(row, f"{path}, line {line}")
    return [row for _, row in found]


def checked_words(row: Row, where: str) -> None:
    """Raises SchemaError for a decision that is no known word, or a time that is none."""
    if row["decision"] not in (*DECISIONS, RETRACT):
        raise SchemaError(f"{where}: unknown decision {row['decision']!r}", fix=f"one of {', '.join(DECISIONS)}")
    for told in (row["time"], *([row["reason"]] if row["decision"] == RETRACT else [])):
        try:
            time_in(told)
        except ValueError as error:
            raise SchemaError(f"{where}: {told!r} is no time", fix="ISO 8601, e.g. 2025-03-01T09:30:00Z") from error


def time_of(row: Row) -> datetime:
    """When a row was decided. Raises ValueError for a time that is none."""
    return time_in(row["time"])


def time_in(text: str) -> datetime:
    """A time in ISO 8601; UTC where it does not say. Raises ValueError."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def text_of(path: Path) -> str:
    """Raises InputError where the file cannot be read as text."""
    try:
        return path.read_bytes().decode("utf-8-sig")  # line ends as they are: a reason may hold some
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable as UTF-8 text", fix="save it as CSV UTF-8") from error


def read_rows(path: Path, text: str, *, rewritten: bool = False) -> list[tuple[int, dict[str, str]]]:
    """Line number and fields of each row of a CSV; Excel separates by semicolons where the comma is the decimal sign.

    rewritten: the file will be written anew, so a column that would be lost is refused. Raises InputError for what is
    no such table, SchemaError naming the line of a row that does not fit the header.
    """
    header = text.split("\n", 1)[0]
    # newline="": only the line ends of CSV are any; str.splitlines would also cut at U+2028 and others within a field
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = names
    if missing := [c for c in COLUMNS if c not in names]:
        raise InputError(f"{path} has no column {', '.join(missing)}", fix="keep the header of the downloaded file")
    if rewritten and (foreign := [name for name in names if name and name not in COLUMNS]):
        raise InputError(
            f"{path} has a column of its own: {', '.join(foreign)}", fix="move the file away; it would be overwritten"
        )
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise SchemaError(f"{path}, line {reader.line_num}: not {len(names)} fields")
            rows.append((reader.line_num, {c: row[c].strip() for c in COLUMNS}))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})", fix="download the file again") from error
    return rows


def _key(row: Row) -> Key:
    return row["exam_id"], row["finding_id"]
