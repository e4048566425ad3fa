"""Fits labeling/confidence*.json, and measures the calibration on seeds that had no part in the fit.

    python benchmarks/calibrate_confidence.py            fit, then measure
    python benchmarks/run.py calibrate_confidence        measure: docs/results, docs/images/reliability.png

Simulated exams, whole-body phantoms and crops. More than half of the findings are told wrong on purpose: the slice off
by a little or a lot, the value off, mistyped or of another exam, the side wrong, or value and slice of another maximum;
crops hold neighbours that no report mentions. Half of the findings state a size, a little off. A label is right when it
overlaps the lesion that was meant with a Dice of 0.5 or more. `auto` has a model of its own; each rule that a site can
ask for has one of auto's confidence and of how the two outlines compare, fitted and measured on the crops.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petground.labeling.confidence import ASKED_DIRECTIONS, DIRECTIONS, FEATURES
from petground.labeling.finding import Finding, Label
from petground.labeling.label import label_exam
from petground.labeling.logistic import Logistic, fit_logistic, load_logistic
from petground.labeling.maxima import local_maxima
from petground.labeling.rules import RULES
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.phantom.crop import make_crop, told
from petground.pipeline.phantom.exam import make_exam

HERE = Path(__file__).resolve().parent
FIT = {"crop_seed": 21, "crops": 350, "exam_seed": 601, "exams": 40}
HELD_OUT = {"crop_seed": 22, "crops": 210, "exam_seed": 602, "exams": 30}
WRONG = 0.6  # of the findings
ROUNDS, CROP_ROUNDS = 5, 3  # each exam is told so many times, with other errors
ASKED_ROUNDS = 2
AUTO_RIDGE = 3e-3  # least log loss, tenfold on the labels of the fit
ASKED_RIDGE = 1e-3  # few features, many labels, and a steep step at half of the outline shared
SIZED, SIZE_SPREAD = 0.5, 0.2  # of the findings state a size; standard deviation of its logarithm
RIGHT_DICE = 0.5
BINS = 10
Truth = NDArray[np.bool_]


def main() -> None:
    rows = _labels(**FIT)
    _fit("confidence", rows, FEATURES, DIRECTIONS, AUTO_RIDGE)
    asked = _asked_labels(FIT["crop_seed"], FIT["crops"])
    for rule in RULES:
        here = [row for row in asked if row["rule"] == rule]
        _fit(f"confidence_{rule}", here, tuple(ASKED_DIRECTIONS), ASKED_DIRECTIONS, ASKED_RIDGE)
    sys.stdout.write(f"{measure()}\n")


def _fit(
    name: str, rows: list[dict[str, Any]], features: tuple[str, ...], directions: dict[str, int], ridge: float
) -> None:
    right = [row["right"] for row in rows]
    model = fit_logistic([row["measures"] for row in rows], right, features, directions=directions, ridge=ridge)
    text = model.as_json(made_by="python benchmarks/calibrate_confidence.py", labels=len(rows), seeds=FIT)
    (HERE.parent / "labeling" / f"{name}.json").write_text(text, encoding="utf-8")
    load_logistic.cache_clear()
    sys.stdout.write(f"{name}: fitted on {len(rows)} labels, {np.mean(right):.3f} of them right\n")


def measure() -> dict[str, Any]:
    model = load_logistic("confidence")
    rows = _labels(**HELD_OUT)
    _plot(rows, model, HERE.parent / "docs" / "images" / "reliability.png")
    told = {"event": f"Dice >= {RIGHT_DICE} with the lesion meant", "seeds": HELD_OUT}
    asked = _asked_labels(HELD_OUT["crop_seed"], HELD_OUT["crops"])
    by_rule = {
        rule: _summary([row for row in asked if row["rule"] == rule], load_logistic(f"confidence_{rule}"))
        for rule in RULES
    }
    return told | _figures(rows, model) | {"asked_rules_on_crops": by_rule}


def _figures(rows: list[dict[str, Any]], model: Logistic) -> dict[str, Any]:
    figures = {"all": _summary(rows, model)}
    for kind in ("crop", "whole body"):
        figures[kind] = _summary([row for row in rows if row["kind"] == kind], model)
    errors = sorted({row["error"] for row in rows})
    figures["by_error"] = {
        error: {
            "labels": len(here := [row for row in rows if row["error"] == error]),
            "right": round(float(np.mean([row["right"] for row in here])), 3),
            "mean_confidence": round(float(np.mean([model.probability(row["measures"]) for row in here])), 3),
        }
        for error in errors
    }
    return figures


def _summary(rows: list[dict[str, Any]], model: Logistic) -> dict[str, Any]:
    p = np.array([model.probability(row["measures"]) for row in rows])
    right = np.array([row["right"] for row in rows], float)
    positive, negative = p[right == 1], p[right == 0]
    auc = float((positive[:, None] > negative[None]).mean() + (positive[:, None] == negative[None]).mean() / 2)
    return {
        "labels": len(rows),
        "right": round(float(right.mean()), 3),
        "expected_calibration_error": round(calibration_error(p, right), 4),
        "the_same_in_bins_of_equal_count": round(calibration_error(p, right, equal_count=True), 4),
        "brier": round(float(((p - right) ** 2).mean()), 4),
        "auc": round(auc, 3),
        "lowest_and_highest": [round(float(p.min()), 3), round(float(p.max()), 3)],
        "below_a_half": round(float((p < 0.5).mean()), 3),
    }


def calibration_error(p: NDArray[Any], right: NDArray[Any], *, equal_count: bool = False) -> float:
    """Mean |confidence - share right| over bins, weighted by what lies in them (Guo et al., ICML 2017)."""
    total = 0.0
    for here in _bins(p, equal_count):
        total += len(here) / len(p) * abs(float(p[here].mean()) - float(right[here].mean()))
    return total


def _bins(p: NDArray[Any], equal_count: bool) -> list[NDArray[np.int64]]:
    if equal_count:
        return [part for part in np.array_split(np.argsort(p, kind="stable"), BINS) if len(part)]
    number = np.minimum((p * BINS).astype(int), BINS - 1)
    return [np.flatnonzero(number == n) for n in range(BINS) if (number == n).any()]


def _labels(crop_seed: int, crops: int, exam_seed: int, exams: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, pet, ct, pairs, rng, rounds in _exams(crop_seed, crops, exam_seed, exams):
        for _ in range(rounds):
            rows += [{"kind": kind} | row for row in _judged(pet, ct, pairs, rng, Site())]
    return rows


def _asked_labels(crop_seed: int, crops: int) -> list[dict[str, Any]]:
    """Every rule on the same findings of every crop; the numbers that a site can set take turns."""
    rows: list[dict[str, Any]] = []
    for number, (_, pet, ct, pairs, _, _) in enumerate(_exams(crop_seed, crops, 0, 0)):
        site = Site(contour_fraction=(0.41, 0.5)[number % 2], contour_suv=(4.0, 2.5)[number % 2])
        for again in range(ASKED_ROUNDS):
            for rule in RULES:
                rng = np.random.default_rng((crop_seed, number, 2 + again))
                asked = replace(site, contour=rule)  # type: ignore[arg-type]
                rows += [{"rule": rule} | row for row in _judged(pet, ct, pairs, rng, asked)]
    return rows


def _judged(
    pet: Volume, ct: Volume | None, pairs: list[tuple[Finding, Truth]], rng: np.random.Generator, site: Site
) -> Iterator[dict[str, Any]]:
    """The labels of one exam told once, with errors, and whether they are right."""
    errors, findings = zip(*(_spoilt(finding, rng, pet, truth) for finding, truth in pairs), strict=True)
    findings = tuple(_sized(finding, rng, pet, truth) for finding, (_, truth) in zip(findings, pairs, strict=True))
    for fate, error, (_, truth) in zip(label_exam(pet, findings, ct=ct, site=site), errors, pairs, strict=True):
        if isinstance(fate, Label):
            dice = 2 * (fate.mask & truth).sum() / (fate.mask.sum() + truth.sum())
            yield {"error": error, "right": bool(dice >= RIGHT_DICE), "measures": fate.measures}


def _sized(finding: Finding, rng: np.random.Generator, pet: Volume, truth: Truth) -> Finding:
    """The finding with its lesion's longest diameter, in half of the cases, as a radiologist may have measured it."""
    points = pet.to_world_mm(np.argwhere(truth))
    volume_mm3 = float(truth.sum()) * pet.voxel_ml * 1000
    longest = max(
        float(np.sqrt(5 * np.linalg.eigvalsh(np.cov(points.T))[-1])) * 2 if len(points) > 8 else 0.0,
        (6 * volume_mm3 / np.pi) ** (1 / 3),
    )
    told = round(longest * float(np.exp(rng.normal(0, SIZE_SPREAD))))
    return replace(finding, size_mm=float(max(told, 3))) if rng.random() < SIZED else finding


def _exams(
    crop_seed: int, crops: int, exam_seed: int, exams: int
) -> Iterator[tuple[str, Volume, Volume | None, list[tuple[Finding, Truth]], np.random.Generator, int]]:
    for index in range(crops):
        crop = make_crop(crop_seed, index)
        rng = np.random.default_rng((crop_seed, index, 1))
        pairs = [(told(crop, lesion, 1 + index % 2), lesion.mask) for lesion in crop.reported]
        yield "crop", crop.pet, None, pairs, rng, CROP_ROUNDS
    for index in range(exams):
        exam = make_exam(exam_seed, index)
        rng = np.random.default_rng((exam_seed, index, 1))
        pairs = [
            (_finding(lesion.suv_max, lesion.slice, lesion.laterality, lesion.site), lesion.mask)
            for lesion in exam.lesions
            if lesion.suv_max >= 2.5
        ]
        if pairs:
            yield "whole body", exam.pet, exam.ct, pairs, rng, ROUNDS


def _finding(suv: float, number: int, laterality: Any, site: str) -> Finding:
    return Finding(round(suv, 1), number, laterality, site, "positive", None, (0, 0))


def _spoilt(finding: Finding, rng: np.random.Generator, pet: Volume, truth: Truth) -> tuple[str, Finding]:
    """The finding as told, in more than half of the cases with one of the errors that reports and archives have.

    "another maximum": value and slice are those of something else on the image, as when slices are counted otherwise
    than the site file says and a maximum of that value happens to lie there.
    """
    assert finding.slice is not None
    slices = pet.shape[2]
    kinds = ["slice near", "slice far", "value near", "value far", "other exam", *["another maximum"] * 3]
    if finding.laterality in ("left", "right"):
        kinds.append("side")
    kind = str(rng.choice(kinds)) if rng.random() < WRONG else "none"
    sign = int(rng.choice([-1, 1]))
    number, suv, laterality = finding.slice, finding.suv, finding.laterality
    if kind == "slice near":
        number += sign * int(rng.integers(1, 4))
    elif kind in ("slice far", "other exam"):
        number = int(rng.integers(1, slices + 1))
    elif kind == "value near":
        suv += sign * round(float(rng.uniform(0.1, 0.3)), finding.suv_decimals)
    elif kind == "side":
        laterality = "left" if laterality == "right" else "right"
    elif kind == "another maximum":
        k = int(rng.integers(slices))
        there = [v for v in local_maxima(pet.array, range(k, k + 1), 2.5, np.inf) if not truth[v]]
        if not there:
            return "none", finding
        suv, number = float(pet.array[there[int(rng.integers(len(there)))]]), slices - k
    if kind in ("value far", "other exam"):
        suv *= float(np.exp(rng.normal(0, 0.5)))
    suv = round(max(suv, 2.5), finding.suv_decimals) if kind != "none" else suv
    return kind, replace(finding, slice=int(np.clip(number, 1, slices)), suv=suv, laterality=laterality)


def _plot(rows: list[dict[str, Any]], model: Logistic, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    p = np.array([model.probability(row["measures"]) for row in rows])
    right = np.array([row["right"] for row in rows], float)
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    curve, counts = figure.subplots(1, 2, width_ratios=(1.25, 1))
    curve.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfectly calibrated")
    whole_body = np.array([row["kind"] == "whole body" for row in rows])
    for kind, colour, chosen in (
        ("all", "black", np.ones(len(rows), bool)),
        ("crops", "tab:blue", ~whole_body),
        ("whole body", "tab:orange", whole_body),
    ):
        q, y = p[chosen], right[chosen]
        bins = [b for b in _bins(q, False) if len(b) >= 4]
        middle, share = (np.array([values[b].mean() for b in bins]) for values in (q, y))
        label = f"{kind}: {len(q)} labels, error {calibration_error(q, y):.3f}"
        if kind == "all":
            low, high = np.array([_wilson(float(y[b].sum()), len(b)) for b in bins]).T
            reach = np.clip([share - low, high - share], 0, None)
            curve.errorbar(middle, share, reach, fmt="o-", color=colour, markersize=5, capsize=2, label=label)
        else:
            curve.plot(middle, share, "x", color=colour, markersize=6, label=label)
            counts.hist(q, bins=np.linspace(0, 1, 21), color=colour, alpha=0.55, label=kind)
    curve.set(xlabel="confidence of the label", ylabel="share that is right (Dice ≥ 0.5)", xlim=(0, 1), ylim=(0, 1.02))
    curve.set_title(f"held-out simulated exams: calibration error {calibration_error(p, right):.3f}", fontsize=10)
    curve.legend(fontsize=8, loc="upper left", frameon=False)
    counts.set(xlabel="confidence of the label", ylabel="labels", xlim=(0, 1), yscale="log")
    counts.legend(fontsize=8, frameon=False, loc="upper left")
    for axes in (curve, counts):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _wilson(hits: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson, J Am Stat Assoc 1927;22:209)."""
    centre = (hits + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * float(np.sqrt(hits * (count - hits) / count + z * z / 4))
    return centre - half, centre + half


if __name__ == "__main__":
    main()
