"""The tables of a labelling run: every report a row, every SUV mention a row, every label a row; nothing disappears."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from petground.labeling.finding import IMAGE_REASONS, Finding
from petground.pipeline.dates import iso_date
from petground.pipeline.extraction import Failure
from petground.pipeline.files import write_json
from petground.pipeline.numbering_hint import SliceTally
from petground.pipeline.reports import Report
from petground.pipeline.stage import kept
from petground.pipeline.table_stream import table_writers

__all__ = ["Funnel", "drop_tables", "finding_row", "write_label_tables"]

WRITTEN = ("exams", "findings", "denials", "labels", "candidates")

_DECIDED_IN = {
    "slice_outside": "match",
    "suv_below_minimum": "match",
    "no_match": "match",
    "ambiguous_match": "match",
    "no_contour": "contour",
    "numbering_unclear": "match",
    "physiologic_organ": "match",
    "series_unknown": "match",
    "check_suv": "check",
    "check_laterality": "check",
    "check_volume": "check",
}
ORDER = ("extract", "ingest", "match", "contour", "check")


def write_label_tables(
    out: Path,
    exams: Iterable[tuple[Report, Sequence[tuple[str, Finding]]]],
    failures: Mapping[str, Failure],
    notes: Sequence[str] = (),
    denials: Iterable[Mapping[str, Any]] = (),
    also: Collection[str] = (),
) -> dict[str, Any]:
    """Writes exams, findings, denials, labels and candidates.parquet and summary.json under `out`; returns the summary.

    exams: every exam of the export with its numbered findings; what became of its images is read from out/exams and
    out/labels. Rows are in the order given, so that the same input gives the same tables whoever ran first. notes: what
    was found about the export as a whole, a sentence each; what the labels say of how slices were counted is added.
    denials: rows (`denied.denial_rows`). also: exams whose images were read though there is nothing to label.
    """
    count, slices = Funnel(), SliceTally()
    with table_writers({name: out / f"{name}.parquet" for name in WRITTEN}) as add:
        for report, findings in exams:
            exam_id, failure = report.exam_id, failures.get(report.exam_id)
            positive = any(finding.status == "positive" for _, finding in findings)
            read = (positive or exam_id in also) and (failure is None or failure[0] == "match")
            exam = _record(out / "exams" / exam_id) if read else None
            labelled = _record(out / "labels" / exam_id) if positive and failure is None else None
            row = _exam_row(report, exam, failure)
            count.exam(row)
            add("exams", row)
            fates = {fate["finding_id"]: fate for fate in (labelled or {}).get("findings", ())}
            for finding_id, finding in findings:
                fate = fates.get(finding_id)
                row = finding_row(exam_id, finding_id, finding, fate, failure)
                count.mention(row)
                slices.add(finding, fate)
                add("findings", row)
                for candidate in fate["candidates"] if fate else ():
                    add("candidates", {"exam_id": exam_id, "finding_id": finding_id, **candidate})
                if fate and "label" in fate:
                    count.labels += 1
                    tracer = report.tracer or (exam or {}).get("tracer")
                    add("labels", _label_row(report, finding_id, finding, fate["label"]) | {"tracer": tracer})
        for denial in denials:
            count.denial(denial)
            add("denials", denial)
    summary = count.summary() | {"notes": [*notes, *slices.notes()]}
    write_json(out / "summary.json", summary)
    return summary


def _record(folder: Path) -> dict[str, Any] | None:
    record = kept(folder)
    return None if record is None else record["value"]


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
        row |= {name: getattr(report, name) or exam.get(name) for name in ("scanner", "tracer")}
        if iso_date(report.study_date) is None:
            row["study_date"] = exam.get("study_date") or report.study_date
        row |= {name: exam[name] for name in ("source", "suv_rule", "suv_factor", "pet_series", "ct_series", "slices")}
        row["pet_path"] = f"exams/{report.exam_id}/pet.nii.gz"
        row["ct_path"] = f"exams/{report.exam_id}/ct.nii.gz" if exam["ct"] else None
    return row


def finding_row(
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
        "series": finding.series,
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
        return row | {"stage": "check", "detail": " ".join(finding.warnings) or None}
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
        "patient_id": report.patient_id,
        **label,
    }


class Funnel:
    """Counts by stage: what went in equals what came out, what was excluded and what failed."""

    def __init__(self) -> None:
        self.exams, self.labels, self.mentions, self.read, self.denials = 0, 0, 0, 0, 0
        self._denied: tuple[str, str] | None = None
        self.exam_reasons: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.gone: Counter[tuple[str, str]] = Counter()

    def exam(self, row: Mapping[str, Any]) -> None:
        self.exams += 1
        self.read += row.get("pet_path") is not None
        if row["status"] == "failed":
            self.exam_reasons[row["reason"]] += 1

    def mention(self, row: Mapping[str, Any]) -> None:
        self.mentions += 1
        if row["status"] != "positive":
            self.gone[row["stage"], row["status"]] += 1
        if row["reason"]:
            self.reasons[row["reason"]] += 1

    def denial(self, row: Mapping[str, Any]) -> None:
        sentence = (row["exam_id"], row["denial_id"])
        self.denials += sentence != self._denied  # a row per place
        self._denied = sentence

    def summary(self) -> dict[str, Any]:
        funnel, left = [], self.mentions
        for stage in ORDER:
            excluded, failed = self.gone[stage, "excluded"], self.gone[stage, "failed"]
            out = left - excluded - failed
            funnel.append({"stage": stage, "in": left, "out": out, "excluded": excluded, "failed": failed})
            left = out
        return {
            "exams": self.exams,
            "exams_failed": self.exam_reasons.total(),
            "exams_read": self.read,
            "mentions": self.mentions,
            "denials": self.denials,
            "labels": self.labels,
            "stages": funnel,
            "reasons": dict(self.reasons.most_common()),
            "exam_reasons": dict(self.exam_reasons.most_common()),
        }


if missing := set(IMAGE_REASONS) - set(_DECIDED_IN):
    raise RuntimeError(f"no stage decides {missing}")


def drop_tables(out: Path) -> None:
    """Takes the tables of an earlier run away; its stages stay, so that nothing is made twice."""
    for name in (*(f"{table}.parquet" for table in WRITTEN), "summary.json", "site.json"):
        (out / name).unlink(missing_ok=True)
