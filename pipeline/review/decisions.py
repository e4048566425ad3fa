"""What a reviewer decided: the words, the file that carries it, and its way back into WORK."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from petground.labeling.errors import InputError, SchemaError
from petground.labeling.volume import Volume
from petground.pipeline.edited import TOLD
from petground.pipeline.files import write_csv

__all__ = [
    "COLUMNS",
    "DECISIONS",
    "add_decisions",
    "label_hash",
    "merge_decisions",
    "newest_decisions",
    "parse_decisions",
    "read_decisions",
    "read_sheet",
    "time_of",
    "write_decisions",
]

DECISIONS: dict[str, str] = {
    "accept": "right lesion, right outline",
    "adjust": "right lesion, the outline needs an edit",
    "wrong_lesion": "the outline lies on another lesion than the sentence tells of",
    "not_lesion": "the outline lies on normal uptake or an artefact",
    "unsure": "cannot be decided on these pictures",
}

COLUMNS = ("exam_id", "finding_id", "decision", "reason", "reviewer", "time", "version", "label_hash")
LONGEST = 10_000  # characters of a field; above 131,072 the csv module would not read the file again
CLOCK_SKEW = timedelta(minutes=5)  # reviewers' computers against this one
EASTERNMOST = timedelta(hours=14)  # a time without a zone may be local time, UTC+14 at most


def label_hash(finding: Mapping[str, Any], mask: Volume | None) -> str:
    """16 hex digits of what was judged: what the report says, and the mask's voxels and grid where there is a mask."""
    told = [finding.get(name) for name in TOLD]
    digest = hashlib.sha256(json.dumps([told, mask is not None]).encode())
    if mask is not None:
        inside: NDArray[np.bool_] = np.asarray(mask.array) > 0
        digest.update(json.dumps([mask.shape, np.round(mask.affine, 3).tolist()]).encode())
        digest.update(np.packbits(inside).tobytes())
    return digest.hexdigest()[:16]


def read_decisions(path: Path, known: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Decided rows of a CSV or JSONL file from a page; rows whose decision is empty are not decided yet.

    `known` holds the (exam_id, finding_id) of the work folder. Raises InputError for a missing or unreadable file,
    SchemaError naming file and row for an unknown id, an unknown word, a time that is none or not yet: then nothing is
    taken.
    """
    if not path.is_file():
        raise InputError(f"no decisions at {path}", fix="download them from the review page first")
    return parse_decisions(_text(path), path, known)


def parse_decisions(text: str, path: Path, known: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """As `read_decisions`, of text that is there already; `path` names it in errors, its suffix says CSV or JSONL."""
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    rows = _jsonl(path, text) if lines else _csv(path, text)
    ids = set(known)
    return [_checked(path, number, row, ids) for number, row in rows if row["decision"]]


def read_sheet(path: Path) -> list[dict[str, str]]:
    """Every row of a CSV that will be written anew, decided or not; none where there is no file yet.

    Raises InputError, so that nothing is overwritten, when the file is not readable, lacks a column, or holds one that
    would be lost; SchemaError naming file and line for a row that does not fit the header.
    """
    return [row for _, row in _csv(path, _text(path), rewritten=True)] if path.is_file() else []


def time_of(row: Mapping[str, str]) -> datetime:
    """When a row was decided; UTC where it does not say. Raises ValueError for a time that is none."""
    found = datetime.fromisoformat(row["time"].replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def in_future(row: Mapping[str, str], now: datetime) -> bool:
    """Whether a row claims to be decided later than now: it would stand above every decision made until then."""
    zoned = datetime.fromisoformat(row["time"].replace("Z", "+00:00")).tzinfo is not None
    return time_of(row) - now > CLOCK_SKEW + (timedelta(0) if zoned else EASTERNMOST)


def newest_decisions(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """The newest decision by (exam_id, finding_id), whoever made it and on whichever version of the label.

    A label that was made anew after its rejection stays out until it is decided anew: training reads it so too. Raises
    SchemaError for a time that is none.
    """
    newest: dict[tuple[str, str], tuple[datetime, str]] = {}
    for row in rows:
        key = row["exam_id"], row["finding_id"]
        if not row["decision"]:
            continue
        try:
            time = time_of(row)
        except ValueError as error:
            raise SchemaError("decisions.csv holds a time that is none", fix="ISO 8601") from error
        if key not in newest or time >= newest[key][0]:
            newest[key] = time, row["decision"]
    return {key: decision for key, (_, decision) in newest.items()}


def merge_decisions(old: Iterable[Mapping[str, str]], new: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Old rows as they are, then the new ones that are not among them yet: importing twice changes nothing."""
    merged = [{c: row.get(c) or "" for c in COLUMNS} for row in old]
    seen = {tuple(row.values()) for row in merged}
    for row in new:
        clean = {c: row.get(c) or "" for c in COLUMNS}
        if tuple(clean.values()) not in seen:
            seen.add(tuple(clean.values()))
            merged.append(clean)
    return merged


def add_decisions(path: Path, new: Iterable[Mapping[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Adds rows to the decisions kept at `path`; returns those that were new, and all. Raises as `read_sheet`."""
    with FileLock(path.with_name(f".{path.name}.lock")):  # a server and an import may add at the same time
        old = read_sheet(path)
        merged = merge_decisions(old, new)
        write_decisions(path, merged)
    return merged[len(old) :], merged


def write_decisions(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Writes CSV under a temporary name, then renames."""
    write_csv(path, list(rows), COLUMNS)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # line ends as they are: a reason may hold some
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable as UTF-8 text", fix="save it as CSV UTF-8") from error


def _csv(path: Path, text: str, *, rewritten: bool = False) -> list[tuple[int, dict[str, str]]]:
    """Line number and fields of each row; Excel separates by semicolons where the comma is the decimal sign."""
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


def _jsonl(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"{path}, line {number}: not JSON", fix="download the file again") from error
        if not isinstance(row, dict) or any(c not in row for c in COLUMNS):
            raise SchemaError(f"{path}, line {number}: expected an object with {', '.join(COLUMNS)}")
        if any(not isinstance(row[c], str | int | float | None) for c in COLUMNS):
            raise SchemaError(f"{path}, line {number}: a field is no text", fix="download the file again")
        rows.append((number, {c: str(row[c] if row[c] is not None else "").strip() for c in COLUMNS}))
    return rows


def _checked(path: Path, number: int, row: dict[str, str], ids: set[tuple[str, str]]) -> dict[str, str]:
    where = f"{path}, line {number}"
    for name, value in row.items():
        if len(value) > LONGEST:
            raise SchemaError(f"{where}: {name} has {len(value)} characters", fix=f"at most {LONGEST}")
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise SchemaError(f"{where}: {name} holds characters that are no text", fix="write it anew")
    if (row["exam_id"], row["finding_id"]) not in ids:
        raise SchemaError(
            f"{where}: no finding {row['finding_id']!r} of exam {row['exam_id']!r} in this work folder",
            fix="import into the folder that the pages were exported from",
        )
    if row["decision"] not in DECISIONS:
        raise SchemaError(f"{where}: unknown decision {row['decision']!r}", fix=f"one of {', '.join(DECISIONS)}")
    if not row["reviewer"]:
        raise SchemaError(f"{where}: no reviewer", fix="write who decided")
    try:
        ahead = in_future(row, datetime.now(timezone.utc))
    except (ValueError, OverflowError) as error:
        raise SchemaError(f"{where}: {row['time']!r} is no time", fix="ISO 8601, e.g. 2025-03-01T09:30:00Z") from error
    if ahead:
        raise SchemaError(f"{where}: {row['time']!r} is in the future", fix="set the clock of the reviewer's computer")
    return row
