"""`petground reports`: FHIR and HL7 v2 exports to a report table, with the settings that a site needs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rich.console import Console

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.files import write_bytes, write_csv
from petground.pipeline.report_files import stated_rows
from petground.pipeline.reports import judged
from petground.pipeline.sources.folder import read_source
from petground.pipeline.sources.rows import NO_CANDIDATE, Row, candidates

__all__ = ["reports"]

COLUMNS = ("exam_id", "report_text", "patient_id", "tracer", "study_date")


def reports(
    export: Path,
    out: Path,
    exam_id: str | None = None,
    procedure: str | None = None,
    preliminary: bool = False,
) -> int:
    """Turn FHIR DiagnosticReports or HL7 v2 ORU messages into a report table for `label` and `fetch`.

    `petground label` reads such exports itself, with the defaults; this is for a site whose accession number lies
    elsewhere, or whose export holds more than PET. OUT gets the reports that `petground label` will take; beside it
    OUT's name with .left_out.csv lists the others, each with the reason. Of a report that was corrected the last
    edition counts. Exit code 3 when some could not be read.

    Args:
        export: file or folder: FHIR JSON or NDJSON (bulk export), HL7 v2 messages; .gz as well.
        out: table to write: .parquet, .csv or .jsonl.
        exam_id: where the exam_id stands. HL7: places, the first that is filled (OBR-18,OBR-3). FHIR: system or type
            code of an identifier, or `id`. Default: the accession number.
        procedure: regular expression on the procedure's code and name; others are left out, e.g. 'PET|PSMA'.
        preliminary: take reports that are not final.
    """
    if out.suffix.lower() not in (".parquet", ".csv", ".jsonl"):
        raise ConfigError(f"{out.name}: unknown kind of table", fix="one of .parquet, .csv, .jsonl")
    console = Console()
    rows = list(read_source(export, exam_id=exam_id, procedure=procedure, preliminary=preliminary))
    chosen = [row for row, _ in candidates(rows)]
    used = []
    for row, report in zip(chosen, judged(stated_rows(rows)), strict=True):
        if report.problem is None:
            used.append(row)
        else:
            row["problem"], row["problem_detail"] = report.problem
    left = [row for row in rows if row["problem"] is not None]
    if not used:
        why = ", ".join(f"{reason} {count}" for reason, count in Counter(row["problem"] for row in left).items())
        raise InputError(f"none of {len(rows)} reports can be used: {why}", fix="see the settings in --help")
    _write(out, used)
    write_csv(out.with_name(f"{out.name}.left_out.csv"), left, ("exam_id", "problem", "problem_detail"))
    console.print(f"{len(used)} reports in {out}", highlight=False, soft_wrap=True)
    reasons = Counter(str(row["problem"]) for row in left)
    if reasons:
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        console.print(f"{len(left)} left out ({told}): see {out.name}.left_out.csv", highlight=False, soft_wrap=True)
    return 3 if set(reasons) - NO_CANDIDATE else 0


def _write(out: Path, rows: list[Row]) -> None:
    table = [{name: row[name] for name in COLUMNS} for row in rows]
    if out.suffix.lower() == ".csv":
        write_csv(out, table, COLUMNS)
    elif out.suffix.lower() == ".jsonl":
        write_bytes(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode())
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(table, pa.schema([(name, pa.string()) for name in COLUMNS])), content)
        write_bytes(out, content.getvalue().to_pybytes())
