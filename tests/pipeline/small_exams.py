"""Exams of a few thousand voxels with their reports, for tests of whole runs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.executors import Outcome, guarded
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.nifti import write_nifti
from petground.pipeline.phantom.dicom_out import write_dicom
from petground.pipeline.phantom.records import Patient, PhantomExam
from petground.pipeline.reports import open_export
from petground.pipeline.schemas import read_table

NZ = 60
AFFINE = np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 80], [0, 0, 4.0, -120], [0, 0, 0, 1]])
TABLES = ("exams", "findings", "denials", "labels", "candidates")


Spot = tuple[float, tuple[int, int, int]]


def body(*spots: Spot) -> Volume:
    """A body of SUV 0.8 with round spots (SUVmax, voxel); i grows to the patient's left, k to the head."""
    array = np.zeros((40, 40, NZ), np.float32)
    array[4:36, 8:32] = 0.8
    grid = np.indices(array.shape)
    for peak, centre in spots:
        distance = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
        array = np.maximum(array, peak * np.exp(-distance / 8.0).astype(np.float32))
        array[centre] = peak
    return Volume(array, AFFINE, "SUVbw")


def exam(folder: Path, *spots: Spot) -> None:
    write_nifti(folder / "pet.nii.gz", body(*spots))


def dicom_exam(folder: Path, spot: Spot, patient: str, date: str = "2021-03-04", tracer: str = "FDG") -> None:
    """The same as DICOM: 60 PET and 4 CT files that name their patient and their day."""
    ct = Volume(np.zeros((8, 8, 4), np.float32), np.diag([-20.0, -20.0, 60.0, 1.0]), "HU")
    who = Patient(patient, "M", 60, 80.0, 175.0, tracer, date, 350.0, 60.0)
    write_dicom(PhantomExam(folder.name, who, body(spot), ct, ()), folder, uncorrected=False)


def report(suv: float, k: int, side: str = "left") -> str:
    return f"FINDINGS: Hypermetabolic {side} axillary node, SUVmax {suv}, axial slice {NZ - k}. Liver SUVmax 2.9."


def write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("exam_id", "report_text"), *rows])
    return path


def archive(folder: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """An export and its exams, each with one lesion, all different."""
    rows = []
    for number, name in enumerate(names):
        suv, k = 4.1 + 0.3 * number, 8 + 4 * (number % 11)
        exam(folder / "exams" / name, (suv, (30, 20, k)))
        rows.append((name, f"{report(round(suv, 1), k)} No avid inguinal or right hilar nodes."))
    return write_rows(folder / "reports.csv", rows), folder / "exams"


def in_process(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
    """The executors' runner without processes: a second of imports less in every test."""
    for case, args in cases:
        yield guarded(function, case, args)


def run(export: tuple[Path, Path], out: Path, site: Site | None = None) -> dict[str, Any]:
    return run_labels(LabelRun(open_export(export[0]), export[1], out, site or Site(), in_process))


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: read_table(out / f"{name}.parquet", name) for name in TABLES}
