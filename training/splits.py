"""Who trains and who validates: by patient, never by exam or sentence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.files import write_json

__all__ = ["patient_hash", "read_splits", "split_patients", "write_splits"]

Splits = dict[str, list[str]]


def split_patients(patient_of: Mapping[str, str], *, validation: float, seed: int, test: float = 0.0) -> Splits:
    """{exam_id: patient_id} -> {"train": [exam_id], "val": [exam_id], "test": [exam_id]}, each sorted.

    Patients are ranked by a keyed hash, so the split does not depend on order, and a patient who joins later moves
    few others. At least one patient trains; at least one validates when `validation` > 0 and there are two. What is
    kept for the test is neither learnt from nor looked at.
    """
    if not 0 <= validation < 1:
        raise ConfigError(f"validation fraction is {validation}", fix="a number from 0 to below 1")
    if not 0 <= test < 1 - validation:
        raise ConfigError(f"test fraction is {test}", fix="with the validation fraction it must stay below 1")
    ranked = sorted(set(patient_of.values()), key=lambda patient: _rank(seed, patient))
    count = round(validation * len(ranked))
    if validation > 0 and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    kept = min(round(test * len(ranked)), max(0, len(ranked) - count - 1))
    parts = {"train": ranked[count + kept :], "val": ranked[:count], "test": ranked[count : count + kept]}
    return {
        name: sorted(exam for exam, patient in patient_of.items() if patient in set(patients))
        for name, patients in parts.items()
    }


def patient_hash(patient_id: str) -> str:
    """32 hex digits that stand for a patient in a checkpoint: the same in every export, without the id itself."""
    return hashlib.blake2b(patient_id.encode(), digest_size=16).hexdigest()


def read_splits(path: Path, patient_of: Mapping[str, str]) -> Splits:
    """A split written before. Raises InputError when unreadable, for unknown exams, or a patient on both sides."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        found: Splits = {name: sorted(map(str, splits[name])) for name in ("train", "val")}
        if "test" in splits:
            found["test"] = sorted(map(str, splits["test"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a splits file", fix='{"train": [exam ids], "val": [exam ids]}') from error
    unknown = [exam for exams in found.values() for exam in exams if exam not in patient_of]
    if unknown:
        raise InputError(f"{path}: {len(unknown)} exams are not among these data, the first is {unknown[0]}")
    both = _patients(found["train"], patient_of) & _patients(found["val"], patient_of)
    if both:
        raise InputError(f"{path}: {len(both)} patients are in train and val, the first is {min(both)}")
    return found


def write_splits(path: Path, splits: Mapping[str, list[str]]) -> None:
    """Written under another name, then renamed."""
    write_json(path, dict(splits))


def _patients(exams: Iterable[str], patient_of: Mapping[str, str]) -> set[str]:
    return {patient_of[exam] for exam in exams}


def _rank(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()
