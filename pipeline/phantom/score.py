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

    coverage: labels per finding whose SUVmax and slice the report states; located: the part of the labels that hold
    the lesion's true hottest voxel; median_dice and mean_dice over the labels, a misplaced one counting as it is.
    Raises InputError when there is nothing to score.
    """
    findings, rows = 0, []
    for work, phantom in pairs:
        truth = [row for row in read_table(phantom / "truth.parquet", "truth") if row["reported"]]
        labels = read_table(work / "labels.parquet", "labels")
        findings += len(truth)
        rows += [row for lesion in truth if (row := _compare(work, phantom, lesion, labels)) is not None]
    if not findings or not rows:
        raise InputError("no labelled lesion to score", fix="check that WORK was made from this phantom")
    dice = [row["dice"] for row in rows]
    return {
        "findings": findings,
        "labels": len(rows),
        "coverage": len(rows) / findings,
        "located": float(np.mean([row["located"] for row in rows])),
        "median_dice": float(np.median(dice)),
        "mean_dice": float(np.mean(dice)),
    }


def _compare(work: Path, phantom: Path, lesion: dict[str, Any], labels: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The label made for one lesion: same exam and slice, and the value that its SUVmax is printed as."""
    same = [
        label
        for label in labels
        if label["exam_id"] == lesion["exam_id"]
        and label["slice_reported"] == lesion["slice"]
        and abs(label["suv_reported"] - lesion["suv_max"]) <= 0.051  # printed with one decimal or two
    ]
    if not same:
        return None
    label = min(same, key=lambda row: abs(row["suv_reported"] - lesion["suv_max"]))
    mask = read_nifti(work / label["mask_path"], "label")
    true = read_nifti(phantom / lesion["mask_path"], "label")
    require_same_grid(true, mask, case=lesion["exam_id"])
    both = np.count_nonzero((mask.array > 0) & (true.array > 0))
    total = np.count_nonzero(mask.array > 0) + np.count_nonzero(true.array > 0)
    # The world place of the true hottest voxel, asked of the label's own grid.
    i, j, k = np.round(
        mask.to_index(true.to_world_mm([lesion["voxel_i"], lesion["voxel_j"], lesion["voxel_k"]]))
    ).astype(int)
    return {"located": bool(mask.array[i, j, k] > 0), "dice": 2 * both / total if total else 0.0}
