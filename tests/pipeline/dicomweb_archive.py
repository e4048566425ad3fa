"""An archive that speaks DICOMweb, and what was fetched from it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orthanc
import pydicom
from pydicom.uid import generate_uid


@contextlib.contextmanager
def archive_at(folder: Path) -> Iterator[Any]:
    """An Orthanc with one exam, accession number ACC1, that holds what studies hold besides PET and CT."""
    running = orthanc.Orthanc(folder / "server").start()
    exam = orthanc.make_exam(folder / "exam")
    _extra_series(exam)
    running.sent = running.upload(exam, accession("ACC1"))
    yield running
    running.kill()


def accession(number: str, **changes: Any) -> Any:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.AccessionNumber = number
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)

    return change


def _extra_series(exam: Path) -> None:
    """A localizer, a MIP, a thick CT of the same body, and a secondary capture."""
    slices = sorted((exam / "CT").rglob("*.dcm"))
    pet = sorted((exam / "PT" / "WB_AC").rglob("*.dcm"))
    extras = {
        "scout": (slices[:2], {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesNumber": 1}),
        "thick": (slices[:10], {"SeriesNumber": 9, "SeriesDescription": "CT 5.0"}),
        "mip": (pet[:4], {"SeriesNumber": 10, "SeriesType": ["WHOLE BODY", "REPROJECTION"]}),
        "capture": (pet[:2], {"SeriesNumber": 11, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}),
    }
    for name, (files, changes) in extras.items():
        (exam / name).mkdir()
        for file in files:
            dataset = pydicom.dcmread(file)
            accession("", **changes)(dataset)
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[dataset.SeriesInstanceUID, name])
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[dataset.SOPInstanceUID, name])
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.save_as(exam / name / file.name, enforce_file_format=True)


def write_reports(path: Path, *exams: str, day: str = "") -> Path:
    lines = [f'{exam},"FINDINGS: Hypermetabolic focus, SUVmax 12.0, axial slice 19.",{day}' for exam in exams]
    path.write_text("\n".join(["exam_id,report_text,study_date", *lines]) + "\n", encoding="utf-8")
    return path


def rows(out: Path) -> dict[str, Any]:
    return {row["exam_id"]: row for row in json.loads((out / "fetch.json").read_text(encoding="utf-8"))["exams"]}


def fetched(folder: Path) -> dict[str, pydicom.Dataset]:
    return {str(d.SOPInstanceUID): d for d in (pydicom.dcmread(file) for file in folder.rglob("*.dcm"))}
