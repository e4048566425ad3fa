"""What of a WORK folder leaves it: labels that no physician rejected, their exams, and the fate of the rest."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.pipeline.decided import KEPT_OUT, decided, decisions_of, newest
from petground.pipeline.edited import EDITED, with_edits
from petground.pipeline.prompts import has_words, leaks
from petground.pipeline.review.decisions import read_decisions
from petground.pipeline.schemas import read_table

__all__ = ["FATES", "Doubt", "ExamOut", "Lesion", "Selection", "select"]

Key = tuple[str, str]

FATES = {
    "exported": "has a mask in this release",
    "wrong_lesion": "a physician: the outline lies on another lesion",
    "not_lesion": "a physician: normal uptake or an artefact",
    "unsure": "a physician could not decide",
    "below_confidence": "confidence below the release's minimum",
    "no_words": "nothing to read but SUV and slice",
    "tells_the_answer": "its words still tell an SUV or a slice",
    "no_ct": "the exam has no CT, which this format needs",
    "incomplete_exam": "a lesion of the exam has no outline, and such exams were left out",
    "duplicate_exam": "the exam is filed twice and its twin was kept",
    "export_failed": "its files could not be read or written",
}
"""What becomes of a labelled mention at the door; all other mentions keep the reason of findings.parquet."""

_NO_LESION = ("negated", "prior", "reference", "physiologic", "threshold", "repeat")
"""Reasons by which a mention tells of no lesion of this exam that still wants an outline."""


@dataclass(frozen=True)
class Lesion:
    """One mention with its mask (path relative to WORK) and what the tables tell of it. SUV in g/ml, volume in ml."""

    finding_id: str
    prompt: str
    mask_path: str
    site: str | None
    laterality: str | None
    suv_reported: float | None
    suv_measured: float | None
    slice_reported: int | None
    slice_measured: int | None
    voxel_ijk: tuple[int, int, int]
    volume_ml: float
    confidence: float
    edited: bool = False


@dataclass(frozen=True)
class Doubt:
    """Tissue that may be lesion and has no mask to trust: an outline not used, or a candidate voxel and its SUV."""

    mask_path: str | None = None
    voxel_ijk: tuple[int, int, int] | None = None
    suv: float = 0.0


@dataclass(frozen=True)
class ExamOut:
    """One exam that leaves; image paths are relative to WORK. untold: lesions of the report that have no mask here."""

    exam_id: str
    patient_id: str
    tracer: str | None
    year: str | None
    pet_path: str
    ct_path: str | None
    lesions: tuple[Lesion, ...]
    doubts: tuple[Doubt, ...] = ()
    untold: int = 0


@dataclass
class Selection:
    """exams by id; fates of every mention that has a label; findings: all mentions, rows of findings.parquet."""

    exams: dict[str, ExamOut]
    fates: dict[Key, str]
    findings: list[dict[str, Any]]
    exam_rows: list[dict[str, Any]]
    decided: int = 0
    without_patient: int = 0
    provenance: dict[str, str] = field(default_factory=dict)

    def drop(self, exam_id: str, fate: str) -> None:
        """Takes an exam out; its labels end with that fate."""
        for lesion in self.exams.pop(exam_id).lesions:
            self.fates[exam_id, lesion.finding_id] = fate


def select(
    work: Path,
    *,
    min_confidence: float = 0.0,
    decisions: Path | None = None,
    words: bool = False,
    needs_ct: bool = False,
    drop_incomplete: bool = False,
) -> Selection:
    """Exams and labels that may leave, by the newest decision on each, confidence and what the format needs.

    decisions: a reviewer's file instead of WORK/decisions.csv. words: the format carries sentences, so a label whose
    sentence is nothing but numbers has no use. Raises InputError when nothing is left or a table is missing.
    """
    exam_rows = read_table(work / "exams.parquet", "exams")
    findings = read_table(work / "findings.parquet", "findings")
    findings, labels = with_edits(work, exam_rows, findings, read_table(work / "labels.parquet", "labels"))
    known = {(row["exam_id"], row["finding_id"]) for row in findings}
    rows = decisions_of(work) if decisions is None else read_decisions(decisions, known)
    verdicts = {key: row["decision"] for key, row in newest(rows).items()}
    exams = {row["exam_id"]: row for row in exam_rows if row["pet_path"]}
    fates: dict[Key, str] = {}
    kept: dict[str, list[Lesion]] = defaultdict(list)
    doubts: dict[str, list[Doubt]] = defaultdict(list)
    untold: Counter[str] = Counter()
    for row in sorted(labels, key=lambda r: (r["exam_id"], r["finding_id"])):
        key = row["exam_id"], row["finding_id"]
        if key[0] not in exams:
            raise InputError("a label without a PET in exams.parquet", case=key[0], fix="run `petground label` again")
        fate = _fate(row, verdicts.get(key), min_confidence)
        lesion = _lesion(row)
        if fate in ("wrong_lesion", "unsure", "below_confidence"):  # "not_lesion" is background: a physician said so
            doubts[key[0]].append(Doubt(mask_path=lesion.mask_path))
            untold[key[0]] += 1
        elif fate == "exported" and words and not has_words(lesion.prompt):
            fate = "no_words"
        elif fate == "exported" and words and leaks(lesion.prompt):
            fate = "tells_the_answer"
        if fate == "exported":
            kept[key[0]].append(lesion)
        fates[key] = fate
    for exam_id, found in _unlabelled(work, findings).items():
        doubts[exam_id].extend(found)
    untold.update(row["exam_id"] for row in findings if _wants_outline(row))
    selection = Selection(
        {}, fates, findings, exam_rows, decided=sum(map(decided, verdicts.values())), provenance=_provenance(labels)
    )
    for exam_id, lesions in sorted(kept.items()):
        row = exams[exam_id]
        patient = row["patient_id"] or exam_id
        selection.without_patient += patient == exam_id
        selection.exams[exam_id] = ExamOut(
            exam_id=exam_id,
            patient_id=patient,
            tracer=row["tracer"],
            year=_year(row["study_date"]),
            pet_path=row["pet_path"],
            ct_path=row["ct_path"],
            lesions=tuple(lesions),
            doubts=tuple(doubts[exam_id]),
            untold=untold[exam_id],
        )
    for exam_id, exam in list(selection.exams.items()):
        if needs_ct and exam.ct_path is None:
            selection.drop(exam_id, "no_ct")
        elif drop_incomplete and exam.untold:
            selection.drop(exam_id, "incomplete_exam")
    if not selection.exams:
        reasons = ", ".join(f"{fate} {count}" for fate, count in Counter(fates.values()).most_common())
        raise InputError(f"no label of {work} may leave ({reasons or 'there are none'})", fix="see --min-confidence")
    return selection


def _fate(row: Mapping[str, Any], decision: str | None, min_confidence: float) -> str:
    if decision in KEPT_OUT:
        return decision
    if decision is None and _confidence(row) < min_confidence:  # a physician's word stands above the computed one
        return "below_confidence"
    return "exported"


def _confidence(row: Mapping[str, Any]) -> float:
    return 1.0 if row["confidence"] is None else float(row["confidence"])


def _lesion(row: Mapping[str, Any]) -> Lesion:
    return Lesion(
        finding_id=row["finding_id"],
        prompt=row["prompt"] or "",
        mask_path=row["mask_path"],
        site=row["site"],
        laterality=row["laterality"],
        suv_reported=row["suv_reported"],
        suv_measured=row["suv_measured"],
        slice_reported=row["slice_reported"],
        slice_measured=row["slice_measured"],
        voxel_ijk=(row["voxel_i"], row["voxel_j"], row["voxel_k"]),
        volume_ml=float(row["volume_ml"] or 0.0),
        confidence=_confidence(row),
        edited=str(row["mask_path"]).startswith(f"{EDITED}/"),
    )


def _wants_outline(row: Mapping[str, Any]) -> bool:
    return row["status"] != "positive" and row["reason"] not in _NO_LESION


def _unlabelled(work: Path, findings: Iterable[Mapping[str, Any]]) -> dict[str, list[Doubt]]:
    """Where mentions without a label may lie: the candidates that matching kept for them."""
    wanted = {(row["exam_id"], row["finding_id"]) for row in findings if _wants_outline(row)}
    path = work / "candidates.parquet"
    doubts: dict[str, list[Doubt]] = defaultdict(list)
    for row in read_table(path, "candidates") if wanted and path.is_file() else []:
        if (row["exam_id"], row["finding_id"]) in wanted:
            voxel = row["voxel_i"], row["voxel_j"], row["voxel_k"]
            doubts[row["exam_id"]].append(Doubt(voxel_ijk=voxel, suv=float(row["suv"])))
    return doubts


def _year(date: str | None) -> str | None:
    found = re.search(r"(?:19|20)\d\d", date or "")
    return found[0] if found else None


def _provenance(labels: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Versions and site conventions that made the labels; several are joined."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in labels:
        try:
            told = json.loads(row["provenance"] or "{}")
        except ValueError:
            continue
        found["petground"].add(str(told.get("petground", "?")))
        found["site"].add(json.dumps(told.get("site", {}), sort_keys=True))
        found["method"].add(str(row["method"]))
    return {name: "; ".join(sorted(values)) for name, values in found.items()}
