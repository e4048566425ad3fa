"""From a report export and a folder of exams to what may leave: cleaned reports and images, and what was removed."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from petground.labeling.errors import InputError
from petground.pipeline.deid.case import CODE, COLUMNS, exam_case, exam_of
from petground.pipeline.deid.keys import read_key
from petground.pipeline.deid.profile import Profile
from petground.pipeline.deid.report import Tally, account_of_images, write_report
from petground.pipeline.deid.rows import rows_of
from petground.pipeline.executors import Runner
from petground.pipeline.files import write_bytes
from petground.pipeline.reports import Export
from petground.pipeline.stage import source_hash, sweep

__all__ = ["Deid", "Done", "run_deid"]

Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Deid:
    """What is to be cleaned, where it goes, under which key, and what runs the cases (see `executors.executor`).

    exams: None for reports alone.
    """

    reports: Export
    exams: Path | None
    out: Path
    keyfile: Path
    profile: Profile
    run_cases: Runner
    table: str = "csv"
    keep_map: Path | None = None


@dataclass
class Done:
    """What came of it: the tally of removals, and (exam id as it was, reason) of what failed, for the console alone."""

    tally: Tally
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    reports: int = 0


def run_deid(run: Deid, tick: Tick = lambda what, done, total: None) -> Done:
    """Cleans every usable row and its exam; writes OUT/reports.<table>, OUT/exams, OUT/removed.*.

    Of reports alone, the account of images that an earlier run wrote stays in OUT/removed.*. Raises InputError when OUT
    holds other things, or images without such an account, or the disk is full; what is finished is kept for the next
    run.
    """
    key = read_key(run.keyfile)
    _own(run.out)
    images = account_of_images(run.out) if run.exams is None else []
    code = source_hash(*CODE)
    done = Done(Tally())
    rows: dict[str, dict[str, Any]] = {}
    mapping: list[tuple[str, str, str]] = []
    cleaned: set[str] = set()
    for finished, outcome in enumerate(run.run_cases(exam_case, _cases(run, key, code, done)), start=1):
        tick("exams", finished, run.reports.rows - run.reports.unusable)
        new_id = exam_of(key, outcome.case)
        if outcome.reason == "disk_full":
            raise InputError("the disk is full", fix="make room and run the same command again")
        if outcome.reason is not None:
            done.tally.fail(new_id, outcome.reason)
            done.failures.append((outcome.case, outcome.reason, outcome.detail))
            continue
        value = outcome.value
        rows[new_id] = value["row"]
        done.tally.text(new_id, value["text"])
        done.tally.header(new_id, value["unread"])
        done.tally.read_otherwise += not value["reads_same"]
        if value["images"] is not None:
            done.tally.images(new_id, value["images"])
            cleaned.add(new_id)
        if value["failed"] is not None:
            done.tally.fail(new_id, value["failed"][0])
            done.failures.append((outcome.case, *value["failed"]))
        mapping += [tuple(entry) for entry in value["mapping"]]
    done.reports = len(rows)
    _drop_others(run.out, run.table, set(rows), cleaned if run.exams is not None else set(rows))
    write_rows(run.out / f"reports.{run.table}", [rows[name] for name in sorted(rows)])
    done.tally.earlier([row for row in images if row["exam_id"] in rows])
    write_report(run.out, done.tally, run.profile, exams=len(rows))
    if run.keep_map is not None:
        write_map(run.keep_map, mapping)
    return done


def _cases(run: Deid, key: bytes, code: str, done: Done) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for report, row in rows_of(run.reports):
        if report.problem is not None:
            done.tally.fail(exam_of(key, report.exam_id), report.problem[0])
            done.failures.append((report.exam_id, *report.problem))
            continue
        told: Mapping[str, Any] = {
            **{name: value for name, value in row.items() if isinstance(value, str | int | float)},
            "exam_id": report.exam_id,
            "report_text": report.text,
        }
        yield report.exam_id, (
            None if run.exams is None else run.exams / report.exam_id, run.out, report.exam_id, told, run.keyfile,
            run.profile, code, run.keep_map is not None,
        )  # fmt: skip


def _own(out: Path) -> None:
    """OUT must be new or of an earlier run: what lies in it is taken for cleaned."""
    allowed = {"exams", "state", "removed.parquet", "removed.json", "removed.html", ".lock"}
    strange = [p.name for p in out.iterdir() if p.name not in allowed and not p.name.startswith((".", "reports."))]
    if strange:
        raise InputError(f"{out} holds other things ({len(strange)} entries)", fix="give an empty folder with --out")
    for name in ("exams", "state"):
        (out / name).mkdir(exist_ok=True)
        sweep(out / name)


def _drop_others(out: Path, table: str, rows: set[str], cleaned: set[str]) -> None:
    """What an earlier run left and this one does not vouch for: exams that are no longer in the export, or failed."""
    for name, kept in (("state", rows), ("exams", cleaned)):
        for folder in (out / name).iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
    for file in out.glob("reports.*"):
        if file.name != f"reports.{table}":
            file.unlink()


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """The cleaned report table, as the suffix says."""
    if path.suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in COLUMNS])), sink)
        write_bytes(path, sink.getvalue().to_pybytes())
    elif path.suffix == ".jsonl":
        write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    else:
        from petground.pipeline.files import write_csv

        write_csv(path, rows, COLUMNS)


def write_map(path: Path, mapping: list[tuple[str, str, str]]) -> None:
    """Old and new ids, readable by their owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("kind", "original", "new"))
        writer.writerows(sorted(set(mapping)))
