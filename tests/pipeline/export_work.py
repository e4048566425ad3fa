"""A WORK folder as `petground label` leaves it, of tiny made-up exams: what exports are tested on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.volume import Volume
from petground.pipeline.executors import Outcome
from petground.pipeline.executors.outcome import guarded
from petground.pipeline.exports.folder import owned
from petground.pipeline.exports.layout import Options
from petground.pipeline.exports.run import Outcome as Done
from petground.pipeline.exports.run import draft, publish
from petground.pipeline.nifti import write_nifti
from petground.pipeline.schemas import write_table

PET_SHAPE, CT_SHAPE = (24, 18, 30), (40, 30, 50)
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
TRACERS = ("FDG", "FDG", "FDG", "DCFPyL", "DOTATATE")
SITES = ("left axillary node", "hepatic segment", "iliac bone", "right hilar node", "external iliac node")


def pet_affine() -> np.ndarray:
    """Stored as scanners do: i to the patient's left, j to the back, k to the head; no two spacings the same."""
    affine = np.diag([-10.0, -12.0, 14.0, 1.0])
    affine[:3, 3] = (115.0, 100.0, -300.0)
    return affine


def ct_affine() -> np.ndarray:
    """The CT on a finer grid of its own, a little off the PET's, and shorter at the feet."""
    affine = np.diag([-6.0, -7.0, 8.0, 1.0])
    affine[:3, 3] = (113.0, 97.0, -290.0)
    return affine


def images(seed: int) -> tuple[Volume, Volume]:
    """PET with a body of its own and CT whose values tell where they lie: HU = x in mm rounded, plus 500 in front."""
    rng = np.random.default_rng(seed)
    i, j, k = np.meshgrid(*(np.arange(n) for n in PET_SHAPE), indexing="ij")
    body = 1 / (1 + np.exp(6 * (((i - 11.5) / 8) ** 2 + ((j - 8.5) / 6) ** 2 + ((k - 14.5) / 13) ** 2 - 1)))
    organs = sum(
        rng.uniform(2, 9) * np.exp(-(((i - a) / 2.5) ** 2 + ((j - b) / 2.5) ** 2 + ((k - c) / 2.5) ** 2))
        for a, b, c in zip(rng.uniform(5, 18, 6), rng.uniform(5, 12, 6), rng.uniform(3, 26, 6), strict=True)
    )
    pet = Volume((body * (0.5 + organs)).astype(np.float32), pet_affine(), "SUVbw", frame_of_reference="1.2.840.99")
    grid = Volume(np.zeros(CT_SHAPE, np.uint8), ct_affine(), "label")
    xyz = grid.to_world_mm(np.stack(np.meshgrid(*(np.arange(n) for n in CT_SHAPE), indexing="ij"), axis=-1))
    hu = np.rint(xyz[..., 0]) + 500 * (xyz[..., 1] > 0)
    return pet, Volume(hu.astype(np.int16), ct_affine(), "HU", frame_of_reference="1.2.840.99")


def make_work(
    work: Path,
    exams: int = 12,
    *,
    lesions: int = 2,
    patients: Mapping[int, str] | None = None,
    copies: Mapping[int, int] | None = None,
    findings: Sequence[Mapping[str, Any]] = (),
    candidates: Sequence[Mapping[str, Any]] = (),
    no_ct: Sequence[int] = (),
    confidence: float | None = None,
) -> Path:
    """exams: e00, e01, ... of patients p00, p01, ... (or as `patients` says). copies: {exam: exam whose PET it has}.

    Lesion n of exam e is the block of voxels around (6 + n, 8, 5 + 4 n); findings and candidates: more rows.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {"exams": [], "findings": [], "labels": [], "candidates": []}
    for number in range(exams):
        exam_id = f"e{number:02d}"
        pet, ct = images((copies or {}).get(number, number))
        patient = (patients or {}).get(number, f"p{number:02d}")
        tracer = TRACERS[number % len(TRACERS)]
        folder = work / "exams" / exam_id
        write_nifti(folder / "pet.nii.gz", pet)
        if number not in no_ct:
            write_nifti(folder / "ct.nii.gz", ct)
        (folder / "source.json").write_text(json.dumps({"source": "nifti", "pet_series_uid": None}))
        rows["exams"].append(
            {
                "exam_id": exam_id,
                "patient_id": patient,
                "tracer": tracer,
                "study_date": f"20{10 + number % 10}-03-07",
                "status": "ok",
                "pet_path": f"exams/{exam_id}/pet.nii.gz",
                "ct_path": None if number in no_ct else f"exams/{exam_id}/ct.nii.gz",
            }
        )
        for n in range(1 + (number % 3) if lesions == 0 else lesions):
            finding, label = _label(work, exam_id, patient, tracer, number, n, pet, confidence)
            rows["findings"].append(finding)
            rows["labels"].append(label)
    rows["findings"].extend(findings)
    rows["candidates"].extend(candidates)
    for name, table in rows.items():
        write_table(work / f"{name}.parquet", name, table)
    return work


def _label(
    work: Path,
    exam_id: str,
    patient: str,
    tracer: str,
    number: int,
    n: int,
    pet: Volume,
    confidence: float | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    finding_id = f"f{n + 1:03d}"
    i, j, k = 6 + n, 8, 5 + 4 * n
    mask = np.zeros(PET_SHAPE, dtype=np.uint8)
    mask[i : i + 2, j : j + 2, k : k + 2 + number % 3] = 1
    write_nifti(work / "labels" / exam_id / f"{finding_id}.nii.gz", pet.like(mask, "label"))
    site = SITES[(number + n) % len(SITES)]
    suv = round(3.0 + 0.37 * number + n, 2)
    prompt = f"Hypermetabolic {site}, the {number}th exam's finding {n}."
    shared = {
        "exam_id": exam_id,
        "finding_id": finding_id,
        "sentence": f"{prompt[:-1]} with SUVmax {suv}, slice {100 + number + n}.",
        "prompt": prompt,
        "site": site,
        "laterality": "left" if "left" in site else None,
    }
    told = {"suv": suv, "slice": 100 + number + n, "status": "positive", "stage": "check", "span_start": 10 * n}
    label = {
        "suv_reported": suv,
        "slice_reported": 100 + number + n,
        "suv_measured": suv,
        "slice_measured": 100 + number + n,
        "voxel_i": i,
        "voxel_j": j,
        "voxel_k": k,
        "volume_ml": float(mask.sum()) * pet.voxel_ml,
        "confidence": 0.05 + 0.9 * ((number * 7 + n) % 12) / 12 if confidence is None else confidence,
        "mask_path": f"labels/{exam_id}/{finding_id}.nii.gz",
        "tracer": tracer,
        "patient_id": patient,
        "method": "made up",
        "provenance": json.dumps({"petground": "0.1.0", "site": {"name": "default"}}),
    }
    return shared | told, shared | label


def here(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
    """Runs cases in this process: what is tested is not the processes."""
    return (guarded(function, case, args) for case, args in cases)


def export(work: Path, root: Path, to: str, **options: Any) -> Done:
    name_of = options.pop("name_of", None)
    decisions = options.pop("decisions", None)
    chosen = Options(to=to, shares=options.pop("shares", SHARES), **options)
    with owned(root, to):
        plan = draft(work, chosen, decisions=decisions, run_cases=here)
        return publish(work, root, chosen, plan, name_of=name_of, run_cases=here)


def decide(work: Path, *rows: tuple[str, str, str, str]) -> Path:
    lines = ["exam_id,finding_id,decision,reason,reviewer,time,version,label_hash"]
    lines += [f"{exam},{finding},{word},,Doe,{time},1,abc" for exam, finding, word, time in rows]
    path = work / "decisions.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name != "lock"
    }
