"""A DICOM exam with labels, and outlines that another program redrew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pet_series import SERIES, around, write_series

from petground.labeling.volume import Volume
from petground.pipeline.dicom.objects import read_source
from petground.pipeline.edited import read_labels
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.pipeline.read import read_pet
from petground.pipeline.schemas import write_table


def dicom_work(folder: Path, name: str = "head_first") -> tuple[Path, Volume, np.ndarray]:
    """WORK of one DICOM exam E17: f001 and f002 with labels that overlap, f003 without, f004 that is no lesion."""
    hot = write_series(folder / "E17", **SERIES[name])
    pet, work = read_pet(folder / "E17"), folder / "work"
    first = around(pet, hot)
    second = np.roll(first, 1, axis=0)
    write_nifti(work / "exams/E17/pet.nii.gz", pet)
    series = str(pydicom.dcmread(next((folder / "E17").glob("*.dcm"))).SeriesInstanceUID)
    source = {"source": "dicom", "folder": str(folder / "E17"), "pet_series_uid": series}
    (work / "exams/E17/source.json").write_text(json.dumps(source))
    told = {"f001": ("positive", None, "check"), "f002": ("positive", None, "check"),
            "f003": ("excluded", "ambiguous_match", "match"), "f004": ("excluded", "reference", "extract")}  # fmt: skip
    findings, labels = [], []
    for number, (finding_id, (status, reason, stage)) in enumerate(told.items()):
        sentence = f"Left axillary node {number}, SUVmax 9.1, slice 7."
        findings.append({
            "exam_id": "E17", "finding_id": finding_id, "sentence": sentence, "suv": 9.1, "slice": 7, "status": status,
            "prompt": f"Left axillary node {number}", "laterality": "left", "site": "axillary node", "reason": reason,
            "stage": stage, "suv_decimals": 1, "span_start": number, "span_end": number + 1,
        })  # fmt: skip
    for finding_id, mask in (("f001", first), ("f002", second)):
        i, j, k = (int(n) for n in np.argwhere(mask)[0])
        write_nifti(work / f"labels/E17/{finding_id}.nii.gz", pet.like(mask.astype(np.uint8), "label"))
        labels.append({
            "exam_id": "E17", "finding_id": finding_id, "sentence": findings[len(labels)]["sentence"],
            "suv_reported": 9.1, "slice_reported": 7, "suv_measured": 9.1, "slice_measured": 7, "voxel_i": i,
            "voxel_j": j, "voxel_k": k, "volume_ml": 1.0, "confidence": 0.4, "patient_id": "P1",
            "mask_path": f"labels/E17/{finding_id}.nii.gz", "prompt": f"Left axillary node {len(labels)}",
            "laterality": "left", "site": "axillary node", "method": "isodata", "threshold": 4.0, "warnings": "",
            "provenance": json.dumps({"petground": "0", "site": {}}),
        })  # fmt: skip
    exams = [{"exam_id": "E17", "status": "ok", "source": "dicom", "patient_id": "P1", "tracer": "FDG",
              "pet_path": "exams/E17/pet.nii.gz", "slices": pet.shape[2]},
             {"exam_id": "E18", "status": "failed", "reason": "no_pet", "detail": "none"}]  # fmt: skip
    tables = {"exams": exams, "findings": findings, "labels": labels, "candidates": []}
    for table, rows in tables.items():
        write_table(work / f"{table}.parquet", table, rows)
    return work, pet, first


def redrawn(mask: np.ndarray) -> np.ndarray:
    """Another outline at the same place, again without symmetry: one voxel less, three more."""
    drawn = mask.copy()
    i, j, k = np.argwhere(mask)[0]
    drawn[tuple(np.argwhere(mask)[-1])] = False
    drawn[i, j - 1, k] = drawn[i + 1, j - 1, k] = drawn[i, j, k - 1] = True
    return drawn


def foreign_seg(path: Path, pet: Volume, series: Path, masks: dict[str, np.ndarray], **more: Any) -> Path:
    """A SEG as another program makes one: labels of its own, no tracking, frames and sources in another order."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    source = read_source(series, pet, case="x")
    stacks = [np.ascontiguousarray(m.astype(np.uint8).transpose(2, 1, 0)[::-1]) for m in masks.values()]
    descriptions = [
        hd.seg.SegmentDescription(
            number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]  # fmt: skip
    seg = hd.seg.Segmentation(
        source_images=source.datasets[::-1], pixel_array=np.stack(stacks, axis=-1),
        **{"segmentation_type": hd.seg.SegmentationTypeValues.BINARY, **more}, segment_descriptions=descriptions,
        series_instance_uid=hd.UID(), series_number=9, sop_instance_uid=hd.UID(), instance_number=1,
        manufacturer="Other", manufacturer_model_name="Other", software_versions="1", device_serial_number="1",
        content_creator_name="Roe^Jo",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def used(work: Path, number: int = 0) -> np.ndarray:
    """The mask that counts for a finding of E17, as pages, training and exports read it."""
    label = read_labels(work)[number]
    return read_nifti(work / label["mask_path"], "label").array > 0
