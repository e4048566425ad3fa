"""One case into a release: images and masks on one grid, checked as the peers' readers see them, whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume, require_same_grid
from petground.pipeline.exports.grids import doubtful, image_on, mask_on, target_grid
from petground.pipeline.exports.layout import CaseFiles
from petground.pipeline.exports.nnunet import IGNORE, LESION
from petground.pipeline.exports.select import ExamOut
from petground.pipeline.files import write_json
from petground.pipeline.geometry import Grid
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.pipeline.stage import content_hash, source_hash

__all__ = ["STATE", "CasePlan", "case_key", "kept_case", "write_case"]

STATE = ".petground"
CODE = (
    "petground.pipeline.exports.write_case",
    "petground.pipeline.exports.grids",
    "petground.pipeline.geometry",
    "petground.pipeline.nifti",
)
SAME_MM = 1e-3


@dataclass(frozen=True)
class CasePlan:
    """All that writing a case needs; goes to a worker process."""

    work: Path
    root: Path
    case: str
    exam: ExamOut
    files: CaseFiles
    key: str
    spacing_xyz_mm: tuple[float, float, float] | None = None
    ct_grid: bool = False
    upright: bool = False
    ignore: bool = True
    link: bool = False
    anonymous: bool = False


def case_key(plan: CasePlan) -> str:
    """Hash of what the case's files depend on: its inputs by size and time, the options, the code."""
    paths = [plan.exam.pet_path, plan.exam.ct_path, *(lesion.mask_path for lesion in plan.exam.lesions)]
    paths += [doubt.mask_path for doubt in plan.exam.doubts if plan.ignore]
    stats = []
    for path in paths:
        try:
            stat = (plan.work / path).stat() if path else None
        except OSError:
            stat = None
        stats.append([path, stat.st_size, stat.st_mtime_ns] if stat else [path])
    doubts = [[d.voxel_ijk, d.suv] for d in plan.exam.doubts] if plan.ignore else []
    files = [plan.files.pet, plan.files.ct, plan.files.union, dict(plan.files.masks)]
    options = [plan.spacing_xyz_mm, plan.ct_grid, plan.upright, plan.ignore, plan.link, plan.anonymous]
    return content_hash([source_hash(*CODE), stats, doubts, files, options])


def kept_case(root: Path, case: str, key: str | None = None) -> dict[str, Any] | None:
    """The record of a case that is whole (under this key), or None."""
    try:
        record: dict[str, Any] = json.loads((root / STATE / "cases" / f"{case}.json").read_text(encoding="utf-8"))
        whole = all((root / name).stat().st_size == size for name, size in record["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return record if whole and key in (None, record.get("key")) else None


def write_case(plan: CasePlan) -> dict[str, Any]:
    """Writes the files of one case and, last, its record: {"key", "files": {name: bytes}, "voxels", "ignored"}.

    Raises GeometryError when files of the case do not share one grid or a label lies elsewhere, InputError when an
    image cannot be read: then nothing of the case is there.
    """
    done = kept_case(plan.root, plan.case, plan.key)
    if done is not None:
        return done
    part = plan.root / STATE / f".{plan.case}.{uuid.uuid4().hex}.part"
    try:
        voxels, ignored = _make(plan, part)
        _check(part, plan)
        for name in plan.files.all:
            place = plan.root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / name, place)
        sizes = {name: (plan.root / name).stat().st_size for name in plan.files.all}
        record = {"key": plan.key, "files": sizes, "voxels": dict(voxels), "ignored": ignored}
        write_json(plan.root / STATE / "cases" / f"{plan.case}.json", record)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return record


def _make(plan: CasePlan, part: Path) -> tuple[Mapping[str, int], int]:
    exam, files = plan.exam, plan.files
    pet = read_nifti(plan.work / exam.pet_path, "SUVbw")
    ct = read_nifti(plan.work / exam.ct_path, "HU") if exam.ct_path else None
    grid = target_grid(pet, ct, spacing_xyz_mm=plan.spacing_xyz_mm, on_ct=plan.ct_grid, upright=plan.upright)
    _put(plan, part / files.pet, pet, grid, plan.work / exam.pet_path)
    if files.ct is not None and ct is not None and exam.ct_path:
        _put(plan, part / files.ct, ct, grid, plan.work / exam.ct_path)
    like = Volume(np.broadcast_to(np.uint8(0), grid.shape), grid.affine, "label")
    union = np.zeros(grid.shape, dtype=np.uint8)
    on_pet: dict[str, NDArray[np.bool_]] = {}
    voxels = {}
    for lesion in exam.lesions:
        on_pet[lesion.finding_id] = _mask(plan, lesion.mask_path, pet)
        mask = mask_on(on_pet[lesion.finding_id], pet, grid)
        voxels[lesion.finding_id] = int(mask.sum())
        union[mask] = LESION
        if lesion.finding_id in files.masks:
            write_nifti(part / files.masks[lesion.finding_id], like.like(mask.astype(np.uint8), "label"))
    ignored = 0
    if files.union is not None:
        if plan.ignore and exam.doubts:
            unsure = mask_on(_doubts(plan, pet), pet, grid) & (union == 0)
            union[unsure] = IGNORE
            ignored = int(unsure.sum())
        write_nifti(part / files.union, like.like(union, "label"))
    return voxels, ignored


def _put(plan: CasePlan, path: Path, volume: Volume, grid: Grid, source: Path) -> None:
    """The image on the grid; a hard link to WORK's file where that is wanted and nothing would differ.

    DICOM identifiers ride in the header of WORK's files: a release under keyed names must not carry them.
    """
    placed = image_on(volume, grid)
    path.parent.mkdir(parents=True, exist_ok=True)
    if plan.link and not plan.anonymous and placed.array is volume.array and source.name.endswith(".nii.gz"):
        try:
            os.link(source, path)
            return
        except OSError:
            pass  # another file system: a copy then
    bare = replace(placed, frame_of_reference=None, instance_numbers=None) if plan.anonymous else placed
    write_nifti(path, bare)


def _mask(plan: CasePlan, path: str, pet: Volume) -> NDArray[np.bool_]:
    mask = read_nifti(plan.work / path, "label")
    require_same_grid(pet, mask, case=f"{plan.exam.exam_id}, {Path(path).name}", atol_mm=0.01)
    found: NDArray[np.bool_] = np.asarray(mask.array) > 0
    if not found.any():
        raise InputError(f"{Path(path).name} is an empty mask", case=plan.exam.exam_id, fix="label the exam again")
    return found


def _doubts(plan: CasePlan, pet: Volume) -> NDArray[np.bool_]:
    out = np.zeros(pet.shape, dtype=np.bool_)
    for doubt in plan.exam.doubts:
        if doubt.mask_path is not None:
            out |= _mask(plan, doubt.mask_path, pet)
        elif doubt.voxel_ijk is not None:
            out |= doubtful(pet, doubt.voxel_ijk, doubt.suv)
    return out


def _check(part: Path, plan: CasePlan) -> None:
    """All files of the case lie on one grid as SimpleITK reads them: nnU-Net only warns when they do not."""
    first: tuple[tuple[int, ...], list[float]] | None = None
    for name in plan.files.all:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(part / name))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise GeometryError(
                f"{Path(name).name} has an affine that ITK refuses (sheared, or no rotation)",
                case=plan.exam.exam_id,
                fix="export with --spacing, onto a rectangular grid",
            ) from error
        place = [*reader.GetSpacing(), *reader.GetOrigin(), *reader.GetDirection()]
        found = (tuple(reader.GetSize()), place)
        if first is None:
            first = found
        elif found[0] != first[0] or not np.allclose(place, first[1], atol=SAME_MM):
            raise GeometryError(f"{Path(name).name} does not lie on the PET's grid", case=plan.exam.exam_id)
