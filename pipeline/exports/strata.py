"""The split of a release: which traits it balances, what stays as it was, and the table that shows it."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.regions import region_of
from petground.pipeline.exports.select import ExamOut
from petground.pipeline.files import write_json
from petground.pipeline.splits import assign, patient_hash

__all__ = [
    "PARTS",
    "Partition",
    "divide",
    "ledger_path",
    "read_ledger",
    "read_shares",
    "strata_table",
    "traits_of",
    "write_ledger",
]

PARTS = ("train", "val", "test")
FOLDS = 5
LESIONS = ((1, "1 lesion"), (3, "2-3 lesions"), (9, "4-9 lesions"))  # fixed bounds: a trait must not move with others
VOLUMES_ML = ((5.0, "up to 5 ml"), (20.0, "5-20 ml"), (100.0, "20-100 ml"))


@dataclass(frozen=True)
class Partition:
    """part and fold of every patient; traits by patient. fold 0 holds the validating patients where there are any."""

    part: Mapping[str, str]
    fold: Mapping[str, int]
    folds: int
    traits: Mapping[str, frozenset[str]]
    moved: int = 0


def read_shares(text: str) -> dict[str, float]:
    """ "80/10/10" -> shares of train, val and test; two numbers leave the test out. Raises ConfigError otherwise."""
    try:
        numbers = [float(word) for word in text.replace(":", "/").split("/")]
    except ValueError:
        numbers = []
    if not (len(numbers) in (2, 3) and all(math.isfinite(n) and n >= 0 for n in numbers) and numbers[0] > 0):
        raise ConfigError(f"--split is '{text}'", fix="train/val/test as in 80/10/10; train must be above 0")
    total = sum(numbers)
    return {part: number / total for part, number in zip(PARTS, [*numbers, 0.0], strict=False)}


def traits_of(exams: Sequence[ExamOut]) -> frozenset[str]:
    """What of one patient is balanced: tracers, regions with a lesion, how many lesions and how much volume in all."""
    lesions = [lesion for exam in exams for lesion in exam.lesions]
    volume = sum(lesion.volume_ml for lesion in lesions)
    count = next((name for most, name in LESIONS if len(lesions) <= most), "10 lesions or more")
    size = next((name for most, name in VOLUMES_ML if volume <= most), "above 100 ml")
    tracers = {f"tracer: {exam.tracer or 'not told'}" for exam in exams}
    regions = {f"region: {region_of(lesion.site)}" for lesion in lesions}
    return frozenset({*tracers, *regions, f"lesions: {count}", f"volume: {size}"})


def divide(
    exams: Mapping[str, ExamOut],
    shares: Mapping[str, float],
    *,
    seed: int,
    linked: Mapping[str, str],
    earlier: Mapping[str, Any] | None = None,
) -> Partition:
    """Every patient to a part and a fold, balanced by traits; linked patients ({patient: group}) go together.

    earlier: a ledger by `write_ledger`. Whoever is in it stays where he was. Patients who turn out to be linked but
    were apart go where one of them was learnt from: to train before val before test; `moved` counts those.
    """
    of_unit: dict[str, list[ExamOut]] = defaultdict(list)
    for exam in exams.values():
        of_unit[linked.get(exam.patient_id, exam.patient_id)].append(exam)
    traits = {unit: traits_of(found) for unit, found in of_unit.items()}
    before = (earlier or {}).get("patients", {})
    folds_before = (earlier or {}).get("folds", {})
    known, fold_known, moved = {}, {}, 0
    for unit, found in of_unit.items():
        marks = {patient_hash(exam.patient_id) for exam in found}
        parts = {before[mark] for mark in marks if mark in before}
        if parts:
            known[unit] = min(parts, key=PARTS.index)
            moved += len(parts) - 1
        folds = sorted(str(folds_before[mark]) for mark in marks if mark in folds_before)
        if folds:
            fold_known[unit] = folds[0]
    part = assign(traits, {p: s for p, s in shares.items() if s > 0}, seed=seed, earlier=known)
    fold, folds_made = _folds(traits, part, seed, fold_known)
    patients = {exam.patient_id: linked.get(exam.patient_id, exam.patient_id) for exam in exams.values()}
    return Partition(
        part={patient: part[unit] for patient, unit in patients.items()},
        fold={patient: fold.get(unit, 0) for patient, unit in patients.items()},
        folds=folds_made,
        traits={patient: traits[unit] for patient, unit in patients.items()},
        moved=moved,
    )


def strata_table(partition: Partition) -> list[dict[str, Any]]:
    """A row per trait: {"trait", "train", "val", "test"}, patients in each; the first row counts all."""
    counts = {part: Counter[str]() for part in PARTS}
    for patient, traits in partition.traits.items():
        counts[partition.part[patient]].update(["patients", *traits])
    names = sorted({name for found in counts.values() for name in found} - {"patients"})
    return [{"trait": name} | {part: counts[part][name] for part in PARTS} for name in ["patients", *names]]


def ledger_path(work: Path, shares: Mapping[str, float], seed: int) -> Path:
    """Where WORK keeps who went where: each choice of shares and seed has its own, every format uses the same."""
    name = "-".join(f"{100 * share:g}" for share in shares.values())
    return work / "splits" / f"{name}-seed{seed}.json"


def read_ledger(path: Path) -> dict[str, Any]:
    """A ledger; empty where there is none. Raises InputError when it is not one."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts, folds = found["patients"], found["folds"]
        if not set(parts.values()) <= set(PARTS) or not all(isinstance(n, int) for n in folds.values()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not the splits file of an export", fix="give WORK/splits/<name>.json") from error
    return dict(found)


def write_ledger(path: Path, partition: Partition, exams: Mapping[str, ExamOut], before: Mapping[str, Any]) -> None:
    """Patients (hashed) with part and fold, those of earlier exports too; exam ids as `petground train` reads them."""
    patients = dict(before.get("patients", {})) | {patient_hash(p): part for p, part in partition.part.items()}
    folds = dict(before.get("folds", {}))
    folds |= {patient_hash(p): partition.fold[p] for p, part in partition.part.items() if part != "test"}
    now = {
        part: sorted(exam.exam_id for exam in exams.values() if partition.part[exam.patient_id] == part)
        for part in PARTS
    }
    write_json(path, {**now, "patients": dict(sorted(patients.items())), "folds": dict(sorted(folds.items()))})


def _folds(
    traits: Mapping[str, frozenset[str]], part: Mapping[str, str], seed: int, known: Mapping[str, str]
) -> tuple[dict[str, int], int]:
    """Fold of every unit that is not for the test: validating units are fold 0, training units share the others."""
    validating = [unit for unit, where in part.items() if where == "val"]
    training = {unit: traits[unit] for unit, where in part.items() if where == "train"}
    first = 1 if validating else 0
    count = min(FOLDS - first, len(training))
    fold = dict.fromkeys(validating, 0)
    if count:
        names = [str(first + n) for n in range(count)]
        dealt = assign(training, dict.fromkeys(names, 1 / count), seed=seed, earlier=known)
        fold |= {unit: int(name) for unit, name in dealt.items()}
    return fold, first + count
