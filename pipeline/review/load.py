"""A work folder as the cases that a reviewer goes through."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.finding import IMAGE_REASONS, TEXT_REASONS
from petground.labeling.numbering import site_for_series, slice_to_k
from petground.labeling.site import Site
from petground.labeling.volume import Volume, require_same_grid
from petground.pipeline.dates import iso_date
from petground.pipeline.edited import with_edits
from petground.pipeline.nifti import read_nifti
from petground.pipeline.schemas import read_table

__all__ = ["Case", "ExamRows", "Item", "Work", "load_case", "open_work", "reason_text", "source_of"]

Row = dict[str, Any]


@dataclass
class ExamRows:
    """What the tables hold of one exam: findings by their place in the text, labels and candidates by finding_id."""

    findings: list[Row] = field(default_factory=list)
    labels: dict[str, Row] = field(default_factory=dict)
    candidates: dict[str, list[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The tables of a work folder."""

    folder: Path
    exams: list[Row]
    findings: list[Row]
    labels: list[Row]
    candidates: list[Row]

    def of(self, exam_id: str) -> ExamRows:
        """The rows of an exam; none for an exam that is not known."""
        return self._grouped.get(exam_id) or ExamRows()

    def judged(self, finding: Row) -> bool:
        """Whether a person is asked about a mention: it has a label, or the image gave none; not what the text ruled
        out."""
        labelled = str(finding["finding_id"]) in self.of(str(finding["exam_id"])).labels
        return labelled or finding.get("reason") in IMAGE_REASONS

    @cached_property
    def _grouped(self) -> dict[str, ExamRows]:
        """Once for all exams: looking through whole tables for each exam takes the square of an archive."""
        found: dict[str, ExamRows] = defaultdict(ExamRows)
        for row in self.findings:
            found[str(row["exam_id"])].findings.append(row)
        for row in self.labels:
            found[str(row["exam_id"])].labels[str(row["finding_id"])] = row
        for row in self.candidates:
            found[str(row["exam_id"])].candidates.setdefault(str(row["finding_id"]), []).append(row)
        for rows in found.values():
            rows.findings.sort(key=lambda r: (r.get("span_start") or 0, str(r["finding_id"])))
            for several in rows.candidates.values():
                several.sort(key=lambda r: r["rank"])
        return dict(found)


@dataclass(frozen=True, eq=False)
class Item:
    """One finding to judge: its rows, its mask (None when the image gave no label) and where the report points.

    reported_k: slice index of the stored PET that the report means, None when it is not on the image.
    """

    finding: Row
    label: Row | None
    mask: Volume | None
    candidates: list[Row]
    reported_k: int | None

    @property
    def finding_id(self) -> str:
        return str(self.finding["finding_id"])

    @property
    def voxel_ijk(self) -> tuple[int, int, int] | None:
        """The hottest voxel of the label, or the best candidate of a finding without one."""
        row = self.label or (self.candidates[0] if self.candidates else None)
        return None if row is None else (int(row["voxel_i"]), int(row["voxel_j"]), int(row["voxel_k"]))


@dataclass(frozen=True, eq=False)
class Case:
    """One exam with its images: items to judge, excluded rows that the text ruled out, source as source.json has it.

    site: the conventions that hold for this exam.
    """

    exam: Row
    pet: Volume
    ct: Volume | None
    items: list[Item]
    excluded: list[Row]
    source: dict[str, str] = field(default_factory=dict)
    site: Site = field(default_factory=Site)

    @property
    def exam_id(self) -> str:
        return str(self.exam["exam_id"])


def open_work(folder: Path) -> Work:
    """Reads the tables, redrawn outlines in place of the grown.

    Raises InputError when the folder or a table is missing, SchemaError on another version.
    """
    if not folder.is_dir():
        raise InputError(f"no work folder at {folder}", fix="run `petground label` first")
    exams, findings, labels = (read_table(folder / f"{name}.parquet", name) for name in ("exams", "findings", "labels"))
    findings, labels = with_edits(folder, exams, findings, labels)
    path = folder / "candidates.parquet"
    return Work(folder, exams, findings, labels, read_table(path, "candidates") if path.is_file() else [])


def load_case(work: Work, exam: Row, site: Site) -> Case:
    """Images, masks and rows of one exam. Raises InputError for a missing image, GeometryError for a mask off grid."""
    exam_id = str(exam["exam_id"])
    site = site.for_exam(exam.get("scanner"), iso_date(exam.get("study_date")))
    pet = read_nifti(_file(work, exam.get("pet_path") or f"exams/{exam_id}/pet.nii.gz", exam_id), "SUVbw")
    ct = read_nifti(_file(work, exam["ct_path"], exam_id), "HU") if exam.get("ct_path") else None
    rows = work.of(exam_id)
    items, excluded = [], []
    for finding in rows.findings:
        label = rows.labels.get(str(finding["finding_id"]))
        if not work.judged(finding):
            excluded.append(finding)
            continue
        mask = None
        if label is not None:
            mask = read_nifti(_file(work, label["mask_path"], exam_id), "label")
            require_same_grid(pet, mask, case=f"{exam_id}/{finding['finding_id']}", atol_mm=0.01)
            if not np.any(mask.array > 0):
                raise GeometryError("the label's mask is empty", case=f"{exam_id}/{finding['finding_id']}")
        candidates = rows.candidates.get(str(finding["finding_id"]), [])
        items.append(Item(finding, label, mask, candidates, _reported_k(finding, label, pet, ct, site)))
    return Case(exam, pet, ct, items, excluded, source_of(work.folder, exam_id), site)


def reason_text(reason: str | None) -> str:
    """What a reason code means, for people."""
    if reason is None:
        return ""
    return TEXT_REASONS.get(reason) or IMAGE_REASONS.get(reason) or reason.replace("_", " ")


def _reported_k(
    finding: Mapping[str, Any], label: Row | None, pet: Volume, ct: Volume | None, site: Site
) -> int | None:
    """Index of the reported slice on the stored PET; of several (a thicker CT's) the one nearest to the label."""
    reported = finding.get("slice")
    if reported is None:
        return None
    if label is not None and label.get("slice_measured") == reported:
        return int(label["voxel_k"])
    counted = site_for_series(site, finding.get("series"), pet, ct)
    if counted is None:  # a series that was not read
        return None
    try:
        found = slice_to_k(int(reported), pet, counted, ct)
    except GeometryError:  # counted by InstanceNumber, which the work folder's NIfTI does not carry
        return None
    if not found:
        return None
    return min(found, key=lambda k: abs(k - int(label["voxel_k"]))) if label is not None else found[len(found) // 2]


def source_of(work: Path, exam_id: str) -> dict[str, str]:
    """Where an exam's images came from, as WORK/exams/<exam_id>/source.json has it; empty where that is not told."""
    path = work / "exams" / exam_id / "source.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path.name} is not readable JSON", case=exam_id, fix="run `petground label` again"
        ) from error
    return {str(k): str(v) for k, v in found.items() if v is not None} if isinstance(found, dict) else {}


def _file(work: Work, relative: str, exam_id: str) -> Path:
    path = work.folder / relative
    if not path.is_file():
        raise InputError(f"{relative} is missing from the work folder", case=exam_id, fix="run `petground label` again")
    return path
