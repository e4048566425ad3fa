"""A WORK folder of four small exams of two patients, its data module and the flags of a fit that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import write_table
from petground.training.data import GroundingData
from petground.training.grid import GridSpec

SITES = [("axillary node", "right"), ("adrenal lesion", "left"), ("axillary node", "left")]


SHAPE = (30, 20, 40)


AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])


def _exam(work: Path, number: int, rows: dict[str, list[dict[str, Any]]], sites: list[tuple[str, str]]) -> None:
    exam_id = f"e{number}"
    rng = np.random.default_rng(number)
    pet = np.zeros(SHAPE, dtype=np.float32)
    pet[4:26, 4:16, 2:38] = 1.0 + 0.1 * rng.random((22, 12, 36), dtype=np.float32)
    rows["exams"].append(
        {"exam_id": exam_id, "patient_id": f"p{number // 2}", "status": "ok", "pet_path": f"exams/{exam_id}/pet.nii.gz"}
    )
    for n, (site, side) in enumerate(sites):
        i = (22 if side == "right" else 7) + int(rng.integers(-1, 2))
        k = 30 if site.startswith("axillary") else 18
        mask = np.zeros(SHAPE, dtype=np.uint8)
        mask[i - 1 : i + 2, 8:11, k : k + 3] = 1
        pet[mask > 0] = 8.0
        path = f"labels/{exam_id}/f{n}.nii.gz"
        write_nifti(work / path, Volume(mask, AFFINE, "label"))
        rows["labels"].append(
            {"exam_id": exam_id, "finding_id": f"f{n}", "prompt": f"Avid {side} {site}.", "mask_path": path,
             "site": site, "laterality": side, "confidence": 0.9 - 0.2 * n, "patient_id": f"p{number // 2}"}
        )  # fmt: skip
        rows["findings"].append(
            {"exam_id": exam_id, "finding_id": f"f{n}", "site": site, "laterality": side, "status": "positive"}
        )
    write_nifti(work / f"exams/{exam_id}/pet.nii.gz", Volume(pet, AFFINE, "SUVbw"))


def make_work(work: Path) -> Path:
    rows: dict[str, list[dict[str, Any]]] = {"exams": [], "labels": [], "findings": []}
    for number in range(4):
        _exam(work, number, rows, SITES[: 1 + number % 3])
    for name, table in rows.items():
        write_table(work / f"{name}.parquet", name, table)
    return work


GRID = GridSpec((10.0, 10.0, 10.0), (40, 16, 24))


def data_of(work: Path, **options: Any) -> GroundingData:
    data = GroundingData(work, **options)
    data.grid = GRID
    data.prepare_data()
    data.setup("validate")
    return data


def flags_of(work: Path, run: Path, *more: str) -> list[str]:
    flags = {
        "data.work": work, "data.validation_fraction": 0.4, "data.sentences": 2, "data.absent_fraction": 0.5,
        "model.net.features": "[4,8]", "model.net.encoder": "plain", "model.net.blocks_per_stage": 1,
        "model.net.decoder_convs": 1, "model.net.fusion_stages": "[0]",
        "model.grid.spacing_xyz_mm": "[10.,10.,10.]", "model.grid.shape_zyx": "[40,16,24]",
        "model.optimizer.lr": 0.01, "model.optimizer.warmup_steps": 2, "trainer.default_root_dir": run,
        "trainer.accelerator": "cpu", "trainer.precision": "32-true", "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false",
        "trainer.num_sanity_val_steps": 0,
    }  # fmt: skip
    return ["fit", *(f"--{key}={value}" for key, value in flags.items()), *more]
