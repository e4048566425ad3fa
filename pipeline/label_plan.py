"""What a labelling run would do: counted without reading an image or writing a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.labeling.finding import Finding
from petground.labeling.site import Site
from petground.labeling.suv_header import SuvFallbacks
from petground.pipeline.dates import iso_date, require_same_day
from petground.pipeline.denied import denial_rows
from petground.pipeline.exam_cases import CODE, Around, ingest_is_current, label_key
from petground.pipeline.extraction import CODE as EXTRACT_CODE
from petground.pipeline.extraction import read_shard, shard_key, shards, whole_shard
from petground.pipeline.organ_maps import NO_MAPS, OrganSource, given_map
from petground.pipeline.reports import Export, Report
from petground.pipeline.stage import kept, source_hash
from petground.pipeline.weights import NO_WEIGHTS, Weights

__all__ = ["Plan", "denying_exams", "plan"]


@dataclass
class Plan:
    """Counts. usable: reports without a problem, `present` of them with a folder of images.

    reports: to be read; wanted: exams of those already read that have something to label; deny: those without that are
    read for what their reports deny; images: of both to be read; labels: of `wanted` to be labelled. What unread
    reports will ask for is not known before they are read.
    """

    usable: int = 0
    present: int = 0
    reports: int = 0
    wanted: int = 0
    deny: int = 0
    images: int = 0
    labels: int = 0


def plan(
    export: Export,
    exams: Path,
    out: Path,
    site: Site,
    weights: Weights = NO_WEIGHTS,
    organs: OrganSource = NO_MAPS,
    *,
    unlabelled: bool = False,
) -> Plan:
    """Compares what is there with what the export, the images, the site and this code ask for.

    unlabelled: as `label_run.LabelRun`.
    """
    work = Plan()
    codes = {stage: source_hash(*names) for stage, names in CODE.items()}
    for report, positive in _wanted(export, exams, out, work, unlabelled=unlabelled):
        exam_id = report.exam_id
        work.wanted += bool(positive)
        work.deny += not positive
        fallbacks = SuvFallbacks(weights.of(exam_id, report.patient_id), site.half_life_from_code)
        ingest = ingest_is_current(exams / exam_id, out / "exams" / exam_id, codes["ingest"], fallbacks)
        work.images += ingest is None
        exam = (kept(out / "exams" / exam_id) or {}).get("value", {})
        date = iso_date(report.study_date) or exam.get("study_date")
        counted = site.for_exam(report.scanner or exam.get("scanner"), date)
        if ingest is not None and _of_another_day(report, exam, counted):
            continue
        given = given_map(organs, exams / exam_id, exam_id)
        around = None if given is None else Around(*given, organs.version, report.tracer or exam.get("tracer"))
        labels = kept(out / "labels" / exam_id, thorough=True)
        made = labels is not None and labels.get("key")
        work.labels += bool(positive) and (
            ingest is None or made != label_key(codes["label"], counted, ingest, positive, around)
        )
    return work


def denying_exams(parts: Iterable[Path]) -> set[str]:
    """Exams of these shards whose report denies a lesion, with an SUV or at a place without one."""
    found = set()
    for part in parts:
        found |= {row["exam_id"] for row in denial_rows({"": [part]})}
        told = read_shard(part).items()
        found |= {exam_id for exam_id, findings in told if any(one.reason == "negated" for _, one in findings)}
    return found


def _of_another_day(report: Report, exam: Mapping[str, Any], site: Site) -> bool:
    try:
        require_same_day(report.study_date, exam.get("study_date"), site)
    except InputError:
        return True
    return False


def _wanted(
    export: Export, exams: Path, out: Path, work: Plan, *, unlabelled: bool
) -> Iterator[tuple[Report, dict[str, Finding]]]:
    code = source_hash(*EXTRACT_CODE)
    for shard in shards(export):
        usable = [report for report in shard if report.problem is None]
        work.usable += len(usable)
        work.present += sum((exams / report.exam_id).is_dir() for report in usable)
        path = out / "extract" / f"{shard_key(code, usable)}.parquet"
        if not usable:
            continue
        if not whole_shard(path):
            work.reports += len(usable)
            continue
        deny = denying_exams([path]) if unlabelled else set()
        found = read_shard(path, positive_only=True)
        for report in usable:
            if report.exam_id in found or report.exam_id in deny:
                yield report, dict(found.get(report.exam_id, ()))
