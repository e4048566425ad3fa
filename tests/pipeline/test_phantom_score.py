"""Labels against the truth: a label that no lesion asked for counts, and no label serves two lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from petground.labeling.errors import InputError
from petground.labeling.volume import Volume
from petground.pipeline.nifti import write_nifti
from petground.pipeline.phantom.score import score_labels
from petground.pipeline.schemas import write_table

AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])


def mask(path: Path, *voxels: tuple[int, int, int]) -> None:
    array = np.zeros((6, 6, 6), np.uint8)
    for voxel in voxels:
        array[voxel] = 1
    write_nifti(path, Volume(array, AFFINE, "label"))


def truth(lesion: str, voxel: tuple[int, int, int], suv: float, **more: object) -> dict[str, object]:
    place = dict(zip(("voxel_i", "voxel_j", "voxel_k"), voxel, strict=True))
    row = {"exam_id": "e", "lesion_id": lesion, "suv_max": suv, "slice": 6 - voxel[2], "reported": True}
    return {**row, **place, "mask_path": f"truth/{lesion}.nii.gz", **more}


def label(name: str, slice_: int, suv: float) -> dict[str, object]:
    row = {"exam_id": "e", "finding_id": name, "suv_reported": suv, "slice_reported": slice_}
    return {**row, "mask_path": f"labels/{name}.nii.gz"}


def test_every_label_counts_once(tmp_path: Path) -> None:
    work, phantom = tmp_path / "work", tmp_path / "phantom"
    mask(phantom / "truth/a.nii.gz", (1, 1, 2), (2, 1, 2))
    mask(phantom / "truth/b.nii.gz", (4, 4, 2))
    mask(phantom / "truth/c.nii.gz", (3, 3, 5))
    rows = [truth("a", (1, 1, 2), 5.21), truth("b", (4, 4, 2), 5.24), truth("c", (3, 3, 5), 9.0)]
    write_table(phantom / "truth.parquet", "truth", [*rows, truth("d", (0, 0, 0), 3.0, reported=False)])
    mask(work / "labels/f1.nii.gz", (1, 1, 2))  # holds a's hottest voxel, Dice 2/3
    mask(work / "labels/f2.nii.gz", (5, 5, 5))  # meant b, lies elsewhere
    mask(work / "labels/f3.nii.gz", (0, 5, 0))  # nobody asked for it
    labels = [label("f1", 4, 5.2), label("f2", 4, 5.2), label("f3", 6, 7.7)]
    write_table(work / "labels.parquet", "labels", labels)
    figures = score_labels([(work, phantom)])
    assert (figures["findings"], figures["labels"], figures["unasked"]) == (3, 3, 1)
    assert figures["coverage"] == pytest.approx(2 / 3)
    assert figures["located"] == pytest.approx(1 / 3)
    assert figures["mean_dice"] == pytest.approx((2 / 3) / 3)
    assert figures["median_dice"] == 0.0


def test_nothing_to_score_is_said(tmp_path: Path) -> None:
    write_table(tmp_path / "truth.parquet", "truth", [])
    write_table(tmp_path / "labels.parquet", "labels", [])
    with pytest.raises(InputError, match="no label to score"):
        score_labels([(tmp_path, tmp_path)])
