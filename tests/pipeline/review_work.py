"""A small WORK folder as `petground label` leaves it, for the tests of the review."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.review.decisions import label_hash
from petground.pipeline.review.load import load_case, open_work
from petground.pipeline.schemas import write_table

SHAPE = (40, 30, 24)
HOT = (27, 20, 17)  # right of the midline, in front, above the middle, on the RAS grid below
RAS = np.diag([4.0, 4.0, 5.0, 1.0])
RAS[:3, 3] = -78.0, -58.0, -60.0


def volumes(
    flip: tuple[bool, bool, bool] = (False, False, False),
) -> tuple[Volume, Volume, np.ndarray, tuple[int, ...]]:
    """A body with one hot ball, its CT, the ball's mask and its centre; any axis of the stored array reversed."""
    i, j, k = np.indices(SHAPE)
    body = ((i - 19.5) / 16) ** 2 + ((j - 14.5) / 11) ** 2 <= 1
    ball = ((i - HOT[0]) ** 2 + (j - HOT[1]) ** 2 + (k - HOT[2]) ** 2) <= 5
    suv = np.where(body, 1.0, 0.0) + np.where(ball, 8.0, 0.0)
    suv[HOT] = 12.3
    hu = np.where(body, 40.0, -1000.0)
    affine, hot = RAS.copy(), list(HOT)
    for axis, turned in enumerate(flip):
        if turned:
            suv, hu, ball = (np.flip(a, axis) for a in (suv, hu, ball))
            affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
            affine[:3, axis] *= -1
            hot[axis] = SHAPE[axis] - 1 - hot[axis]
    pet = Volume(np.ascontiguousarray(suv, dtype=np.float32), affine, "SUVbw")
    ct = Volume(np.ascontiguousarray(hu, dtype=np.float32), affine, "HU")
    return pet, ct, np.ascontiguousarray(ball), tuple(hot)


SENTENCE = "Right <axilla> & node, SUVmax 12.3, slice 7, previously 12.3 on 7 Jan."


def make_work(folder: Path) -> Path:
    """A work folder with a labelled exam, its ambiguous and excluded findings, and an exam that failed."""
    pet, ct, ball, hot = volumes()
    write_nifti(folder / "exams/e1/pet.nii.gz", pet)
    write_nifti(folder / "exams/e1/ct.nii.gz", ct)
    write_nifti(folder / "labels/e1/f001.nii.gz", pet.like(ball.astype(np.uint8), "label"))
    common = {"exam_id": "e1", "section": "FINDINGS", "suv_decimals": 1, "stage": "check", "status": "positive"}
    findings = [
        {**common, "finding_id": "f001", "sentence": SENTENCE, "suv": 12.3, "slice": 7, "laterality": "right",
         "site": "axillary node", "span_start": 30, "span_end": 34},
        {**common, "finding_id": "f002", "sentence": "Node, SUV 5.0, slice 9.", "suv": 5.0, "slice": 9,
         "span_start": 90, "span_end": 93, "status": "excluded", "reason": "ambiguous_match", "stage": "match"},
        {**common, "finding_id": "f003", "sentence": "Liver SUV 2.9.", "suv": 2.9, "span_start": 120, "span_end": 123,
         "status": "excluded", "reason": "reference", "stage": "extract"},
    ]  # fmt: skip
    label = {
        "exam_id": "e1", "finding_id": "f001", "sentence": SENTENCE, "suv_reported": 12.3, "slice_reported": 7,
        "suv_measured": 12.3, "slice_measured": 7, "voxel_i": hot[0], "voxel_j": hot[1], "voxel_k": hot[2],
        "volume_ml": float(ball.sum()) * pet.voxel_ml, "confidence": 0.9, "mask_path": "labels/e1/f001.nii.gz",
        "laterality": "right", "method": "isodata", "threshold": 4.9, "warnings": "", "provenance": "{}",
    }  # fmt: skip
    candidate = {"exam_id": "e1", "suv": 5.0, "score": 0.5, "slice_distance": 0, "evidence": "{}"}
    candidates = [
        {**candidate, "finding_id": f, "rank": r, "voxel_i": 20 + r, "voxel_j": 15, "voxel_k": 15}
        for f, r in (("f001", 0), ("f002", 0), ("f002", 1))
    ]
    exams = [
        {"exam_id": "e1", "status": "ok", "source": "nifti", "tracer": "FDG", "pet_path": "exams/e1/pet.nii.gz",
         "ct_path": "exams/e1/ct.nii.gz", "slices": SHAPE[2]},
        {"exam_id": "e2", "status": "failed", "reason": "no_pet", "detail": "no PET image series"},
    ]  # fmt: skip
    for name, rows in (("exams", exams), ("findings", findings), ("labels", [label]), ("candidates", candidates)):
        write_table(folder / f"{name}.parquet", name, rows)
    return folder


def hash_of(work: Path, number: int) -> str:
    """The label hash of the nth item of e1."""
    tables = open_work(work)
    item = load_case(tables, tables.exams[0], Site()).items[number]
    return label_hash(item.finding, item.mask)
