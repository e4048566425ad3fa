"""`petground evaluate`: does the model find what the sentence says, and does it read the sentence at all?"""

from __future__ import annotations

import pkgutil
import time
from collections import Counter
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
from petground.labeling.site import Site
from petground.labeling.volume import Unit, Volume, require_same_grid
from petground.pipeline.dates import iso_date
from petground.pipeline.denied import read_denials
from petground.pipeline.files import write_csv, write_json
from petground.pipeline.nifti import read_nifti
from petground.pipeline.progress import progress
from petground.pipeline.redraw import Redraw
from petground.pipeline.schemas import read_table
from petground.pipeline.settings_file import site_of_work
from petground.training.controls import Question, questions
from petground.training.exams import exams_of, splits_of
from petground.training.figures import Answers, figures_of
from petground.training.metrics import (
    RULES,
    Component,
    Score,
    dice,
    missed,
    score_component,
    size_class,
    uptake_class,
)
from petground.training.pages import SAYS_NO, cell, write_evaluation
from petground.training.plots import logs_of_run, plot_dice, plot_precision_recall, plot_training
from petground.training.references import Reference, from_labels, from_truth, places_here
from petground.training.work import denied_sentences

__all__ = ["evaluate"]

Asked = Mapping[str, Sequence[Question | None]]  # run -> what each reference is asked; None: there is no sentence
Split = Literal["train", "val", "test", "all"]


def evaluate(
    labels: Path,
    checkpoint: Path | None,
    out: Path,
    *,
    truth: Path | None = None,
    split: Split = "test",
    controls: bool = True,
    device: str = "auto",
    seed: int = 0,
    peer: Literal["voxtell"] | None = None,
    peer_python: Path | None = None,
    peer_model: Path | None = None,
    peer_image: Literal["pet", "ct"] | None = None,
    splits: Path | None = None,
    outline: Redraw = "auto",
) -> int:
    """Measures a checkpoint or a peer: F1, Dice, precision-recall, and controls that show whether the text is used.

    Writes OUT/metrics.json, evaluation.html, predictions.csv (a row per reference), precision_recall.png, dice.png and,
    when the run's metrics.csv lies beside the checkpoint, training.png. Sentences are asked as `petground ground` does.

    Args:
        labels: Folder of `petground label` (WORK): its labels are what the masks are measured against.
        checkpoint: A .ckpt file of `petground train`; needed unless a peer is asked.
        out: Folder for figures, plots and the table.
        truth: Folder of `petground phantom`: measure against its true masks instead of the weak labels.
        split: Which exams: train or val of the run, test (those that the run never saw), or all.
        controls: Also run with sentences shuffled among exams, about the other side, with those by
            which the report denies a lesion, and with an empty sentence.
        device: auto, cpu, cuda, mps.
        seed: Of the shuffling and of the intervals' drawings.
        peer: Measure this model instead of a checkpoint (docs/peers.md).
        peer_python: The Python of the environment that the peer is installed in; default: this one.
        peer_model: Folder of the peer's model; default: $VOXTELL_MODEL, else what the peer fetches.
        peer_image: What the peer reads: pet [SUVbw] (default) or ct [HU].
        splits: splits.json of a run: a peer is measured on the exams that this run's --split names. A checkpoint
            knows its own.
        outline: Whose outline is measured, as `petground ground --outline`: the model's, the PET's, or auto. Weak
            labels were drawn by the same rules as the PET's outlines: against them these tell only that the same
            maximum was found, and `mean_dice_as_marked` tells of the model's own masks.
    """
    if splits is not None and peer is None:
        raise ConfigError("--splits is for a peer: a checkpoint knows its own", fix="leave it out")
    started = time.monotonic()
    console = Console()
    by = pkgutil.resolve_name("petground.pipeline.ground_by:chosen")(  # by string: see there
        peer, checkpoint, device, None, (peer_python, peer_model, peer_image), outline
    )
    exams = exams_of(labels, by.provenance if splits is None else {"splits": splits_of(splits, labels)}, split, console)
    references = (
        from_truth(labels, truth, exams, prompt=by.reads)
        if truth is not None
        else from_labels(labels, exams, prompt=by.reads)
    )
    if not references:
        raise InputError(
            f"no {'reported lesion' if truth else 'label'} among the exams of split '{split}'",
            fix="try --split all, or look into summary.json of the labelling run",
        )
    here = places_here(labels, references, truth)
    denied = denied_sentences(read_table(labels / "findings.parquet", "findings"), by.reads, here, read_denials(labels))
    asked = questions(references, here, denied, controls=controls, seed=seed)
    answers, outlines = _answer_all(by, labels, references, asked.asked, console)
    figures = {
        "checkpoint": None if checkpoint is None else {"file": checkpoint.name, "sha256": by.facts["sha256"]},
        "peer": None if peer is None else by.facts,
        "split": split,
        "threshold": by.facts.get("threshold"),
        "presence_threshold": by.facts.get("presence_threshold"),
        "outline": outlines,
        "measured_against": "truth" if truth is not None else "weak labels",
        "references": len(references),
        "exams": len({r.exam_id for r in references}),
        "patients": len({r.patient_id for r in references}),
        "without_sentence": sum(r.prompt is None for r in references),
        **figures_of(references, answers, asked.nowhere, presence=peer is None),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(out / "metrics.json", figures)
    rows = _rows(references, answers)
    write_csv(out / "predictions.csv", rows)
    drawn = _draw(out, checkpoint, references, answers["right"])
    write_evaluation(out / "evaluation.html", figures, rows, drawn)
    _show(console, figures, [out / "evaluation.html", out / "metrics.json", out / "predictions.csv", *drawn])
    return 0


def _answer_all(
    by: Any, work: Path, references: Sequence[Reference], asked: Asked, console: Console
) -> tuple[dict[str, list[Score]], dict[str, int]]:
    """Every run's score of every reference; an exam is read and encoded once for all its sentences.

    And how many exams' answers had the model's outline, or the PET's.
    """
    files = {row["exam_id"]: row for row in read_table(work / "exams.parquet", "exams")}
    answers: dict[str, list[Score]] = {run: [missed()] * len(references) for run in asked}
    outlines: Counter[str] = Counter()
    site = site_of_work(work) or Site()
    by_exam: dict[str, list[int]] = {}
    for i, reference in enumerate(references):
        by_exam.setdefault(reference.exam_id, []).append(i)
    with progress(console) as tick:
        for done, (exam_id, members) in enumerate(by_exam.items(), start=1):
            row = files[exam_id]
            if row["pet_path"] is not None:  # else the labelling run could not read it: its lesions are missed
                pet = _read(work / row["pet_path"], "SUVbw", exam_id)
                ct = _read(work / row["ct_path"], "HU", exam_id) if row["ct_path"] else None
                counted = site.for_exam(row["scanner"], iso_date(row["study_date"]))
                for run, i, score in _answer_exam(by, pet, ct, counted, {i: references[i] for i in members}, asked):
                    answers[run][i] = score
                outlines[by.facts["outline"]] += 1
            tick("exams", done, len(by_exam))
    return answers, dict(outlines)


def _answer_exam(
    by: Any, pet: Volume, ct: Volume | None, site: Site, references: Mapping[int, Reference], asked: Asked
) -> Iterator[tuple[str, int, Score]]:
    """(run, reference's number, score) of one exam; each distinct question is asked once, as `petground ground` asks.

    Without a presence of its own an answer's is 1, that of an empty one 0.
    """
    one = pkgutil.resolve_name("petground.pipeline.ground_by:Asked")
    voxels = {i: np.flatnonzero(_reference_mask(pet, reference)) for i, reference in references.items()}
    runs: dict[Question, list[tuple[str, int]]] = {}
    for run, questions_of in asked.items():
        for i in references:
            question = questions_of[i]
            if question is not None:
                runs.setdefault(question, []).append((run, i))
    wanted = [one("", "", q.prompt, None, q.slice, series=q.series) for q in runs]
    case = next(iter(references.values())).exam_id
    answers = by.answers(pet, ct, site, wanted, case, lambda what, done, total: None)
    for question, answer in zip(runs, answers, strict=True):
        presence = float(answer.mask.any()) if answer.presence is None else answer.presence
        component = Component(answer.mask, presence)
        right_mm = None if answer.voxel_ijk is None else right_of_midline_mm(answer.voxel_ijk, pet, ct)
        for run, i in runs[question]:
            mask = np.zeros(pet.array.shape, dtype=np.bool_)  # one at a time: a whole body's is 100 MB
            mask.flat[voxels[i]] = True
            score = score_component(component, mask, pet.array, suv_reference=references[i].suv, voxel_ml=pet.voxel_ml)
            own = None if answer.marked is None else dice(answer.marked, mask)
            yield run, i, replace(score, right_mm=right_mm, marked_dice=own)


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
                f"{run}_dice_as_marked": round(score.own_dice, 4),
                f"{run}_suv": round(score.suv, 3) if score.answered else None,
                f"{run}_volume_ml": round(score.volume_ml, 4),
                f"{run}_right_mm": None if score.right_mm is None else round(score.right_mm, 1),
                **{f"{run}_hit_{rule}": score.hit(rule) for rule in RULES},
            }
        rows.append(row)
    return rows


def _draw(out: Path, checkpoint: Path | None, references: Sequence[Reference], right: Sequence[Score]) -> list[Path]:
    plot_precision_recall(out / "precision_recall.png", references, right)
    plot_dice(out / "dice.png", references, right)
    drawn = [out / "precision_recall.png", out / "dice.png"]
    if checkpoint is not None and plot_training(out / "training.png", logs_of_run(checkpoint)):
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
        table.add_row(run, *(cell(c) for c in cells))
    console.print(table)
    for key, words in SAYS_NO.items():
        if key in figures:
            console.print(f"{words}: {cell(figures[key])}", highlight=False)
    for path in files:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
