"""An exam folder, DICOM or NIfTI, to a PET in SUVbw and its CT in HU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from petground.labeling.errors import InputError, PetgroundError
from petground.labeling.suv_header import NO_FALLBACKS, SuvFallbacks
from petground.labeling.volume import Volume
from petground.pipeline.dicom.ct import choose_ct, read_ct_series
from petground.pipeline.dicom.origin import Patient, one_patient
from petground.pipeline.dicom.pet import choose_pet, read_pet_series
from petground.pipeline.dicom.series import Series, scan
from petground.pipeline.geometry import axial_last, require_voxels
from petground.pipeline.nifti import NIFTI_SUFFIXES, read_nifti, require_suv

__all__ = ["Exam", "read_ct", "read_exam", "read_pet"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Exam:
    """One PET/CT as read.

    pet: SUVbw. ct: HU on its own grid, None when there is none in the PET's frame of reference. suv_rule: what was
    done, e.g. "BQML/START". suv_factor: SUVbw per Bq/ml when it is one number. pet_series: the series chosen and
    those refused with why, one line; ct_series likewise. pet_files: DICOM files in k order. patient: whom the
    headers name, None where they name nobody.
    """

    pet: Volume
    ct: Volume | None
    source: Literal["dicom", "nifti"]
    suv_rule: str
    suv_factor: float | None
    pet_series: str
    pet_files: tuple[Path, ...] = ()
    ct_series: str = ""
    patient: Patient | None = None


def read_exam(folder: Path, *, case: str, fallbacks: SuvFallbacks = NO_FALLBACKS) -> Exam:
    """PET and CT of a folder that holds DICOM at any depth, or `pet.nii.gz` (SUVbw) with or without `ct.nii.gz` (HU).

    fallbacks: what may stand in where a DICOM header is silent; by default nothing. Raises InputError, SuvError or
    GeometryError, each naming `case`, what is wrong and the way out.
    """
    return _for_case(case, lambda: _exam(Path(folder), with_ct=True, fallbacks=fallbacks))


def read_pet(path: Path) -> Volume:
    """PET in SUVbw of an exam folder, of one DICOM file or of one NIfTI file. Errors as `read_exam`."""
    return _for_case(Path(path).name, lambda: _exam(Path(path), with_ct=False).pet)


def read_ct(path: Path) -> Volume | None:
    """CT in HU of an exam folder (that of its PET, where there is one), of one DICOM or NIfTI file; None without CT."""
    return _for_case(Path(path).name, lambda: _ct(Path(path)))


def _exam(path: Path, *, with_ct: bool, fallbacks: SuvFallbacks = NO_FALLBACKS) -> Exam:
    pet_file = _nifti(path, "pet")
    if pet_file is not None:
        pet = axial_last(require_voxels(require_suv(read_nifti(pet_file, "SUVbw"), pet_file), pet_file.name))
        ct_file = _nifti(path, "ct") if with_ct and path.is_dir() else None
        ct = None if ct_file is None else _nifti_ct(ct_file)
        return Exam(pet, ct, "nifti", "NIfTI/SUVbw", None, f"{pet_file.name} chosen", (), "" if ct is None else "ct")
    found = scan(path)
    patient = one_patient(found)
    chosen, note = choose_pet(found)
    pet_series = read_pet_series(chosen, fallbacks)
    ct, ct_note = _first_regular(choose_ct(found, chosen)) if with_ct else (None, "not asked for")
    files = tuple(plane.file for plane in pet_series.planes)
    return Exam(pet_series.volume, ct, "dicom", pet_series.rule, pet_series.factor, note, files, ct_note, patient)


def _ct(path: Path) -> Volume | None:
    ct_file = _nifti(path, "ct")
    if ct_file is not None:
        return _nifti_ct(ct_file)
    if _nifti(path, "pet") is not None:
        return None
    found = scan(path)
    pet = choose_pet(found)[0] if any(series.modality == "PT" for series in found) else None
    return _first_regular(choose_ct(found, pet))[0]


def _nifti_ct(path: Path) -> Volume:
    return axial_last(require_voxels(read_nifti(path, "HU"), path.name))


def _first_regular(candidates: list[Series]) -> tuple[Volume | None, str]:
    """The best CT that lies on a regular grid: the CT helps to see, an exam is not lost for want of it."""
    notes = []
    for series in candidates:
        try:
            volume = read_ct_series(series)
        except PetgroundError as error:
            if error.reason == "unreadable":
                raise
            notes.append(f"{series.name} refused: {error.message}")
            continue
        return volume, "; ".join([f"{series.name} chosen", *notes])
    return None, "; ".join(notes) or "no CT in the PET's frame of reference"


def _nifti(path: Path, name: str) -> Path | None:
    if path.is_file():
        return path if path.name.endswith(NIFTI_SUFFIXES) else None
    found = [path / f"{name}{suffix}" for suffix in NIFTI_SUFFIXES if (path / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise InputError(f"{found[0].name} and {found[1].name} are both there", fix="keep one of them")
    return found[0] if found else None


def _for_case(case: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except PetgroundError as error:
        if error.case is None:
            raise type(error)(error.message, case=case, fix=error.fix, reason=error.reason) from error
        raise
