"""Which exams an evaluation takes: those that the weights have never seen, unless others are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from petground.labeling.errors import ConfigError
from petground.pipeline.schemas import read_table
from petground.pipeline.splits import patient_hash, read_splits

__all__ = ["exams_of", "splits_of"]


def exams_of(labels: Path, provenance: Mapping[str, Any], split: str, console: Console) -> set[str] | None:
    """Exam ids of a split, or None for all: asked for, or the run saw none of these exams and patients.

    provenance: the run's, as its checkpoint holds it. "test" is every exam of a patient that no fit of these weights
    trained or validated on, here or in another folder, so those that a run kept for it; "val" leaves out what an
    earlier fit trained on.
    """
    patient_of = {r["exam_id"]: r["patient_id"] or r["exam_id"] for r in read_table(labels / "exams.parquet", "exams")}
    if split == "all":
        return None
    splits: Mapping[str, Sequence[str]] = provenance.get("splits") or {}
    if not provenance:
        console.print("All exams are measured.", highlight=False)
        return None
    trained = {*splits.get("train", ()), *provenance.get("trained_on", ())}
    exams = trained.union(splits.get("val", ()), provenance.get("validated_on", ()))
    hashes = {*provenance.get("trained_patients", ()), *provenance.get("validated_patients", ())}
    hashes |= {patient_hash(patient_of[exam]) for exam in exams & patient_of.keys()}
    seen = {exam for exam, patient in patient_of.items() if exam in exams or patient_hash(patient) in hashes}
    if not seen:
        console.print("The run saw none of these exams: all are measured.", highlight=False)
        return None
    if split == "test":
        patients = len({patient_of[exam] for exam in seen})
        console.print(
            f"Left out: {len(seen)} of {len(patient_of)} exams, whose {patients} patients the run has seen.",
            highlight=False,
        )
        return patient_of.keys() - seen
    if split not in splits:
        raise ConfigError(f"the run has no split '{split}'", fix=f"one of {', '.join([*splits, 'test', 'all'])}")
    return set(splits[split]) - (trained if split == "val" else set())


def splits_of(path: Path, labels: Path) -> Mapping[str, Sequence[str]]:
    """The splits.json of a run, by the exams of a labelling run."""
    rows = read_table(labels / "exams.parquet", "exams")
    return read_splits(path, {row["exam_id"]: row["patient_id"] or row["exam_id"] for row in rows})
