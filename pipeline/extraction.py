"""Findings of an archive's reports: read shard by shard, kept by content, joined with the export again in its order.

What is in memory at a time are a few shards; a second run, or a longer export, reads only the shards that are new.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from petground.labeling.errors import InputError
from petground.labeling.finding import Finding
from petground.pipeline.executors import Outcome, Runner
from petground.pipeline.files import write_bytes
from petground.pipeline.reports import Export, Report
from petground.pipeline.stage import content_hash, source_hash

__all__ = [
    "CODE",
    "Extracted",
    "Failure",
    "Tick",
    "extract_reports",
    "read_shard",
    "run_cases",
    "shard_key",
    "shards",
    "whole_shard",
]

CODE = ("petground.labeling",)  # what is read out of a report depends on this source; a site's settings do not matter
_RESULT = re.compile(r"[0-9a-f]{32}\.parquet")
SHARD = 100  # reports per unit of work, about: a report takes milliseconds, a hand-over to a process as well
SHARD_CHARACTERS = 4 << 20
SPOOL_ROWS = 4096
ALONE = ("crashed", "timed_out", "out_of_memory")  # one report may have taken its shard with it

Failure = tuple[str, str, str]
"""Stage, reason code and message of what ended an exam."""
Tick = Callable[[str, int, int], None]
_SPOOL = pa.schema([(name, pa.string()) for name in (
    "exam_id", "patient_id", "tracer", "study_date", "scanner", "reason", "detail", "shard",
)])  # fmt: skip
_SHARD = pa.schema([(name, pa.string()) for name in ("exam_id", "finding", "denial")] + [("positive", pa.bool_())])


@dataclass(frozen=True)
class Extracted:
    """Where the findings of an export lie. rows: its rows without texts, in order; parts: the files of each shard.

    failures: exams whose report could not be read. positive: how many exams have a positive finding.
    """

    rows: Path
    parts: dict[str, tuple[Path, ...]]
    failures: dict[str, Failure] = field(default_factory=dict)
    positive: int = 0

    def exams(self, *, positive_only: bool = False) -> Iterator[tuple[Report, list[tuple[str, Finding]]]]:
        """Every exam once, in the order of the export: its row (without text) and its findings with their ids."""
        shard, findings, seen = None, {}, set()
        for batch in pq.ParquetFile(self.rows).iter_batches(SPOOL_ROWS):
            for row in batch.to_pylist():
                reason, detail, key = row.pop("reason"), row.pop("detail"), row.pop("shard")
                problem = None if reason is None else (reason, detail)
                if reason == "duplicate_exam_id":  # several rows, one failed exam
                    if row["exam_id"] in seen:
                        continue
                    seen.add(row["exam_id"])
                if key is not None and key != shard:
                    shard, findings = key, self._findings(key, positive_only=positive_only)
                yield Report(text="", problem=problem, **row), findings.get(row["exam_id"], []) if key else []

    def _findings(self, key: str, *, positive_only: bool) -> dict[str, list[tuple[str, Finding]]]:
        found: dict[str, list[tuple[str, Finding]]] = {}
        for part in self.parts[key]:
            found |= read_shard(part, positive_only=positive_only)
        return found


def extract_reports(export: Export, out: Path, run: Runner, tick: Tick) -> Extracted:
    """Reads the reports that were not read yet; results lie in out/extract/KEY.parquet, rows in a file of `out`.

    A report that crashes its process or never ends is found by reading its shard's reports one by one. Raises
    InputError when the disk is full or the export cannot be read further.
    """
    folder, code = out / "extract", source_hash(*CODE)
    folder.mkdir(parents=True, exist_ok=True)
    result = Extracted(out / f".rows.{uuid.uuid4().hex}.part", {})
    waiting: dict[str, list[Report]] = {}
    poisoned: list[list[Report]] = []
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        tick("extract", done, export.rows)

    def todo(spool: _Spool) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for shard in shards(export):
            usable = [report for report in shard if report.problem is None]
            key = shard_key(code, usable) if usable else None
            for report in shard:
                spool.add(report, None if report.problem else key)
                if report.problem is not None:
                    result.failures[report.exam_id] = ("extract", *report.problem)
            told(len(shard) - len(usable))
            if key is None:
                continue
            path = folder / f"{key}.parquet"
            result.parts[key] = (path,)
            if whole_shard(path):
                told(len(usable))
            else:
                waiting[key] = usable
                yield key, (path, _texts(usable))

    with _Spool(result.rows) as spool:
        for outcome in run_cases(run, extract_case, todo(spool), out):
            shard = waiting.pop(outcome.case)
            if outcome.reason in ALONE and len(shard) > 1:
                poisoned.append(shard)
                continue
            told(len(shard))
            if outcome.reason is not None:
                result.parts[outcome.case] = ()
                result.failures.update({r.exam_id: ("extract", outcome.reason, outcome.detail) for r in shard})
    for shard in poisoned:
        _one_by_one(shard, code, out, run, result)
        told(len(shard))
    return replace(result, positive=_settle(result, folder))


def _one_by_one(shard: Sequence[Report], code: str, out: Path, run: Runner, result: Extracted) -> None:
    paths = {report.exam_id: out / "extract" / f"{shard_key(code, [report])}.parquet" for report in shard}
    todo = [(r.exam_id, (paths[r.exam_id], _texts([r]))) for r in shard if not whole_shard(paths[r.exam_id])]
    for outcome in run_cases(run, extract_case, todo, out):
        if outcome.reason is not None:
            result.failures[outcome.case] = ("extract", outcome.reason, outcome.detail)
    found = tuple(path for exam_id, path in paths.items() if exam_id not in result.failures)
    result.parts[shard_key(code, shard)] = found


def _settle(result: Extracted, folder: Path) -> int:
    """Takes in which reports of whole shards failed, removes shards of no use; returns the exams with a positive."""
    positive = 0
    wanted = {path for paths in result.parts.values() for path in paths}
    for path in wanted:
        told = json.loads(pq.read_schema(path).metadata[b"petground.extract"])
        positive += told["positive"]
        result.failures.update({exam_id: ("extract", "failed", why) for exam_id, why in told["failed"].items()})
    for old in folder.iterdir():
        if old not in wanted and _RESULT.fullmatch(old.name):
            old.unlink()
    return positive


def shards(reports: Iterable[Report]) -> Iterator[list[Report]]:
    """Runs of about SHARD reports, cut where the exam ids say so: a row more or less changes one shard, not all."""
    shard: list[Report] = []
    size = 0
    for report in reports:
        shard.append(report)
        size += len(report.text)
        cut = int.from_bytes(hashlib.blake2b(report.exam_id.encode(), digest_size=4).digest(), "big") % (SHARD // 2)
        if (len(shard) >= SHARD // 2 and cut == 0) or len(shard) >= 2 * SHARD or size >= SHARD_CHARACTERS:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def shard_key(code: str, shard: Sequence[Report]) -> str:
    """Name of a shard's result: the hash of the code that reads, of the ids and of the texts."""
    return content_hash(["extract", code, _texts(shard)])


def whole_shard(path: Path) -> bool:
    """Whether a shard's result is there, and says what was written: a power cut may leave a file without content.

    Pages have checksums, but not what tells where they lie and what the run found: the rows have a hash of their own.
    """
    try:
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
        told = json.loads((table.schema.metadata or {})[b"petground.extract"])
        return bool(told.pop("hash") == content_hash([table.to_pylist(), told]))
    except (OSError, KeyError, ValueError, AttributeError, pa.ArrowException):
        return False


def read_shard(path: Path, *, positive_only: bool = False) -> dict[str, list[tuple[str, Finding]]]:
    """Findings by exam id, numbered f001, f002, ... in text order."""
    found: dict[str, list[tuple[str, Finding]]] = {}
    numbers: Counter[str] = Counter()
    for row in pq.read_table(path, columns=["exam_id", "positive", "finding"], partitioning=None).to_pylist():
        if row["finding"] is None:
            continue
        numbers[row["exam_id"]] += 1
        if row["positive"] or not positive_only:
            found.setdefault(row["exam_id"], []).append((f"f{numbers[row['exam_id']]:03d}", _finding(row["finding"])))
    return found


def _texts(shard: Sequence[Report]) -> list[tuple[Any, ...]]:
    return [(r.exam_id, r.text) if r.second is None else (r.exam_id, r.text, r.second) for r in shard]


def extract_case(path: Path, texts: Sequence[tuple[Any, ...]]) -> None:
    """Reads one shard into a Parquet file: a row per mention and per denial, and which reports failed, with why.

    texts: exam id and report of each, and what a second reader read in it where that one must agree.

    Sentences are patient data: they lie in that file, not in any record of the run.
    """
    from petground.labeling.extract import extract_findings
    from petground.labeling.language.denials import find_denials
    from petground.labeling.second_reading import consensus

    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for exam_id, text, *second in texts:
        try:
            found = extract_findings(text)
            if second:
                found = consensus(found, {(start, end): pairs for start, end, pairs in second[0]})
            denied = find_denials(text)
        except Exception as error:  # one report must not take a hundred with it; its text must not be told
            failed[exam_id] = f"{type(error).__name__} while reading the report"
            continue
        for finding in found:
            told = json.dumps(asdict(finding), allow_nan=False)
            rows.append({"exam_id": exam_id, "positive": finding.status == "positive", "finding": told})
        rows += [{"exam_id": exam_id, "positive": False, "denial": json.dumps(asdict(denial))} for denial in denied]
    positive = len({row["exam_id"] for row in rows if row["positive"]})
    table = pa.Table.from_pylist(rows, schema=_SHARD)
    outcome: dict[str, Any] = {"failed": failed, "positive": positive}
    record = json.dumps({**outcome, "hash": content_hash([table.to_pylist(), outcome])})
    table = table.replace_schema_metadata({"petground.extract": record})
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    write_bytes(path, content.getvalue().to_pybytes())


def _finding(told: str) -> Finding:
    row: dict[str, Any] = json.loads(told)
    spans = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    return Finding(**{**row, **spans})


class _Spool:
    """The export's rows without their texts, on disk: joined with the results when those are there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: list[dict[str, Any]] = []

    def __enter__(self) -> _Spool:
        self._file = pq.ParquetWriter(self._path, _SPOOL, compression="zstd")
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def add(self, report: Report, shard: str | None) -> None:
        reason, detail = report.problem or (None, None)
        names = ("exam_id", "patient_id", "tracer", "study_date", "scanner")
        row = {name: getattr(report, name) for name in names}
        self._held.append(row | {"reason": reason, "detail": detail, "shard": shard})
        if len(self._held) >= SPOOL_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._file.write_table(pa.Table.from_pylist(self._held, schema=_SPOOL))
        self._held = []


def run_cases(
    run: Runner, function: Callable[..., Any], todo: Iterable[tuple[str, tuple[Any, ...]]], out: Path
) -> Iterator[Outcome]:
    """The outcomes of the cases; a full disk ends the run, as every further case would fail as well."""
    for outcome in run(function, todo):
        if outcome.reason == "disk_full":
            raise InputError(f"no space left for {out}", fix="free some, then run the same command to go on")
        yield outcome
