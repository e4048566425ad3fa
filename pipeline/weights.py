"""A site's own table of patient weights, for DICOM headers that lost theirs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from petground.labeling.errors import InputError
from petground.labeling.suv_size import WEIGHT_RANGE_KG

__all__ = ["NO_WEIGHTS", "Weights", "read_weights"]


@dataclass(frozen=True)
class Weights:
    """Weights [kg] by exam and by patient."""

    by_exam: Mapping[str, float] = field(default_factory=dict)
    by_patient: Mapping[str, float] = field(default_factory=dict)

    def of(self, exam_id: str, patient_id: str | None) -> float | None:
        """The exam's own weight before the patient's: a patient's weight changes."""
        return self.by_exam.get(exam_id, self.by_patient.get(patient_id or ""))


NO_WEIGHTS = Weights()


def read_weights(path: Path | None) -> Weights:
    """A CSV with `weight_kg` and `exam_id`, `patient_id` or both; a row with an exam_id holds for that exam only.

    Raises InputError naming the line: a weight that is none, a row without id, one id with two weights.
    """
    if path is None:
        return NO_WEIGHTS
    if not path.is_file():
        raise InputError(f"no table of weights at {path}", fix="give a CSV with exam_id or patient_id, and weight_kg")
    exams: dict[str, float] = {}
    patients: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = set(reader.fieldnames or ())
            if "weight_kg" not in columns or not columns & {"exam_id", "patient_id"}:
                raise InputError(
                    f"{path.name} has the columns {', '.join(sorted(columns)) or 'none'}",
                    fix="needed are weight_kg and exam_id or patient_id",
                )
            for row in reader:
                place = f"{path.name}, line {reader.line_num}"
                weight = _weight(row.get("weight_kg"), place)
                exam, patient = (str(row.get(name) or "").strip() for name in ("exam_id", "patient_id"))
                if not exam and not patient:
                    raise InputError(f"{place}: neither exam_id nor patient_id", fix="say whose weight it is")
                table, name = (exams, exam) if exam else (patients, patient)
                if table.setdefault(name, weight) != weight:
                    raise InputError(f"{place}: a second weight for the same id", fix="keep one; give exam_id as well")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} is no CSV in UTF-8: {error}", fix="export it again") from None
    return Weights(exams, patients)


def _weight(text: str | None, place: str) -> float:
    try:
        weight = float(text or "")
    except ValueError:
        weight = math.nan
    if not WEIGHT_RANGE_KG[0] < weight < WEIGHT_RANGE_KG[1]:
        raise InputError(f"{place}: weight_kg is '{text or ''}'", fix="give the weight in kilograms, with a point")
    return weight
