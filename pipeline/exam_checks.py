"""What only the whole export shows: whether its patients are those of the images, and whether dates were shifted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from petground.labeling.site import Site
from petground.pipeline import dates, patients
from petground.pipeline.extraction import Failure
from petground.pipeline.reports import Report
from petground.pipeline.stage import kept

__all__ = ["Checked", "checked"]


@dataclass(frozen=True)
class Checked:
    """patient_of: exam -> patient, as tables shall name him. failures: exams of another patient than their images."""

    patient_of: dict[str, str]
    failures: dict[str, Failure]
    notes: tuple[str, ...]


def checked(out: Path, site: Site, reports: Iterable[Report], failures: Mapping[str, Failure]) -> Checked:
    """Compares rows of the export with what the headers of their images said when they were read into out/exams.

    reports: exams that have something to label. failures: of those what became of the images so far.
    """
    found: list[patients.Who] = []
    compared = apart = 0
    for report in reports:
        stage, reason = (failures.get(report.exam_id) or ("", "", ""))[:2]
        of_another_day = reason == dates.MISMATCH
        if stage == "ingest" and not of_another_day:
            continue
        exam = (kept(out / "exams" / report.exam_id) or {}).get("value", {})
        if dates.days_apart(report.study_date, exam.get("study_date")) is not None:
            compared, apart = compared + 1, apart + of_another_day
        if not of_another_day:
            patient = exam.get("patient") or {}
            found.append(patients.Who(report.exam_id, report.patient_id, patient.get("number"), patient.get("issuer")))
    settled = patients.settle_patients(found, site.patient_ids)
    note = dates.mismatch_note(compared, apart)
    wrong = {exam_id: ("ingest", patients.MISMATCH, why) for exam_id, why in settled.wrong.items()}
    return Checked(settled.patient_of, wrong, settled.notes + ((note,) if note else ()))
