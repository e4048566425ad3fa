"""`petground extract`: reports in, findings out; no images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from petground.labeling.errors import InputError
from petground.pipeline.commands.label import make_folder
from petground.pipeline.commands.running import Means, running
from petground.pipeline.denied import denial_rows
from petground.pipeline.extraction import Extracted, extract_reports
from petground.pipeline.files import write_json
from petground.pipeline.label_tables import Funnel, finding_row
from petground.pipeline.reports import open_export
from petground.pipeline.stage import sweep
from petground.pipeline.table_stream import table_writers

__all__ = ["extract"]


def extract(
    reports: Path,
    out: Path,
    engine: Literal["local", "dask"] = "local",
    workers: int | None = None,
    address: str | None = None,
    cluster: Path | None = None,
    timeout_minutes: float = 10.0,
    memory_gib: float | None = None,
) -> int:
    """Read reports and write what they say: a row per SUV mention, without any image.

    OUT/findings.parquet (or OUT itself, when it ends in .parquet) has for each mention its sentence, SUV, slice, side,
    site, and `positive` or the reason why it is none; OUT/denials.parquet what is denied without a value ("no avid
    axillary nodes"), a row per place; OUT/exams.parquet which reports could not be read, and why. Run it again after an
    interruption or with a longer export: only what is new is read. `petground label` with the same OUT goes on from
    there.

    Args:
        reports: CSV, JSONL or Parquet with exam_id, report_text and, where known, patient_id, tracer, study_date and
            scanner; or FHIR or HL7 messages, one file or a folder of them.
        out: a WORK folder, or a file that ends in .parquet for the findings alone.
        engine: local processes, or a Dask cluster: of this machine, at --address, or of jobs by --cluster.
        workers: processes at once; default: one per core that this job may use.
        address: scheduler of a running Dask cluster, tcp://HOST:PORT.
        cluster: YAML with the jobs to submit to Slurm, PBS, SGE or LSF (docs/slurm.md).
        timeout_minutes: a hundred reports that take longer are read one by one, and one that takes longer is recorded
            as failed and left.
        memory_gib: limit of memory for the process of one case; default: none.
    """
    console = Console()
    export = open_export(reports)
    means = Means(engine, workers, timeout_minutes, memory_gib, address, cluster)
    out = out.resolve()
    alone = out.suffix == ".parquet" and not out.is_dir()
    work = out.with_name(f".{out.name}.extract") if alone else out
    if (work / "labels.parquet").exists():
        raise InputError(
            f"{out} holds labels, which go with its findings",
            fix="run `petground label` to bring both up to date, or choose another --out",
        )
    make_folder(work)
    with running(means, work, console=console) as (run, tick):
        sweep(work)
        (work / "extract").mkdir(exist_ok=True)
        sweep(work / "extract")
        with _kept_while(extract_reports(export, work, run, tick)) as extracted:
            tables = ("exams", "findings", "denials")
            paths = {"findings": out} if alone else {name: work / f"{name}.parquet" for name in tables}
            summary = _write(extracted, paths)
        if not alone:
            write_json(work / "summary.json", summary)
    if alone:  # with the file written, what it was made from is of no more use
        shutil.rmtree(work)
    _report(console, out, summary)
    return 3 if summary["exams_failed"] else 0


@contextmanager
def _kept_while(extracted: Extracted) -> Iterator[Extracted]:
    try:
        yield extracted
    finally:
        extracted.rows.unlink(missing_ok=True)


def _write(extracted: Extracted, paths: dict[str, Path]) -> dict[str, Any]:
    count = Funnel()
    with table_writers(paths) as add:
        for report, findings in extracted.exams():
            failure = extracted.failures.get(report.exam_id)
            exam = {
                "exam_id": report.exam_id,
                "patient_id": report.patient_id,
                "tracer": report.tracer,
                "study_date": report.study_date,
                "status": "failed" if failure else "ok",
                "reason": failure[1] if failure else None,
                "detail": failure[2] if failure else None,
            }
            count.exam(exam)
            if "exams" in paths:
                add("exams", exam)
            for finding_id, finding in findings:
                row = finding_row(report.exam_id, finding_id, finding, {"label": None}, None)
                row["stage"] = "extract"
                count.mention(row)
                add("findings", row)
        for denial in denial_rows(extracted.parts) if "denials" in paths else ():
            count.denial(denial)
            add("denials", denial)
    return count.summary()


def _report(console: Console, out: Path, summary: dict[str, Any]) -> None:
    positive = summary["stages"][0]["out"]
    reasons = ", ".join(f"{reason} {number}" for reason, number in summary["reasons"].items())
    console.print(
        f"[bold]{summary['mentions']} SUV mentions[/bold] in {summary['exams']} reports, {positive} of them lesions "
        f"with SUVmax and slice; the others: {reasons or 'none'}"
    )
    if summary["exams_failed"]:
        why = ", ".join(f"{reason} {number}" for reason, number in summary["exam_reasons"].items())
        console.print(f"[red]{summary['exams_failed']} reports failed[/red] ({why})")
    if summary["denials"]:
        console.print(f"{summary['denials']} sentences deny a lesion at a place without an SUV", highlight=False)
    console.print(f"findings: {out}", soft_wrap=True)
