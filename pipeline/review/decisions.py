"""What a reviewer decided: the file that carries it, and its way back into WORK."""

from __future__ import annotations

import hashlib
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
from petground.pipeline.decided import COLUMNS, checked_words, read_rows, text_of, time_of
from petground.pipeline.edited import TOLD
from petground.pipeline.files import write_csv

__all__ = [
    "add_decisions",
    "label_hash",
    "merge_decisions",
    "parse_decisions",
    "read_decisions",
    "read_sheet",
    "write_decisions",
]

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
    return parse_decisions(text_of(path), path, known)


def parse_decisions(text: str, path: Path, known: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """As `read_decisions`, of text that is there already; `path` names it in errors, its suffix says CSV or JSONL."""
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    rows = _jsonl(path, text) if lines else read_rows(path, text)
    ids = set(known)
    return [_checked(path, number, row, ids) for number, row in rows if row["decision"]]


def read_sheet(path: Path) -> list[dict[str, str]]:
    """Every row of a CSV that will be written anew, decided or not; none where there is no file yet.

    Raises InputError, so that nothing is overwritten, when the file is not readable, lacks a column, or holds one that
    would be lost; SchemaError naming file and line for a row that does not fit the header.
    """
    return [row for _, row in read_rows(path, text_of(path), rewritten=True)] if path.is_file() else []


def in_future(row: Mapping[str, str], now: datetime) -> bool:
    """Whether a row claims to be decided later than now: it would stand above every decision made until then."""
    zoned = datetime.fromisoformat(row["time"].replace("Z", "+00:00")).tzinfo is not None
    return time_of(row) - now > CLOCK_SKEW + (timedelta(0) if zoned else EASTERNMOST)


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
    checked_words(row, where)
    if not row["reviewer"]:
        raise SchemaError(f"{where}: no reviewer", fix="write who decided")
    if in_future(row, datetime.now(timezone.utc)):
        raise SchemaError(f"{where}: {row['time']!r} is in the future", fix="set the clock of the reviewer's computer")
    return row
