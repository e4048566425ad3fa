"""Exams of a few thousand voxels with their reports, for tests of whole runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import read_table

NZ = 60
AFFINE = np.array([[-4.0, 0, 0, 80], [0, -4.0, 0, 80], [0, 0, 4.0, -120], [0, 0, 0, 1]])
TABLES = ("exams", "findings", "labels", "candidates")


def exam(folder: Path, *spots: tuple[float, tuple[int, int, int]]) -> None:
    """A body of SUV 0.8 with round spots (SUVmax, voxel); i grows to the patient's left, k to the head."""
    array = np.zeros((40, 40, NZ), np.float32)
    array[4:36, 8:32] = 0.8
    grid = np.indices(array.shape)
    for peak, centre in spots:
        distance = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
        array = np.maximum(array, peak * np.exp(-distance / 8.0).astype(np.float32))
        array[centre] = peak
    write_nifti(folder / "pet.nii.gz", Volume(array, AFFINE, "SUVbw"))


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
        rows.append((name, report(round(suv, 1), k)))
    return write_rows(folder / "reports.csv", rows), folder / "exams"


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: read_table(out / f"{name}.parquet", name) for name in TABLES}
