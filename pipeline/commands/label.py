"""`petground label`: reports and exams in, labels out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from petground.labeling.errors import InputError
from petground.labeling.site import Site, site_from_mapping
from petground.pipeline.commands.running import Means, running
from petground.pipeline.label_plan import plan
from petground.pipeline.label_run import LabelRun, require_apart, run_labels
from petground.pipeline.label_tables import drop_tables
from petground.pipeline.numbering_run import read_numbering
from petground.pipeline.numbering_table import describe_numbering, show_numbering
from petground.pipeline.organ_maps import OrganSource, map_file, organ_source
from petground.pipeline.progress import counted
from petground.pipeline.reports import Export, open_export
from petground.pipeline.second_readings import with_second_reading
from petground.pipeline.settings_file import read_settings
from petground.pipeline.weights import Weights, read_weights

__all__ = ["label", "make_folder", "read_site"]


def label(
    reports: Path,
    exams: Path,
    out: Path,
    site: Path | None = None,
    engine: Literal["local", "dask"] = "local",
    workers: int | None = None,
    address: str | None = None,
    cluster: Path | None = None,
    timeout_minutes: float = 30.0,
    memory_gib: float | None = None,
    infer_numbering: bool = False,
    organs: str | None = None,
    organs_version: int | None = None,
    weights: Path | None = None,
    second_reading: Path | None = None,
    unlabelled_exams: bool = False,
    dry_run: bool = False,
) -> int:
    """Read reports, find the lesions they mention on the PET, outline them in 3D.

    Every SUV mention of every report ends as a label or as a row with a reason in OUT/findings.parquet. Run it again
    after an interruption or a change: only what is missing or touched by the change is made anew.

    Args:
        reports: CSV, JSONL or Parquet with exam_id, report_text and, where known, patient_id, tracer, study_date and
            scanner (which the site file's groups may go by; default: that of the DICOM header); or FHIR or HL7
            messages, one file or a folder of them. patient_id and study_date must be those of the images.
        exams: folder with one folder per exam_id: DICOM in any nesting, or pet.nii.gz [SUVbw] and ct.nii.gz [HU].
        out: the WORK folder: tables, SUV images, masks.
        site: YAML with the site's conventions (how slices are counted, minimum SUV); default: from the head, from 1.
        organs: folder of organ maps, <exam_id>.nii.gz or <exam_id>/organs.nii.gz with the classes of TotalSegmentator's
            task total; or "totalsegmentator" to make them where it is installed. Labels keep out of organs that take up
            the tracer normally unless the report names them. An organs.nii.gz among an exam's images is taken anyway.
        organs_version: TotalSegmentator's version, 1 or 2, for maps that carry no class names; default: 2.
        weights: CSV with weight_kg and exam_id or patient_id, for exams whose DICOM header has no PatientWeight.
        second_reading: table of `petground second-reading`: only pairs on which grammar and model agree are labelled.
        unlabelled_exams: read and keep the images of exams with nothing to label, too, where the report denies a
            lesion: normal scans among them. They can teach (`train fit --data.unlabelled_fraction`), and
            `petground evaluate` asks them what their reports deny.
        infer_numbering: find how slices are counted, by scanner and time where it differs, from where the reported
            values are found on the images; says on what evidence, writes OUT/site_inferred.yaml, and labels nothing
            when it is not clear. Settings of --site that say how slices are counted are not used then.
        engine: local processes, or a Dask cluster: of this machine, at --address, or of jobs by --cluster.
        workers: processes at once; default: one per core that this job may use.
        address: scheduler of a running Dask cluster, tcp://HOST:PORT.
        cluster: YAML with the jobs to submit to Slurm, PBS, SGE or LSF (docs/slurm.md).
        timeout_minutes: an exam that takes longer is recorded as failed and left.
        memory_gib: an exam whose process takes more is recorded as failed and left; default: no limit.
        dry_run: only say what would be done.
    """
    console = Console()
    convention, maps, weighed = read_site(site), organ_source(organs, organs_version), read_weights(weights)
    export = open_export(reports)
    if second_reading is not None:
        export = with_second_reading(export, second_reading)
    if not exams.is_dir():
        raise InputError(f"no folder of exams at {exams}", fix="one folder per exam_id is expected in it")
    means = Means(engine, workers, timeout_minutes, memory_gib, address, cluster)
    require_apart(out, exams)
    exams, out = exams.resolve(), out.resolve()  # workers elsewhere have other working directories
    if dry_run and infer_numbering:
        console.print("how slices are counted would be found from the export (--infer-numbering), instead of this:")
    if dry_run:
        return _describe(console, export, exams, out, convention, weighed, maps, unlabelled=unlabelled_exams)
    if maps.folder is not None:
        mapped = sum(map_file(maps, exams / report.exam_id, report.exam_id) is not None for report in export)
        if not mapped:
            raise InputError(f"no organ map in {maps.folder} is named as an exam", fix="call it <exam_id>.nii.gz")
        console.print(f"organ maps for {mapped} of {export.rows} exams", highlight=False)
    make_folder(out)
    try:
        with running(means, out, exams, console=console) as (run_cases, tick):
            run = LabelRun(export, exams, out, convention, run_cases, infer_numbering, unlabelled_exams, maps, weighed)
            summary = run_labels(run, tick)
    except InputError as error:
        if error.reason == "numbering_unclear":
            drop_tables(out)  # those of an earlier run are no answer to this one; its stages stay
        if error.reason == "numbering_unclear" and (found := read_numbering(out)):
            show_numbering(console, found, out)
        raise
    if infer_numbering and (found := read_numbering(out)):
        show_numbering(console, found, out)
    _report(console, out, summary)
    return 3 if summary["exams_failed"] else 0


def read_site(path: Path | None) -> Site:
    """The site's conventions from a YAML file; the defaults without one."""
    if path is None:
        return Site()
    values = read_settings(path, what="site file", fix="see configs/site/ for examples")
    return site_from_mapping(values)


def make_folder(out: Path) -> None:
    """Makes the folder for results. Raises InputError when a file is in its place."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", fix="give a folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}", fix="give another --out") from error


def _describe(
    console: Console,
    export: Export,
    exams: Path,
    out: Path,
    site: Site,
    weights: Weights,
    organs: OrganSource,
    *,
    unlabelled: bool,
) -> int:
    console.print(f"{export.rows} reports, {export.unusable} of them unusable", highlight=False)
    bad = itertools.islice((report for report in export if report.problem is not None), 10)
    for report in bad if export.unusable else ():
        console.print(
            f"  {report.exam_id}: {report.problem[1] if report.problem else ''}", highlight=False, markup=False
        )
    work = plan(export, exams, out, site, weights, organs, unlabelled=unlabelled)
    console.print(f"exams found in {exams}: {work.present} of {work.usable}", highlight=False, soft_wrap=True)
    for line in describe_numbering(site):
        console.print(line, highlight=False, markup=False)
    if work.reports:
        known = "which exams have something to label is known when they are read"
        console.print(f"to do: read {work.reports} reports; {known}", highlight=False, soft_wrap=True)
    more = f", and {work.deny} only deny" if unlabelled else ""
    if others := work.usable - work.reports:
        console.print(
            f"of the {others} reports that were read before, {work.wanted} have something to label{more}: "
            f"read the images of {work.images} and label {work.labels} of these exams",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"nothing was written; without --dry-run labels would go to {out}", soft_wrap=True)
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
        f"[bold]{counted(summary['labels'], 'label')}[/bold] from {counted(summary['exams'], 'exam')}; "
        f"not labelled: {reasons or 'none'}"
    )
    if summary["denials"]:
        denied = counted(summary["denials"], "sentence")
        console.print(f"{denied} without an SUV denying a lesion at a place: see denials.parquet", highlight=False)
    if summary["exams_failed"]:
        why = ", ".join(f"{reason} {count}" for reason, count in summary["exam_reasons"].items())
        failed = counted(summary["exams_failed"], "exam")
        console.print(f"[red]{failed} failed[/red] ({why}): see exams.parquet, column detail")
    for note in summary["notes"]:
        console.print(f"[yellow]note[/yellow]: {note}", highlight=False)
    console.print(f"tables and masks: {out}")
