"""Rows of report exports, one at a time: CSV, JSONL, Parquet, FHIR and HL7 files. Damage is told with its line."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError

__all__ = ["HIDES", "OPTIONAL", "RAGGED", "REQUIRED", "STATED", "report_rows", "stated_rows"]

REQUIRED = ("exam_id", "report_text")
OPTIONAL = ("patient_id", "tracer", "study_date", "scanner")
RAGGED = "\0ragged"
"""Key of a row's note that it has more or fewer fields than the header."""
STATED = "\0stated"
"""Key of what a source says is wrong with a row, (reason, message): a draft, a report taken back, a PDF."""
HIDES = "\0hides"
"""Key of how many drafts and earlier editions of a row's exam are not used."""
LONGEST_FIELD = 1 << 27  # characters; the csv module's default of 128 KiB is shorter than some reports
BATCH = 512  # rows of a Parquet file in memory at once
HL7_STARTS = ("MSH", "FHS", "BHS")
KINDS = "CSV, TSV, JSONL or Parquet (.csv, .tsv, .jsonl, .parquet; .gz after the first three), FHIR .json, HL7 .hl7"

Rows = Iterator[Mapping[str, Any]]


def report_rows(path: Path) -> Rows:
    """Rows of an export in file order, as {column: value}; of a folder, those of its FHIR and HL7 files.

    Raises InputError when it is missing, of an unknown kind, lacks a column, or, when the rows come to it, where it
    cannot be read.
    """
    if path.is_dir():
        return _messages(path)
    if not path.is_file():
        raise InputError(f"no report export at {path}", fix=f"give {KINDS}")
    return _whole(path, _reader(path))


def _reader(path: Path) -> Callable[[Path], Rows]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = next((s for s in reversed(suffixes) if s != ".gz"), "")
    if suffix in (".csv", ".tsv"):
        return _csv
    if suffix == ".parquet":
        return _parquet
    start = _start(path)
    if start.startswith(HL7_STARTS) or suffix == ".hl7":
        return _messages
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _messages if '"resourceType"' in start or suffix == ".json" else _jsonl
    raise InputError(f"{path.name}: unknown kind of file '{path.suffix}'", fix=f"give {KINDS}")


def _start(path: Path) -> str:
    """The first characters; what they are in is found out when the rows are read."""
    try:
        with _binary(path) as stream:
            return stream.read(4096).decode("utf-8-sig", errors="ignore").lstrip()
    except (OSError, EOFError, zlib.error):
        return ""


def _whole(path: Path, read: Callable[[Path], Rows]) -> Rows:
    """The rows, with what the decoders raise turned into words."""
    number = 0
    try:
        for row in read(path):
            number += 1
            yield row
    except UnicodeDecodeError:
        raise InputError(
            f"{path.name} is not UTF-8 after row {number}",
            fix="export it as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8",
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path.name} is damaged or cut off after row {number}", fix="copy it anew") from None


def _binary(path: Path) -> Any:
    """The bytes, unpacked where they are gzip, whatever the name says."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _text(path: Path, newline: str | None = None) -> Any:
    stream = _binary(path)
    wide = stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")  # "Unicode text" of Excel
    return io.TextIOWrapper(stream, encoding="utf-16" if wide else "utf-8-sig", newline=newline)


def _csv(path: Path) -> Rows:
    csv.field_size_limit(LONGEST_FIELD)
    with _text(path, newline="") as stream:
        header = stream.readline()
        if "\0" in header:
            raise InputError(f"{path.name} holds NUL characters", fix="export it as UTF-8, not as UTF-16 or binary")
        delimiter = _delimiter(header, "\t" if ".tsv" in path.suffixes else ",")
        columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        _require_columns(path, columns)
        twice = [name for name in (*REQUIRED, *OPTIONAL) if columns.count(name) > 1]
        if twice:
            raise InputError(f"{path.name} has two columns {twice[0]}", fix="keep the right one")
        # strict: a quote that is never closed would swallow all that follows as one report
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                if not fields:
                    continue
                row = dict(zip(columns, fields, strict=False))
                if len(fields) != len(columns):
                    row[RAGGED] = f"it has {len(fields)} fields, the header {len(columns)}"
                yield row
        except csv.Error as error:
            raise InputError(
                f"{path.name}, line {reader.line_num + 1}: {error}",
                fix="put reports in quotes and double the quotes within, or export as JSONL or Parquet",
            ) from None


def _delimiter(header: str, usual: str) -> str:
    """The usual one, unless only another one gives the columns: Excel writes ';' where ',' is the decimal mark."""
    for delimiter in (usual, ",", ";", "\t", "|"):
        if set(REQUIRED) <= {name.strip(' "\r\n') for name in header.split(delimiter)}:
            return delimiter
    return usual


def _jsonl(path: Path) -> Rows:
    with _text(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(f"{path.name}, line {number} is not JSON", fix="one object per line") from None
            if not isinstance(row, dict):
                raise InputError(f"{path.name}, line {number} is not an object", fix="one object per line")
            _require_columns(path, row, place=f", line {number}")
            yield row


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    damaged = InputError(f"{path.name} is not a readable Parquet file", fix="export it again")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError):
        raise damaged from None
    with file:
        _require_columns(path, file.schema_arrow.names)
        names = [n for n in (*REQUIRED, *OPTIONAL) if n in file.schema_arrow.names]
        try:
            for batch in file.iter_batches(batch_size=BATCH, columns=names):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError):
            raise damaged from None


def _messages(path: Path) -> Rows:
    """FHIR and HL7; a folder is one export: its resources refer to each other, a later message corrects an earlier."""
    from petground.pipeline.sources.folder import read_source

    yield from stated_rows(read_source(path))


def stated_rows(found: Iterable[dict[str, str | None]]) -> Rows:
    """What FHIR and HL7 gave as rows of an export: a row per report that is its exam's, with the problem it has."""
    from petground.pipeline.sources.rows import candidates

    for row, hides in candidates(found):
        told: dict[str, Any] = {name: value for name, value in row.items() if not name.startswith("problem")}
        if row["problem"] is not None:
            told[STATED] = row["problem"], row["problem_detail"]
        yield {**told, HIDES: hides}


def _require_columns(path: Path, columns: Iterable[str], place: str = "") -> None:
    have = [str(c) for c in columns]
    missing = [name for name in REQUIRED if name not in have]
    if not missing:
        return
    near = {name: difflib.get_close_matches(name, have, n=1, cutoff=0.5) for name in missing}
    hints = "; ".join(f"rename '{found[0]}' to '{name}'" for name, found in near.items() if found)
    shown = ", ".join(name[:40] for name in have[:12] if name.isprintable())
    raise InputError(
        f"{path.name}{place} has no column {' and '.join(missing)}",
        fix=hints or f"it has {shown or 'none'}; needed are {', '.join(REQUIRED)}",
    )
