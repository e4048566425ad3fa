"""The tables of a labelling run: every report a row, every SUV mention a row, every label a row; nothing disappears."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petground.labeling.finding import IMAGE_REASONS, Finding
from petground.pipeline.files import write_json
from petground.pipeline.reports import Report
from petground.pipeline.schemas import write_table

__all__ = ["Failure", "Findings", "number_findings", "write_label_tables"]

_DECIDED_IN = {
    "slice_outside": "match",
    "suv_below_minimum": "match",
    "no_match": "match",
    "ambiguous_match": "match",
    "no_contour": "contour",
    "check_suv": "check",
    "check_laterality": "check",
    "check_volume": "check",
}
ORDER = ("extract", "ingest", "match", "contour", "check")
Failure = tuple[str, str, str]
"""Stage, reason code and message of what ended an exam."""
Findings = dict[str, list[Finding]]


def number_findings(findings: Sequence[Finding]) -> list[tuple[str, Finding]]:
    """Findings with their ids, in text order: f001, f002, ... unique within the exam."""
    return [(f"f{number:03d}", finding) for number, finding in enumerate(findings, start=1)]


def write_label_tables(
    out: Path,
    reports: Sequence[Report],
    findings: Mapping[str, Sequence[Finding]],
    ingested: Mapping[str, Mapping[str, Any]],
    labelled: Mapping[str, Sequence[Mapping[str, Any]]],
    failures: Mapping[str, Failure],
) -> dict[str, Any]:
    """Writes exams, findings, labels and candidates.parquet and summary.json under `out`; returns the summary.

    Rows are in the order of the export, so that the same input gives the same tables whoever ran first.
    """
    exams: list[dict[str, Any]] = []
    mentions: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    candidates: list[dict[str, Any]] = []
    for report in _once(reports):
        exam_id = report.exam_id
        exams.append(_exam_row(report, ingested.get(exam_id), failures.get(exam_id)))
        fates = {row["finding_id"]: row for row in labelled.get(exam_id, ())}
        for finding_id, finding in number_findings(findings.get(exam_id, ())):
            fate = fates.get(finding_id)
            mentions.append(_finding_row(exam_id, finding_id, finding, fate, failures.get(exam_id)))
            if fate is None:
                continue
            candidates.extend({"exam_id": exam_id, "finding_id": finding_id, **c} for c in fate["candidates"])
            if "label" in fate:
                labels.append(_label_row(report, finding_id, finding, fate["label"]))
    for name, rows in (("exams", exams), ("findings", mentions), ("labels", labels), ("candidates", candidates)):
        write_table(out / f"{name}.parquet", name, rows)
    summary = _summary(exams, mentions, labels)
    write_json(out / "summary.json", summary)
    return summary


def _once(reports: Sequence[Report]) -> list[Report]:
    """One report per exam id: a duplicated id is one failed exam."""
    return list({r.exam_id: r for r in reports}.values())


def _exam_row(report: Report, exam: Mapping[str, Any] | None, failure: Failure | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "exam_id": report.exam_id,
        "patient_id": report.patient_id,
        "tracer": report.tracer,
        "study_date": report.study_date,
        "status": "failed" if failure else "ok",
    }
    if failure:
        _, row["reason"], row["detail"] = failure
    elif exam is None:
        row["reason"] = "nothing_to_label"  # no positive mention: the images were not read
    if exam is not None:
        row |= {name: exam[name] for name in ("source", "suv_rule", "suv_factor", "pet_series", "ct_series", "slices")}
        row["pet_path"] = f"exams/{report.exam_id}/pet.nii.gz"
        row["ct_path"] = f"exams/{report.exam_id}/ct.nii.gz" if exam["ct"] else None
    return row


def _finding_row(
    exam_id: str,
    finding_id: str,
    finding: Finding,
    fate: Mapping[str, Any] | None,
    failure: Failure | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "exam_id": exam_id,
        "finding_id": finding_id,
        "sentence": finding.sentence,
        "section": finding.section,
        "suv": finding.suv,
        "slice": finding.slice,
        "laterality": finding.laterality,
        "site": finding.site,
        "prompt": finding.prompt,
        "suv_decimals": finding.suv_decimals,
        "suv_kind": finding.suv_kind,
        "uncertain": finding.uncertain,
        "span_start": finding.span[0],
        "span_end": finding.span[1],
        "status": finding.status,
        "reason": finding.reason,
        "stage": "extract",
    }
    if finding.status != "positive":
        return row
    if fate is not None and "label" in fate:
        return row | {"stage": "check"}
    if fate is not None:
        stage = _DECIDED_IN.get(fate["reason"], "match")
        return row | {"status": "excluded", "reason": fate["reason"], "stage": stage, "detail": fate["detail"]}
    stage, reason, detail = failure or ("match", "failed", "")
    return row | {"status": "failed", "reason": reason, "stage": stage, "detail": detail}


def _label_row(report: Report, finding_id: str, finding: Finding, label: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "exam_id": report.exam_id,
        "finding_id": finding_id,
        "sentence": finding.sentence,
        "suv_reported": finding.suv,
        "slice_reported": finding.slice,
        "mask_path": f"labels/{report.exam_id}/{finding_id}.nii.gz",
        "prompt": finding.prompt,
        "laterality": finding.laterality,
        "site": finding.site,
        "tracer": report.tracer,
        "patient_id": report.patient_id,
        **label,
    }


def _summary(exams: Sequence[Any], mentions: Sequence[Any], labels: Sequence[Any]) -> dict[str, Any]:
    """Counts by stage: what went in equals what came out, what was excluded and what failed."""
    funnel, left = [], len(mentions)
    for stage in ORDER:
        here = [m for m in mentions if m["stage"] == stage and m["status"] != "positive"]
        failed = sum(m["status"] == "failed" for m in here)
        gone = len(here)
        funnel.append({"stage": stage, "in": left, "out": left - gone, "excluded": gone - failed, "failed": failed})
        left -= gone
    return {
        "exams": len(exams),
        "exams_failed": sum(e["status"] == "failed" for e in exams),
        "exams_read": sum(e.get("pet_path") is not None for e in exams),
        "mentions": len(mentions),
        "labels": len(labels),
        "stages": funnel,
        "reasons": dict(Counter(m["reason"] for m in mentions if m["reason"]).most_common()),
        "exam_reasons": dict(Counter(e["reason"] for e in exams if e["status"] == "failed").most_common()),
    }


if missing := set(IMAGE_REASONS) - set(_DECIDED_IN):
    raise RuntimeError(f"no stage decides {missing}")
