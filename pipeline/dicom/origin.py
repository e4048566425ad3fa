"""Who an exam's images are of, and what made them: patient, series, scanner, day and tracer of the DICOM headers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from petground.labeling.errors import InputError
from petground.pipeline.dates import iso_date
from petground.pipeline.dicom.header import text
from petground.pipeline.patients import named
from petground.pipeline.tracers import tracer_of

if TYPE_CHECKING:
    from petground.pipeline.dicom.series import Series

__all__ = ["Patient", "one_patient", "origin", "patients_of"]


class Patient(NamedTuple):
    """PatientID (0010,0020) and IssuerOfPatientID (0010,0021), PS3.3 C.7.1.1: only together they name one person."""

    number: str
    issuer: str | None = None


def patients_of(header: Any) -> set[Patient]:
    """The patient that a header names; empty where PatientID is missing, empty or a placeholder."""
    number = named(text(header, "PatientID"))
    return set() if number is None else {Patient(number, named(text(header, "IssuerOfPatientID")))}


def one_patient(found: Iterable[Series]) -> Patient | None:
    """The patient of all PET and CT series of a folder; None where no header names one.

    A header without PatientID contradicts nothing. Raises InputError (reason "several_patients") when two are named.
    """
    patients = {patient for series in found for patient in series.patients}
    issuers = {patient.issuer for patient in patients if patient.issuer}
    if len({patient.number for patient in patients}) > 1 or len(issuers) > 1:
        raise InputError(
            "the images in the folder are of more than one patient: PatientID or IssuerOfPatientID differ between PET "
            "and CT files",
            fix="one folder per exam; take the other patient's files out of it",
            reason="several_patients",
        )
    return next((Patient(patient.number, next(iter(issuers), None)) for patient in patients), None)


def origin(files: Sequence[Path]) -> dict[str, str | None]:
    """Which series a PET was read from, so that SEG and SR point at that one; its scanner, day and tracer.

    files: of the series; none for a NIfTI. study_date: ISO.
    """
    if not files:
        return {"pet_series_uid": None, "scanner": None, "study_date": None, "tracer": None}
    import pydicom

    machine = ("Manufacturer", "ManufacturerModelName", "StationName")
    dose = "RadiopharmaceuticalInformationSequence"
    tags: list[Any] = ["SeriesInstanceUID", "StudyDate", "SeriesDate", dose, *machine]
    header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=tags)
    names = [" ".join(str(header.get(tag) or "").split()) or "?" for tag in machine]
    return {
        "pet_series_uid": str(header.SeriesInstanceUID),
        "scanner": " / ".join(names) if set(names) != {"?"} else None,
        "study_date": iso_date(str(header.get("StudyDate") or header.get("SeriesDate") or "")),
        "tracer": _tracer(header.get(dose) or []),
    }


def _tracer(doses: Sequence[Any]) -> str | None:
    """What was injected, where the header's words leave no doubt and one injection is stated."""
    if len(doses) != 1:
        return None
    codes = doses[0].get("RadiopharmaceuticalCodeSequence") or []
    words = [doses[0].get("Radiopharmaceutical"), *(code.get("CodeMeaning") for code in codes)]
    return tracer_of(" ; ".join(str(word) for word in words if word))
