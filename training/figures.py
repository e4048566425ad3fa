"""From scores to figures: F1 with intervals, controls, and the same by tracer, size and uptake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from petground.labeling.body import towards_side_mm
from petground.pipeline.sides import CLEAR_SIDE_MM
from petground.training.bootstrap import estimate, f1_of, mean_of, share
from petground.training.metrics import RULES, Score, counts, f1, precision_recall, size_class, uptake_class
from petground.training.presence import auroc, calibration
from petground.training.references import Reference

__all__ = ["figures_of"]

SITE_COUNT = 5  # fewer references of a site tell nothing by themselves
Answers = Mapping[str, Sequence[Score]]  # run -> one score per reference


def figures_of(
    references: Sequence[Reference],
    answers: Answers,
    nowhere: Mapping[str, Sequence[int]],
    *,
    presence: bool = True,
    unlabelled: Sequence[tuple[Reference, Score]] = (),
) -> dict[str, Any]:
    """All figures of an evaluation as JSON.

    answers: "right" and, with controls, "shuffled", "swapped", "denied" and "empty"; nowhere: of shuffled, swapped and
    denied the references whose sentence is about nothing there (`controls.questions`); presence: whether a presence is
    told; unlabelled: answers to what the reports of exams without a reference deny. `f1` and `f1_overlap` (by overlap
    alone), counts, medians and average_precision are plain numbers, everything else is an estimate {value, low, high,
    n}: 95 % bootstrap interval over patients, n references. presence_auroc and presence_calibration compare right
    sentences with those about nothing there. mean_dice is of the answers' outlines, mean_dice_as_marked of the model's
    own masks: they differ where outlines were drawn anew on the PET.
    """
    patients = [r.patient_id for r in references]

    def of(members: Sequence[int], run: str = "right") -> dict[str, Any]:
        return _run_figures([answers[run][i] for i in members], [patients[i] for i in members])

    everything = range(len(references))
    runs = {
        run: of(everything, run) for run in answers if run not in ("swapped", "denied")
    }  # those have nothing to hit
    groups: dict[str, Callable[[Reference], str]] = {
        "tracer": lambda r: r.tracer,
        "size": lambda r: size_class(r.volume_ml),
        "uptake": lambda r: uptake_class(r.suv),
        "laterality": lambda r: r.laterality or "midline or not told",
        "site": _site_names(references),
    }
    by: dict[str, Any] = {}
    for name, key in groups.items():
        keys = [key(r) for r in references]
        by[name] = {value: of([i for i in everything if keys[i] == value]) for value in sorted(set(keys), key=_rank)}
    figures: dict[str, Any] = {
        "f1": {run: values["f1"]["paper"]["value"] for run, values in runs.items()},
        "f1_overlap": {run: values["f1"]["overlap"]["value"] for run, values in runs.items()},
        "runs": runs,
        "by": by,
        "average_precision": {rule: precision_recall(answers["right"], rule).average_precision for rule in RULES},
        "left_right_confusion": _confusion(references, answers["right"]),
    }
    said = [(answers["right"][i].presence, True, patients[i]) for i in everything if references[i].prompt is not None]
    if "shuffled" in answers:
        figures["right_minus_shuffled"] = {
            rule: _difference(answers["right"], answers["shuffled"], patients, rule) for rule in RULES
        }
    for run, name in (("shuffled", "absent"), ("swapped", "swapped"), ("denied", "denied")):
        if run in answers:
            figures[f"false_positives_per_{name}_sentence"] = _answered(answers[run], patients, nowhere[run])
            said += [(answers[run][i].presence, False, patients[i]) for i in nowhere[run]]
    if presence and not all(there for _, there, _ in said):
        figures["presence_auroc"] = auroc(*zip(*said, strict=True)).as_json()
        figures["presence_calibration"] = calibration(*zip(*said, strict=True))
    if unlabelled:
        bare, found = zip(*unlabelled, strict=True)
        figures["unlabelled_exams"] = len({one.exam_id for one in bare})
        figures["false_positives_in_unlabelled_exams"] = _answered(
            found, [r.patient_id for r in bare], range(len(bare))
        )
    if "empty" in answers:
        asked = [i for i in everything if references[i].prompt is not None]
        figures["false_positives_per_empty_sentence"] = _answered(answers["empty"], patients, asked)
    return figures


def _site_names(references: Sequence[Reference]) -> Callable[[Reference], str]:
    """Sites with at least SITE_COUNT references by name, the others together."""
    counted = Counter((r.site or "").lower() for r in references)
    return lambda r: name if counted[name := (r.site or "").lower()] >= SITE_COUNT and name else "other"


def _confusion(references: Sequence[Reference], right: Sequence[Score]) -> dict[str, Any]:
    """Of answers to sentences that name a side, how many lie CLEAR_SIDE_MM or more on the other one."""
    rows, patients = [], []
    for reference, score in zip(references, right, strict=True):
        into = towards_side_mm(score.right_mm, reference.laterality)
        if into is not None:
            rows.append([float(into <= -CLEAR_SIDE_MM), float(into > -CLEAR_SIDE_MM)])
            patients.append(reference.patient_id)
    return share(np.array(rows), patients).as_json()


def _run_figures(scores: Sequence[Score], patients: Sequence[str]) -> dict[str, Any]:
    rules = {rule: counts(scores, rule) for rule in RULES}
    answered = np.array([s.answered for s in scores], dtype=float)
    ones = np.ones(len(scores))
    dices, own = (np.array(values) for values in ([s.dice for s in scores], [s.own_dice for s in scores]))
    found = [i for i, s in enumerate(scores) if s.overlap]
    return {
        "n": len(scores),
        "f1": {rule: f1_of(c, patients).as_json() for rule, c in rules.items()},
        "precision": {rule: share(c[:, [0, 1]], patients).as_json() for rule, c in rules.items()},
        "recall": {rule: share(c[:, [0, 2]], patients).as_json() for rule, c in rules.items()},
        "mean_dice": estimate(np.stack([dices, ones], axis=1), patients, mean_of).as_json(),
        "mean_dice_as_marked": estimate(np.stack([own, ones], axis=1), patients, mean_of).as_json(),
        "median_dice_of_overlapping": float(np.median(dices[found])) if found else None,
        "answered": share(np.stack([answered, ones - answered], axis=1), patients).as_json(),
        "counts": {
            rule: dict(zip(("tp", "fp", "fn"), map(int, c.sum(axis=0)), strict=True)) for rule, c in rules.items()
        },
    }


def _difference(a: Sequence[Score], b: Sequence[Score], patients: Sequence[str], rule: str) -> dict[str, Any]:
    """F1 of a minus F1 of b over the same drawings of patients."""
    both = np.concatenate([counts(a, rule), counts(b, rule)], axis=1)
    return estimate(both, patients, lambda sums: f1(sums[..., :3]) - f1(sums[..., 3:])).as_json()


def _answered(scores: Sequence[Score], patients: Sequence[str], members: Sequence[int]) -> dict[str, Any]:
    rows = np.array([[float(scores[i].answered), float(not scores[i].answered)] for i in members])
    return share(rows, [patients[i] for i in members]).as_json()


def _rank(name: str) -> tuple[float, str]:
    """Classes by their lower edge ("<10 mm", "10-20 mm", ">=40 mm"), names by the alphabet."""
    number = name.lstrip("<>=").split("-")[0].split(" ")[0]
    return (float(number) - 0.5 * name.startswith("<") if number.isdigit() else 0.0, name)
