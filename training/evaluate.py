"""`petground evaluate`: does the model find what the sentence says, and does it read the sentence at all?"""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.denied import read_denials
from petground.pipeline.files import write_csv, write_json
from petground.pipeline.redraw import Redraw
from petground.pipeline.schemas import read_table
from petground.training.answering import Answered, Asked, answer_all
from petground.training.controls import FEW, Question, questions
from petground.training.exams import exams_of, learnt_from, splits_of
from petground.training.figures import Answers, figures_of
from petground.training.metrics import (
    RULES,
    Score,
    size_class,
    uptake_class,
)
from petground.training.pages import LEARNT, SAYS_NO, cell, write_evaluation
from petground.training.plots import logs_of_run, plot_dice, plot_precision_recall, plot_training
from petground.training.references import Reference, from_labels, from_truth, nothing_there, places_here
from petground.training.work import denied_sentences, some_of

__all__ = ["evaluate"]

SOME_FAILED = 3
_DENIED = "denied in exams without a label"
_NO_REFERENCE = (
    "keep exams for it when training (--data.test_fraction 0.1), or evaluate another --labels; --split all measures "
    "exams that were learnt from, too",
    "look into summary.json of the labelling run",
)
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
    Stopped, the same command goes on with the exam that it was at. Exams that cannot be read are in no figure; they are
    named, and the exit code is 3.

    Args:
        labels: Folder of `petground label` (WORK): its labels are what the masks are measured against.
        checkpoint: A .ckpt file of `petground train`; needed unless a peer is asked.
        out: Folder for figures, plots and the table.
        truth: Folder of `petground phantom`: measure against its true masks instead of the weak labels.
        split: Which exams: train or val of the run, test (those that the run never saw), or all.
        controls: Also run with sentences shuffled among exams, about the other side, with those by
            which the report denies a lesion (exams without a label are asked these, too), and with an empty sentence.
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
    provenance = by.provenance if splits is None else {"splits": splits_of(splits, labels)}
    exams = exams_of(labels, provenance, split, console)
    references = (
        from_truth(labels, truth, exams, prompt=by.reads)
        if truth is not None
        else from_labels(labels, exams, prompt=by.reads)
    )
    if not references:
        raise InputError(
            f"no {'reported lesion' if truth else 'label'} among the exams of split '{split}'",
            fix=_NO_REFERENCE[split == "all"],
        )
    here = places_here(labels, references, truth)
    denied = denied_sentences(read_table(labels / "findings.parquet", "findings"), by.reads, here, read_denials(labels))
    asked = questions(references, here, denied, controls=controls, seed=seed)
    others = (denied.keys() if exams is None else exams & denied.keys()) - {r.exam_id for r in references}
    unlabelled = nothing_there(
        labels, {one: some_of(denied[one], one, FEW, seed) for one in others} if controls else {}
    )
    who = (checkpoint and checkpoint.name, outline, peer, peer_python, peer_model, peer_image)
    answered = answer_all(
        by, who, labels, [*references, *unlabelled], _all_asked(asked.asked, unlabelled), out / "unfinished", console
    )
    references, answers, nowhere, denying = _measured(references, unlabelled, answered, asked.nowhere)
    figures = {
        "checkpoint": None if checkpoint is None else {"file": checkpoint.name, "sha256": by.facts["sha256"]},
        "peer": None if peer is None else by.facts,
        "split": split,
        "threshold": by.facts.get("threshold"),
        "presence_threshold": by.facts.get("presence_threshold"),
        "presence_head": bool(by.facts.get("presence_head")),
        "outline": answered.outlines,
        "measured_against": "truth" if truth is not None else "weak labels",
        "references": len(references),
        "exams": len({r.exam_id for r in references}),
        "patients": len({r.patient_id for r in references}),
        "without_sentence": sum(r.prompt is None for r in references),
        "failed": answered.failed,
        "learnt_from": learnt_from(labels, provenance, {r.exam_id for r in references}),
        **figures_of(references, answers, nowhere, presence=peer is None, unlabelled=denying),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(out / "metrics.json", figures)
    rows = _rows(references, answers)
    write_csv(out / "predictions.csv", rows)
    drawn = _draw(out, checkpoint, references, answers["right"])
    write_evaluation(out / "evaluation.html", figures, rows, drawn)
    _show(console, figures, [out / "evaluation.html", out / "metrics.json", out / "predictions.csv", *drawn])
    return SOME_FAILED if answered.failed else 0


def _all_asked(asked: Mapping[str, Sequence[Question | None]], unlabelled: Sequence[Reference]) -> Asked:
    """What the references are asked; behind them, as a run of its own, what exams without a label deny."""
    none = [None] * len(next(iter(asked.values())))
    own = {_DENIED: [*none, *(Question(str(one.prompt)) for one in unlabelled)]} if unlabelled else {}
    return {run: [*of, *([None] * len(unlabelled))] for run, of in asked.items()} | own


def _measured(
    references: Sequence[Reference],
    unlabelled: Sequence[Reference],
    answered: Answered,
    nowhere: Mapping[str, Sequence[int]],
) -> tuple[list[Reference], dict[str, list[Score]], dict[str, list[int]], list[tuple[Reference, Score]]]:
    """References, answers and `nowhere`, and the unlabelled exams' answers, less those of exams that failed."""
    kept = [i for i, reference in enumerate(references) if reference.exam_id not in answered.failed]
    new = {i: n for n, i in enumerate(kept)}
    answers = {run: [scores[i] for i in kept] for run, scores in answered.answers.items() if run != _DENIED}
    said = answered.answers.get(_DENIED, [])[len(references) :]
    return (
        [references[i] for i in kept],
        answers,
        {run: [new[i] for i in at if i in new] for run, at in nowhere.items()},
        [(one, score) for one, score in zip(unlabelled, said, strict=True) if one.exam_id not in answered.failed],
    )


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
    (out / "training.png").unlink(missing_ok=True)  # of another checkpoint, evaluated here before
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
    if any(figures["learnt_from"].values()):
        console.print(LEARNT.format(**figures["learnt_from"], exams=figures["exams"]), style="bold yellow")
    for error in figures["failed"].values():
        console.print(f"not measured: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    for path in files:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
