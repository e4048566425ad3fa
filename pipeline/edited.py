"""Outlines that a physician drew anew: WORK/edited/<exam_id>/<finding_id>.nii.gz, and what they change in the tables.

A mask lies on the exam's PET grid. The record beside it (.json) tells what it was read from, its measures, and a hash
of the finding it was drawn for: when a report is read otherwise later, an outline does not slip under another sentence.
A mask without a record, put there by hand, takes the place of the label's as it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.labeling.volume import Volume
from petground.pipeline.files import write_json
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import read_table

__all__ = ["DRAWN", "EDITED", "TOLD", "Record", "mask_file", "read_labels", "record_of", "told_hash", "with_edits",
           "write_edited"]  # fmt: skip

log = logging.getLogger(__name__)
Row = dict[str, Any]
EDITED = "edited"  # folder of WORK
DRAWN = "drawn"  # the `method` of a label that a person drew
TOLD = ("sentence", "suv", "slice", "laterality")
"""What a finding tells that an outline is drawn or judged by; not its place in the text, which other findings move."""


@dataclass(frozen=True)
class Record:
    """What is known of one redrawn outline. kind: DICOM SEG, RTSTRUCT or NIfTI; number: its segment, ROI or value.

    creator: whom the file names as its author. told: `told_hash` of the finding. replaces: label_hash of the outline
    before. slice_measured: in the site's counting, of voxel_ijk, the hottest voxel [SUVbw, g/ml].
    """

    kind: str
    source_sha256: str
    number: int
    reviewer: str | None
    creator: str | None
    imported: str
    petground: str
    told: str
    replaces: str
    suv_measured: float
    slice_measured: int | None
    voxel_ijk: tuple[int, int, int]
    volume_ml: float


def mask_file(work: Path, exam_id: str, finding_id: str) -> Path:
    """Where the redrawn outline of a finding lies, whether there is one or not."""
    return work / EDITED / exam_id / f"{finding_id}.nii.gz"


def told_hash(finding: Mapping[str, Any]) -> str:
    """16 hex digits of what a row of findings.parquet tells."""
    return hashlib.sha256(json.dumps([finding.get(name) for name in TOLD]).encode()).hexdigest()[:16]


def write_edited(work: Path, exam_id: str, finding_id: str, mask: Volume, record: Record) -> None:
    """Writes the mask and then its record, each whole or not; meanwhile the mask stands without one."""
    path = mask_file(work, exam_id, finding_id)
    _record_file(path).unlink(missing_ok=True)  # that of another mask
    write_nifti(path, mask)
    write_json(_record_file(path), asdict(record))


def record_of(path: Path) -> Record | None:
    """The record beside a mask, None without one. Raises InputError when it is not readable."""
    try:
        found = json.loads(_record_file(path).read_text(encoding="utf-8"))
        i, j, k = (int(n) for n in found["voxel_ijk"])
        return Record(**{**found, "voxel_ijk": (i, j, k)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{_record_file(path).name} is no record of a redrawn outline",
            case=path.parent.name,
            fix=f"import the outline again, or delete {EDITED}/{path.parent.name}",
        ) from error


def read_labels(work: Path) -> list[Row]:
    """Rows of WORK/labels.parquet as they count now, redrawn outlines in. Raises as `read_table` and `with_edits`."""
    labels = read_table(work / "labels.parquet", "labels")
    if not _masks(work):
        return labels
    exams, findings = (read_table(work / f"{name}.parquet", name) for name in ("exams", "findings"))
    return with_edits(work, exams, findings, labels)[1]


def with_edits(
    work: Path, exams: Sequence[Row], findings: Sequence[Row], labels: Sequence[Row]
) -> tuple[list[Row], list[Row]]:
    """Findings and labels with every redrawn outline in place of the grown one; new rows, the given ones stay.

    A finding that got no label and was drawn has one then, and is positive. An outline whose finding is gone or reads
    otherwise now is not used; how many that are goes to the log. Raises InputError for a record that is not readable.
    """
    masks = _masks(work)
    if not masks:
        return list(findings), list(labels)
    exam_of = {str(row["exam_id"]): row for row in exams}
    finding_of = {(str(row["exam_id"]), str(row["finding_id"])): row for row in findings}
    records, stale = {}, 0
    labelled = {(str(row["exam_id"]), str(row["finding_id"])) for row in labels}
    for key, path in masks.items():
        record = record_of(path)
        fits = key in finding_of and (record is None or record.told == told_hash(finding_of[key]))
        if fits and (record is not None or key in labelled):
            records[key] = record
        else:
            stale += 1
    if stale:
        log.warning("%d outlines of %s/%s are not used: their finding reads otherwise now", stale, work, EDITED)
    new_labels = []
    for row in labels:
        key = str(row["exam_id"]), str(row["finding_id"])
        new_labels.append(_label(row, *key, records[key]) if key in records else row)
    drawn = {key: finding_of[key] for key in records if key not in labelled}
    new_labels += [_label(_blank(row, exam_of.get(key[0], {})), *key, records[key]) for key, row in drawn.items()]
    positive = {"status": "positive", "reason": None, "stage": "review", "detail": None}
    told = [row | positive if (str(row["exam_id"]), str(row["finding_id"])) in drawn else row for row in findings]
    return told, new_labels


def _masks(work: Path) -> dict[tuple[str, str], Path]:
    """Redrawn outlines by (exam_id, finding_id), in order."""
    found = sorted((work / EDITED).glob("*/*.nii.gz"))
    return {(p.parent.name, p.name.removesuffix(".nii.gz")): p for p in found if not p.name.startswith(".")}


def _record_file(mask: Path) -> Path:
    return mask.with_name(mask.name.removesuffix(".nii.gz") + ".json")


def _label(row: Row, exam_id: str, finding_id: str, record: Record | None) -> Row:
    path = f"{EDITED}/{exam_id}/{finding_id}.nii.gz"
    if record is None:
        return row | {"mask_path": path}
    try:
        made = json.loads(row.get("provenance") or "{}")
    except ValueError:
        made = {}
    measures = {"told", "suv_measured", "slice_measured", "voxel_ijk", "volume_ml"}
    edited = {name: value for name, value in asdict(record).items() if name not in measures and value is not None}
    i, j, k = record.voxel_ijk
    return row | {
        "mask_path": path,
        "suv_measured": record.suv_measured,
        "slice_measured": record.slice_measured,
        "voxel_i": i,
        "voxel_j": j,
        "voxel_k": k,
        "volume_ml": record.volume_ml,
        "confidence": 1.0,  # a physician's word stands above the computed confidence
        "method": DRAWN,
        "why": f"redrawn in review ({record.kind})",
        "threshold": None,
        "warnings": "",  # they told of the outline before
        "provenance": json.dumps({**made, "edited": edited}, sort_keys=True),
    }


def _blank(finding: Row, exam: Row) -> Row:
    """A label's row for a finding that none was grown for."""
    same = ("exam_id", "finding_id", "sentence", "prompt", "laterality", "site")
    return {name: finding.get(name) for name in same} | {
        "suv_reported": finding.get("suv"),
        "slice_reported": finding.get("slice"),
        "tracer": exam.get("tracer"),
        "patient_id": exam.get("patient_id"),
        "provenance": "{}",
    }
