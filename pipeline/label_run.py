"""From a report export and a folder of exams to labels: extract, ingest, label, then the tables."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.labeling.finding import Candidate, Excluded, Finding
from petground.labeling.site import Site
from petground.pipeline.executors import Runner
from petground.pipeline.files import write_json
from petground.pipeline.label_tables import Failure, Findings, number_findings, write_label_tables
from petground.pipeline.reports import Report
from petground.pipeline.stage import content_hash, folder_hash, kept, run_stage, source_hash, sweep

__all__ = ["LabelRun", "run_labels"]

# What each stage's outcome hangs on besides its input: results kept by other code are made anew.
CODE = {
    "extract": ("petground.labeling",),
    "ingest": ("petground.labeling", "petground.pipeline.dicom", "petground.pipeline.read", "petground.pipeline.nifti"),
    "label": ("petground.labeling",),
}
SHARD = 100  # reports per unit of extraction work: a report takes milliseconds, a process hand-over as well


@dataclass(frozen=True)
class LabelRun:
    """What is to be labelled, where it goes, and what runs the cases (see `executors.executor`)."""

    reports: Sequence[Report]
    exams: Path
    out: Path
    site: Site
    run_cases: Runner


def run_labels(
    run: LabelRun, tick: Callable[[str, int, int], None] = lambda stage, done, total: None
) -> dict[str, Any]:
    """Runs every stage, writes the tables, returns the summary (also WORK/summary.json).

    `tick(stage, done, total)` is told of progress. A case that fails is a row and stops no other. Raises InputError
    when the disk is full; what is finished is kept and found by the next run.
    """
    for folder in ("extract", "exams", "labels"):
        (run.out / folder).mkdir(parents=True, exist_ok=True)
        sweep(run.out / folder)
    write_json(run.out / "site.json", asdict(run.site))  # pages must count slices as the labels did
    usable = [r for r in run.reports if r.problem is None]
    failures: dict[str, Failure] = {r.exam_id: ("extract", *r.problem) for r in run.reports if r.problem is not None}
    findings = _extract(run, usable, failures, tick)
    wanted = [r for r in usable if any(f.status == "positive" for f in findings.get(r.exam_id, ()))]
    ingested = _ingest(run, wanted, failures, tick)
    labelled = _label(run, [r for r in wanted if r.exam_id in ingested], findings, ingested, failures, tick)
    return write_label_tables(run.out, run.reports, findings, ingested, labelled, failures)


def _extract(run: LabelRun, reports: Sequence[Report], failures: dict[str, Failure], tick: Any) -> Findings:
    shards = [reports[i : i + SHARD] for i in range(0, len(reports), SHARD)]
    code = source_hash(*CODE["extract"])  # a site's settings do not change the reading
    todo, findings = [], Findings()
    for number, shard in enumerate(shards):
        texts = [(r.exam_id, r.text) for r in shard]
        key = content_hash(["extract", code, texts])
        todo.append((str(number), (run.out / "extract" / key, key, texts)))
    for old in (run.out / "extract").iterdir():
        if old.name not in {args[1] for _, args in todo}:
            shutil.rmtree(old)
    done = 0
    for outcome in _cases(run, extract_case, todo):
        shard = shards[int(outcome.case)]
        done += len(shard)
        tick("extract", done, len(reports))
        if outcome.reason is not None:
            failures.update({r.exam_id: ("extract", outcome.reason, outcome.detail) for r in shard})
            continue
        folder = todo[int(outcome.case)][1][0]
        for exam_id, rows in json.loads((folder / "findings.json").read_text(encoding="utf-8")).items():
            findings[exam_id] = [_finding(row) for row in rows]
        failures.update({exam_id: ("extract", *why) for exam_id, why in outcome.value["failed"].items()})
    return findings


def extract_case(folder: Path, key: str, texts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Reads one shard of reports into findings.json; returns the reports that could not be read, with why.

    Sentences are patient data: they lie in findings.json, not in the stage's own record.
    """
    from petground.labeling.extract import extract_findings

    def work(part: Path) -> dict[str, Any]:
        rows, failed = {}, {}
        for exam_id, text in texts:
            try:
                rows[exam_id] = [asdict(finding) for finding in extract_findings(text)]
            except Exception as error:  # one report must not take a hundred with it; its text must not be told
                failed[exam_id] = ("failed", f"{type(error).__name__} while reading the report")
        write_json(part / "findings.json", rows)
        return {"failed": failed}

    return run_stage(folder, key, work)[0]


def _finding(row: dict[str, Any]) -> Finding:
    spans = {name: tuple(row[name]) for name in ("span", "sentence_span", "slice_span") if row[name] is not None}
    return Finding(**{**row, **spans})


def _ingest(
    run: LabelRun, reports: Sequence[Report], failures: dict[str, Failure], tick: Any
) -> dict[str, dict[str, Any]]:
    code = source_hash(*CODE["ingest"])
    todo = [(r.exam_id, (run.exams / r.exam_id, run.out / "exams" / r.exam_id, r.exam_id, code)) for r in reports]
    ingested: dict[str, dict[str, Any]] = {}
    for done, outcome in enumerate(_cases(run, ingest_case, todo), start=1):
        tick("ingest", done, len(todo))
        if outcome.reason is None:
            ingested[outcome.case] = outcome.value
        else:
            failures[outcome.case] = ("ingest", outcome.reason, outcome.detail)
    return ingested


def ingest_case(source: Path, folder: Path, exam_id: str, code: str) -> dict[str, Any]:
    """Reads one exam, writes pet.nii.gz [SUVbw] and ct.nii.gz [HU] each on its own grid; returns the exam's values."""
    from petground.pipeline.nifti import write_nifti
    from petground.pipeline.read import read_exam

    earlier = kept(folder) or {}
    files = folder_hash(source, earlier.get("source"))
    key = content_hash(["ingest", code, files["content"]])

    def work(part: Path) -> dict[str, Any]:
        exam = read_exam(source, case=exam_id)
        write_nifti(part / "pet.nii.gz", exam.pet)
        if exam.ct is not None:
            write_nifti(part / "ct.nii.gz", exam.ct)
        return {
            "source": exam.source,
            "ct": exam.ct is not None,
            "suv_rule": exam.suv_rule,
            "suv_factor": exam.suv_factor,
            "pet_series": exam.pet_series,
            "ct_series": exam.ct_series,
            "slices": exam.pet.shape[2],
            "pet_series_uid": _series_uid(exam.pet_files),
        }

    value, _ = run_stage(folder, key, work, also={"source": files})
    # Where the files lie is no part of the result: the exams may have been moved since.
    origin = {"source": value["source"], "folder": str(source.resolve()), "pet_series_uid": value["pet_series_uid"]}
    write_json(folder / "source.json", origin)
    return {**value, "key": key}


def _series_uid(files: Sequence[Path]) -> str | None:
    """Which series the PET was read from, so that SEG and SR point at that one."""
    if not files:
        return None
    import pydicom

    header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    return str(header.SeriesInstanceUID)


def _label(
    run: LabelRun,
    reports: Sequence[Report],
    findings: Findings,
    ingested: dict[str, dict[str, Any]],
    failures: dict[str, Failure],
    tick: Any,
) -> dict[str, list[dict[str, Any]]]:
    code = source_hash(*CODE["label"])
    todo = []
    for report in reports:
        positive = {
            finding_id: finding
            for finding_id, finding in number_findings(findings[report.exam_id])
            if finding.status == "positive"
        }
        exam = ingested[report.exam_id]
        parts = ["label", code, asdict(run.site), exam["key"], {k: asdict(f) for k, f in positive.items()}]
        todo.append((report.exam_id, (run.out, report.exam_id, content_hash(parts), positive, run.site, exam)))
    labelled: dict[str, list[dict[str, Any]]] = {}
    for done, outcome in enumerate(_cases(run, label_case, todo), start=1):
        tick("label", done, len(todo))
        if outcome.reason is None:
            labelled[outcome.case] = outcome.value["findings"]
        else:
            failures[outcome.case] = ("match", outcome.reason, outcome.detail)
    for old in (run.out / "labels").iterdir():
        if old.name not in labelled:  # masks that no table names any more
            shutil.rmtree(old)
    return labelled


def label_case(
    out: Path, exam_id: str, key: str, positive: dict[str, Finding], site: Site, exam: dict[str, Any]
) -> dict[str, Any]:
    """Matches and outlines one exam's findings; masks are written beside each other, on the PET grid."""
    import numpy as np

    from petground.labeling.label import label_exam
    from petground.pipeline.nifti import read_nifti, write_nifti

    def work(part: Path) -> dict[str, Any]:
        pet = read_nifti(out / "exams" / exam_id / "pet.nii.gz", "SUVbw")
        ct = read_nifti(out / "exams" / exam_id / "ct.nii.gz", "HU") if exam["ct"] else None
        rows = []
        for (finding_id, _), label in zip(
            positive.items(), label_exam(pet, list(positive.values()), site=site, ct=ct), strict=True
        ):
            row: dict[str, Any] = {
                "finding_id": finding_id,
                "candidates": [_candidate(rank, c) for rank, c in enumerate(label.candidates)],
            }
            if isinstance(label, Excluded):
                row |= {"reason": label.reason, "detail": label.detail}
            else:
                write_nifti(part / f"{finding_id}.nii.gz", pet.like(label.mask.astype(np.uint8), "label"))
                i, j, k = (int(v) for v in label.voxel_ijk)
                row["label"] = {
                    "suv_measured": float(label.suv_measured),
                    "slice_measured": int(label.slice_measured),
                    "voxel_i": i,
                    "voxel_j": j,
                    "voxel_k": k,
                    "volume_ml": float(label.volume_ml),
                    "confidence": float(label.confidence),
                    "method": label.method,
                    "threshold": float(label.threshold),
                    "warnings": "; ".join(label.warnings),
                    "provenance": json.dumps(
                        {
                            "petground": _version(),
                            "label": key,
                            "ingest": exam["key"],
                            "site": asdict(site),
                        },
                        sort_keys=True,
                    ),
                }
            rows.append(row)
        return {"findings": rows}

    return run_stage(out / "labels" / exam_id, key, work)[0]


def _candidate(rank: int, candidate: Candidate) -> dict[str, Any]:
    i, j, k = (int(v) for v in candidate.voxel_ijk)
    return {
        "rank": rank,
        "voxel_i": i,
        "voxel_j": j,
        "voxel_k": k,
        "suv": float(candidate.suv),
        "score": float(candidate.score),
        "slice_distance": int(candidate.slice_distance),
        "evidence": json.dumps({name: float(v) for name, v in candidate.evidence.items()}, sort_keys=True),
    }


def _cases(run: LabelRun, function: Callable[..., Any], todo: Sequence[tuple[str, tuple[Any, ...]]]) -> Any:
    for outcome in run.run_cases(function, todo):
        if outcome.reason == "disk_full":
            raise InputError(f"no space left for {run.out}", fix="free some, then run the same command to go on")
        yield outcome


def _version() -> str:
    return importlib.metadata.version("petground")
