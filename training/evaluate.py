"""`petground evaluate`: does the model find what the sentence says, and does it read the sentence at all?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from petground.labeling.body import right_of_midline_mm
from petground.labeling.errors import ConfigError, InputError, PetgroundError
from petground.labeling.volume import Unit, Volume, require_same_grid
from petground.pipeline.files import sha256_of, write_csv, write_json
from petground.pipeline.nifti import read_nifti
from petground.pipeline.progress import progress
from petground.pipeline.schemas import read_table
from petground.pipeline.splits import patient_hash
from petground.training.controls import shuffled_among_exams
from petground.training.figures import Answers, figures_of
from petground.training.metrics import RULES, Component, Score, missed, score_component, size_class, uptake_class
from petground.training.plots import logs_of_run, plot_dice, plot_precision_recall, plot_training
from petground.training.references import Reference, from_labels, from_truth
from petground.training.work import names_one_side, swap_sides

__all__ = ["evaluate"]

Prompts = Mapping[str, Sequence[str | None]]  # run -> the sentence each reference gets; None: there is none
Split = Literal["train", "val", "test", "all"]


def evaluate(
    labels: Path,
    checkpoint: Path,
    out: Path,
    *,
    truth: Path | None = None,
    split: Split = "test",
    controls: bool = True,
    device: str = "auto",
    seed: int = 0,
) -> int:
    """Measures a checkpoint: F1, Dice, precision-recall, and two controls that show whether the text is used.

    Writes OUT/metrics.json, predictions.csv (a row per reference), precision_recall.png, dice.png and, when the run's
    metrics.csv lies beside the checkpoint, training.png.

    Args:
        labels: Folder of `petground label` (WORK): its labels are what the masks are measured against.
        checkpoint: A .ckpt file of `petground train`.
        out: Folder for figures, plots and the table.
        truth: Folder of `petground phantom`: measure against its true masks instead of the weak labels.
        split: Which exams: train or val of the run, test (those that the run never saw), or all.
        controls: Also run with sentences shuffled among exams and with an empty sentence.
        device: auto, cpu, cuda, mps.
        seed: Of the shuffling and of the intervals' drawings.
    """
    from petground.training.inference import load_module

    started = time.monotonic()
    console = Console()
    module = load_module(checkpoint, device=device)
    exams = _exams_of(labels, module.provenance, split, console)
    read = {"prompt": getattr(module, "prompt", "words")}
    references = from_truth(labels, truth, exams, **read) if truth is not None else from_labels(labels, exams, **read)
    if not references:
        raise InputError(
            f"no {'reported lesion' if truth else 'label'} among the exams of split '{split}'",
            fix="try --split all, or look into summary.json of the labelling run",
        )
    prompts, donors = _prompts(references, controls, seed)
    answers = _answer_all(module, labels, references, prompts, console)
    asked = {run: [sentence is not None for sentence in said] for run, said in prompts.items()}
    figures = {
        "checkpoint": {"file": checkpoint.name, "sha256": sha256_of(checkpoint)},
        "split": split,
        "threshold": module.threshold,
        "measured_against": "truth" if truth is not None else "weak labels",
        "references": len(references),
        "exams": len({r.exam_id for r in references}),
        "patients": len({r.patient_id for r in references}),
        "without_sentence": sum(r.prompt is None for r in references),
        **figures_of(references, answers, donors, asked),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(out / "metrics.json", figures)
    write_csv(out / "predictions.csv", _rows(references, answers))
    drawn = _draw(out, checkpoint, references, answers["right"])
    _show(console, figures, [out / "metrics.json", out / "predictions.csv", *drawn])
    return 0


def _exams_of(labels: Path, provenance: Mapping[str, Any], split: str, console: Console) -> set[str] | None:
    """Exam ids of a split, or None for all: asked for, or the run saw none of these exams and patients.

    provenance: the run's, as its checkpoint holds it. "test" is every exam of a patient that no fit of these weights
    trained or validated on, here or in another folder; "val" leaves out what an earlier fit trained on.
    """
    patient_of = {r["exam_id"]: r["patient_id"] or r["exam_id"] for r in read_table(labels / "exams.parquet", "exams")}
    if split == "all":
        return None
    splits: Mapping[str, Sequence[str]] = provenance.get("splits") or {}
    trained = {*splits.get("train", ()), *provenance.get("trained_on", ())}
    exams = trained.union(*splits.values(), provenance.get("validated_on", ()))
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


def _prompts(references: Sequence[Reference], controls: bool, seed: int) -> tuple[Prompts, list[int] | None]:
    """What is asked for each reference in each run, and whose sentence it gets when shuffled."""
    right = [r.prompt for r in references]
    if not controls:
        return {"right": right}, None
    prompts: dict[str, list[str | None]] = {"right": right}
    known = [i for i, prompt in enumerate(right) if prompt is not None]
    drawn = shuffled_among_exams([references[i].exam_id for i in known], [right[i] or "" for i in known], seed=seed)
    donors = None
    if drawn is not None:
        donors = list(range(len(references)))
        for i, donor in zip(known, drawn, strict=True):
            donors[i] = known[donor]
        prompts["shuffled"] = [right[donors[i]] for i in range(len(references))]
    prompts["swapped"] = _swapped(references)
    prompts["empty"] = [None if prompt is None else "" for prompt in right]
    return prompts, donors


def _swapped(references: Sequence[Reference]) -> list[str | None]:
    """Each sentence that names one side, about the other side, where its report tells of no lesion there."""
    told = {(r.exam_id, (r.site or "").lower(), r.laterality) for r in references}
    swapped: list[str | None] = []
    for r in references:
        other = {"left": "right", "right": "left"}.get(r.laterality or "")
        one_side = r.prompt is not None and names_one_side(r.prompt)
        absent = other is not None and (r.exam_id, (r.site or "").lower(), other) not in told
        swapped.append(swap_sides(r.prompt) if one_side and absent and r.prompt is not None else None)
    return swapped


def _answer_all(
    module: Any, work: Path, references: Sequence[Reference], prompts: Prompts, console: Console
) -> dict[str, list[Score]]:
    """Every run's score of every reference; an exam is read and encoded once for all its sentences."""
    files = {row["exam_id"]: row for row in read_table(work / "exams.parquet", "exams")}
    answers: dict[str, list[Score]] = {run: [missed()] * len(references) for run in prompts}
    by_exam: dict[str, list[int]] = {}
    for i, reference in enumerate(references):
        by_exam.setdefault(reference.exam_id, []).append(i)
    with progress(console) as tick:
        for done, (exam_id, members) in enumerate(by_exam.items(), start=1):
            row = files[exam_id]
            if row["pet_path"] is not None:  # else the labelling run could not read it: its lesions are missed
                pet = _read(work / row["pet_path"], "SUVbw", exam_id)
                ct = _read(work / row["ct_path"], "HU", exam_id) if row["ct_path"] else None
                for run, i, score in _answer_exam(module, pet, ct, [(i, references[i]) for i in members], prompts):
                    answers[run][i] = score
            tick("exams", done, len(by_exam))
    return answers


def _answer_exam(
    module: Any, pet: Volume, ct: Volume | None, references: Sequence[tuple[int, Reference]], prompts: Prompts
) -> Iterator[tuple[str, int, Score]]:
    """(run, reference's number, score) of one exam; each distinct sentence is decoded once."""
    from petground.training.inference import ground_volumes

    masks = {i: _reference_mask(pet, reference) for i, reference in references}
    asked: dict[str, list[tuple[str, int]]] = {}
    for run, sentences in prompts.items():
        for i, _ in references:
            sentence = sentences[i]
            if sentence is not None:
                asked.setdefault(sentence, []).append((run, i))
    suv = {i: r.suv for i, r in references}
    for answer in ground_volumes(module, pet, ct, list(asked)):
        component = Component(answer.mask, answer.presence)
        right_mm = None if answer.voxel_ijk is None else right_of_midline_mm(answer.voxel_ijk, pet, ct)
        for run, i in asked[answer.sentence]:
            score = score_component(component, masks[i], pet.array, suv_reference=suv[i], voxel_ml=pet.voxel_ml)
            yield run, i, replace(score, right_mm=right_mm)


def _reference_mask(pet: Volume, reference: Reference) -> NDArray[np.bool_]:
    case = f"{reference.exam_id}/{reference.key}"
    mask = _read(reference.mask_path, "label", case)
    require_same_grid(pet, mask, case=case)
    if not mask.array.any():
        raise InputError("the reference mask is empty", case=case, fix="label this exam again")
    inside: NDArray[np.bool_] = mask.array > 0
    return inside


def _read(path: Path, unit: Unit, case: str) -> Volume:
    try:
        return read_nifti(path, unit)
    except PetgroundError as error:
        error.case = error.case or case
        raise


def _rows(references: Sequence[Reference], answers: Answers) -> list[dict[str, Any]]:
    """A row per reference, without report text."""
    rows = []
    for i, reference in enumerate(references):
        row: dict[str, Any] = {
            "exam_id": reference.exam_id,
            "key": reference.key,
            "patient_id": reference.patient_id,
            "tracer": reference.tracer,
            "suv": round(reference.suv, 3),
            "volume_ml": round(reference.volume_ml, 4),
            "size": size_class(reference.volume_ml),
            "uptake": uptake_class(reference.suv),
            "laterality": reference.laterality,
            "site": reference.site,
            "has_sentence": reference.prompt is not None,
        }
        for run, scores in answers.items():
            score = scores[i]
            row |= {
                f"{run}_answered": score.answered,
                f"{run}_presence": round(score.presence, 4),
                f"{run}_dice": round(score.dice, 4),
                f"{run}_suv": round(score.suv, 3) if score.answered else None,
                f"{run}_volume_ml": round(score.volume_ml, 4),
                f"{run}_right_mm": None if score.right_mm is None else round(score.right_mm, 1),
                **{f"{run}_hit_{rule}": score.hit(rule) for rule in RULES},
            }
        rows.append(row)
    return rows


def _draw(out: Path, checkpoint: Path, references: Sequence[Reference], right: Sequence[Score]) -> list[Path]:
    plot_precision_recall(out / "precision_recall.png", references, right)
    plot_dice(out / "dice.png", references, right)
    drawn = [out / "precision_recall.png", out / "dice.png"]
    if plot_training(out / "training.png", logs_of_run(checkpoint)):
        drawn.append(out / "training.png")
    return drawn


def _show(console: Console, figures: Mapping[str, Any], files: Sequence[Path]) -> None:
    """The table a person wants to see first."""
    of = f"{figures['references']} references of {figures['exams']} exams, {figures['measured_against']}"
    table = Table(title=of, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("sentence", "F1 (paper)", "F1 (overlap)", "mean Dice"):
        table.add_column(name, justify="left" if name == "sentence" else "right", no_wrap=True)
    for run, values in figures["runs"].items():
        cells = (values["f1"]["paper"], values["f1"]["overlap"], values["mean_dice"])
        table.add_row(run, *(_cell(c) for c in cells))
    console.print(table)
    for path in files:
        console.print(f"  {path}", highlight=False, soft_wrap=True)


def _cell(estimate: Mapping[str, float | None]) -> str:
    if estimate["value"] is None:
        return "-"
    interval = "" if estimate["low"] is None else f" ({estimate['low']:.2f}-{estimate['high']:.2f})"
    return f"{estimate['value']:.2f}{interval}"
