"""SEG, SR and value map of what was found on one PET series, written together or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from petground.labeling.errors import InputError
from petground.pipeline.dicom.objects import Finding3D, SourcePet

__all__ = ["OBJECT_FILES", "write_objects"]

OBJECT_FILES = ("seg.dcm", "sr.dcm", "rwvm.dcm")


def write_objects(
    folder: Path,
    source: SourcePet,
    findings: Sequence[Finding3D],
    *,
    case: str,
    suv_factor: float | None,
    reviewer: str | None = None,
) -> list[str]:
    """Writes FOLDER/seg.dcm, sr.dcm and, where one factor turns the PET into SUVbw, rwvm.dcm; returns their names.

    suv_factor: SUVbw per rescaled unit, None where it is not one number. reviewer: the person observer, where one
    accepted every finding. Raises InputError without findings or when the folder cannot be written, GeometryError when
    a mask is empty or not on the series' grid.
    """
    from petground.pipeline.dicom.seg import build_seg
    from petground.pipeline.dicom.sr import build_sr
    from petground.pipeline.dicom.value_map import build_value_map

    seg = build_seg(source, findings, case=case)
    objects: dict[Path, Any] = {folder / "seg.dcm": seg}
    if suv_factor is not None and source.frame_of_k is None:
        objects[folder / "rwvm.dcm"] = build_value_map(source, suv_factor, case=case)
    value_map = objects.get(folder / "rwvm.dcm")
    objects[folder / "sr.dcm"] = build_sr(source, seg, findings, case=case, reviewer=reviewer, value_map=value_map)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _save(objects)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}", case=case) from error
    return sorted(path.name for path in objects)


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
