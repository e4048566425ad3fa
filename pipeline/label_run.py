"""From a report export and a folder of exams to labels: extract, ingest, label, then the tables.

Neither reports nor findings nor images of the whole archive are ever in memory: findings lie in shards
(`extraction.py`), images and labels in a folder per exam (`exam_cases.py`), and the tables are written row by row.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.labeling.finding import Finding
from petground.labeling.site import Site, site_to_mapping
from petground.labeling.suv_header import SuvFallbacks
from petground.pipeline.denied import denial_rows
from petground.pipeline.exam_cases import CODE, Told, exam_case, ingest_is_current
from petground.pipeline.exam_checks import checked
from petground.pipeline.executors import Runner
from petground.pipeline.extraction import Extracted, Failure, Tick, extract_reports, run_cases
from petground.pipeline.files import write_json
from petground.pipeline.label_plan import denying_exams
from petground.pipeline.label_tables import drop_tables, write_label_tables
from petground.pipeline.numbering_run import infer_site
from petground.pipeline.organ_maps import NO_MAPS, OrganSource
from petground.pipeline.reports import Export, Report
from petground.pipeline.stage import RECORD, source_hash, sweep
from petground.pipeline.weights import NO_WEIGHTS, Weights

__all__ = ["LabelRun", "require_apart", "run_labels", "wanted"]


FOLDERS = ("extract", "exams", "numbering", "organs", "labels")


@dataclass(frozen=True)
class LabelRun:
    """What is to be labelled, where it goes, and what runs the cases (see `executors.executor`).

    infer_numbering: how slices are counted is found from the export itself; of `site` only the rest is taken.
    unlabelled: whether images of exams with nothing to label are read, too, where the report denies a lesion.
    """

    reports: Export
    exams: Path
    out: Path
    site: Site
    run_cases: Runner
    infer_numbering: bool = False
    unlabelled: bool = False
    organs: OrganSource = NO_MAPS
    weights: Weights = NO_WEIGHTS


def run_labels(run: LabelRun, tick: Tick = lambda stage, done, total: None) -> dict[str, Any]:
    """Runs every stage, writes the tables, returns the summary (also WORK/summary.json).

    `tick(stage, done, total)` is told of progress. A case that fails is a row and stops no other. Raises InputError
    when the disk is full; what is finished is kept and found by the next run.
    """
    require_apart(run.out, run.exams)
    run.out.mkdir(parents=True, exist_ok=True)
    sweep(run.out)
    for folder in FOLDERS:
        (run.out / folder).mkdir(exist_ok=True)
        sweep(run.out / folder)
    extracted = extract_reports(run.reports, run.out, run.run_cases, tick)
    try:
        if run.infer_numbering:
            asked = wanted(extracted, run.weights)
            exams = ((report, run.exams / report.exam_id, positive) for report, positive in asked)
            cases = partial(run_cases, run.run_cases, out=run.out)
            run = replace(run, site=infer_site(run.out, run.site, exams, cases, tick, extracted.positive))
        drop_tables(run.out)  # from here on masks are replaced: no table may tell of those that were
        deny = _only_denying(extracted) if run.unlabelled else set()
        failures = extracted.failures | _label(run, extracted, deny, tick)
        found = checked(run.out, run.site, (report for report, _ in wanted(extracted, also=deny)), failures)
        for exam_id in found.failures:
            _remove(run.out / "labels" / exam_id)
        write_json(run.out / "site.json", site_to_mapping(run.site))  # pages must count slices as the labels did
        named = (
            (replace(r, patient_id=found.patient_of.get(r.exam_id, r.patient_id)), f) for r, f in extracted.exams()
        )
        notes = (*found.notes, *_hidden(run.reports))
        denials = denial_rows(extracted.parts)
        return write_label_tables(run.out, named, failures | found.failures, notes, denials, also=deny)
    finally:
        extracted.rows.unlink(missing_ok=True)


def require_apart(out: Path, exams: Path) -> None:
    """Raises InputError when results would come to lie among the images, or in their place."""
    images = exams.resolve()
    places = [out.resolve() / name for name in FOLDERS]
    inside = images in (out.resolve(), *out.resolve().parents)
    if inside or any(place == images or place in images.parents for place in map(Path.resolve, places)):
        raise InputError(
            f"results in {out} would lie among the images of {exams}", fix="choose another --out, such as work/"
        )


def _label(run: LabelRun, extracted: Extracted, also: Collection[str], tick: Tick) -> dict[str, Failure]:
    """Reads and labels the exams that have something to label, and reads those of `also`; returns those that failed,
    with stage and why."""
    codes = {stage: source_hash(*names) for stage, names in CODE.items()}
    failures: dict[str, Failure] = {}
    unused = {folder.name for folder in (run.out / "labels").iterdir()}
    weighed: dict[str, SuvFallbacks] = {}

    def todo() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for report, positive in wanted(extracted, run.weights, also):
            exam_id, fallbacks = report.exam_id, SuvFallbacks(report.weight_kg, run.site.half_life_from_code)
            told = Told(report.scanner, report.study_date, report.tracer, fallbacks)
            weighed[exam_id] = fallbacks
            yield exam_id, (run.exams / exam_id, run.out, exam_id, codes, positive, run.site, told, run.organs)

    for done, outcome in enumerate(run_cases(run.run_cases, exam_case, todo(), run.out), start=1):
        tick("exams", done, extracted.positive + len(also))
        if outcome.reason is None:
            failed = outcome.value["failed"]
        else:  # its process died: the image's own stage is over when its result is there
            folders = run.exams / outcome.case, run.out / "exams" / outcome.case
            read = ingest_is_current(*folders, codes["ingest"], weighed[outcome.case])
            failed = ("match" if read else "ingest", outcome.reason, outcome.detail)
        if failed is not None:
            failures[outcome.case] = tuple(failed)
        elif outcome.case not in also:
            unused.discard(outcome.case)
    for name in unused:
        _remove(run.out / "labels" / name)
    return failures


def _hidden(export: Export) -> tuple[str, ...]:
    told = f"{export.hidden} drafts, withdrawn or superseded reports of exams that have another one were not read"
    return (f"{told} (petground reports lists them)",) if export.hidden else ()


def _remove(folder: Path) -> None:
    """Masks that no table names any more."""
    if (folder / RECORD).is_file():
        shutil.rmtree(folder)


def _only_denying(extracted: Extracted) -> set[str]:
    """Exams whose report denies a lesion and tells of none to label."""
    deny = denying_exams(path for paths in extracted.parts.values() for path in paths)
    return deny - {one.exam_id for one, _ in wanted(extracted)} - extracted.failures.keys()


def wanted(
    extracted: Extracted, weights: Weights = NO_WEIGHTS, also: Collection[str] = ()
) -> Iterator[tuple[Report, dict[str, Finding]]]:
    """Exams whose report mentions a lesion with SUVmax and slice, and `also`: their rows, and such findings by id."""
    for report, findings in extracted.exams(positive_only=True):
        if (findings or report.exam_id in also) and report.exam_id not in extracted.failures:
            yield replace(report, weight_kg=weights.of(report.exam_id, report.patient_id)), dict(findings)
