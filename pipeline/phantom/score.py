"""Weak labels against the phantom's truth: how many there are, how many lie right, how good the outline is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.errors import InputError
from petground.labeling.volume import require_same_grid
from petground.pipeline.nifti import read_nifti
from petground.pipeline.schemas import read_table

__all__ = ["score_labels"]


def score_labels(pairs: Iterable[tuple[Path, Path]]) -> dict[str, Any]:
    """`pairs` of (WORK, phantom folder) -> figures over all of them.

    coverage: the part of the findings whose SUVmax and slice the report states that got a label; located: the part of
    all labels, also of those that no lesion asked for, that hold their lesion's true hottest voxel; median_dice and
    mean_dice over all labels, one without a lesion counting 0. Raises InputError when there is nothing to score.
    """
    findings, matched, dice, located = 0, 0, [], 0
    for work, phantom in pairs:
        truth = [row for row in read_table(phantom / "truth.parquet", "truth") if row["reported"]]
        labels = read_table(work / "labels.parquet", "labels")
        lesion_of = _assign(truth, labels)
        findings += len(truth)
        matched += len(lesion_of)
        for number, label in enumerate(labels):
            inside, overlap = _compare(work, phantom, lesion_of[number], label) if number in lesion_of else (False, 0.0)
            located += inside
            dice.append(overlap)
    if not findings or not dice:
        raise InputError("no label to score", fix="check that WORK was made from this phantom")
    return {
        "findings": findings,
        "labels": len(dice),
        "unasked": len(dice) - matched,
        "coverage": matched / findings,
        "located": located / len(dice),
        "median_dice": float(np.median(dice)),
        "mean_dice": float(np.mean(dice)),
    }


def _assign(truth: list[dict[str, Any]], labels: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Index of a label -> the one lesion it was asked for: same exam, slice and printed value; each lesion once."""
    pairs = [
        (abs(label["suv_reported"] - lesion["suv_max"]), lesion["laterality"] != label["laterality"], number, place)
        for number, label in enumerate(labels)
        for place, lesion in enumerate(truth)
        if label["exam_id"] == lesion["exam_id"]
        and label["slice_reported"] == lesion["slice"]
        and abs(label["suv_reported"] - lesion["suv_max"]) <= 0.051  # printed with one decimal or two
    ]
    found: dict[int, int] = {}
    for _, _, number, place in sorted(pairs, key=lambda pair: (pair[1], pair[0], pair[2])):
        if number not in found and place not in found.values():
            found[number] = place
    return {number: truth[place] for number, place in found.items()}


def _compare(work: Path, phantom: Path, lesion: dict[str, Any], label: dict[str, Any]) -> tuple[bool, float]:
    """Whether the label holds the lesion's true hottest voxel, and its Dice against the true mask."""
    mask = read_nifti(work / label["mask_path"], "label")
    true = read_nifti(phantom / lesion["mask_path"], "label")
    require_same_grid(true, mask, case=lesion["exam_id"])
    both = np.count_nonzero((mask.array > 0) & (true.array > 0))
    total = np.count_nonzero(mask.array > 0) + np.count_nonzero(true.array > 0)
    inside = mask.array[lesion["voxel_i"], lesion["voxel_j"], lesion["voxel_k"]] > 0
    return bool(inside), 2 * both / total if total else 0.0
