"""`petground label`: reports and exams in, labels out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.site import Site, site_from_mapping
from petground.pipeline.executors import executor
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.progress import progress
from petground.pipeline.reports import Report, read_reports

__all__ = ["label", "read_site"]


def label(
    reports: Path,
    exams: Path,
    out: Path,
    site: Path | None = None,
    engine: Literal["local", "dask"] = "local",
    workers: int | None = None,
    address: str | None = None,
    timeout_minutes: float = 30.0,
    dry_run: bool = False,
) -> int:
    """Read reports, find the lesions they mention on the PET, outline them in 3D.

    Every SUV mention of every report ends as a label or as a row with a reason in OUT/findings.parquet. Run it again
    after an interruption or a change: only what is missing or touched by the change is made anew.

    Args:
        reports: CSV, JSONL or Parquet with exam_id, report_text and, where known, patient_id, tracer, study_date.
        exams: folder with one folder per exam_id: DICOM in any nesting, or pet.nii.gz [SUVbw] and ct.nii.gz [HU].
        out: the WORK folder: tables, SUV images, masks.
        site: YAML with the site's conventions (how slices are counted, minimum SUV); default: from the head, from 1.
        engine: local processes, or a Dask cluster.
        workers: processes at once; default: one per core that this job may use.
        address: scheduler of a running Dask cluster; default: a cluster on this machine.
        timeout_minutes: an exam that takes longer is recorded as failed and left (engine local).
        dry_run: only say what would be done.
    """
    console = Console()
    convention = read_site(site)
    rows = read_reports(reports)
    if not exams.is_dir():
        raise InputError(f"no folder of exams at {exams}", fix="one folder per exam_id is expected in it")
    if timeout_minutes <= 0:
        raise ConfigError(f"--timeout-minutes is {timeout_minutes}", fix="give a positive number")
    if dry_run:
        return _describe(console, rows, exams, out, convention)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(out / ".lock", timeout=0),
            executor(engine, workers, timeout_s=timeout_minutes * 60, address=address) as run_cases,
            progress(console) as tick,
        ):
            summary = run_labels(LabelRun(rows, exams, out, convention, run_cases), tick)
    except Timeout:
        raise InputError(f"another run is writing to {out}", fix="wait for it, or choose another --out") from None
    _report(console, out, summary)
    return 3 if summary["exams_failed"] else 0


def read_site(path: Path | None) -> Site:
    """The site's conventions from a YAML file; the defaults without one."""
    if path is None:
        return Site()
    if not path.is_file():
        raise InputError(f"no site file at {path}", fix="see configs/site/ for examples")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not YAML: {str(error).splitlines()[0]}") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path.name} must hold settings as 'key: value'")
    return site_from_mapping(values)


def _describe(console: Console, rows: list[Report], exams: Path, out: Path, site: Site) -> int:
    usable = [r for r in rows if r.problem is None]
    present = sum((exams / r.exam_id).is_dir() for r in usable)
    console.print(f"{len(rows)} reports, {len(rows) - len(usable)} of them unusable; {present} exams found in {exams}")
    for row in [r for r in rows if r.problem is not None][:10]:
        console.print(f"  {row.exam_id}: {row.problem[1] if row.problem else ''}", highlight=False, markup=False)
    start = {"head": "from the head", "feet": "from the feet"}[site.slice_origin]
    console.print(f"slices counted {start}, from {site.slice_first}, on the {site.slice_grid.upper()} grid")
    console.print(f"nothing was written; without --dry_run labels would go to {out}")
    return 0


def _report(console: Console, out: Path, summary: dict[str, Any]) -> None:
    table = Table(title="SUV mentions by stage", title_justify="left")
    for column in ("stage", "in", "out", "excluded", "failed"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for row in summary["stages"]:
        table.add_row(*(str(row[name]) for name in ("stage", "in", "out", "excluded", "failed")))
    console.print(table)
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["reasons"].items())
    console.print(
        f"[bold]{summary['labels']} labels[/bold] from {summary['exams']} exams; not labelled: {reasons or 'none'}"
    )
    if summary["exams_failed"]:
        why = ", ".join(f"{reason} {count}" for reason, count in summary["exam_reasons"].items())
        console.print(f"[red]{summary['exams_failed']} exams failed[/red] ({why}): see exams.parquet, column detail")
    console.print(f"tables and masks: {out}")
