"""Phantom exams on disk: images, masks, and what is true of them; each exam whole or not there."""

from __future__ import annotations

import csv
import io
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from petground.pipeline.files import read_json, write_bytes, write_json
from petground.pipeline.nifti import write_nifti
from petground.pipeline.phantom.exam import exam_id_of, make_exam
from petground.pipeline.phantom.records import PhantomExam, PhantomReport
from petground.pipeline.phantom.reports import write_report
from petground.pipeline.schemas import write_table
from petground.pipeline.stage import content_hash, source_hash

__all__ = ["code_hash", "finished", "sweep", "write_exam", "write_tables"]

REPORT_COLUMNS = ("exam_id", "report_text", "patient_id", "tracer", "study_date")
MARK = "exam.json"  # in truth/<exam_id>: written last, so an exam with it is complete


def write_exam(out: str, seed: int, index: int, form: str, code: str, mirrored: bool = False) -> str:
    """Makes exam `index` of series `seed` under `out`, unless it is there; returns its id. Runs in a worker process.

    form: "nifti" or "dicom". code: `code_hash` of the run, kept with the exam. Images go to exams/<id>, masks and
    the mark of completion to truth/<id>.
    """
    root, exam_id = Path(out), exam_id_of(seed, index)
    if finished(root, exam_id, form, code) is not None:
        return exam_id
    part = root / f".{exam_id}.{uuid.uuid4().hex}.part"
    try:
        exam = make_exam(seed, index, mirrored=mirrored)
        report = write_report(exam, np.random.default_rng(np.random.SeedSequence([seed, 3, index])))
        _write_images(part / "images", exam, form)
        for lesion in exam.lesions:
            mask = exam.pet.like(lesion.mask.astype(np.uint8), "label")
            write_nifti(part / "truth" / f"{lesion.lesion_id}.nii.gz", mask)
        write_json(part / "truth" / MARK, _record(exam, report, form, code))
        _replace(part / "images", root / "exams" / exam_id)
        _replace(part / "truth", root / "truth" / exam_id)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return exam_id


def finished(root: Path, exam_id: str, form: str, code: str) -> dict[str, Any] | None:
    """The record of an exam that is complete, in this form and by this code; else None."""
    record = read_json(root / "truth" / exam_id / MARK)
    fits = record.get("form") == form and record.get("code") == code
    return record if fits and (root / "exams" / exam_id).is_dir() else None


def write_tables(root: Path, records: Iterable[dict[str, Any]]) -> None:
    """reports.csv and truth.parquet of the exams with these records."""
    records = list(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, REPORT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record["report"] for record in records)
    write_bytes(root / "reports.csv", text.getvalue().encode("utf-8"))
    write_table(root / "truth.parquet", "truth", [row for record in records for row in record["truth"]])


def sweep(root: Path) -> None:
    """Removes what a killed run left half-written. Only for one who holds the folder's lock."""
    for leftover in [*root.glob(".*.part"), *root.glob("*/.*.old")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _write_images(folder: Path, exam: PhantomExam, form: str) -> None:
    if form == "dicom":
        from petground.pipeline.phantom.dicom_out import write_dicom

        write_dicom(exam, folder)
        return
    write_nifti(folder / "pet.nii.gz", exam.pet)
    write_nifti(folder / "ct.nii.gz", exam.ct)


def _record(exam: PhantomExam, report: PhantomReport, form: str, code: str) -> dict[str, Any]:
    truth = [
        {
            "exam_id": exam.exam_id,
            "lesion_id": lesion.lesion_id,
            "site": lesion.site,
            "laterality": lesion.laterality,
            "suv_max": lesion.suv_max,
            "slice": lesion.slice,
            **dict(zip(("voxel_i", "voxel_j", "voxel_k"), lesion.voxel_ijk, strict=True)),
            "diameter_mm": lesion.diameter_mm,
            "volume_ml": lesion.volume_ml,
            "reported": lesion.lesion_id in report.reported,
            "sentence": report.told.get(lesion.lesion_id),
            "mask_path": f"truth/{exam.exam_id}/{lesion.lesion_id}.nii.gz",
            "touches": lesion.touches,
        }
        for lesion in exam.lesions
    ]
    patient = exam.patient
    told = (exam.exam_id, report.text, patient.patient_id, patient.tracer, patient.study_date)
    return {
        "form": form,
        "code": code,
        "report": dict(zip(REPORT_COLUMNS, told, strict=True)),
        "truth": truth,
    }


def code_hash(*, mirrored: bool = False) -> str:
    """Digest of the phantom's source, numpy's version and the kind of exam: exams made otherwise are made again."""
    return content_hash(
        [np.__version__, source_hash("petground.pipeline.phantom"), *(["mirrored"] if mirrored else [])]
    )


def _replace(new: Path, place: Path) -> None:
    """Puts a folder where an older one may lie."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        old = place.with_name(f".{place.name}.{uuid.uuid4().hex}.old")
        os.replace(place, old)
        os.replace(new, place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(new, place)
