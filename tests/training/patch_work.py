"""A WORK folder of exams larger than a patch; its lesions tell left from right, front from back, head from feet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import write_table
from petground.training.grid import GridSpec

SPACING = 6.0
SHAPE = (44, 28, 64)
SPEC = GridSpec((8.0, 8.0, 8.0), patch_zyx=(16, 16, 24))
# site, side, place in mm from the middle (right, front, head), reported SUV and slice: what the words may not tell
LESIONS = (
    ("axillary node", "right", (78.0, 12.0, 120.0), 8.4, 97),
    ("adrenal lesion", "left", (-42.0, -30.0, -20.0), 6.2, 148),
    ("inguinal node", "right", (54.0, 36.0, -140.0), 12.7, 205),
)


def affine() -> np.ndarray:
    """Stored as scanners do, i to the patient's left and j to the back; the middle of the body lies at the origin."""
    out = np.diag([-SPACING, -SPACING, SPACING, 1.0])
    out[:3, 3] = [SPACING * (SHAPE[0] - 1) / 2, SPACING * (SHAPE[1] - 1) / 2, -SPACING * (SHAPE[2] - 1) / 2]
    return out


def make_work(work: Path, exams: int = 4, *, ct: bool = False) -> Path:
    """Exams e0, e1, ... of patients p0, p1, ...; labels f0, f1, f2 are LESIONS, some millimetres off in each exam."""
    rows: dict[str, list[dict[str, Any]]] = {"exams": [], "labels": [], "findings": []}
    for number in range(exams):
        rng = np.random.default_rng(number)
        exam_id, patient = f"e{number}", f"p{number}"
        empty = Volume(np.zeros(SHAPE, dtype=np.float32), affine(), "SUVbw")
        mm = empty.to_world_mm(np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1))
        body = ((mm[..., 0] / 110) ** 2 + (mm[..., 1] / 70) ** 2 < 1) & (np.abs(mm[..., 2]) < 180)
        pet = np.where(body, 1.0 + 0.1 * rng.random(SHAPE), 0.0).astype(np.float32)
        rows["exams"].append(
            {"exam_id": exam_id, "patient_id": patient, "status": "ok", "pet_path": f"exams/{exam_id}/pet.nii.gz"}
        )
        for n, (site, side, centre, suv, slice_) in enumerate(LESIONS):
            if n == number - 1:
                continue  # e0 has all of them, e1 not the first, ...
            inside = np.linalg.norm(mm - np.add(centre, rng.uniform(-4, 4, 3)), axis=-1) < 14
            pet[inside] = suv
            path = f"labels/{exam_id}/f{n}.nii.gz"
            write_nifti(work / path, empty.like(inside.astype(np.uint8), "label"))
            about = {"exam_id": exam_id, "finding_id": f"f{n}", "site": site, "laterality": side}
            prompt = f"Avid {side} {site}."
            rows["labels"].append(
                {**about, "prompt": prompt, "mask_path": path, "confidence": 0.9, "patient_id": patient,
                 "suv_reported": suv, "slice_reported": slice_, "suv_measured": suv, "volume_ml": 11.5,
                 "sentence": f"Avid {side} {site}, SUVmax {suv} on slice {slice_}."}
            )  # fmt: skip
            rows["findings"].append({**about, "status": "positive", "prompt": prompt, "suv": suv, "slice": slice_})
        write_nifti(work / f"exams/{exam_id}/pet.nii.gz", Volume(pet, affine(), "SUVbw"))
        if ct:
            rows["exams"][-1]["ct_path"] = f"exams/{exam_id}/ct.nii.gz"
            hu = np.where(body, 30 + 40 * (mm[..., 0] > 0), -1000)  # denser at the right
            write_nifti(work / rows["exams"][-1]["ct_path"], Volume(hu.astype(np.int16), affine(), "HU"))
    for name, table in rows.items():
        write_table(work / f"{name}.parquet", name, table)
    return work
