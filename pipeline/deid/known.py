"""What an exam's headers and its row in the export say about who it is of: gathered before anything is cleaned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pydicom

from petground.pipeline.deid.dicom import lenient
from petground.pipeline.deid.identity import Identity
from petground.pipeline.deid.images import dicom_files
from petground.pipeline.deid.profile import Profile

__all__ = ["Headers", "identity_of", "read_headers"]

NAMES = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ReferringPhysicianName",
    "ConsultingPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName",
    "PhysiciansOfRecord", "RequestingPhysician", "ScheduledPerformingPhysicianName", "ResponsiblePerson",
    "OrderEnteredBy", "VerifyingObserverName", "ContentCreatorName", "ReviewerName", "InterpretationRecorder",
)  # fmt: skip
IDS = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "RequestedProcedureID", "StationName",
    "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "MedicalRecordLocator",
    "PatientTelephoneNumbers", "ScheduledProcedureStepID", "PerformedProcedureStepID", "DeviceSerialNumber",
)  # fmt: skip
PLACES = ("InstitutionName", "InstitutionAddress", "PatientAddress", "RequestingService", "ResponsibleOrganization",
          "InstitutionalDepartmentName")  # fmt: skip
SEQUENCES = ("RequestAttributesSequence", "OtherPatientIDsSequence", "ReferringPhysicianIdentificationSequence")
TAGS: list[Any] = [*NAMES, *IDS, *PLACES, *SEQUENCES, "PatientBirthDate", "StudyDate", "Modality"]
NAME_COLUMN = re.compile(
    r"name|physician|radiolog|referr|provider|author|attending|technolog|reader|doctor|signed|dictat", re.I
)
ID_COLUMN = re.compile(
    r"mrn|accession|(^|_)id($|_)|number|ssn|phone|fax|visit|encounter|account|insur|policy|order", re.I
)
PLACE_COLUMN = re.compile(r"hospital|institution|address|site_name|facility|department|city|street|location", re.I)
OWN = ("exam_id", "report_text", "patient_id", "tracer", "study_date", "scanner")


@dataclass(frozen=True)
class Headers:
    """Of all files of an exam: names, ids and places, patient ids, birth date, study year.

    unread: attributes whose value no file tells because it is damaged. It goes from the header, but cannot be sought
    in the report.
    """

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    birth: date | None = None
    year: int | None = None
    unread: tuple[str, ...] = ()


def read_headers(source: Path) -> Headers:
    """Names and numbers in the headers of an exam folder; files that cannot be read are found out when images are."""
    found: dict[str, dict[str, None]] = {kind: {} for kind in ("names", "ids", "places", "patients")}
    birth, year = None, None
    told: set[str] = set()
    damaged: set[str] = set()

    def value_of(header: Any, keyword: str) -> Any:
        try:
            value = header.get(keyword)
        except Exception:  # pydicom raises what it likes on damaged values
            damaged.add(keyword)
            return None
        if (
            value is not None and str(value).strip()
        ):  # bytes that the declared character set does not hold become U+FFFD
            (damaged if "\ufffd" in str(value) else told).add(keyword)
        return value

    with lenient():
        for _, file, looks in dicom_files(source):
            if not looks:
                continue
            try:
                header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=TAGS)
            except Exception:  # told by write_images
                continue
            found["patients"] |= dict.fromkeys(_texts(value_of(header, "PatientID")))
            inner = [item for sequence in SEQUENCES for item in _items(value_of(header, sequence))]
            for item in (header, *inner):
                for kind, keywords in (("names", NAMES), ("ids", IDS), ("places", PLACES)):
                    for keyword in keywords:
                        found[kind] |= dict.fromkeys(_texts(value_of(item, keyword)))
            birth = birth or _day(value_of(header, "PatientBirthDate"))
            studied = _day(value_of(header, "StudyDate"))
            year = year or (studied.year if studied else None)
    names, ids, places, patients = (tuple(found[kind]) for kind in ("names", "ids", "places", "patients"))
    unread = tuple(sorted(damaged - told - {"StudyDate"}))  # the study date is no identity that a text is searched for
    return Headers(names, ids, places, patients, birth, year, unread)


def identity_of(row: Mapping[str, Any], headers: Headers, profile: Profile) -> Identity:
    """All that is known of an exam: its headers, the export's row, the site's profile."""
    names, ids, places = (
        [*headers.names, *profile.names],
        [*headers.ids, *profile.ids],
        [*headers.places, *profile.places],
    )
    birth = headers.birth
    for column, value in row.items():
        text = str(value).strip() if isinstance(value, str | int) else ""
        if not text or column in ("report_text", "tracer", "study_date", "scanner") or column.startswith("\0"):
            continue
        if "birth" in column.lower() or column.lower() == "dob":
            birth = birth or _day(text.replace("-", ""))
        elif column in profile.name_columns or (column not in OWN and NAME_COLUMN.search(column)):
            names.append(text)
        elif column not in OWN and PLACE_COLUMN.search(column):
            places.append(text)
        elif column in (*profile.id_columns, "exam_id", "patient_id") or ID_COLUMN.search(column):
            ids.append(text)
    return Identity(_distinct(names), _distinct(ids), _distinct(places), birth)


def _texts(value: Any) -> list[str]:
    several = not isinstance(value, str | bytes) and hasattr(value, "__iter__") and not hasattr(value, "family_name")
    parts = value if several else [value]
    return [text for part in parts if part is not None and (text := str(part).strip())]


def _items(value: Any) -> list[Any]:
    """Data sets of a sequence; none of what is none."""
    several = value is not None and not isinstance(value, str | bytes) and hasattr(value, "__iter__")
    return [item for item in value if isinstance(item, pydicom.Dataset)] if several else []


def _day(value: Any) -> date | None:
    text = str(value or "").replace(".", "").strip()[:8]
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])) if len(text) == 8 and text.isdigit() else None
    except ValueError:
        return None


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
