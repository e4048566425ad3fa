"""SEG and SR of one exam's labels, beside its page."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.pipeline.dicom.objects import Finding3D, read_source
from petground.pipeline.review.judge import title
from petground.pipeline.review.load import Case

__all__ = ["write_dicom_objects"]


def write_dicom_objects(case: Case, folder: Path, *, reviewer: str | None = None) -> None:
    """Writes FOLDER/seg.dcm, sr.dcm and, where one factor turns the PET into SUVbw, rwvm.dcm; all or none.

    reviewer: the person observer, where one accepted every label of the case. Raises InputError when the exam's DICOM
    folder is gone, holds another series, or the folder cannot be written, GeometryError when the grid there is not the
    labelled one.
    """
    from petground.pipeline.dicom.seg import build_seg
    from petground.pipeline.dicom.sr import build_sr
    from petground.pipeline.dicom.value_map import build_value_map

    source = read_source(
        Path(case.source.get("folder", "")),
        case.pet,
        case=case.exam_id,
        series_uid=case.source.get("pet_series_uid"),
    )
    findings = [
        Finding3D(
            finding_id=item.finding_id,
            label=f"{title(item.finding)} ({item.finding_id})",
            mask=item.mask,
            suv_max=float(item.label["suv_measured"]),
            volume_ml=float(item.label["volume_ml"]),
            site=item.finding.get("site"),
            laterality=item.finding.get("laterality"),
            method=str(item.label.get("method") or ""),
        )
        for item in case.items
        if item.mask is not None and item.label is not None
    ]
    seg = build_seg(source, findings, case=case.exam_id)
    objects = {folder / "seg.dcm": seg}
    factor = case.exam.get("suv_factor")
    if factor is not None and source.frame_of_k is None:
        objects[folder / "rwvm.dcm"] = build_value_map(source, float(factor), case=case.exam_id)
    value_map = objects.get(folder / "rwvm.dcm")
    report = build_sr(source, seg, findings, case=case.exam_id, reviewer=reviewer, value_map=value_map)
    objects[folder / "sr.dcm"] = report
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _save(objects)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}", case=case.exam_id) from error


def _save(objects: dict[Path, Any]) -> None:
    """All under temporary names first: what refers to another is never there without it."""
    parts = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}.part") for path in objects}
    try:
        for path, dataset in objects.items():
            dataset.save_as(parts[path], enforce_file_format=True)
        for path, part in parts.items():
            os.replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
