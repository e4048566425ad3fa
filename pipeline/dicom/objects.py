"""What DICOM SEG and SR are made from: the planes of the source PET, and who made the objects."""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.volume import Volume
from petground.pipeline.cropped import CroppedMask
from petground.pipeline.dicom.header import Slice, text
from petground.pipeline.dicom.pet import choose_pet
from petground.pipeline.dicom.series import scan
from petground.pipeline.dicom.stack import sort_slices, stack_affine

__all__ = ["DEVICE", "Finding3D", "SourcePet", "device_uid", "read_source", "stable_uid", "version"]

DEVICE = "petground"
MATCH_MM = 0.1  # a mask that lies further from its series than this is on another series
_TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_TRIAL = (
    ("ClinicalTrialSponsorName",),
    ("ClinicalTrialProtocolID",),
    ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
)


@dataclass(frozen=True, eq=False)
class SourcePet:
    """Headers of the PET series that masks lie on.

    datasets: one per plane in k order, or the one multi-frame image. frame_of_k: for a multi-frame image the frame
    index of each k, else None. affine: [4, 4] (column, row, k) -> RAS+ mm.
    """

    datasets: list[Any]
    frame_of_k: tuple[int, ...] | None
    affine: Any
    shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Finding3D:
    """One segment and its measurements. mask: on the PET grid; suv_max [g/ml]; volume_ml; manual: drawn by
    a person, not grown; learned: marked by a trained network."""

    finding_id: str
    label: str
    mask: Volume | CroppedMask
    suv_max: float
    volume_ml: float
    site: str | None = None
    laterality: str | None = None
    method: str = ""
    manual: bool = False
    learned: bool = False


def read_source(folder: Path, pet: Volume, *, case: str, series_uid: str | None = None) -> SourcePet:
    """The headers of the PET series that `pet` was read from, by the reader's own choice and order.

    series_uid: SeriesInstanceUID that `pet` was read from, where it is known. Raises InputError when the folder is
    gone, holds no usable PET or now leads to another series, GeometryError when its grid is not `pet`'s.
    """
    if not folder.is_dir():
        raise InputError("the exam's DICOM folder is gone", case=case, fix="put it back and export again")
    chosen = choose_pet(scan(folder))[0]
    if series_uid and text(chosen.header, "SeriesInstanceUID") != series_uid:
        raise InputError(
            "the DICOM folder now leads to another PET series than the labelled one",
            case=case,
            fix="run `petground label` again",
        )
    planes = sort_slices(chosen.planes)
    affine = stack_affine(planes)
    shape = (planes[0].columns, planes[0].rows, len(planes))
    _require_place(pet, affine, shape, case)
    if planes[0].frame is None:
        datasets = [pydicom.dcmread(plane.file, stop_before_pixels=True) for plane in planes]
        frames = None
    else:
        datasets, frames = [_one_file(planes, case)], tuple(int(plane.frame or 0) for plane in planes)
    for dataset in datasets:
        _complete(dataset, case)
    return SourcePet(datasets, frames, affine, shape)


def stable_uid(*parts: str) -> str:
    """The same UID for the same words, under the 2.25 root of DICOM PS3.5 B.2."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(parts)).int}"


def device_uid() -> str:
    """UID of this release as a device observer."""
    return stable_uid(DEVICE, version())


def version() -> str:
    """Version of the installed package."""
    return importlib.metadata.version("petground")


def _require_place(pet: Volume, affine: Any, shape: tuple[int, int, int], case: str) -> None:
    if shape == pet.shape:
        corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])])
        if np.abs(corners @ (affine - pet.affine).T).max() <= MATCH_MM:
            return
    raise GeometryError(
        f"the DICOM series' grid {shape} is not that of the labelled PET {pet.shape}",
        case=case,
        fix="the exam's folder has changed; run `petground label` again",
    )


def _one_file(planes: Sequence[Slice], case: str) -> Any:
    files = {plane.file for plane in planes}
    if len(files) > 1:
        raise InputError(f"the PET is spread over {len(files)} multi-frame files", case=case, fix="export it as one")
    return pydicom.dcmread(files.pop(), stop_before_pixels=True)


def _complete(dataset: Any, case: str) -> None:
    """In memory only: attributes that may be empty but not absent (type 2) are made empty, and a clinical trial module
    that lacks what it needs (PS3.3 C.7.1.3) is left out: the new objects would inherit the fault.
    """
    for keyword in _TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    trial = [element.keyword for element in dataset if element.keyword.startswith("ClinicalTrial")]
    if not all(any(dataset.get(keyword) for keyword in either) for either in _TRIAL):
        for keyword in trial:
            delattr(dataset, keyword)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        if not dataset.get(keyword):
            raise InputError(f"the PET has no {keyword}", case=case, fix="export the series from the scanner anew")
