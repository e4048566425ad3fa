"""A labelling run, and a stand-in for a model of it that reads sides and nothing else: its figures can be foretold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import write_table
from petground.training import evaluate as command
from petground.training.grid import GridSpec
from petground.training.inference import Prediction

SIDES = ("left", "right")


SPLITS = {"train": ["exam0"], "val": ["exam1"]}


PEAK = {"left": 8.0, "right": 6.0}


class SideModule:
    """Marks voxels with SUV above 4 on the side that the sentence names; an empty sentence gives the left one."""

    threshold = 0.5

    def __init__(self) -> None:
        self.grid = GridSpec(spacing_xyz_mm=(8.0, 8.0, 8.0), shape_zyx=(32, 24, 24))
        self.calls: list[list[str]] = []
        self.provenance: dict[str, Any] = {"splits": SPLITS}

    def predict(self, image: np.ndarray[Any, Any], sentences: list[str]) -> Prediction:
        self.calls.append(list(sentences))
        hot = (np.asarray(image)[0] > 0.25).astype(np.float32)
        right = np.arange(hot.shape[2]) >= hot.shape[2] // 2
        maps = [0.9 * hot * (right if "right" in s else ~right)[None, None, :] for s in sentences]
        return Prediction(np.stack(maps), None)


def pet_with_two_lesions() -> tuple[Volume, dict[str, np.ndarray[Any, Any]]]:
    affine = np.diag([4.0, 4.0, 6.0, 1.0])
    affine[:3, 3] = (-80.0, -70.0, 300.0)
    pet = Volume(np.ones((40, 36, 40), dtype=np.float32), affine, "SUVbw")
    world = pet.to_world_mm(np.stack(np.meshgrid(*map(np.arange, pet.shape), indexing="ij"), axis=-1))
    masks = {}
    for side, centre in (("left", (-40.0, 2.0, 360.0)), ("right", (36.0, 10.0, 480.0))):
        masks[side] = np.linalg.norm(world - centre, axis=-1) < 18
        pet.array[masks[side]] = 5.0
        pet.array[tuple(np.rint(pet.to_index(centre)).astype(int))] = PEAK[side]
    return pet, masks


def make_work(folder: Path) -> Path:
    """A labelling run of four exams of four patients, two labels each; the run trained on two of them."""
    pet, masks = pet_with_two_lesions()
    exams, labels, findings = [], [], []
    for n in range(4):
        exam_id = f"exam{n}"
        write_nifti(folder / "exams" / exam_id / "pet.nii.gz", pet)
        about = {"patient_id": f"p{n}", "tracer": ("FDG", "DOTATATE")[n % 2]}
        exams.append(
            {"exam_id": exam_id, "status": "ok", "pet_path": f"exams/{exam_id}/pet.nii.gz", "slices": 40, **about}
        )
        for number, side in enumerate(SIDES, start=1):
            finding_id = f"f{number:03d}"
            path = f"labels/{exam_id}/{finding_id}.nii.gz"
            write_nifti(folder / path, pet.like(masks[side].astype(np.uint8), "label"))
            slice_number = 40 - int(np.argwhere(pet.array == PEAK[side])[0][2])
            shared = {
                "exam_id": exam_id, "finding_id": finding_id, "prompt": f"the {side} one", "laterality": side,
                "site": "node", "sentence": f"the {side} one, SUVmax {PEAK[side]}, slice {slice_number}",
            }  # fmt: skip
            labels.append(
                {**shared, "suv_reported": PEAK[side], "suv_measured": PEAK[side], "volume_ml": 24.0,
                 "mask_path": path, **about}
            )  # fmt: skip
            findings.append(
                {**shared, "suv": PEAK[side], "suv_decimals": 1, "slice": slice_number, "status": "positive",
                 "stage": "check"}
            )  # fmt: skip
    for name, rows in (("exams", exams), ("labels", labels), ("findings", findings)):
        write_table(folder / f"{name}.parquet", name, rows)
    return folder


def stand_in(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that loads as SideModule, with the record of its training beside it."""
    run.mkdir()
    (run / "best.ckpt").write_bytes(b"stand-in")
    (run / "metrics.csv").write_text("epoch,step,train/loss,val/f1\n0,10,1.5,\n0,20,1.0,0.2\n1,30,0.7,0.4\n")
    monkeypatch.setattr("petground.training.inference.load_module", lambda path, device: SideModule())
    monkeypatch.setattr(command, "_draw", lambda *_: [])  # plots take a second each: one test draws them
    return run / "best.ckpt"


def figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


def phantom_of(work: Path, folder: Path, *, unread: str | None = None) -> Path:
    pet, masks = pet_with_two_lesions()
    truth = []
    for n in range(4):
        for side in SIDES:
            path = f"masks/exam{n}/{side}.nii.gz"
            mask = masks[side] & (np.arange(40) > 5)[None, None, :]
            write_nifti(folder / path, pet.like(mask.astype(np.uint8), "label"))
            at = 40 - int(np.argwhere(pet.array == PEAK[side])[0][2])
            truth.append(
                {"exam_id": f"exam{n}", "lesion_id": f"l-{side}", "suv_max": PEAK[side] + 0.04,
                 "slice": at + (30 if side == unread and n == 0 else 0), "volume_ml": 20.0, "reported": True,
                 "laterality": side, "site": "node", "mask_path": path}
            )  # fmt: skip
    truth.append({**truth[0], "lesion_id": "untold", "reported": False})
    write_table(folder / "truth.parquet", "truth", truth)
    return folder
