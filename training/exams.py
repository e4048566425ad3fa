"""Which exams an evaluation takes: those that the weights have never seen, unless others are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from petground.labeling.errors import ConfigError
from petground.pipeline.schemas import read_table
from petground.pipeline.splits import patient_hash, read_splits

__all__ = ["exams_of", "learnt_from", "splits_of"]


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
    seen = _seen(patient_of, provenance, "trained") | _seen(patient_of, provenance, "validated")
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


def learnt_from(labels: Path, provenance: Mapping[str, Any], exams: Collection[str]) -> dict[str, int]:
    """How many of the exams are of patients that the weights "trained" on; and of others that "validated": these chose
    among checkpoints and set the limits."""
    patient_of = {r["exam_id"]: r["patient_id"] or r["exam_id"] for r in read_table(labels / "exams.parquet", "exams")}
    own = {exam: patient_of[exam] for exam in exams}
    trained = _seen(own, provenance, "trained")
    return {"trained": len(trained), "validated": len(_seen(own, provenance, "validated") - trained)}


def _seen(patient_of: Mapping[str, str], provenance: Mapping[str, Any], how: str) -> set[str]:
    """Exams of patients that the run trained or validated on. how: "trained", "validated"."""
    split = {"trained": "train", "validated": "val"}[how]
    exams = {*(provenance.get("splits") or {}).get(split, ()), *provenance.get(f"{how}_on", ())}
    hashes = {*provenance.get(f"{how}_patients", ())}
    hashes |= {patient_hash(patient_of[exam]) for exam in exams & patient_of.keys()}
    return {exam for exam, patient in patient_of.items() if exam in exams or patient_hash(patient) in hashes}


def splits_of(path: Path, labels: Path) -> Mapping[str, Sequence[str]]:
    """The splits.json of a run, by the exams of a labelling run."""
    rows = read_table(labels / "exams.parquet", "exams")
    return read_splits(path, {row["exam_id"]: row["patient_id"] or row["exam_id"] for row in rows})
